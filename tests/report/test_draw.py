import numpy as np

from pipeline.people import People
from pipeline.report.draw import contact_sheet, draw_boxes, draw_people
from pipeline.skeletons import SKELETONS

SKELETON = SKELETONS["coco17"]


def test_limbs_have_the_usual_colours() -> None:
    keypoints = np.zeros((1, 17, 2), np.float32)
    scores = np.zeros((1, 17), np.float32)
    for joint, xy in ((7, (80, 20)), (9, (80, 80)), (8, (20, 20)), (10, (20, 80)), (5, (60, 10)), (6, (40, 10))):
        keypoints[0, joint], scores[0, joint] = xy, 1
    people = People(np.array([[5, 5, 95, 95]]), np.ones(1), keypoints, scores, np.ones(1))
    image = np.zeros((100, 100, 3), np.uint8)
    picture = draw_people(image, people, SKELETON)
    for (x, y), colour in (
        ((80, 50), (0, 230, 80)),  # left forearm, green
        ((20, 50), (255, 140, 0)),  # right forearm, orange
        ((50, 10), (60, 150, 255)),  # shoulders, blue
        ((5, 50), (255, 255, 255)),  # box
    ):
        np.testing.assert_allclose(picture[y, x], colour, atol=30)  # thin lines are smoothed
    assert image.max() == 0, "the image itself does not change"


def test_joints_of_low_score_are_left_out_and_far_ones_are_harmless() -> None:
    keypoints = np.full((1, 17, 2), 1e9, np.float32)
    people = People(np.array([[0, 0, 10, 10]]), np.ones(1), keypoints, np.ones((1, 17)), np.ones(1))
    draw_people(np.zeros((50, 50, 3), np.uint8), people, SKELETON)
    uncertain = People(np.array([[0, 0, 10, 10]]), np.ones(1), keypoints * 0 + 25, np.full((1, 17), 0.1), np.ones(1))
    assert draw_people(np.zeros((50, 50, 3), np.uint8), uncertain, SKELETON)[20:, 20:].max() == 0


def test_an_image_without_people_does_not_change() -> None:
    image = np.zeros((8, 8, 3), np.uint8)
    np.testing.assert_array_equal(draw_people(image, People.empty(17), SKELETON), image)


def test_boxes_are_drawn_at_their_place() -> None:
    image = np.zeros((60, 80, 3), np.uint8)
    picture = draw_boxes(image, np.float32([[10, 5, 50, 40]]))
    assert picture[5, 30].min() > 200
    assert picture[20, 10].min() > 200
    assert picture[20, 30].max() == 0
    assert image.max() == 0


def test_a_contact_sheet_has_pictures_of_any_size() -> None:
    red = np.tile(np.uint8([200, 0, 0]), (30, 90, 1))
    green = np.tile(np.uint8([0, 200, 0]), (300, 100, 1))
    sheet = contact_sheet([red, green, red], columns=2, side=60)
    assert sheet.shape == (120, 120, 3)
    assert sheet[30, 30].tolist() == [200, 0, 0]
    assert sheet[30, 90].tolist() == [0, 200, 0]
    assert sheet[90, 30].tolist() == [200, 0, 0]
    assert sheet[5, 5].tolist() == sheet[90, 90].tolist() == [255, 255, 255]
    assert contact_sheet([]).shape == (320, 4 * 320, 3)
