"""The top of a page: is every image there once, how many people were missed or invented, and what made the run."""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, NamedTuple

import numpy as np

from pipeline import storage
from pipeline.evaluation import RunMetrics
from pipeline.evaluation.evaluate import Reliability
from pipeline.evaluation.intervals import Estimate
from pipeline.evaluation.operating_point import OperatingPoint
from pipeline.process.progress_line import duration
from pipeline.review.ranking import DOUBTFUL_POSE
from pipeline.run import Run
from pipeline.run.sessions import read_sessions
from pipeline.run.statistics import Statistics
from pipeline.run.tables import table_metadata
from pipeline.settings.flags import as_flags

_DIGITS = 12  # of a digest


class Tile(NamedTuple):
    """A number with its name; `bad` if it is a problem."""

    value: str
    name: str
    bad: bool = False


def counts(run: Run, statistics: Statistics) -> list[Tile]:
    """Images planned, rows, images lost and doubled, and people."""
    planned, rows = run.manifest().num_images, len(statistics.ids)
    doubled = rows - len(set(statistics.ids))
    lost = planned - (rows - doubled)
    quarantined = len(run.quarantined())
    failed = rows - int(statistics.ok.sum())
    return [
        Tile(f"{planned:,}", "images planned"),
        Tile(f"{rows:,}", "rows in the tables"),
        Tile(f"{lost:,}", "images lost", lost > 0),
        Tile(f"{doubled:,}", "images doubled", doubled > 0),
        Tile(f"{quarantined:,}", "shards in quarantine", quarantined > 0),
        Tile(f"{failed:,}", "images failed", failed > 0),
        Tile(f"{len(statistics.image):,}", "people"),
    ]


def sentences(metrics: RunMetrics | None, statistics: Statistics, num_unusual: int) -> list[str]:
    """The answer to "how many people were missed and invented?", in words."""
    if metrics is None:
        text = "The accuracy is unknown: the run was not compared with annotations."
        people = len(statistics.image)
        doubtful = int((statistics.mean_joint_scores < DOUBTFUL_POSE).sum())
        if doubtful:
            text += (
                f" {doubtful:,} of {people:,} people ({doubtful / people:.0%}) have a mean joint score under "
                f"{DOUBTFUL_POSE:g}; their joints are wrong most often."
            )
        if num_unusual:
            text += f" {num_unusual:,} images look unusual; start with these."
        return [text + " To measure the accuracy, correct a random sample (jobs/reduce.py --review)."]
    text_lines = []
    if (poses := metrics.keypoints) is not None and poses.reliability is not None:
        text_lines.append(_sentence("people with annotated joints", "predicted poses", poses.reliability.people))
        text_lines.append(_accuracy(poses.reliability))
    if (boxes := metrics.boxes) is not None and boxes.reliability is not None:
        text_lines.append(
            _sentence("annotated people, also without joints", "predicted boxes", boxes.reliability.people)
        )
    return text_lines


def _sentence(annotated_name: str, predicted_name: str, people: OperatingPoint) -> str:
    annotated, missed, wrong, others = (
        int(c.sum()) for c in (people.annotated, people.missed, people.false_positives, people.not_judged)
    )
    was, matches = "was" if missed == 1 else "were", "matches" if wrong == 1 else "match"
    text = (
        f"Of {annotated:,} {annotated_name}, {missed:,} {was} missed{_complement(people.recall)}. "
        f"Of {int(people.detected.sum()):,} {predicted_name}, {wrong:,} {matches} no annotated person"
        f"{_complement(people.precision)}."
    )
    return text + (f" {others:,} more cannot be judged." if others else "")


def _accuracy(reliability: Reliability) -> str:
    """How many of the poses that were found are accurate."""
    found, accurate = int(reliability.people.found.sum()), int(reliability.accurate.found.sum())
    if not found:
        return "No pose was found."
    return (
        f"Of the {found:,} people found, {accurate:,} ({accurate / found:.0%}) have an accurate pose (OKS 0.5 or more)."
    )


