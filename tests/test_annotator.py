import json
import math

import numpy as np
import pytest
import torch
import yaml
from support.paths import DEMO, PEOPLE, PROJECT, needs_people

from pipeline.annotator import Annotator, NetworksError, Picture
from pipeline.evaluation import evaluate_keypoints
from pipeline.images import decode_image
from pipeline.people import Boxes, People
from pipeline.pose import build_pose_model
from pipeline.run.precomputed import boxes_by_image
from pipeline.settings.tree import Settings
from pipeline.skeletons import SKELETONS

SHIPPED = str(PROJECT / "weights" / "fastpose_lite0_coco17.safetensors")


def demo_image(name: str) -> np.ndarray:
    return decode_image((DEMO / "photos" / name).read_bytes()).pixels


@pytest.fixture(scope="module")
def annotator() -> Annotator:
    settings = {"detector": {"name": "given"}, "pose": {"batch": 4}, "compute": {"device": "cpu"}}
    return Annotator.from_settings(Settings.model_validate(settings))


def assert_same(a: People, b: People) -> None:
    for name in People.__dataclass_fields__:
        np.testing.assert_array_equal(getattr(a, name), getattr(b, name))


def test_people_of_many_images_share_batches_and_change_nothing(annotator: Annotator) -> None:
    images = [demo_image(n) for n in ("grace_hopper.jpg", "group.jpg", "cat.jpg", "eileen_collins.jpg")]
    boxes = [
        Boxes(np.array([[17, 22, 512, 600]]), np.ones(1)),
        Boxes(np.array([[79, 56, 536, 600], [577, 22, 1072, 600], [1072, 176, 1387, 600]] * 3), np.linspace(1, 0.2, 9)),
        Boxes.empty(),
        Boxes(np.array([[22, 15, 440, 512]]), np.ones(1)),
    ]
    together = annotator.annotate(images, boxes)
    assert [len(p) for p in together] == [1, 3, 0, 1]
    for image, box, people in zip(images, boxes, together, strict=True):
        assert_same(annotator.annotate([image], [box])[0], people)
    backwards = annotator.annotate(images[::-1], boxes[::-1])[::-1]
    for a, b in zip(together, backwards, strict=True):
        assert_same(a, b)


def test_poses_lie_on_the_people(annotator: Annotator) -> None:
    """The shipped network is small, but a face it finds is where the face is."""
    (people,) = annotator.annotate(
        [demo_image("eileen_collins.jpg")], [Boxes(np.array([[22, 15, 440, 512]]), np.ones(1))]
    )
    nose, left_eye, right_eye = people.keypoints[0, :3]
    np.testing.assert_allclose(nose, [222, 128], atol=15)
    assert right_eye[0] < nose[0] < left_eye[0]


def test_flip_test_of_a_mirrored_image_is_the_mirrored_pose() -> None:
    settings = {"detector": {"name": "whole_image"}, "pose": {"flip_test": True}, "compute": {"precision": "float32"}}
    annotator = Annotator.from_settings(Settings.model_validate(settings))
    image = demo_image("eileen_collins.jpg")
    plain, mirrored = annotator.annotate([image, np.ascontiguousarray(image[:, ::-1])])
    mirror = annotator.poses.skeleton.mirror
    back = mirrored.keypoints[0][mirror] * [-1, 1] + [image.shape[1], 0]
    clear = (plain.keypoint_scores[0] > 0.4) & (mirrored.keypoint_scores[0][mirror] > 0.4)
    assert clear.sum() >= 5
    cell = 1.25 * image.shape[1] / 48
    # Half a cell: where a peak's two neighbours are as good as equal, the quarter cell can go to either side.
    assert np.abs(back - plain.keypoints[0])[clear].max() < 0.75 * cell


def test_results_come_as_soon_as_their_batches_are_full(annotator: Annotator) -> None:
    seen = []

    def images():
        for i in range(12):
            seen.append(i)
            yield Picture(demo_image("grace_hopper.jpg"), Boxes(np.array([[17, 22, 512, 600]]), np.ones(1)))

    first = next(annotator.candidates(images()))
    assert len(first) == 1
    assert len(seen) == 4  # a pose batch, not the whole stream


