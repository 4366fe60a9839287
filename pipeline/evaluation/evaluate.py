"""Evaluate a run, or a results file, against annotations."""

from __future__ import annotations

import json
from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from pipeline import storage
from pipeline.coco.annotations import Annotations, read_annotations
from pipeline.coco.ids import CocoIds
from pipeline.coco.keypoints import has_whole_body_columns
from pipeline.coco.results import Results, read_results, result_entries
from pipeline.errors import UserError
from pipeline.evaluation.curves import accumulate
from pipeline.evaluation.errors import ErrorAnalysis, analyse
from pipeline.evaluation.eval_images import pair
from pipeline.evaluation.groups import GroupResult, group_images, group_results
from pipeline.evaluation.groups import lines as group_lines
from pipeline.evaluation.intervals import Estimate, average_precisions, resamples
from pipeline.evaluation.keypoints import Metrics
from pipeline.evaluation.matching import BOX_RULES, KEYPOINT_RULES, Matches
from pipeline.evaluation.operating_point import OperatingPoint, estimate_to_json
from pipeline.evaluation.partial import Map, measure
from pipeline.run import Run
from pipeline.run.detections import run_boxes, run_poses
from pipeline.run.tables import image_ids, read_table, table_skeleton
from pipeline.settings.tree import GIVEN
from pipeline.skeletons import SKELETONS, Skeleton
from pipeline.weights.metadata import TrainingImages, image_digest, training_images

_SOURCE = "source"  # images are always grouped by this column of the annotations, if it exists


class Reliability(NamedTuple):
    """How sure the metrics are.

    Attributes:
        ap: average precision with its confidence interval.
        resampled_ap: (R,) on resampled images; the same images have the same resamples.
        people: people found and false positives: poses from an OKS of 0.1, boxes from an overlap of 0.5.
        accurate: the same from a similarity of 0.5.
    """

    ap: Estimate
    resampled_ap: np.ndarray
    people: OperatingPoint
    accurate: OperatingPoint

    @classmethod
    def of(cls, metrics: Metrics, matches: Matches, people: OperatingPoint | None = None) -> Reliability:
        """
        Args:
            matches: that the metrics are of.
            people: by default those matched at a similarity of 0.5.
        """
        accurate = OperatingPoint.of(matches)
        resampled = np.array(list(average_precisions(matches, resamples(len(matches.detections)))))
        value = metrics.ap if metrics.ap >= 0 else float("nan")
        return cls(Estimate.of(value, resampled), resampled, people or accurate, accurate)


class Analysis(NamedTuple):
    """The errors of the poses, and the results by group."""

    errors: ErrorAnalysis
    groups: list[GroupResult]

    def lines(self) -> list[str]:
        """Lines of text for a terminal."""
        return [*self.errors.lines(), *group_lines(self.groups)]

    def to_json(self, skeleton: Skeleton) -> dict[str, Any]:
        """As plain values, joints by name."""
        return self.errors.to_json(skeleton) | {"groups": [group._asdict() for group in self.groups]}


class Evaluation(NamedTuple):
    """Metrics of poses or of boxes.

    Attributes:
        metrics: over all people.
        parts: average precision of body, feet, face and each hand alone, if the skeleton has several of them.
        reliability, analysis: None without error analysis; boxes have no `analysis`.
    """

    metrics: Metrics
    parts: Mapping[str, float]
    reliability: Reliability | None
    analysis: Analysis | None

    def line(self) -> str:
        """The metrics as a line of text."""
        m = self.metrics
        parts = "".join(f"  AP {part} {ap:.3f}" for part, ap in self.parts.items())
        return (
            f"AP {m.ap:.3f}  AP50 {m.ap50:.3f}  AP75 {m.ap75:.3f}  APm {m.ap_m:.3f}  APl {m.ap_l:.3f}  "
            f"AR {m.ar:.3f}  AR50 {m.ar50:.3f}  AR75 {m.ar75:.3f}  ARm {m.ar_m:.3f}  ARl {m.ar_l:.3f}{parts}"
        )

    def reliability_lines(self, name: str) -> list[str]:
        """Lines of text for a terminal, with what is evaluated; none without error analysis."""
        if self.reliability is None:
            return []
        return [f"{name}, 95 % intervals: AP {self.reliability.ap:.3f}; {self.reliability.people.line()}"]

    def to_json(self) -> dict[str, Any]:
        plain: dict[str, Any] = dict(self.metrics.numbers)
        if self.parts:
            plain["parts"] = dict(self.parts)
        if self.reliability is not None:
            plain["ap_interval"] = estimate_to_json(self.reliability.ap)
            plain["people"] = self.reliability.people.to_json()
        return plain


