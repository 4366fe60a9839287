import pickle

import pytest
import torch
from safetensors.torch import save_file
from support.paths import PROJECT

from pipeline.errors import UserError
from pipeline.pose import build_pose_model
from pipeline.pose.networks.recognition import load_pose_network
from pipeline.weights.catalogue import local_file
from pipeline.weights.checkpoints import load_weights, read_state_dict

SHIPPED = PROJECT / "weights" / "fastpose_lite0_coco17.safetensors"


def test_shipped_weights_fit_their_network() -> None:
    network = build_pose_model("fastpose_lite0")
    load_weights(network, str(SHIPPED), "--pose.name fastpose_lite0")
    assert network.conv_out.weight.dtype == torch.float32


def test_pytorch_files_load_like_safetensors(tmp_path) -> None:
    network = build_pose_model("fastpose_mobile_small")
    torch.save(network.state_dict(), tmp_path / "w.pth")
    save_file(network.state_dict(), tmp_path / "w.safetensors")
    for name in ("w.pth", "w.safetensors"):
        other = build_pose_model("fastpose_mobile_small")
        load_weights(other, str(tmp_path / name), "x")
        assert torch.equal(other.conv_out.weight, network.conv_out.weight)


def test_tensors_that_do_not_fit_are_named() -> None:
    network = build_pose_model("fastpose_lite0", num_joints=26)
    with pytest.raises(
        ValueError, match=r"does not fit pose: 2 of another shape \(conv_out\.weight is \[17, 128, 3, 3\]"
    ):
        load_weights(network, str(SHIPPED), "pose")
    with pytest.raises(ValueError, match=r"missing \(.*\.\.\.\); \d+ unknown \(preact\.st"):
        load_weights(build_pose_model("fastpose_r50"), str(SHIPPED), "pose")


class _Attack:
    def __reduce__(self):
        return (print, ("code ran",))


@pytest.mark.parametrize("content", [{"x": _Attack()}, [1, 2], {"x": "text"}])
def test_files_with_other_objects_are_refused_without_running_code(content: object, tmp_path, capsys) -> None:
    torch.save(content, tmp_path / "w.pth")
    with pytest.raises(ValueError, match=r"w\.pth"):
        read_state_dict(tmp_path / "w.pth")
    (tmp_path / "p.pth").write_bytes(pickle.dumps(content))
    with pytest.raises(ValueError, match=r"p\.pth"):
        read_state_dict(tmp_path / "p.pth")
    assert "code ran" not in capsys.readouterr().out


@pytest.mark.parametrize("name", ["w.safetensors", "w.pth"])
@pytest.mark.parametrize("content", [b"", b"not a weights file"])
def test_damaged_files_are_refused(name: str, content: bytes, tmp_path) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ValueError, match=rf"{name}: (cannot be read as tensors|refused)") as error:
        read_state_dict(tmp_path / name)
    assert "weights_only" not in str(error.value)


def test_a_torchscript_archive_as_weights_is_recognised(tmp_path) -> None:
    torch.jit.trace(torch.nn.Conv2d(3, 4, 1), torch.zeros(1, 3, 8, 8)).save(str(tmp_path / "w.pt"))
    with pytest.raises(UserError, match=r"w\.pt: a TorchScript archive, not a state dict; rename it to \.torchscript"):
        read_state_dict(tmp_path / "w.pt")


def renamed(state: dict, prefix: str) -> dict:
    return {prefix + key: value for key, value in state.items()}


@pytest.mark.parametrize(
    "wrap",
    [
        lambda state: {"state_dict": state, "epoch": 3, "optimizer": {"lr": 0.1, "steps": [1, 2]}},
        lambda state: {"model": state},
        lambda state: {"model_state_dict": renamed(state, "module.")},
        lambda state: renamed(state, "_orig_mod."),
        lambda state: renamed(state, "module._orig_mod."),
        lambda state: {"state_dict": renamed(state, "model."), "hyper_parameters": {"lr": 1}},
        lambda state: {"model": renamed(state, "module."), "ema": None},
        lambda state: {"ema": {"module": state}, "model": {k: v + 1 for k, v in state.items()}},
        lambda state: {key: value for key, value in state.items() if not key.endswith("num_batches_tracked")},
    ],
)
def test_checkpoints_of_training_programs_are_unwrapped(wrap, tmp_path) -> None:
    network = build_pose_model("fastpose_mobile_small")
    torch.save(wrap(network.state_dict()), tmp_path / "w.pth")
    other = build_pose_model("fastpose_mobile_small")
    load_weights(other, str(tmp_path / "w.pth"), "x")
    assert torch.equal(other.conv_out.weight, network.conv_out.weight)
    loaded, architecture = load_pose_network(read_state_dict(tmp_path / "w.pth"), "w.pth")
    assert architecture.name == "fastpose_mobile_small"
    assert torch.equal(loaded.conv_out.weight, network.conv_out.weight)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"<!DOCTYPE html>\n<html><body>Sign in", "this is an HTML page, not weights"),
        (b"\n <html lang=en>", "this is an HTML page, not weights"),
        (
            b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 12345\n",
            "this is a Git LFS pointer, not weights; run git",
        ),
        (b"", "the file is empty"),
    ],
)
@pytest.mark.parametrize("name", ["w.pth", "w.safetensors", "w.onnx", "w.weights"])
def test_what_downloads_contain_instead_of_weights_is_named(content: bytes, message: str, name: str, tmp_path) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(UserError, match=rf"{name}: {message}"):
        local_file(str(tmp_path / name))


def test_a_checkpoint_that_contains_itself_is_refused(tmp_path) -> None:
    state: dict = {"epoch": 1}
    state["model"] = state
    torch.save(state, tmp_path / "w.pth")
    with pytest.raises(UserError, match=r"w\.pth: expected a state dict of tensors"):
        read_state_dict(tmp_path / "w.pth")
