"""Two processes on Ray Train, compared with one on the same batches; `test_distributed.py` checks exact values."""

import json
import os
import signal
import threading
import time
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import psutil
import pytest
import torch
from support.training import run

from pipeline.errors import UserError
from pipeline.settings.tree import ComputeSettings
from pipeline.training import ray_train
from pipeline.training.settings import TrainSettings
from pipeline.weights.checkpoints import read_state_dict

SMALL = {
    "validation": "none", "pose.input_size": "64x64", "optimisation.batch": 4, "optimisation.learning_rate": "0.0005",
    "optimisation.clip": "1000000", "optimisation.optimizer": "adam",
}  # fmt: skip


def losses(folder: Path) -> list[float]:
    return [json.loads(line)["loss"] for line in (folder / "history.jsonl").read_text().splitlines()]


@pytest.mark.parametrize(
    ("device", "gpus", "address", "expected"),
    [
        ("auto", 0, None, False),
        ("cpu", 4, None, False),
        ("auto", 2, None, True),
        ("cuda", 0, "10.0.0.1:6379", True),  # an autoscaling cluster adds GPU nodes on demand
        ("auto", 1, "10.0.0.1:6379", True),
    ],
)
def test_workers_use_gpus_if_the_settings_and_the_cluster_allow(
    device: str, gpus: int, address: str | None, expected: bool, monkeypatch
) -> None:
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.setattr(ray_train.ray, "cluster_resources", lambda: {"CPU": 8.0, "GPU": float(gpus)})
    settings = TrainSettings(workers=2, address=address, compute=ComputeSettings(device=device))
    assert ray_train._use_gpu(settings) == expected


def test_more_workers_than_the_machine_can_run_are_refused(monkeypatch) -> None:
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.setattr(ray_train.ray, "cluster_resources", lambda: {"CPU": 1.0, "GPU": 1.0})
    with pytest.raises(UserError, match="--workers 2 needs one GPU per worker, but this machine has 1"):
        ray_train._use_gpu(TrainSettings(workers=2))
    with pytest.raises(UserError, match="--workers 2 needs one CPU per worker, but this machine has 1"):
        ray_train._use_gpu(TrainSettings(workers=2, compute=ComputeSettings(device="cpu")))


@pytest.mark.slow
def test_two_workers_train_the_weights_of_one(collection, tmp_path: Path) -> None:
    run(tmp_path, **SMALL)
    output = run(tmp_path, output=tmp_path / "two", workers=2, **SMALL)
    assert "2 workers" in output
    assert "epoch 3: loss" in output
    # Sums in another order round differently, and each step of Adam enlarges the difference.
    assert losses(tmp_path / "two") == pytest.approx(losses(tmp_path / "run"), rel=5e-3)
    one, two = (read_state_dict(tmp_path / name / "last.safetensors") for name in ("run", "two"))
    # Where a gradient is only rounding error, Adam makes full steps of it, so a few weights may differ.
    difference = torch.cat([(one[key].float() - two[key].float()).flatten().abs() for key in one])
    magnitude = torch.cat([tensor.float().flatten().abs() for tensor in one.values()])
    assert difference.mean() < 1e-3 * magnitude.mean()


@pytest.mark.slow
def test_training_resumes_after_a_worker_is_killed(collection, tmp_path: Path) -> None:
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


class CountingHandler(SimpleHTTPRequestHandler):
    """Serves files and records the requested paths."""

    requested: list[str]

    def do_GET(self) -> None:
        self.requested.append(self.path)
        super().do_GET()

    def log_message(self, *args: object) -> None:
        pass


@pytest.mark.slow
def test_a_user_error_in_a_worker_is_reported_without_retries(collection, tmp_path: Path) -> None:
    collection["categories"][0]["keypoints"].pop()
    (tmp_path / "train.json").write_text(json.dumps(collection))
    CountingHandler.requested = []
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(CountingHandler, directory=tmp_path)) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        address = f"http://127.0.0.1:{server.server_address[1]}/train.json"
        sets = f"[{{annotations: '{address}', images: {tmp_path / 'images'}}}]"
        alone = run(tmp_path, code=2, sets=sets, **SMALL)
        once = len(CountingHandler.requested)
        together = run(tmp_path, code=2, sets=sets, output=tmp_path / "two", workers=2, **SMALL)
        server.shutdown()
    assert once > 0
    assert len(CountingHandler.requested) == once + 2 * once  # each of the two workers reads it once
    assert together.splitlines()[-1] == alone.splitlines()[-1]
    assert "train.json" in alone


@pytest.mark.slow
def test_a_loss_that_is_not_finite_stops_all_workers(collection, tmp_path: Path) -> None:
    settings = {**SMALL, "optimisation.learning_rate": "1e30", "optimisation.warm_up": 0}
    for workers in (1, 2):
        output = run(tmp_path, code=1, output=tmp_path / str(workers), workers=workers, **settings)
        assert output.splitlines()[-1].startswith(
            "train: step "
        )  # Ray Train's report starts with the type of the error
        assert "the last checkpoint is intact" in output