@dataclass(frozen=True)
class FileMetrics:
    """Metrics of a results file.

    Attributes:
        keypoints, boxes: one of the two; the other is None.
        skeleton: of the keypoints; None for boxes.
        annotated_images: number of images of the annotations.
        images_with_results: number of these that the file has results for.
        annotations: URI of the annotations.
    """

    keypoints: Evaluation | None
    boxes: Evaluation | None
    skeleton: Skeleton | None
    annotated_images: int
    images_with_results: int
    annotations: str

    def lines(self) -> list[str]:
        """Lines of text for a terminal."""
        name = f"keypoints ({self.skeleton.name})" if self.skeleton else "person boxes"
        evaluation = self.keypoints or self.boxes
        assert evaluation is not None
        return [
            f"{name}: {evaluation.line()}",
            f"evaluated on {self.annotated_images} annotated images, {self.images_with_results} of them have results",
            *(f"note: {warning}" for warning in evaluation.metrics.warnings),
            *evaluation.reliability_lines(name),
            *(evaluation.analysis.lines() if evaluation.analysis else ()),
        ]

    def to_json(self) -> dict[str, Any]:
        return _to_json(self) | {"skeleton": self.skeleton.name if self.skeleton else None}


@dataclass(frozen=True)
class RunMetrics:
    """Metrics of a run, and how they were obtained.

    Attributes:
        keypoints: None if the annotations have no keypoints.
        boxes: of the people that suppression kept; None if the boxes were given.
        detector, flip_test: settings of the run.
        annotated_images: number of images of the annotations.
        images_in_run: number of these that the tables have a row for.
        only_images_in_run: whether the others were left out; else their people count as missed.
        evaluated_images: number of images that the metrics are of.
        images_seen: number of these that the run's weights were trained on, by their file names.
        complete: whether the run is complete.
        annotations: URI of the annotations.
        warnings: what may distort the metrics.
    """

    keypoints: Evaluation | None
    boxes: Evaluation | None
    detector: str
    flip_test: bool
    annotated_images: int
    images_in_run: int
    only_images_in_run: bool
    evaluated_images: int
    images_seen: int
    complete: bool
    annotations: str
    warnings: tuple[str, ...] = ()

    def lines(self) -> list[str]:
        """Lines of text for a terminal."""
        named = (("keypoints", self.keypoints), ("person boxes", self.boxes))
        text = [f"{name}: {evaluation.line()}" for name, evaluation in named if evaluation is not None]
        flip = "flip test" if self.flip_test else "no flip test"
        images = f"{self.images_in_run} of {self.annotated_images} annotated images are in the run"
        if self.images_in_run < self.annotated_images:
            images += ", the others " + (
                "are left out" if self.only_images_in_run else "count as missed (--only-images-in-run leaves them out)"
            )
        incomplete = "" if self.complete else ", RUN INCOMPLETE"
        if self.evaluated_images < self.annotated_images:
            images += f"; {self.evaluated_images} images evaluated"
        text.append(f"evaluated with {self.detector} boxes, {flip}, {images}{incomplete}")
        text += [f"note: {warning}" for warning in self.warnings]
        text += [line for name, e in named if e is not None for line in e.reliability_lines(name)]
        return [*text, *(self.keypoints.analysis.lines() if self.keypoints and self.keypoints.analysis else ())]

    def to_json(self) -> dict[str, Any]:
        return _to_json(self)


def _to_json(metrics: RunMetrics | FileMetrics) -> dict[str, Any]:
    plain = {name: getattr(metrics, name) for name in metrics.__dataclass_fields__}
    named = (("keypoints", metrics.keypoints), ("boxes", metrics.boxes))
    return plain | {name: evaluation and evaluation.to_json() for name, evaluation in named}