def test_weak_people_are_looked_for_in_frames_alone() -> None:
    """They are no copies of other people, and these do not change."""
    image, threshold = demo_image("group.jpg"), 0.7
    every = Annotator.from_settings(Settings.model_validate({"detector": {"confidence": 0.2}})).annotate([image])[0]
    assert (every.box_scores > threshold).any()
    assert (every.box_scores <= threshold).any()
    annotator = Annotator.from_settings(
        Settings.model_validate({"detector": {"confidence": threshold, "weak_confidence": 0.2}})
    )
    photo, frame = annotator.candidates([Picture(image), Picture(image, is_frame=True)])
    assert_same(annotator.suppress(frame), annotator.suppress(photo))
    weak = annotator.suppress_weak(frame)
    np.testing.assert_array_equal(
        np.sort(np.concatenate([weak.box_scores, annotator.suppress(frame).box_scores])), np.sort(every.box_scores)
    )
    assert (weak.box_scores <= threshold).all()


def test_a_person_with_the_face_of_another_one_counts_in_a_track(annotator: Annotator) -> None:
    """Five joints of two poses are the same, so that pose NMS drops one. If their boxes are apart, it may be somebody.

    The third box is most of the first, the fourth and fifth are two of a person who is aside.
    """
    boxes = np.array([[0, 0, 100, 200], [60, 0, 160, 200], [10, 0, 90, 180], [400, 0, 500, 200], [402, 0, 502, 200]])
    joints = np.random.default_rng(0).uniform(0, 1, (5, 17, 2)) * (boxes[:, None, 2:] - boxes[:, None, :2])
    joints += boxes[:, None, :2]
    joints[4] = joints[3] + 1
    joints[1:3, :5] = joints[0, :5]
    scores = np.array([0.9, 0.8, 0.7, 0.6, 0.5])
    found = People(boxes, scores, joints, np.repeat(scores[:, None], 17, axis=1), scores)
    assert annotator.suppress(found).boxes.tolist() == boxes[[0, 3]].tolist()
    hidden = annotator.suppress_weak(found)
    assert hidden.boxes.tolist() == [[60, 0, 160, 200]]
    np.testing.assert_allclose(hidden.keypoints[0], joints[1])
    twice = People.concatenate([found, found])
    assert annotator.suppress_weak(twice).boxes.tolist() == [[60, 0, 160, 200]]


def test_a_person_who_is_kept_is_not_weak_as_well(annotator: Annotator) -> None:
    """Of the third, the second box got the face of the first; the fourth box has no area."""
    boxes = np.array([[0, 0, 100, 200], [72, 0, 172, 200], [70, 0, 170, 200], [400, 0, 400, 200]])
    joints = np.random.default_rng(0).uniform(0, 1, (4, 17, 2)) * 100 + boxes[:, None, :2]
    joints[1, :5] = joints[0, :5]
    scores = np.array([0.9, 0.8, 0.7, 0.6])
    found = People(boxes, scores, joints, np.repeat(scores[:, None], 17, axis=1), scores)
    assert annotator.suppress(found).boxes.tolist() == boxes[[0, 2, 3]].tolist()
    assert len(annotator.suppress_weak(found)) == 0


def test_all_given_boxes_count(annotator: Annotator) -> None:
    boxes = Boxes(np.array([[17, 22, 512, 600]]), np.zeros(1))
    (candidates,) = annotator.candidates([Picture(demo_image("grace_hopper.jpg"), boxes)])
    assert len(annotator.suppress(candidates)) == 1


def test_a_detector_that_is_ahead_finds_the_same(annotator: Annotator) -> None:
    """As on a GPU: boxes of the next images are looked for while people of the last ones are cut out."""
    settings = Settings.model_validate({"detector": {"batch": 2}, "pose": {"batch": 4}, "compute": {"device": "cpu"}})
    finder = Annotator.from_settings(settings)
    names = ("grace_hopper.jpg", "group.jpg", "cat.jpg", "eileen_collins.jpg", "photographer.png") * 2
    images = [demo_image(name) for name in names]
    plain = finder.annotate(images)
    assert sum(map(len, plain)) >= 10
    for ahead in (1, 3):
        finder.groups_ahead = ahead
        for expected, people in zip(plain, finder.annotate(images), strict=True):
            assert_same(expected, people)


