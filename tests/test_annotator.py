import numpy as np
import pytest
from conftest import DEMO

from pipeline.annotator import Annotator
from pipeline.config import Settings
from pipeline.images import decode_image
from pipeline.people import Boxes, People


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
    """The starter network is weak, but a face it finds is where the face is."""
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
    clear = (plain.keypoint_scores[0] > 0.3) & (mirrored.keypoint_scores[0][mirror] > 0.3)
    assert clear.sum() >= 5
    cell = 1.25 * image.shape[1] / 48
    assert np.abs(back - plain.keypoints[0])[clear].max() < 1.5 * cell


def test_results_come_as_soon_as_their_batches_are_full(annotator: Annotator) -> None:
    seen = []

    def images():
        for i in range(12):
            seen.append(i)
            yield demo_image("grace_hopper.jpg"), Boxes(np.array([[17, 22, 512, 600]]), np.ones(1))

    first = next(annotator.candidates(images()))
    assert len(first) == 1
    assert len(seen) == 4  # a pose batch, not the whole stream


def test_nothing_in_nothing_out(annotator: Annotator) -> None:
    assert annotator.annotate([], []) == []


def test_given_boxes_must_be_given(annotator: Annotator) -> None:
    with pytest.raises(ValueError, match="an image came without boxes"):
        annotator.annotate([demo_image("cat.jpg")])
