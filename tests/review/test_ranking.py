"""Images ranked by doubt, from hand-made tables."""

import numpy as np

from pipeline.review.ranking import suspicion, uncertainty
from pipeline.run.statistics import Statistics


def statistics(people: list[list[tuple[float, float, float]]], sha256: list[str | None] | None = None) -> Statistics:
    """Images with people of (box score, mean joint score, size)."""
    flat = np.array([p for image in people for p in image]).reshape(-1, 3)
    counts = np.array([len(image) for image in people])
    return Statistics(
        ids=[f"{i}.jpg" for i in range(len(people))],
        statuses=np.array(["ok"] * len(people)),
        errors=[None] * len(people),
        sha256=sha256 or [str(i) for i in range(len(people))],
        shards=["s"] * len(people),
        num_people=counts,
        image=np.repeat(np.arange(len(people)), counts),
        box_scores=flat[:, 0],
        pose_scores=flat.sum(axis=1),
        sizes=flat[:, 2],
        mean_joint_scores=flat[:, 1],
        joint_scores=np.zeros(20, int),
    )


def test_the_least_certain_person_decides() -> None:
    sure, unsure = (0.9, 0.9, 100.0), (0.5, 0.25, 100.0)
    np.testing.assert_allclose(uncertainty(statistics([[sure], [sure, unsure], [], [unsure]])), [0.1, 0.75, 0, 0.75])


def test_what_is_unusual_is_counted_and_named() -> None:
    usual = (0.9, 0.9, 100.0)
    images = [[usual] * 3, [usual] * 21, [(0.9, 0.2, 100.0), (0.4, 0.2, 100.0)], [(0.9, 0.9, 12.0), usual], []]
    found = suspicion(statistics(images, ["a", "b", "c", "d", "a"]))
    assert found.strength.tolist() == [0, 1, 2, 1, 1]
    assert found.reasons == {
        1: "21 people",
        2: "1 with a sure box and a doubtful pose; 1 with a doubtful pose",
        3: "1 under 20 pixels",
        4: "the same file as 0.jpg",
    }


def test_failed_images_without_bytes_are_no_copies_of_each_other() -> None:
    assert not suspicion(statistics([[], []], [None, None])).reasons