def evaluate_run(
    run: Run,
    annotations: str,
    analysis: bool = False,
    by: Sequence[str] = (),
    map_chunks: Map = map,
    only_images_in_run: bool = False,
    excluded: Container[bytes] = frozenset(),
) -> RunMetrics:
    """Evaluate the tables of a reduced run.

    People in annotated images that are not in the run count as missed, as in COCO's evaluation; the number of images in
    the run is part of the result.

    Args:
        only_images_in_run: leave out annotated images that are not in the run instead.
        excluded: digests of the names of images to leave out, see `pipeline.weights.metadata`.
        analysis: also analyse the errors, if there are keypoints.
        by: columns of the annotations' images or of tables/images that images are grouped by.
        map_chunks: where chunks of images are computed.

    Raises:
        UserError: the annotations name none of the run's images, or have no such column.
    """
    skeleton = table_skeleton(run.uri)
    truth = read_annotations(annotations, skeleton)
    ids = truth.match_ids(image_ids(run.uri))
    rows = _rows_by_coco_id(run, ids, by)
    if not rows:
        raise UserError(f"{annotations} names none of the images in {run.uri}; is it for another collection?")
    if missing := [c for c in by if c not in truth.images and c not in next(iter(rows.values()))]:
        raise UserError(f"neither tables/images nor the images of {annotations} have a column {missing[0]!r}")
    num_annotated = len(truth.ids)
    digests = _name_digests(truth)
    evaluated = [
        id_
        for id_, digest in zip(truth.ids.tolist(), digests, strict=True)
        if digest not in excluded and (id_ in rows or not only_images_in_run)
    ]
    if not evaluated:
        raise UserError(f"no image of {annotations} is left to evaluate; all were in the training of the run's weights")
    seen_digests, kept = seen_images(run).digests, set(evaluated)
    seen = sum(id_ in kept and digest in seen_digests for id_, digest in zip(truth.ids.tolist(), digests, strict=True))
    if len(evaluated) < num_annotated:
        truth = truth.select(evaluated)
    keypoints = boxes = None
    if truth.with_keypoints:
        columns = {column: [rows.get(i, {}).get(column) for i in truth.ids.tolist()] for column in by}
        poses = run_poses(run, ids, skeleton)
        keypoints = _evaluate_poses(truth, poses, skeleton, analysis, columns | _columns(truth, by), map_chunks)
    if run.settings.detector.name != GIVEN:
        box_truth = read_annotations(annotations, None)
        if len(evaluated) < num_annotated:
            box_truth = box_truth.select(evaluated)
        boxes = _evaluate_boxes(box_truth, run_boxes(run, ids), analysis, map_chunks)
    return RunMetrics(
        keypoints=keypoints,
        boxes=boxes,
        detector=run.settings.detector.name,
        flip_test=run.settings.pose.flip_test,
        annotated_images=num_annotated,
        images_in_run=len(rows),
        only_images_in_run=only_images_in_run,
        evaluated_images=len(evaluated),
        images_seen=seen,
        complete=json.loads(storage.read_bytes(run.path("totals.json")))["complete"],
        annotations=annotations,
        warnings=(*ids.warnings(), *_seen_warning(seen, len(evaluated))),
    )


def seen_images(run: Run) -> TrainingImages:
    """The images that the weights of a run were trained on."""
    settings = run.settings
    weights = [settings.detector.weights, *(network.weights for network in settings.pose_networks())]
    return training_images(uri for uri in weights if uri)


def _name_digests(truth: Annotations) -> list[bytes | None]:
    """The digest of each image's name, None without a name."""
    names = truth.images.get("file_name", [None] * len(truth.ids))
    return [None if name is None else image_digest(name) for name in names]


def _seen_warning(seen: int, evaluated: int) -> list[str]:
    if not seen:
        return []
    return [
        f"{seen} of {evaluated} evaluated images were in the training of the run's weights, by their file names: the "
        "metrics are too high; --exclude-seen leaves these images out"
    ]


def evaluate_file(
    results: str, annotations: str, analysis: bool = False, by: Sequence[str] = (), map_chunks: Map = map
) -> FileMetrics:
    """Evaluate a COCO results file, keypoints or boxes; arguments as of `evaluate_run`.

    Raises:
        UserError: it is not a results file, or an entry cannot be evaluated; the message has its number.
    """
    skeleton = _skeleton_of(results)
    truth = read_annotations(annotations, skeleton)
    if missing := [column for column in by if column not in truth.images]:
        raise UserError(f"the images of {annotations} have no column {missing[0]!r}")
    detected = read_results(results, truth, skeleton)
    keypoints = boxes = None
    if skeleton is None:
        boxes = _evaluate_boxes(truth, detected, analysis, map_chunks)
    else:
        keypoints = _evaluate_poses(truth, detected, skeleton, analysis, _columns(truth, by), map_chunks)
    num_images = len(set(detected.image_ids.tolist()))
    return FileMetrics(keypoints, boxes, skeleton, len(truth.ids), num_images, annotations)


