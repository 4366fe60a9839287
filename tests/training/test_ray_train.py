"""Two processes under Ray Train against one with the same batches; `test_distributed.py` has the exact arithmetic."""

import json
import os
import signal
import threading
import time
from pathlib import Path

import psutil
import pytest
from test_train_run import arguments, collection, run  # noqa: F401

from pipeline.checkpoints import read_state_dict

SMALL = {
    "validation": "none", "pose.input_size": "64x64", "optimisation.batch": 4, "optimisation.learning_rate": "0.0005",
    "optimisation.clip": "1000000", "optimisation.optimizer": "adam",
}  # fmt: skip


def losses(folder: Path) -> list[float]:
    return [json.loads(line)["loss"] for line in (folder / "history.jsonl").read_text().splitlines()]


@pytest.mark.slow
def test_two_workers_learn_what_one_does(collection, tmp_path: Path) -> None:  # noqa: F811
    run(tmp_path, **SMALL)
    output = run(tmp_path, output=tmp_path / "two", workers=2, **SMALL)
    assert "2 workers" in output
    assert "epoch 3: loss" in output
    assert losses(tmp_path / "two") == pytest.approx(losses(tmp_path / "run"), rel=1e-3)


@pytest.mark.slow
def test_a_worker_that_dies_costs_nothing_but_time(collection, tmp_path: Path) -> None:  # noqa: F811
    folder = tmp_path / "killed"
    killed: list[int] = []

    def kill() -> None:
        deadline = time.monotonic() + 300
        while not (folder / "checkpoint.pt").exists() and time.monotonic() < deadline:
            time.sleep(0.01)
        for child in psutil.Process().children(recursive=True):
            if "RayTrainWorker" in " ".join(child.cmdline()) and not killed:
                os.kill(child.pid, signal.SIGKILL)
                killed.append(child.pid)

    killer = threading.Thread(target=kill)
    killer.start()
    run(tmp_path, output=folder, workers=2, **{**SMALL, "optimisation.epochs": 12})
    killer.join()
    assert killed
    assert len(losses(folder)) == 12
    assert read_state_dict(folder / "last.safetensors")
