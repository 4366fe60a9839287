"""Load the networks of a run once, before a cluster is used, to find files that do not fit their settings.

A process of its own does it: the driver keeps neither torch nor the networks in memory, and survives a file that
crashes its reader.

python -m pipeline.preflight < settings.json
"""

from __future__ import annotations

import signal
import subprocess
import sys

from pipeline.errors import UserError
from pipeline.settings.tree import FILE_DETECTORS, Settings
from pipeline.weights.catalogue import is_shipped

_GPU_WORDS = ("CUDA", "NVIDIA")
_REFUSED = 2  # exit code of the process; the reason is on stdout


def check_networks(settings: Settings) -> None:
    """Load the networks of the settings on the CPU of this machine. Networks of the project's own weights are known.

    Raises:
        UserError: a file cannot be loaded, or does not fit its settings; or they need a GPU, and the job runs on this
            machine, which has none.
    """
    networks = [n for n in settings.pose_networks() if n.weights and not _is_known(n.weights, settings)]
    detector = settings.detector
    files = [] if detector.name not in FILE_DETECTORS or _is_known(detector.weights, settings) else [detector.weights]
    is_usual = settings.compute.runtime in ("auto", "torch") and settings.compute.device != "cuda"
    if is_usual and not (networks or files or settings.output.appearance):
        return
    command = [sys.executable, "-m", __name__]
    done = subprocess.run(command, input=settings.model_dump_json(), capture_output=True, text=True)
    reason = done.stdout.strip()
    if done.returncode == _REFUSED:
        if settings.compute.device != "cpu" and any(word in reason for word in _GPU_WORDS):
            return  # a file that needs a GPU, which only the workers may have
        raise UserError(reason)
    if done.returncode < 0:
        raise UserError(
            f"loading the networks ends the process with {signal.Signals(-done.returncode).name}; --pose.weights "
            f"{settings.pose.weights} or --detector.weights {detector.weights} is damaged, or too large for the machine"
        )
    if done.returncode > 0:
        last = (done.stderr.strip().splitlines() or ["no message"])[-1]
        raise UserError(
            f"--pose.weights {settings.pose.weights} or --detector.weights {detector.weights} cannot be loaded: {last}"
        )


def _is_known(weights: str | None, settings: Settings) -> bool:
    """Whether the weights are the project's own, and nothing else says how to use them."""
    pose = settings.pose
    return (
        weights is not None
        and is_shipped(weights)
        and (pose.skeleton, pose.decode, pose.name, settings.detector.cfg) == (None, None, None, None)
    )


def main() -> int:
    settings = Settings.model_validate_json(sys.stdin.read())
    # Imported here: they take seconds, and most runs do not need this check.
    from pipeline.annotator import build_poses
    from pipeline.appearance import build_appearance
    from pipeline.detectors import build_detector
    from pipeline.fleet.cluster import may_grow
    from pipeline.runtime.device import Compute

    runtime = settings.compute.runtime
    # TensorRT needs a GPU, which only the workers may have.
    compute = Compute.resolve("cpu", "float32", "auto" if runtime == "tensorrt" else runtime)
    try:
        if not may_grow(settings.fleet.address):
            Compute.resolve(settings.compute.device, "float32", runtime)
        detector = build_detector(settings.detector, compute) if settings.detector.name in FILE_DETECTORS else None
        poses = build_poses(settings.pose, detector, compute)
        build_appearance(settings.output.appearance, poses.skeleton, compute)
    except (UserError, OSError) as error:
        print(error)
        return _REFUSED
    return 0


if __name__ == "__main__":
    sys.exit(main())
