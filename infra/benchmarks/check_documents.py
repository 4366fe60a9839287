"""Measure the accuracy figures of the documents again, and compare them with what the documents say.

uv run infra/benchmarks/check_documents.py --annotations people/val.json --images people/images

The figures are of 120 photographs of COCO val2017 that are in no training set of the shipped weights. Each figure has
the command that measures it; a command runs once. Exit code 1 if a document differs by more than the tolerance, or if a
document no longer has a figure.
"""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

PROJECT = Path(__file__).resolve().parents[2]
TOLERANCE = 0.004  # bf16 differs from float32 by about 0.001, and AP with near ties by a little more

TRUE_BOXES = ("--detector.name=given", "--suppression.kind=none", "--compute.precision=float32")
# The poses of these people are not evaluated, so the pose network may be fast instead of accurate.
BOXES = ("--suppression.kind=none", "--pose.input_size=64x64")
ALL_BOXES = (*BOXES, "--detector.confidence=0.01", "--detector.nms_iou=0.65", "--detector.max_boxes=10000")
_SIDES = ("shoulder", "elbow", "wrist", "hip", "knee", "ankle")


class Measured(NamedTuple):
    """metrics.json and errors.json of a run."""

    metrics: dict[str, Any]
    errors: dict[str, Any]

    def keypoints(self, name: str) -> float:
        return self.metrics["keypoints"][name]

    def boxes(self, name: str) -> float:
        return self.metrics["boxes"][name]

    def pck(self, joint: str = "") -> float:
        """At a tenth of the box's longer side: of a joint, or of all below the head."""
        correct = self.errors["pck"]["a tenth of the box"]
        return correct["joints"][joint] if joint else correct["body"]


class Claim(NamedTuple):
    """Figures in a document.

    Attributes:
        pattern: finds the text once; its groups are the figures.
        flags: of the run that measures them.
        measure: the figures of that run, in the order of the groups.
    """

    document: str
    pattern: str
    flags: tuple[str, ...]
    measure: Callable[[Measured], Sequence[float]]


def _of(*names: str, scale: float = 1.0) -> Callable[[Measured], Sequence[float]]:
    return lambda m: [scale * m.keypoints(name) for name in names]


def _boxes(m: Measured) -> Sequence[float]:
    return [m.boxes("ap"), m.boxes("ap50"), m.boxes("ap_l")]


def _people(m: Measured) -> Sequence[float]:
    """Percent of the people found, and number of false positives in 100."""
    people = m.metrics["boxes"]["people"]
    return [100 * people["recall"]["value"], people["false_positives"]]


def _both(joint: str) -> Callable[[Measured], Sequence[float]]:
    return lambda m: [m.pck(f"left_{joint}"), m.pck(f"right_{joint}")]


