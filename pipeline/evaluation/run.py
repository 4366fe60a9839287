"""A run's tables, or a results file, against annotations: the numbers, what they were measured on, and why."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from pipeline import storage
from pipeline.config import GIVEN
from pipeline.evaluation.curves import accumulate
from pipeline.evaluation.errors import ErrorAnalysis, analyse
from pipeline.evaluation.keypoints import Metrics
from pipeline.evaluation.matching import BOX_RULES, KEYPOINT_RULES
from pipeline.evaluation.results import Results, entries_of, read_results, run_boxes, run_poses
from pipeline.evaluation.scenes import pair
from pipeline.evaluation.slices import Slice, image_answers, slices
from pipeline.evaluation.slices import lines as slice_lines
from pipeline.evaluation.tally import Spread, tally
from pipeline.evaluation.truth import Truth, read_truth
from pipeline.run import Run
from pipeline.skeletons import SKELETONS, Skeleton
from pipeline.sources import CocoIds
from pipeline.tables import read_table, table_skeleton

_SOURCE = "source"  # people are told apart by this column of the annotations' images, where it is there


class Why(NamedTuple):
    """What is wrong with poses, and with whose."""

    errors: ErrorAnalysis
    slices: list[Slice]

    def lines(self) -> list[str]:
        """For a person to read."""
        return [*self.errors.lines(), *slice_lines(self.slices)]

    def to_json(self, skeleton: Skeleton) -> dict[str, Any]:
        """As plain values, joints by name."""
        return self.errors.to_json(skeleton) | {"slices": [s._asdict() for s in self.slices]}


class Measured(NamedTuple):
    """Numbers of poses or boxes.

    Attributes:
        metrics: over everybody.
        parts: average precision of body, feet, face and hands alone, where the skeleton has several.
        why: None where nobody asked.
    """

    metrics: Metrics
    parts: Mapping[str, float]
    why: Why | None

    def line(self) -> str:
        m = self.metrics
        parts = "".join(f"  AP {part} {ap:.3f}" for part, ap in self.parts.items())
        return (
            f"AP {m.ap:.3f}  AP50 {m.ap50:.3f}  AP75 {m.ap75:.3f}  APm {m.ap_m:.3f}  APl {m.ap_l:.3f}  "
            f"AR {m.ar:.3f}  AR50 {m.ar50:.3f}  AR75 {m.ar75:.3f}  ARm {m.ar_m:.3f}  ARl {m.ar_l:.3f}{parts}"
        )

    def to_json(self) -> dict[str, Any]:
        return self.metrics.numbers | ({"parts": dict(self.parts)} if self.parts else {})


@dataclass(frozen=True)
class RunMetrics:
    """Numbers, and what has to stand beside them.

    Attributes:
        keypoints: None where the annotations have no keypoints.
        boxes: of the people who were kept, None where the run's boxes were given.
        detector, flip_test: whose boxes, and how the poses were made.
        annotated_images: images of the annotations.
        images_in_run: of these, those that the tables have a row for.
        complete: whether the run itself is whole.
    """

    keypoints: Measured | None
    boxes: Measured | None
    detector: str
    flip_test: bool
    annotated_images: int
    images_in_run: int
    complete: bool
    annotations: str

    def lines(self) -> list[str]:
        """For a person to read."""
        text = []
        for name, measured in (("keypoints", self.keypoints), ("person boxes", self.boxes)):
            if measured is not None:
                text.append(f"{name}: {measured.line()}")
        flip = "flip test" if self.flip_test else "no flip test"
        seen = f"{self.images_in_run} of {self.annotated_images} annotated images in the run"
        whole = "" if self.complete else ", RUN INCOMPLETE"
        text.append(f"measured with {self.detector} boxes, {flip}, {seen}{whole}")
        return [*text, *(self.keypoints.why.lines() if self.keypoints and self.keypoints.why else ())]

    def to_json(self) -> dict[str, Any]:
        plain = {name: getattr(self, name) for name in self.__dataclass_fields__}
        measured = {name: m and m.to_json() for name, m in (("keypoints", self.keypoints), ("boxes", self.boxes))}
        return plain | measured


def evaluate_run(
    run: Run, annotations: str, why: bool = False, by: Sequence[str] = (), spread: Spread = map
) -> RunMetrics:
    """Evaluate the tables of a reduced run.

    Annotated images that the run never saw count as missed people, as in the COCO evaluation, and are reported.

    Args:
        why: also what is wrong, and with whom, where there are keypoints.
        by: columns of the annotations' images or of tables/images that people are told apart by.
        spread: where groups of images are asked.

    Raises:
        ValueError: the annotations know none of the run's images, or have no such column.
    """
    skeleton = table_skeleton(run.uri)
    truth = read_truth(annotations, skeleton)
    ids = CocoIds(zip(truth.images["file_name"], truth.ids.tolist(), strict=True))
    seen = _seen(run, ids, by)
    if not seen:
        raise ValueError(f"{annotations} names none of the images in {run.uri}; is it for another collection?")
    if missing := [c for c in by if c not in truth.images and c not in next(iter(seen.values()))]:
        raise ValueError(f"neither tables/images nor the images of {annotations} have a column {missing[0]!r}")
    keypoints = boxes = None
    if truth.with_keypoints:
        columns = {column: [seen.get(i, {}).get(column) for i in truth.ids.tolist()] for column in by}
        poses = run_poses(run, ids, skeleton)
        keypoints = _measure_poses(truth, poses, skeleton, why, columns | _columns(truth, by), spread)
    if run.settings.detector.name != GIVEN:
        boxes = _measure_boxes(read_truth(annotations, None), run_boxes(run, ids), spread)
    return RunMetrics(
        keypoints=keypoints,
        boxes=boxes,
        detector=run.settings.detector.name,
        flip_test=run.settings.pose.flip_test,
        annotated_images=len(truth.ids),
        images_in_run=len(seen),
        complete=json.loads(storage.read_bytes(run.path("totals.json")))["complete"],
        annotations=annotations,
    )


def write_metrics(run: Run, metrics: RunMetrics) -> str:
    """Write `metrics.json`, and with reasons `errors.json`; returns the URI of the first."""
    errors = run.path("errors.json")
    if metrics.keypoints is not None and metrics.keypoints.why is not None:
        told = metrics.keypoints.why.to_json(table_skeleton(run.uri))
        storage.write_bytes(errors, json.dumps(told, indent=2).encode())
    elif storage.exists(errors):
        storage.delete(errors)  # of other numbers
    storage.write_bytes(run.path("metrics.json"), json.dumps(metrics.to_json(), indent=2).encode())
    return run.path("metrics.json")


def evaluate_file(
    results: str, annotations: str, why: bool = False, by: Sequence[str] = (), spread: Spread = map
) -> list[str]:
    """The numbers of a COCO results file, keypoints or boxes, for a person to read; arguments as in `evaluate_run`.

    Raises:
        ValueError: it is no results file, or an entry cannot be evaluated, named by its number.
    """
    skeleton = _skeleton_of(results)
    truth = read_truth(annotations, skeleton)
    if missing := [column for column in by if column not in truth.images]:
        raise ValueError(f"the images of {annotations} have no column {missing[0]!r}")
    found = read_results(results, truth.ids, skeleton)
    if skeleton is None:
        name, measured = "person boxes", _measure_boxes(truth, found, spread)
    else:
        name = f"keypoints ({skeleton.name})"
        measured = _measure_poses(truth, found, skeleton, why, _columns(truth, by), spread)
    return [
        f"{name}: {measured.line()}",
        f"measured on {len(truth.ids)} annotated images, of which {len(set(found.image_ids.tolist()))} have results",
        *(f"note: {warning}" for warning in measured.metrics.warnings),
        *(measured.why.lines() if measured.why else ()),
    ]


def _skeleton_of(results: str) -> Skeleton | None:
    """Of the first entry of a results file; None where it has boxes alone, or there is none."""
    first: dict[str, Any] = next(entries_of(results), {})
    if "keypoints" not in first:
        return None
    joints = len(first["keypoints"]) // 3
    for skeleton in SKELETONS.values():
        if len(skeleton) == joints:
            return skeleton
    known = ", ".join(f"{name} {len(s)}" for name, s in SKELETONS.items())
    raise ValueError(f"{results}: entry 0 has {joints} joints; known skeletons: {known}")


def _measure_poses(
    truth: Truth,
    results: Results,
    skeleton: Skeleton,
    why: bool,
    columns: Mapping[str, Sequence[Any]],
    spread: Spread,
) -> Measured:
    told = [image_answers(column, values) for column, values in columns.items()]
    scenes = pair(
        truth,
        results.image_ids,
        results.found,
        KEYPOINT_RULES.most,
        {answers.question: numbers for answers, numbers in told},
    )
    of_images = [answers for answers, _ in told]
    said = tally(scenes, skeleton, why, of_images, spread)
    metrics = Metrics.of(said.matches, KEYPOINT_RULES, results.warnings)
    parts = {}
    for part, matches in said.parts.items():
        curves = accumulate(matches, list(KEYPOINT_RULES.areas))
        parts[part] = curves.mean(curves.precision, "all")
    if said.errors is None or said.slices is None:
        return Measured(metrics, parts, None)
    return Measured(metrics, parts, Why(analyse(said.errors), slices(said.slices, of_images)))


def _measure_boxes(truth: Truth, results: Results, spread: Spread) -> Measured:
    said = tally(pair(truth, results.image_ids, results.found, BOX_RULES.most), None, spread=spread)
    return Measured(Metrics.of(said.matches, BOX_RULES, results.warnings), {}, None)


def _columns(truth: Truth, by: Sequence[str]) -> dict[str, Sequence[Any]]:
    """Columns of the annotations' images: those that were named, and whence they are."""
    return {column: truth.images[column] for column in (_SOURCE, *by) if column in truth.images}


def _seen(run: Run, ids: CocoIds, by: Sequence[str]) -> dict[int, dict[str, Any]]:
    """Annotated images in the run, with columns of their rows, by COCO id."""
    seen: dict[int, dict[str, Any]] = {}
    # Columns that a table doesn't have are left out.
    for table in read_table(run.uri, "images", ["image_id", *by]):
        for row in table.to_pylist():
            if (coco_id := ids.get(row.pop("image_id"))) is not None:
                seen[coco_id] = row
    return seen