def test_a_detector_that_is_ahead_and_fails_says_so(annotator: Annotator, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(annotator, "groups_ahead", 1)
    stream = annotator.candidates(Picture(demo_image("cat.jpg"), None if i == 3 else FACE) for i in range(9))
    with pytest.raises(ValueError, match="but an image came without boxes"):
        list(stream)


def test_networks_that_work_pass_the_check() -> None:
    Annotator.from_settings(Settings.model_validate({"compute": {"device": "cpu"}})).check()


def test_failing_networks_are_distinguished_from_a_failing_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    annotator = with_poses({})

    def fail(error: Exception):
        def estimate(crops, boxes):
            raise error

        monkeypatch.setattr(annotator.poses, "estimate", estimate)

    fail(RuntimeError("no kernel image is available"))
    with pytest.raises(NetworksError, match="the cause is this machine or an installed package"):
        annotator.check()
    fail(torch.OutOfMemoryError("2 GiB"))
    with pytest.raises(torch.OutOfMemoryError):
        annotator.check()


def test_nothing_in_nothing_out(annotator: Annotator) -> None:
    assert annotator.annotate([], []) == []


DCN_136 = "dcn136.pth"
FACE = Boxes(np.array([[22, 15, 440, 512]]), np.ones(1))


def with_poses(pose: dict, **sections: dict) -> Annotator:
    pose = {"weights": SHIPPED, **pose}
    settings = {"detector": {"name": "given"}, "pose": pose, "compute": {"precision": "float32"}, **sections}
    return Annotator.from_settings(Settings.model_validate(settings))


@pytest.mark.parametrize(
    "pose",
    [
        {"scales": [1.0, 1.25]},
        {"ensemble": [{"weights": SHIPPED, "input_size": [384, 288]}]},
        {"ensemble": [{"weights": SHIPPED, "input_size": [320, 256]}], "scales": [1.0, 0.9], "flip_test": True},
    ],
    ids=["scales", "networks", "all"],
)
def test_averages_over_scales_and_networks_stay_on_the_person(pose: dict) -> None:
    image = demo_image("eileen_collins.jpg")
    plain, averaged = with_poses({}), with_poses(pose)
    assert len(averaged.poses.rules) == len(pose.get("scales", [1])) * (1 + len(pose.get("ensemble", [])))
    (expected,), (result,) = plain.annotate([image], [FACE]), averaged.annotate([image], [FACE])
    cell = 1.25 * image.shape[1] / 48
    assert np.linalg.norm(result.keypoints[0, :3] - expected.keypoints[0, :3], axis=1).max() < 2 * cell
    assert np.abs(result.keypoints - expected.keypoints).max() > 0.01  # it is an average, not the first view


def test_neighbours_change_nothing_in_an_ensemble_of_other_shapes_and_scales() -> None:
    """Crops of a 4:3 and a 5:4 network differ for wide and tall people; the frame of the average must not."""
    pose = {"ensemble": [{"weights": SHIPPED, "input_size": [320, 256]}], "scales": [0.9, 1.1], "batch": 2}
    annotator = with_poses(pose, suppression={"kind": "none"})
    image = demo_image("group.jpg")
    wide, tall = [100.0, 100, 500, 300], [600.0, 50, 700, 600]
    (both,) = annotator.annotate([image], [Boxes(np.array([wide, tall]), np.ones(2))])
    (twice,) = annotator.annotate([image], [Boxes(np.array([wide, wide]), np.ones(2))])
    np.testing.assert_array_equal(both.keypoints[0], twice.keypoints[0])
    np.testing.assert_array_equal(both.keypoint_scores[0], twice.keypoint_scores[0])


def test_an_ensemble_of_one_network_with_itself_is_that_network() -> None:
    image = demo_image("grace_hopper.jpg")
    box = Boxes(np.array([[17, 22, 512, 600]]), np.ones(1))
    (alone,) = with_poses({}).annotate([image], [box])
    (twice,) = with_poses({"ensemble": [{"weights": SHIPPED}]}).annotate([image], [box])
    assert_same(alone, twice)


@pytest.mark.parametrize(
    ("pose", "message"),
    [
        ({"weights": None}, "--pose.weights and --pose.name are both none"),
        ({"name": "fastpose_r50"}, "is fastpose_lite0 with 17 joints, not --pose.name fastpose_r50"),
        ({"skeleton": "halpe26"}, "--pose.skeleton halpe26 has 26 joints, but the network is fastpose_lite0"),
        ({"decode": "offset"}, "--pose.decode offset does not fit the output of fastpose_lite0"),
        ({"decode": "combined"}, "68, 133"),
        (
            {"weights": DCN_136},
            "cannot tell how to decode fastpose_r50_dcn with 136 joints.*use combined or integral.*set --pose.decode",
        ),
        (
            {"weights": None, "name": "fpn_offset_r50", "decode": "argmax"},
            "--pose.decode argmax does not fit the output of fpn_offset_r50",
        ),
    ],
)
def test_settings_that_do_not_fit_together_are_refused_at_the_start(pose: dict, message: str, tmp_path) -> None:
    if pose.get("weights") == DCN_136:
        pose = {"weights": str(tmp_path / DCN_136)}
        torch.save(build_pose_model("fastpose_r50_dcn", 136, conv_dim=256).state_dict(), pose["weights"])
    with pytest.raises(ValueError, match=message):
        with_poses(pose)


@pytest.mark.parametrize(
    ("name", "joints", "decode", "skeleton", "regression"),
    [
        ("fastpose_mobile_large", 136, "combined", "halpe136", True),
        ("fastpose_r50_dcn", 21, None, "hand21", True),  # its only published checkpoint is a regression
        ("fastpose_mobile_small", 26, "integral", "halpe26", True),
        ("fastpose_mobile_small", 33, None, "coco17", False),
        ("fpn_offset_r50", 16, None, "mpii16", False),
        ("fastpose_mobile_small", 21, None, "hand21", False),
    ],
)
def test_a_checkpoint_alone_determines_network_skeleton_and_head(
    name: str, joints: int, decode: str | None, skeleton: str, regression: bool, tmp_path
) -> None:
    torch.manual_seed(0)
    torch.save(build_pose_model(name, joints).state_dict(), tmp_path / "some.pth")
    annotator = with_poses({"weights": str(tmp_path / "some.pth"), "decode": decode, "flip_test": True, "batch": 2})
    assert annotator.poses.networks[0].description.startswith(f"{name} with {joints} joints")
    assert annotator.poses.skeleton.name == skeleton
    assert annotator.suppression.head == ("regression" if regression else "heatmap")
    candidates = next(annotator.candidates([Picture(demo_image("cat.jpg"), FACE)]))
    assert candidates.keypoints.shape == (1, len(annotator.poses.skeleton), 2)
    assert np.isfinite(candidates.keypoints).all()


def test_the_classic_flow_step_by_step(tmp_path) -> None:
    """configs/annotate/classic.yaml against its steps written out for one person."""
    torch.manual_seed(0)
    network = build_pose_model("fastpose_classic").eval()
    torch.nn.init.ones_(network.conv_out.bias)  # every map has a positive maximum
    torch.save(network.state_dict(), tmp_path / "mine.pth")
    tree = yaml.safe_load((PROJECT / "configs" / "annotate" / "classic.yaml").read_text())
    assert (tree["detector"]["input_size"], tree["detector"]["confidence"]) == (608, 0.05)
    assert (tree["detector"]["nms_iou"], tree["detector"]["max_boxes"]) == (0.6, 100)
    pose = {**tree["pose"], "weights": str(tmp_path / "mine.pth"), "batch": 1}
    annotator = with_poses(pose, suppression={**tree["suppression"], "score_threshold": -9.0})

    image = demo_image("grace_hopper.jpg")
    x1, y1, x2, y2 = 100.0, 80.0, 300.0, 500.0
    (result,) = annotator.annotate([image], [Boxes(np.array([[x1, y1, x2, y2]]), np.array([0.7]))])

    left, top, right, bottom = x1 - 30, y1 - 63, x2 + 30, y2 + 63  # 15 % of 200 x 420 on each side, inside the image
    w, h = right - left, bottom - top
    pad_x = int(((h - 1) * 256 / 320 - (w - 1)) / 2)
    # Upper left and lower right map to those of the crop, by a similarity: a very slight turn, as pad_x is whole.
    turn = complex(255, 319) / complex(w - 1 + 2 * pad_x, h - 1)
    shown = np.zeros((320, 256, 3), np.float32)
    for row in range(320):
        for column in range(256):
            place = complex(left - pad_x, top) + complex(column, row) / turn
            x, y = place.real, place.imag
            x0, y0 = math.floor(x), math.floor(y)
            for dy, dx in ((0, 0), (0, 1), (1, 0), (1, 1)):
                if left <= x0 + dx < right and top <= y0 + dy < bottom:
                    weight = (1 - abs(x - x0 - dx)) * (1 - abs(y - y0 - dy))
                    shown[row, column] += weight * (image[y0 + dy, x0 + dx] / 255 - [0.406, 0.457, 0.480])
    with torch.inference_mode():
        heatmaps = network(torch.from_numpy(shown).permute(2, 0, 1)[None])[0].numpy()
    scores = heatmaps.max(axis=(1, 2))
    for joint in range(17):
        py, px = divmod(int(heatmaps[joint].argmax()), 64)
        x, y = float(px), float(py)
        if 0 < px < 63 and 0 < py < 79:
            x += 0.25 * np.sign(heatmaps[joint, py, px + 1] - heatmaps[joint, py, px - 1])
            y += 0.25 * np.sign(heatmaps[joint, py + 1, px] - heatmaps[joint, py - 1, px])
        expected = ((x + 0.2) * h / 80 - (0.8 * h - w) / 2 + left - 0.3, (y + 0.2) * h / 80 + top - 0.3)
        np.testing.assert_allclose(result.keypoints[0, joint], expected, atol=1e-2)
    np.testing.assert_allclose(result.keypoint_scores[0], scores, rtol=2e-2)
    np.testing.assert_allclose(result.pose_scores, scores.mean() + 0.7 + 1.25 * scores.max(), rtol=1e-2)


@needs_people
@pytest.mark.slow  # where bf16 is emulated
@pytest.mark.parametrize(
    ("weights", "ap_of_float32", "difference", "share"),
    [(SHIPPED, 0.390, 0.002, 0.95), ("movenet_thunder_coco17", 0.575, 0.01, 0.65)],
    ids=["lite0", "movenet"],
)
def test_shipped_weights_on_photographs_in_bf16_and_float32(
    weights: str, ap_of_float32: float, difference: float, share: float
) -> None:
    """AP with true boxes as in weights/README.md, and the share of joints within a cell of the heatmap."""
    truth = json.loads((PEOPLE / "val.json").read_text())
    given = boxes_by_image("val.json", truth)
    images = [decode_image((PEOPLE / "images" / i["file_name"]).read_bytes()).pixels for i in truth["images"]]
    boxes = [given.get(i["id"], Boxes.empty()) for i in truth["images"]]
    found = {}
    for precision in ("float32", "bf16"):
        compute = {"precision": precision, "device": "cpu"}
        annotator = with_poses({"weights": weights}, suppression={"kind": "none"}, compute=compute)
        found[precision] = annotator.annotate(images, boxes)

    def ap(precision: str) -> float:
        results = [
            {
                "image_id": image["id"],
                "category_id": 1,
                "keypoints": np.column_stack([people.keypoints[n], people.keypoint_scores[n]]).ravel().tolist(),
                "score": float(people.pose_scores[n]),
            }
            for image, people in zip(truth["images"], found[precision], strict=True)
            for n in range(len(people))
        ]
        return evaluate_keypoints(results, truth, SKELETONS["coco17"]).ap

    assert ap("float32") == pytest.approx(ap_of_float32, abs=0.01)
    assert abs(ap("bf16") - ap("float32")) < difference
    cells = []
    for exact, rounded in zip(found["float32"], found["bf16"], strict=True):
        size = exact.boxes[:, 2:] - exact.boxes[:, :2]
        cell = 1.25 * np.maximum(size[:, 0], size[:, 1] * 192 / 256) / 48
        cells.append((np.linalg.norm(exact.keypoints - rounded.keypoints, axis=2) / cell[:, None]).ravel())
    assert np.mean(np.concatenate(cells) <= 1) >= share


def test_given_boxes_must_be_given(annotator: Annotator) -> None:
    with pytest.raises(ValueError, match="an image came without boxes"):
        annotator.annotate([demo_image("cat.jpg")])
