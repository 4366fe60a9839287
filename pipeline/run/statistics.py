"""The tables of a run as columns of numbers: one row per image, and one per person without its joints."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from pipeline.boxes import areas
from pipeline.run.columns import people_from_arrow
from pipeline.run.directory import Run
from pipeline.run.tables import read_table

SCORE_STEPS = np.linspace(0, 1, 21)  # bins of joint scores
_COLUMNS = ("image_id", "status", "error", "sha256", "shard", "num_people")


@dataclass(frozen=True)
class Statistics:
    """The I images and P people of a reduced run, in the order of its tables.

    Attributes:
        ids, statuses, shards: of the images.
        errors, sha256: of the images; None where there is none.
        num_people: (I,) int.
        image: (P,) row of each person's image.
        box_scores, pose_scores: (P,).
        sizes: (P,) square root of the box's area, pixels.
        mean_joint_scores: (P,) mean score of a person's joints.
        joint_scores: (20,) number of joints by bins of their scores in `SCORE_STEPS`.
    """

    ids: list[str]
    statuses: np.ndarray
    errors: list[str | None]
    sha256: list[str | None]
    shards: list[str]
    num_people: np.ndarray
    image: np.ndarray
    box_scores: np.ndarray
    pose_scores: np.ndarray
    sizes: np.ndarray
    mean_joint_scores: np.ndarray
    joint_scores: np.ndarray

    @classmethod
    def read(cls, run: Run) -> Statistics:
        columns: dict[str, list] = {name: [] for name in _COLUMNS}
        for table in read_table(run.uri, "images", _COLUMNS):
            for name in _COLUMNS:
                columns[name] += table[name].to_pylist()
        people: list[tuple[np.ndarray, ...]] = [(np.zeros(0),) * 4]
        joint_scores = np.zeros(len(SCORE_STEPS) - 1, int)
        for table in read_table(run.uri, "people"):
            p = people_from_arrow(table)
            people.append((p.box_scores, p.pose_scores, np.sqrt(areas(p.boxes)), p.keypoint_scores.mean(axis=1)))
            joint_scores += np.histogram(np.clip(p.keypoint_scores, 0, 1), SCORE_STEPS)[0]
        num_people = np.array(columns["num_people"], int)
        box_scores, pose_scores, sizes, mean_joint_scores = (np.concatenate(v) for v in zip(*people, strict=True))
        return cls(
            ids=columns["image_id"],
            statuses=np.array(columns["status"], str),
            errors=columns["error"],
            sha256=columns["sha256"],
            shards=columns["shard"],
            num_people=num_people,
            image=np.repeat(np.arange(len(num_people)), num_people),  # people come in the order of their images
            box_scores=box_scores,
            pose_scores=pose_scores,
            sizes=sizes,
            mean_joint_scores=mean_joint_scores,
            joint_scores=joint_scores,
        )

    @property
    def ok(self) -> np.ndarray:
        """(I,) bool, images that were annotated."""
        return self.statuses == "ok"
