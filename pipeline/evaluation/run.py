"""A run's tables against annotations: the numbers, and what they were measured on."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import Any

from pipeline import storage
from pipeline.config import GIVEN
from pipeline.evaluation import slices
from pipeline.evaluation.errors import ErrorAnalysis, analyse
from pipeline.evaluation.keypoints import Metrics, evaluate_boxes, evaluate_keypoints, scenes_of
from pipeline.evaluation.matching import KEYPOINT_RULES
from pipeline.evaluation.results import box_results, keypoint_results
from pipeline.run import Run
from pipeline.skeletons import SKELETONS, Skeleton
from pipeline.sources import CocoIds, read_coco
from pipeline.tables import read_table, table_skeleton


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

    keypoints: Metrics | None
    boxes: Metrics | None
    detector: str
    flip_test: bool
    annotated_images: int
    images_in_run: int
    complete: bool
    annotations: str
    warnings: tuple[str, ...] = ()

    def lines(self) -> list[str]:
        """For a person to read."""
        text = []
        for name, m in (("keypoints", self.keypoints), ("person boxes", self.boxes)):
            if m is not None:
                text.append(f"{name}: {_told(m)}")
        flip = "flip test" if self.flip_test else "no flip test"
        seen = f"{self.images_in_run} of {self.annotated_images} annotated images in the run"
        whole = "" if self.complete else ", RUN INCOMPLETE"
        text.append(f"measured with {self.detector} boxes, {flip}, {seen}{whole}")
        return [*text, *(f"note: {warning}" for warning in self.warnings)]


def _told(m: Metrics) -> str:
    return (
        f"AP {m.ap:.3f}  AP50 {m.ap50:.3f}  AP75 {m.ap75:.3f}  APm {m.ap_m:.3f}  APl {m.ap_l:.3f}  "
        f"AR {m.ar:.3f}  AR50 {m.ar50:.3f}  AR75 {m.ar75:.3f}  ARm {m.ar_m:.3f}  ARl {m.ar_l:.3f}"
    )


def evaluate_file(results: str, annotations: str, why: bool = False) -> list[str]:
    """The numbers of a COCO results file, keypoints or boxes, for a person to read; with `why` also what is wrong.

    Raises:
        ValueError: it is no results file, or an entry cannot be evaluated, named by its number.
    """
    content = json.loads(storage.read_bytes(results))
    if not isinstance(content, list) or not all(isinstance(entry, dict) for entry in content):
        raise ValueError(f"{results}: expected a list of COCO results, found {type(content).__name__}")
    truth = read_coco(annotations)
    errors: list[str] = []
    if any("keypoints" in entry for entry in content):
        joints = len(content[0].get("keypoints", ())) // 3
        skeleton = next((s for s in SKELETONS.values() if len(s) == joints), None)
        if skeleton is None:
            known = ", ".join(f"{name} {len(s)}" for name, s in SKELETONS.items())
            raise ValueError(f"{results}: entry 0 has {joints} joints; known skeletons: {known}")
        name, evaluation = f"keypoints ({skeleton.name})", evaluate_keypoints(content, truth, skeleton)
        if why:
            analysis, parts = _why(content, truth, skeleton)
            errors = [*analysis.lines(), *slices.lines(parts)]
    else:
        name, evaluation = "person boxes", evaluate_boxes(content, truth)
    seen = {entry["image_id"] for entry in content}
    return [
        f"{name}: {_told(evaluation.metrics)}",
        f"measured on {len(truth['images'])} annotated images, of which {len(seen)} have results",
        *(f"note: {warning}" for warning in evaluation.warnings),
        *errors,
    ]


def explain_run(run: Run, annotations: str) -> list[str]:
    """What is wrong with the people of a reduced run, for a person to read; also written to `errors.json`.

    Raises:
        ValueError: the annotations have no keypoints.
    """
    truth = read_coco(annotations)
    if not any("keypoints" in a for a in truth["annotations"]):
        raise ValueError(f"{annotations} has no keypoints; what is wrong with joints cannot be told")
    skeleton = table_skeleton(run.uri)
    errors, parts = _why(list(keypoint_results(run, CocoIds(truth["images"]))), truth, skeleton)
    told = errors.to_json(skeleton) | {"slices": [s._asdict() for s in parts]}
    storage.write_bytes(run.path("errors.json"), json.dumps(told, indent=2).encode())
    return [*errors.lines(), *slices.lines(parts)]


def _why(
    results: list[dict[str, Any]], truth: dict[str, Any], skeleton: Skeleton
) -> tuple[ErrorAnalysis, list[slices.Slice]]:
    scenes = scenes_of(truth, results, KEYPOINT_RULES, len(skeleton))
    return analyse(scenes, skeleton), slices.slices(scenes, skeleton)


def evaluate_run(run: Run, annotations: str) -> RunMetrics:
    """Evaluate the tables of a reduced run and write `metrics.json`.

    Annotated images that the run never saw count as missed people, as in the COCO evaluation, and are reported.

    Raises:
        ValueError: the annotations know none of the run's images.
    """
    truth = read_coco(annotations)
    ids = CocoIds(truth["images"])
    seen = {
        ids.get(image_id)
        for table in read_table(run.uri, "images", ["image_id"])
        for image_id in table["image_id"].to_pylist()
    }
    seen.discard(None)
    if not seen:
        raise ValueError(f"{annotations} names none of the images in {run.uri}; is it for another collection?")
    settings = run.settings
    has_keypoints = any("keypoints" in a for a in truth["annotations"])
    keypoints = boxes = None
    if has_keypoints:
        keypoints = evaluate_keypoints(list(keypoint_results(run, ids)), truth, table_skeleton(run.uri))
    if settings.detector.name != GIVEN:
        boxes = evaluate_boxes(list(box_results(run, ids)), truth)
    totals = json.loads(storage.read_bytes(run.path("totals.json")))
    metrics = RunMetrics(
        keypoints=keypoints.metrics if keypoints else None,
        boxes=boxes.metrics if boxes else None,
        detector=settings.detector.name,
        flip_test=settings.pose.flip_test,
        annotated_images=len(truth["images"]),
        images_in_run=len(seen),
        complete=totals["complete"],
        annotations=annotations,
        warnings=keypoints.warnings if keypoints else (),
    )
    storage.write_bytes(run.path("metrics.json"), json.dumps(asdict(metrics), indent=2).encode())
    return metrics
