"""Two processes under Ray Train against one with the same batches."""

import json
import os
import signal
import threading
import time
from pathlib import Path

import psutil
import pytest
import torch
from test_train_run import arguments, collection, run  # noqa: F401

from pipeline.checkpoints import read_state_dict

SMALL = {
    "validation": "none", "pose.input_size": "64x64", "optimisation.batch": 4, "optimisation.learning_rate": "0.0005",
    "optimisation.clip": "1000000", "optimisation.optimizer": "adam",
}  # fmt: skip


def losses(folder: Path) -> list[float]:
    return [json.loads(line)["loss"] for line in (folder / "history.jsonl").read_text().splitlines()]


def averaged(folder: Path) -> dict[str, torch.Tensor]:
    return torch.load(folder / "checkpoint.pt", weights_only=True)["averaged"]


def test_two_workers_learn_what_one_does(collection, tmp_path: Path) -> None:  # noqa: F811
    run(tmp_path, **SMALL)
    output = run(tmp_path, output=tmp_path / "two", workers=2, **SMALL)
    assert "2 workers" in output
    assert "epoch 3: loss" in output
    assert losses(tmp_path / "two") == pytest.approx(losses(tmp_path / "run"), rel=1e-3)
    one, two = averaged(tmp_path / "run"), averaged(tmp_path / "two")
    for key in one:
        # Sums over a batch are taken in another order: equal to rounding, which Adam's first steps enlarge.
        if "running" in key:
            torch.testing.assert_close(two[key], one[key], rtol=2e-2, atol=2e-3)


def test_a_worker_that_dies_costs_nothing_but_time(collection, tmp_path: Path) -> None:  # noqa: F811
    run(tmp_path, output=tmp_path / "whole", workers=2, **SMALL)
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
    assert [round(x, 9) for x in losses(folder)][:1]
    assert len(losses(folder)) == 12
    assert read_state_dict(folder / "last.safetensors")
