import numpy as np
import pytest
from support.images import gradient

from pipeline.coco.annotations import AnnotationError
from pipeline.skeletons import SKELETONS
from pipeline.training.pose.data import AnnotatedPerson, PeopleSet, cut_people, joint_map, people_by_image

JOINTS = SKELETONS["coco17"].joints


def annotation(**changes: object) -> dict:
    keypoints = [v for i in range(17) for v in (10.0 + i, 20.0 + i, 2)]
    return {"id": 7, "image_id": 1, "bbox": [5, 6, 40, 60], "keypoints": keypoints, **changes}


def file_of(*annotations: dict, joints: tuple[str, ...] = JOINTS) -> dict:
    return {"annotations": list(annotations), "categories": [{"id": 1, "keypoints": list(joints)}]}


def test_joints_are_mapped_by_name() -> None:
    (person,) = people_by_image(file_of(annotation()), SKELETONS["mpii16"].joints, "a.json")[1]
    assert person.box.tolist() == [5, 6, 45, 66]
    right_ankle, pelvis = 0, 6
    assert person.keypoints[right_ankle].tolist() == [26, 36]
    assert person.labelled[right_ankle]
    assert not person.labelled[pelvis]  # not a joint of COCO
    assert joint_map(JOINTS, JOINTS, "x").tolist() == list(range(17))


def test_whole_body_columns_are_read() -> None:
    joints = SKELETONS["wholebody133"].joints
    counts = {"foot_kpts": 6, "face_kpts": 68, "lefthand_kpts": 21, "righthand_kpts": 21}
    columns = {name: [float(i) for _ in range(n) for i in (n, n + 1, 2)] for name, n in counts.items()}
    entry = annotation(**columns)
    (whole,) = people_by_image(file_of(entry), joints, "a.json")[1]
    assert whole.labelled.all()
    assert whole.keypoints[[16, 17, 23, 91, 112]].tolist() == [[26, 36], [6, 7], [68, 69], [21, 22], [21, 22]]
    (body,) = people_by_image(file_of(entry), JOINTS, "a.json")[1]
    assert body.keypoints.tolist() == whole.keypoints[:17].tolist()


def test_the_joints_of_a_file_can_be_given() -> None:
    entry = annotation(keypoints=[1.0, 2.0, 2.0] * 26)
    without_categories = {"annotations": [entry]}
    with pytest.raises(AnnotationError, match="78 keypoint values; 17 joints need 51"):
        people_by_image(without_categories, JOINTS, "a.json")
    (person,) = people_by_image(without_categories, JOINTS, "a.json", file_joints=SKELETONS["halpe26"].joints)[1]
    assert person.labelled.all()


def test_crowds_and_people_without_box_or_joints_are_left_out() -> None:
    unlabelled = annotation(keypoints=[0.0] * 51)
    entries = [annotation(iscrowd=1), annotation(bbox=[1, 1, 0, 5]), unlabelled, {"id": 3, "image_id": 1, "bbox": []}]
    assert people_by_image(file_of(*entries), JOINTS, "a.json") == {}


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        (annotation(keypoints=[1.0] * 48), r"a\.json: annotation 7 has 48 keypoint values; 17 joints need 51"),
        (annotation(bbox=[0, 0, float("nan"), 5]), r"a\.json: annotation 7 has a box with a value that is not finite"),
        (annotation(bbox=[0, 0, 5]), r"annotation 7 has the box \[0, 0, 5\]; expected \[x, y, width, height\]"),
        (annotation(keypoints=[float("inf"), 1, 2] * 17), "annotation 7 has a keypoint that is not finite"),
        (annotation(keypoints=["left"] * 51), r"a\.json: annotation 7 has keypoints that are not numbers"),
        (annotation(image_id=None), r"a\.json: annotation 7 needs integers as id and image_id"),
    ],
)
def test_a_wrong_annotation_is_named(entry: dict, message: str) -> None:
    with pytest.raises(AnnotationError, match=message):
        people_by_image(file_of(entry), JOINTS, "a.json")


def test_skeletons_that_share_no_joint_are_refused() -> None:
    with pytest.raises(
        AnnotationError, match=r"a\.json: none of its joints \(tail, paw, \.\.\.\) is a joint of the trained skeleton"
    ):
        people_by_image(file_of(annotation(), joints=("tail", "paw")), JOINTS, "a.json")


def person(box: list[float], point: tuple[float, float]) -> AnnotatedPerson:
    return AnnotatedPerson(1, np.float32(box), np.tile(np.float32(point), (17, 1)), np.ones(17, bool))


def test_crops_keep_joint_positions_and_are_never_enlarged() -> None:
    pixels = gradient(1200, 1600)
    large, small = person([400, 200, 800, 1000], (500, 600)), person([50, 60, 90, 120], (70, 100))
    people = cut_people([(pixels, [large, small], 2.0)], (256, 192))
    assert people.weights.tolist() == [2, 2]
    for row, original in enumerate((large, small)):
        crop = people.pixels(row)
        x, y = people.keypoints[row, 0]
        ox, oy = original.keypoints[0]
        np.testing.assert_allclose(crop[round(float(y)), round(float(x))], pixels[int(oy), int(ox)], atol=8)
    sides = people.boxes[:, 2:] - people.boxes[:, :2]
    np.testing.assert_allclose(sides[0], [128, 256], atol=1.5)
    np.testing.assert_allclose(sides[1], [40, 60], atol=1e-3)


@pytest.mark.parametrize("side", [260, 520, 1040])
def test_a_joint_stays_in_the_middle_of_its_spot_when_an_image_is_shrunk(side: int) -> None:
    """An offset of half a pixel would become an offset of every trained network."""
    spot = np.array([side * 0.4, side * 0.6]).round()
    y, x = np.mgrid[: side * 2, : side * 2]
    bright = 255 * np.exp(-((x - spot[0]) ** 2 + (y - spot[1]) ** 2) / (2 * (side / 30) ** 2))
    pixels = np.repeat(bright.astype(np.uint8)[..., None], 3, axis=2)
    people = cut_people([(pixels, [person([10, 10, 10 + side * 3 / 4, 10 + side], tuple(spot))], 1.0)], (256, 192))
    crop = people.pixels(0)[..., 0].astype(float)
    crop[crop < 20] = 0  # JPEG artefacts
    positions = np.indices(crop.shape)[::-1].reshape(2, -1)
    middle = (positions * crop.ravel()).sum(axis=1) / crop.sum()
    np.testing.assert_allclose(people.keypoints[0, 0], middle, atol=0.06)


def test_sets_are_stored_joined_and_indexed() -> None:
    pixels = gradient(200, 200)
    one = cut_people([(pixels, [person([20, 20, 90, 150], (50, 60))], 1.0)], (256, 192))
    two = PeopleSet.join([one, one])
    again = PeopleSet.from_bytes(two.to_bytes())
    assert again.jpegs == two.jpegs
    for name in ("boxes", "keypoints", "labelled", "weights"):
        np.testing.assert_array_equal(getattr(again, name), getattr(two, name))
    assert len(two.rows([1])) == 1
    with pytest.raises(AnnotationError, match="no people to train on"):
        cut_people([(pixels, [], 1.0)], (256, 192))