FLIPPED = (*TRUE_BOXES, "--pose.flip_test=true")
LITE0 = (*TRUE_BOXES, "--pose.weights=weights/fastpose_lite0_coco17.safetensors")
LITE0_FLIPPED = (*LITE0, "--pose.flip_test=true")
WEIGHTS, README = "weights/README.md", "README.md"
CLAIMS = (
    Claim(README, r"own detector and default settings \| ([\d.]+) \|", (), _of("ap")),
    Claim(README, r"true boxes, flip test, no suppression, float32 \| ([\d.]+) \|", FLIPPED, _of("ap")),
    Claim("configs/annotate/true_boxes.yaml", r"AP (0[\d.]+\d), AP50 (0[\d.]+\d)", FLIPPED, _of("ap", "ap50")),
    Claim(WEIGHTS, r"thunder_coco17` \|.*AP ([\d.]+), AP50 ([\d.]+), PCK", FLIPPED, _of("ap", "ap50", scale=100)),
    Claim(WEIGHTS, r"movenet_thunder_coco17` \|.*PCK ([\d.]+) \|", FLIPPED, lambda m: [100 * m.pck()]),
    Claim(WEIGHTS, r"own detector and all defaults \| ([\d.]+) \| ([\d.]+) \|", (), _of("ap", "ap50")),
    Claim(WEIGHTS, r"\| true boxes \| ([\d.]+) \| ([\d.]+) \|", TRUE_BOXES, _of("ap", "ap50")),
    Claim(WEIGHTS, r"\| true boxes, flip test \| ([\d.]+) \| ([\d.]+) \|", FLIPPED, _of("ap", "ap50")),
    Claim(WEIGHTS, r"lite0_coco17` \|.*AP ([\d.]+), AP50 ([\d.]+), PCK", LITE0_FLIPPED, _of("ap", "ap50", scale=100)),
    Claim(WEIGHTS, r"fastpose_lite0_coco17` \|.*PCK ([\d.]+) \|", LITE0_FLIPPED, lambda m: [100 * m.pck()]),
    Claim(WEIGHTS, r"all below the head \| ([\d.]+) ", LITE0, lambda m: [m.pck()]),
    Claim(WEIGHTS, r"measures AP ([\d.]+) and", LITE0, _of("ap")),
    Claim(WEIGHTS, r"and PCK ([\d.]+) for them", LITE0, lambda m: [m.pck()]),
    Claim(WEIGHTS, r"with flip test ([\d.]+)\) \|", LITE0_FLIPPED, lambda m: [m.pck()]),
    Claim(WEIGHTS, r"\| nose \| ([\d.]+) \|", LITE0, lambda m: [m.pck("nose")]),
    *(Claim(WEIGHTS, rf"\| {j} \| ([\d.]+) \| ([\d.]+) \|", LITE0, _both(j)) for j in ("eye", "ear", *_SIDES)),
    Claim(WEIGHTS, r"512x512 \(default\) \| ([\d.]+) \| ([\d.]+) \| ([\d.]+) \|", ALL_BOXES, _boxes),
    *(
        Claim(
            WEIGHTS,
            rf"\| {side}x{side} \| ([\d.]+) \| ([\d.]+) \| ([\d.]+) \|",
            (*ALL_BOXES, f"--detector.input_size={side}"),
            _boxes,
        )
        for side in (416, 640)
    ),
    *(
        Claim(WEIGHTS, rf"\| {text} \| (\d+) % \| (\d+) boxes", (*BOXES, f"--detector.confidence={value}"), _people)
        for value, text in ((0.3, r"0\.3"), (0.4, r"0\.4 \(default\)"), (0.5, r"0\.5"))
    ),
)  # fmt: skip


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--annotations", required=True, help="COCO annotations of the 120 photographs")
    parser.add_argument("--images", required=True, help="folder of the photographs")
    arguments = parser.parse_args()
    annotations, images = (str(Path(path).resolve()) for path in (arguments.annotations, arguments.images))
    runs: dict[tuple[str, ...], Measured] = {}
    wrong = 0
    with tempfile.TemporaryDirectory(prefix="check-documents-") as folder:
        for claim in CLAIMS:
            if claim.flags not in runs:
                output = str(Path(folder) / str(len(runs)))
                runs[claim.flags] = _run(claim.flags, annotations, images, output)
            wrong += not _check(claim, runs[claim.flags])
    print(f"{len(CLAIMS) - wrong} of {len(CLAIMS)} agree")
    return int(wrong > 0)


def _run(flags: tuple[str, ...], annotations: str, images: str, output: str) -> Measured:
    common = [f"--input={annotations}", f"--input.image_root={images}", f"--annotations={annotations}"]
    command = ["jobs/annotate.py", *common, *flags]
    print(f"$ {' '.join(command)}", flush=True)
    for job in ([*command, f"--output={output}"], ["jobs/evaluate.py", output, "--errors"]):
        subprocess.run([sys.executable, *job], cwd=PROJECT, check=True, stdout=subprocess.DEVNULL)
    metrics, errors = (json.loads((Path(output) / f"{name}.json").read_text()) for name in ("metrics", "errors"))
    return Measured(metrics, errors)


def _check(claim: Claim, measured: Measured) -> bool:
    found = re.findall(claim.pattern, (PROJECT / claim.document).read_text())
    values = claim.measure(measured)
    if len(found) != 1:
        print(f"{claim.document}: {claim.pattern} occurs {len(found)} times, expected once")
        return False
    texts = [found[0]] if isinstance(found[0], str) else list(found[0])
    agree = True
    for text, value in zip(texts, values, strict=True):
        digits = len(text.partition(".")[2])
        # Figures in percent, and counts, have a tolerance of one in their last digit or of 0.4 percent points.
        allowed = TOLERANCE if float(text) <= 1 else max(100 * TOLERANCE, 0.02 * float(text))
        same = abs(float(text) - value) <= allowed + 0.5 * 10**-digits
        agree &= same
        print(f"{'ok    ' if same else 'DIFFER'} {claim.document}: {text}, measured {value:.{max(digits, 3)}f}")
    return agree


if __name__ == "__main__":
    sys.exit(main())
