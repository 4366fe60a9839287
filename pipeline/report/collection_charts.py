"""Charts of a page about the collection and the scores of a run; they need no annotations."""

from __future__ import annotations

import numpy as np

from pipeline.report import charts
from pipeline.report.charts import Drawn
from pipeline.review.ranking import DOUBTFUL_POSE
from pipeline.run import Run
from pipeline.run.statistics import SCORE_STEPS, Statistics

_PEOPLE_STEPS = (0, 1, 2, 3, 4, 5, 6, 8, 11, 16, 21, 101)
_SIZE_STEPS = (0, 16, 32, 64, 128, 256, 512, 1024)
_BINS = 20


def collection_charts(run: Run, statistics: Statistics) -> list[Drawn]:
    """People per image, their sizes and scores, and images over time."""
    s = statistics
    drawn = [
        Drawn(
            charts.histogram(s.num_people[s.ok], "people in an image", "images", _PEOPLE_STEPS),
            "People per image, without failed images",
        ),
        Drawn(
            charts.histogram(s.sizes, "square root of the box's area, pixels", "people", _SIZE_STEPS), "Sizes of people"
        ),
    ]
    if len(s.image):
        drawn += [
            Drawn(_scores(s.box_scores, "box score"), "Box scores: the detector's confidence"),
            Drawn(_scores(s.pose_scores, "pose score"), "Pose scores: box score and joint scores together"),
            Drawn(charts.steps(SCORE_STEPS, s.joint_scores, "joint score", "joints"), "Joint scores"),
            Drawn(
                _scores(s.mean_joint_scores, "mean joint score of a person"),
                f"Certainty of people: joints are wrong most often under {DOUBTFUL_POSE:g}",
            ),
        ]
    times = sorted((time, shard) for shard, time in run.part_times().items())
    if len(times) > 1:
        counts = run.manifest().counts
        minutes = [(time - times[0][0]) / 60 for time, _ in times]
        images = np.cumsum([counts.get(shard, 0) for _, shard in times]).tolist()
        svg = charts.lines({"images": (minutes, images)}, "minutes since the first part", "images")
        drawn.append(Drawn(svg, "Images annotated over time, from the modification times of parts"))
    return drawn


def _scores(values: np.ndarray, name: str) -> str:
    limits = np.linspace(0, max(1.0, float(np.ceil(values.max() * 10) / 10)), _BINS + 1)
    return charts.steps(limits, np.histogram(values, limits)[0], name, "people")
