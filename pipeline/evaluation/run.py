"""A run's tables against annotations: the numbers, and what they were measured on."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass

from pipeline import storage
from pipeline.config import GIVEN
from pipeline.evaluation.keypoints import Metrics, evaluate_boxes, evaluate_keypoints
from pipeline.evaluation.results import box_results, keypoint_results
from pipeline.run import Run
from pipeline.skeletons import SKELETONS
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


def evaluate_file(results: str, annotations: str) -> list[str]:
    """The numbers of a COCO results file, keypoints or boxes, for a person to read.

    Raises:
        ValueError: it is no results file, or an entry cannot be evaluated, named by its number.
    """
    content = json.loads(storage.read_bytes(results))
    if not isinstance(content, list) or not all(isinstance(entry, dict) for entry in content):
        raise ValueError(f"{results}: expected a list of COCO results, found {type(content).__name__}")
    truth = read_coco(annotations)
    if any("keypoints" in entry for entry in content):
        joints = len(content[0].get("keypoints", ())) // 3
        skeleton = next((s for s in SKELETONS.values() if len(s) == joints), None)
        if skeleton is None:
            known = ", ".join(f"{name} {len(s)}" for name, s in SKELETONS.items())
            raise ValueError(f"{results}: entry 0 has {joints} joints; known skeletons: {known}")
        name, evaluation = f"keypoints ({skeleton.name})", evaluate_keypoints(content, truth, skeleton)
    else:
        name, evaluation = "person boxes", evaluate_boxes(content, truth)
    seen = {entry["image_id"] for entry in content}
    return [
        f"{name}: {_told(evaluation.metrics)}",
        f"measured on {len(truth['images'])} annotated images, of which {len(seen)} have results",
        *(f"note: {warning}" for warning in evaluation.warnings),
    ]


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
