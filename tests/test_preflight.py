"""Networks are loaded once before a cluster is used; the errors are one line."""

import shutil
from functools import partial
from pathlib import Path

import pytest
import torch
from support.exports import write_onnx_sum
from support.paths import PROJECT

from pipeline import preflight
from pipeline.errors import UserError
from pipeline.preflight import check_networks
from pipeline.settings.tree import Settings

SHIPPED = PROJECT / "weights" / "fastpose_lite0_coco17.safetensors"


def settings(**changes: object) -> Settings:
    return Settings.model_validate({"input": "photos", **changes})


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a GPU")
@pytest.mark.parametrize("compute", [{"device": "cuda"}, {"runtime": "tensorrt"}])
def test_a_job_on_a_machine_without_the_gpu_that_it_needs_is_refused(compute: dict, monkeypatch) -> None:
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    with pytest.raises(UserError, match=r"^--compute\.(device cuda|runtime tensorrt).*no"):
        check_networks(settings(compute=compute))
    check_networks(settings(compute=compute, fleet={"address": "10.0.0.1:6379"}))  # whose nodes may have GPUs


slow = partial(pytest.param, marks=pytest.mark.slow)  # each case starts a process that imports torch


@pytest.mark.parametrize(
    ("pose", "message"),
    [
        ({"weights": str(SHIPPED), "skeleton": "halpe26"}, "--pose.skeleton halpe26 has 26 joints, but the network is"),
        slow({"weights": "{two}"}, r"two\.onnx: expected one input \(B, 3, H, W\), not x0"),
        slow({"weights": "{other}"}, r"other\.pth"),
        slow({"weights": str(SHIPPED), "name": "fastpose_r50"}, "fastpose_r50"),
    ],
)
def test_networks_that_do_not_fit_are_refused_in_one_line(pose: dict, message: str, tmp_path: Path) -> None:
    write_onnx_sum(tmp_path / "two.onnx", [[1, 3, 64, 48], [1, 3, 64, 48]])
    torch.save({"weight": torch.zeros(3)}, tmp_path / "other.pth")
    files = {"{two}": str(tmp_path / "two.onnx"), "{other}": str(tmp_path / "other.pth")}
    pose = {**pose, "weights": files.get(pose["weights"], pose["weights"])}
    with pytest.raises(UserError, match=message) as refused:
        check_networks(settings(detector={"name": "whole_image"}, pose=pose))
    assert len(str(refused.value).splitlines()) == 1


def test_a_detector_that_does_not_fit_is_refused(tmp_path: Path) -> None:
    (tmp_path / "x.weights").write_bytes(bytes(1000))
    with pytest.raises(UserError, match=r"YOLOv3-SPP with .*x\.weights: .*set --detector\.cfg to its description"):
        check_networks(settings(detector={"name": "darknet", "weights": str(tmp_path / "x.weights")}))


def test_good_weights_pass_and_shipped_ones_need_no_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    copy = shutil.copy(SHIPPED, tmp_path / "mine.safetensors")
    check_networks(settings(detector={"name": "whole_image"}, pose={"weights": str(copy)}))

    def run(*_: object, **__: object) -> None:
        raise AssertionError("a process was started")

    monkeypatch.setattr(preflight.subprocess, "run", run)
    check_networks(settings())
    check_networks(settings(detector={"name": "given", "boxes": "x.json"}, pose={"weights": None, "name": "hrnet_w32"}))


def test_a_file_that_ends_its_reader_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    copy = shutil.copy(SHIPPED, tmp_path / "mine.safetensors")
    killed = preflight.subprocess.CompletedProcess([], -9, "", "")
    monkeypatch.setattr(preflight.subprocess, "run", lambda *_, **__: killed)
    with pytest.raises(UserError, match=r"ends the process with SIGKILL; --pose\.weights"):
        check_networks(settings(pose={"weights": str(copy)}))


def test_another_failure_of_the_process_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    copy = shutil.copy(SHIPPED, tmp_path / "mine.safetensors")
    failed = preflight.subprocess.CompletedProcess([], 1, "", "Traceback\n  File x\nKeyError: 'a'\n")
    monkeypatch.setattr(preflight.subprocess, "run", lambda *_, **__: failed)
    with pytest.raises(UserError, match=r"cannot be loaded: KeyError: 'a'$"):
        check_networks(settings(pose={"weights": str(copy)}))


@pytest.mark.parametrize(("device", "refused"), [("auto", False), ("cuda", False), ("cpu", True)])
def test_a_file_that_needs_a_gpu_is_left_to_the_workers(
    device: str, refused: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    copy = shutil.copy(SHIPPED, tmp_path / "mine.safetensors")
    answer = preflight.subprocess.CompletedProcess([], 2, "w.torchscript: Found no NVIDIA driver on your system", "")
    monkeypatch.setattr(preflight.subprocess, "run", lambda *_, **__: answer)
    own = settings(pose={"weights": str(copy)}, compute={"device": device})
    if refused:
        with pytest.raises(UserError, match="Found no NVIDIA driver"):
            check_networks(own)
    else:
        check_networks(own)


def test_a_runtime_that_is_not_installed_is_found_for_shipped_weights(tmp_path: Path, monkeypatch) -> None:
    (tmp_path / "openvino.py").write_text("raise ImportError")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.setenv("POSEMILL_CACHE", str(tmp_path / "cache"))
    with pytest.raises(UserError, match=r"^--compute\.runtime openvino needs the package openvino"):
        check_networks(settings(compute={"runtime": "openvino"}))