def write_metrics(metrics: RunMetrics | FileMetrics, stem: str, skeleton: Skeleton | None) -> str:
    """Write `metrics.json` and, with an error analysis, `errors.json`; returns the URI of the first.

    Args:
        stem: what the URIs start with: `RUN/` for a run, `results.` for the file results.json.
        skeleton: of the keypoints, for the names of joints.
    """
    errors = f"{stem}errors.json"
    if skeleton is not None and metrics.keypoints is not None and metrics.keypoints.analysis is not None:
        analysis = metrics.keypoints.analysis.to_json(skeleton)
        storage.write_bytes(errors, json.dumps(analysis, indent=2).encode())
    elif storage.exists(errors):
        storage.delete(errors)  # it belongs to earlier metrics
    uri = f"{stem}metrics.json"
    storage.write_bytes(uri, json.dumps(metrics.to_json(), indent=2).encode())
    return uri


def _skeleton_of(results: str) -> Skeleton | None:
    """The skeleton of the first entry of a results file; None if it has boxes alone, or there is none."""
    first: Any = next(result_entries(results), {})
    if not isinstance(first, dict) or "keypoints" not in first:
        return None
    if has_whole_body_columns(first):
        return SKELETONS["wholebody133"]
    joints = len(first["keypoints"]) // 3
    for skeleton in SKELETONS.values():
        if len(skeleton) == joints:
            return skeleton
    known = ", ".join(f"{name} {len(s)}" for name, s in SKELETONS.items())
    raise UserError(f"{results}: entry 0 has {joints} joints; known skeletons: {known}")


def _evaluate_poses(
    truth: Annotations,
    results: Results,
    skeleton: Skeleton,
    analysis: bool,
    columns: Mapping[str, Sequence[Any]],
    map_chunks: Map,
) -> Evaluation:
    grouped = [group_images(column, values) for column, values in columns.items()]
    labels = {grouping.name: numbers for grouping, numbers in grouped}
    images = pair(truth, results.image_ids, results.detections, KEYPOINT_RULES.max_detections, labels)
    groupings = [grouping for grouping, _ in grouped]
    measured = measure(images, skeleton, analysis, groupings, map_chunks)
    metrics = Metrics.of(measured.matches, KEYPOINT_RULES, results.warnings)
    parts = {}
    for part, matches in measured.parts.items():
        curves = accumulate(matches, list(KEYPOINT_RULES.areas))
        parts[part] = curves.mean(curves.precision, "all")
    if measured.errors is None or measured.groups is None:
        return Evaluation(metrics, parts, None, None)
    errors = analyse(measured.errors)
    reliability = Reliability.of(metrics, measured.matches, errors.people)
    return Evaluation(metrics, parts, reliability, Analysis(errors, group_results(measured.groups, groupings)))


def _evaluate_boxes(truth: Annotations, results: Results, analysis: bool, map_chunks: Map) -> Evaluation:
    images = pair(truth, results.image_ids, results.detections, BOX_RULES.max_detections)
    matches = measure(images, None, map_chunks=map_chunks).matches
    metrics = Metrics.of(matches, BOX_RULES, results.warnings)
    return Evaluation(metrics, {}, Reliability.of(metrics, matches) if analysis else None, None)


def _columns(truth: Annotations, by: Sequence[str]) -> dict[str, Sequence[Any]]:
    """Columns of the annotations' images to group by: the named ones, and `source`."""
    return {column: truth.images[column] for column in (_SOURCE, *by) if column in truth.images}


def _rows_by_coco_id(run: Run, ids: CocoIds[int], by: Sequence[str]) -> dict[int, dict[str, Any]]:
    """Annotated images in the run, with columns of their rows, by COCO id."""
    rows: dict[int, dict[str, Any]] = {}
    # Columns that the table does not have are left out.
    for table in read_table(run.uri, "images", ["image_id", *by]):
        for row in table.to_pylist():
            if (coco_id := ids.get(row.pop("image_id"))) is not None:
                rows[coco_id] = row
    return rows