def _complement(share: Estimate) -> str:
    """1 - a share, with its interval, in brackets; empty if the share is not defined."""
    if np.isnan(share.value):
        return ""
    if not share.is_bounded:
        return f" ({1 - share.value:.0%}; too few images for an interval)"
    value, high, low = (f"{1 - bound:.0%}" for bound in share)
    return f" ({value}; 95 % interval {low} to {high})"


def rates(metrics: RunMetrics | None) -> list[tuple[str, list[Tile]]]:
    """Recall, precision and false positives per image at the run's threshold, and AP, with 95 % intervals."""
    if metrics is None:
        return []
    tables = []
    for name, evaluation in (("Poses", metrics.keypoints), ("Person boxes", metrics.boxes)):
        if evaluation is None or evaluation.reliability is None:
            continue
        people = evaluation.reliability.people
        shown = (
            ("recall", people.recall),
            ("precision", people.precision),
            ("false positives per image", people.false_positives_per_image),
            ("AP", evaluation.reliability.ap),
        )
        tables.append((f"{name}: {int(people.annotated.sum()):,} people", [_tile(*named) for named in shown]))
    return tables


def _tile(name: str, estimate: Estimate) -> Tile:
    value = "-" if np.isnan(estimate.value) else f"{estimate.value:.2f}"
    return Tile(value, f"{name}, {estimate.low:.2f} to {estimate.high:.2f}" if estimate.is_bounded else name)


def provenance(run: Run) -> list[tuple[str, str]]:
    """What made the run, as (name, value)."""
    stored = json.loads(storage.read_bytes(run.path("run.json")))
    settings, digests = run.settings, stored["results"]["digests"]
    metadata = table_metadata(run.uri)
    rows = [
        ("command", shlex.join(["uv", "run", "jobs/annotate.py", *as_flags(settings)])),
        ("collection", str(settings.input.uri)),
        ("date", _when(run)),
        ("speed", _speed(run)),
        ("detector", _with_digest(settings.detector.name, settings.detector.weights, digests, "detector.weights")),
    ]
    if settings.detector.has_confidence:
        rows.append(("threshold", f"box score over {settings.detector.confidence:g} (--detector.confidence)"))
    for i, (described, network) in enumerate(zip(metadata.get("networks", []), settings.pose_networks(), strict=False)):
        key = "pose.weights" if i == 0 else f"pose.ensemble.{i - 1}.weights"
        rows.append(("pose network", _with_digest(described, network.weights, digests, key)))
    suppression = settings.suppression
    rows += [
        ("suppression", suppression.kind),
        ("hardware", ", ".join(str(value) for value in metadata.get("compute", {}).values()) or "unknown"),
        ("versions", ", ".join(f"{name} {version}" for name, version in stored["versions"].items())),
        ("fingerprint", run.fingerprint),
    ]
    return rows


def _with_digest(name: str, weights: str | None, digests: Mapping[str, Any], key: str) -> str:
    text = name + (f", weights {storage.basename(weights)}" if weights else "")
    return f"{text}, sha256 {str(digests[key])[:_DIGITS]}" if key in digests else text


def _when(run: Run) -> str:
    times = sorted(run.part_times().values())
    if not times:
        return "unknown"
    first, last = (datetime.fromtimestamp(t, UTC).strftime("%Y-%m-%d %H:%M UTC") for t in (times[0], times[-1]))
    return first if first == last else f"{first} to {last}"


def _speed(run: Run) -> str:
    sessions = read_sessions(run)
    if not sessions:
        return "not recorded"
    described = []
    for session in sessions:
        text = f"{session.images:,} images in {duration(session.seconds)}"
        if session.images_per_second is not None:
            text += f", {session.images_per_second:.1f} images/s without the start of workers"
        described.append(text)
    return "; then ".join(described)
