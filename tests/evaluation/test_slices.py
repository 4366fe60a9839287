import numpy as np
import pytest
from test_errors import SKELETON, annotated, found, person

from pipeline.evaluation.keypoints import Scene
from pipeline.evaluation.slices import lines, sliced, slices


def test_a_slice_counts_its_own_people_alone() -> None:
    scenes = [Scene(annotated(person(0), person(9000)), found(person(0)))]
    yes, no = np.array([True, False]), np.array([False, True])
    assert sliced(scenes, SKELETON, [yes | no])[0] == 2
    assert sliced(scenes, SKELETON, [yes]) == (1, pytest.approx(1))
    assert sliced(scenes, SKELETON, [no]) == (1, 0.0)
    assert sliced(scenes, SKELETON, [yes & no]) == (0, -1.0)


def test_everybody_has_one_answer_to_each_question() -> None:
    few = person(300)
    few[6:] = 0
    people = annotated(person(0), few, person(9000))
    boxes = np.array([[0, 0, 100, 100.0], [10, 0, 100, 100], [900, 0, 50, 60]])
    people = people._replace(boxes=boxes, areas=np.array([20.0**2, 60.0**2, 300.0**2]))
    answers = slices([Scene(people, found(person(0), few, person(9000)))], SKELETON)
    told = {(s.question, s.answer): s.people for s in answers if s.people}
    assert told == {
        ("size, pixels", "to 32"): 1,
        ("size, pixels", "to 64"): 1,
        ("size, pixels", "over 256"): 1,
        ("labelled joints", "6-10"): 1,
        ("labelled joints", "16 or more"): 2,
        ("people overlapped", "none"): 1,
        ("people overlapped", "1-2"): 2,
    }
    assert all(s.ap == pytest.approx(1) for s in answers if s.people)
    assert lines(answers)[1] == "AP by labelled joints (people): 6-10 1.000 (1), 16 or more 1.000 (2)"
