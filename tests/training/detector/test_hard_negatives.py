import numpy as np
import pytest

from pipeline.people import Boxes
from pipeline.training.detector.data import BoxLabels, shrink_images
from pipeline.training.detector.hard_negatives import false_positives, mined_weights

NONE = np.zeros((0, 4), np.float32)
PERSON = np.float32([[100, 100, 200, 300]])


@pytest.mark.parametrize(
    ("box", "people", "is_mistake"),
    [
        ([400, 100, 500, 300], BoxLabels(PERSON, NONE), True),  # elsewhere
        ([120, 90, 260, 330], BoxLabels(PERSON, NONE), False),  # inaccurate
        ([120, 120, 160, 160], BoxLabels(PERSON, NONE), False),  # the head of the person
        ([195, 100, 295, 300], BoxLabels(PERSON, NONE), True),  # touches the person: a twentieth is shared
        ([120, 120, 160, 160], BoxLabels(NONE, PERSON), False),  # in a crowd
        ([0, 0, 50, 50], BoxLabels(NONE, np.float32([[0, 0, 640, 480]])), False),  # people may lack boxes anywhere
        ([0, 0, 50, 50], BoxLabels(NONE, NONE), True),  # an image without people
    ],
)
def test_a_mistake_is_a_detection_away_from_all_people(box: list[int], people: BoxLabels, is_mistake: bool) -> None:
    assert false_positives(np.float32([box]), people) == is_mistake
    assert false_positives(np.float32([box] * 3), people) == 3 * is_mistake
    assert false_positives(NONE, people) == 0


class _Detector:
    """Finds as many people in the corner of an image as the grey value of the image divided by 10."""

    batch = 2

    def detect(self, images):
        counts = [round(float(image.mean()) / 10) for image in images]
        return [Boxes(np.float32([[0, 0, 9, 9]] * n).reshape(-1, 4), np.ones(n, np.float32)) for n in counts]


def test_images_with_mistakes_are_drawn_more_often() -> None:
    people = BoxLabels(np.float32([[30, 30, 60, 60]]), NONE)
    greys = [(np.full((64, 64, 3), grey, np.uint8), people, weight) for grey, weight in ((0, 1), (10, 2), (200, 1))]
    np.testing.assert_allclose(mined_weights(shrink_images(greys, 64), _Detector(), 0.5), [1, 2 * 1.5, 1 + 0.5 * 5])
