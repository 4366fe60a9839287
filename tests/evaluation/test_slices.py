import numpy as np
import pytest
from test_errors import SKELETON, annotated, found, one_image, person

from pipeline.evaluation.matching import Annotated, join
from pipeline.evaluation.scenes import Scenes
from pipeline.evaluation.slices import Answers, Slice, crowding, image_answers, lines, match_slices, slices


def sliced(scenes: Scenes, answers: tuple = ()) -> list[Slice]:
    return slices(match_slices(scenes, SKELETON, answers), answers)


def of_sizes(*areas: float) -> Annotated:
    people = annotated(*(person(9000 * n) for n in range(len(areas))))
    return people._replace(areas=np.array(areas))


def test_a_slice_counts_its_own_people_alone() -> None:
    """The small one was found, the large one wasn't."""
    answers = {s.answer: s for s in sliced(one_image(of_sizes(20.0**2, 300.0**2), found(person(0))))}
    assert answers["to 32"][2:] == (1, pytest.approx(1))
    assert answers["over 256"][2:] == (1, 0.0)
    assert answers["to 64"][2:] == (0, -1.0)


def test_everybody_has_one_answer_to_each_question() -> None:
    few = person(300)
    few[6:] = 0
    people = annotated(person(0), few, person(9000))
    boxes = np.array([[0, 0, 100, 100.0], [10, 0, 100, 100], [900, 0, 50, 60]])
    people = people._replace(boxes=boxes, areas=np.array([20.0**2, 60.0**2, 300.0**2]))
    answers = sliced(one_image(people, found(person(0), few, person(9000))))
    told = {(s.question, s.answer): s.people for s in answers if s.people}
    assert told == {
        ("size, pixels", "to 32"): 1,
        ("size, pixels", "to 64"): 1,
        ("size, pixels", "over 256"): 1,
        ("labelled joints", "6-10"): 1,
        ("labelled joints", "16 or more"): 2,
        ("people overlapped", "none"): 1,
        ("people overlapped", "1-2"): 2,
        ("people overlapped, labelled joints", "none, 16 or more"): 1,
        ("people overlapped, labelled joints", "1-2, 6-10"): 1,
        ("people overlapped, labelled joints", "1-2, 16 or more"): 1,
        ("crowding of the image", "to 0.1"): 3,
    }
    assert all(s.ap == pytest.approx(1) for s in answers if s.people)
    assert lines(answers)[1] == "AP by labelled joints (people): 6-10 1.000 (1), 16 or more 1.000 (2)"


def test_by_a_column_of_the_images() -> None:
    answers, numbers = image_answers("source", ["b", "a", None, "a", "b", "a"])
    assert answers.answers == ("a", "b", "none")
    assert numbers.tolist() == [1, 0, 2, 0, 1, 0]
    scenes = one_image(annotated(person(0)), found(person(0)), source=1)
    told = {s.answer: s.people for s in sliced(scenes, (answers,)) if s.question == "source"}
    assert told == {"a": 0, "b": 1, "none": 0}


def test_who_is_nobody_counts_against_its_own_image_alone() -> None:
    """One image is perfect; in the other somebody is found, with a better score, who is nobody."""
    answers = (Answers("source", ("good", "bad")),)
    good = one_image(annotated(person(0)), found(person(0), certain=[0.5]), source=0)
    bad = one_image(annotated(person(9000)), found(person(0), certain=[0.9]), source=1)
    matches = join([match_slices(scenes, SKELETON, answers) for scenes in (good, bad)])
    told = {(s.question, s.answer): s.ap for s in slices(matches, answers)}
    assert told["source", "good"] == pytest.approx(1)
    assert told["source", "bad"] == 0
    assert told["labelled joints", "16 or more"] < 0.6


def test_rare_values_share_an_answer() -> None:
    answers, numbers = image_answers("shard", [*range(30), 3])
    assert len(answers.answers) == 20
    assert (answers.answers[0], answers.answers[-1]) == ("3", "11 others")
    assert (numbers == 19).sum() == 11


def test_crowding_counts_joints_of_others() -> None:
    """Two people with all joints in both boxes, and one alone: 17 / 17, 17 / 17 and 0."""
    joints = np.array([[10.0 * k, 5.0 * k, 2] for k in range(17)])
    people = annotated(joints, joints, joints + np.array([1000, 0, 0]))
    boxes = np.array([[0, 0, 200, 100.0], [0, 0, 200, 100], [1000, 0, 200, 100]])
    assert crowding(people._replace(boxes=boxes)) == pytest.approx(2 / 3)
    assert crowding(annotated(person(0))._replace(keypoints=np.zeros((1, 17, 3)))) == 0
