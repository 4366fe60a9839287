import pickle

import pytest
import torch
from safetensors.torch import save_file
from support.paths import PROJECT

from pipeline.pose import build_pose_model
from pipeline.weights.checkpoints import load_weights, read_state_dict

SHIPPED = PROJECT / "weights" / "fastpose_lite0_coco17.safetensors"


def test_shipped_weights_fit_their_network() -> None:
    network = build_pose_model("fastpose_lite0")
    load_weights(network, str(SHIPPED), "pose.name fastpose_lite0")
    assert network.conv_out.weight.dtype == torch.float32


def test_pytorch_files_load_like_safetensors(tmp_path) -> None:
    network = build_pose_model("fastpose_mobile_small")
    torch.save(network.state_dict(), tmp_path / "w.pth")
    save_file(network.state_dict(), tmp_path / "w.safetensors")
    for name in ("w.pth", "w.safetensors"):
        other = build_pose_model("fastpose_mobile_small")
        load_weights(other, str(tmp_path / name), "x")
        assert torch.equal(other.conv_out.weight, network.conv_out.weight)


def test_what_does_not_fit_is_named() -> None:
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
def test_files_that_are_not_plain_tensors_are_refused(content: object, tmp_path, capsys) -> None:
    torch.save(content, tmp_path / "w.pth")
    with pytest.raises(ValueError, match=r"w\.pth"):
        read_state_dict(tmp_path / "w.pth")
    (tmp_path / "p.pth").write_bytes(pickle.dumps(content))
    with pytest.raises(ValueError, match=r"p\.pth"):
        read_state_dict(tmp_path / "p.pth")
    assert "code ran" not in capsys.readouterr().out


@pytest.mark.parametrize("name", ["w.safetensors", "w.pth"])
@pytest.mark.parametrize("content", [b"", b"junk that is no file of weights"])
def test_broken_files_are_said_to_be_broken(name: str, content: bytes, tmp_path) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ValueError, match=rf"{name}: (cannot be read as tensors|refused)") as error:
        read_state_dict(tmp_path / name)
    assert "weights_only" not in str(error.value)
