"""Pose networks from files: what the file states, and the same network in every format."""

from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from support.exports import export_onnx, export_torchscript
from torch import Tensor, nn

from pipeline.errors import UserError
from pipeline.pose import build_pose_model
from pipeline.pose.checkpoint import load_checkpoint
from pipeline.pose.estimator import PoseEstimator
from pipeline.runtime.device import Compute
from pipeline.settings.tree import NetworkSettings, PoseSettings

CPU = Compute.resolve("cpu", "float32")
SIZE = (64, 96)
OPTIONS = {"stacks": 1, "depth": 2, "width": 16}


def network(name: str = "hourglass", num_joints: int = 17) -> nn.Module:
    """A pose network with random weights, and with heatmaps that vary."""
    torch.manual_seed(0)
    options = OPTIONS if name == "hourglass" else {"width": 16}
    model = build_pose_model(name, num_joints, **options).eval()
    with torch.no_grad():
        for module in model.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.running_mean.uniform_(-0.1, 0.1)
                module.running_var.uniform_(0.8, 1.2)
    return model


def save(model: nn.Module, folder: Path, suffix: str, metadata: dict[str, str], size: tuple[int, int] = SIZE) -> str:
    path = folder / f"pose{suffix}"
    if suffix == ".safetensors":
        save_file(model.state_dict(), path, metadata)
    elif suffix == ".onnx":
        export_onnx(model, path, size, metadata)
    else:
        export_torchscript(model, path, size, metadata)
    return str(path)


def keypoints(estimator: PoseEstimator) -> tuple[np.ndarray, np.ndarray]:
    """Keypoints and scores of three people in a random image."""
    image = np.random.default_rng(0).integers(0, 256, (200, 300, 3), dtype=np.uint8)
    boxes = np.array([[20, 20, 120, 180], [100, 30, 280, 150], [5, 5, 60, 90]], np.float32)
    crops, covered = zip(*(rule.cut(image, boxes) for rule in estimator.rules), strict=True)
    return estimator.estimate(crops, covered)


@pytest.mark.parametrize("suffix", [".onnx", ".torchscript"])
@pytest.mark.parametrize(
    ("name", "decode", "flip_test"),
    [
        ("hourglass", "argmax", False),
        ("hourglass", "argmax", True),
        ("hourglass", "integral", False),
        ("fpn_offset_r50", "offset", True),
    ],
)
def test_exported_networks_give_the_keypoints_of_their_weights(
    name: str, decode: str, flip_test: bool, suffix: str, tmp_path: Path
) -> None:
    """Skeleton, input size, decoding and norm are those of the metadata."""
    metadata = {"decode": decode, "norm": "softmax", "skeleton": "coco17", "input_size": "64x96"}
    model = network(name)
    estimators = [
        PoseEstimator.from_settings(
            PoseSettings(weights=save(model, tmp_path, s, metadata), flip_test=flip_test, batch=3), CPU
        )
        for s in (".safetensors", suffix)
    ]
    head = f"{decode} (softmax)" if decode == "integral" else decode
    for estimator in estimators:
        assert str(estimator.head) == head
        assert estimator.skeleton.name == "coco17"
        assert [rule.input_size for rule in estimator.rules] == [SIZE]
    (expected, expected_scores), (actual, scores) = map(keypoints, estimators)
    np.testing.assert_allclose(scores, expected_scores, atol=1e-4)
    np.testing.assert_allclose(actual, expected, atol=0.02)
    assert np.ptp(expected, axis=1).min() > 0


@pytest.mark.parametrize("suffix", [".onnx", ".torchscript"])
def test_settings_replace_missing_metadata(suffix: str, tmp_path: Path) -> None:
    model = network(num_joints=21)
    values = {"skeleton": "hand21", "input_size": SIZE, "decode": "integral", "norm": "divide_sum", "batch": 3}
    estimators = [
        PoseEstimator.from_settings(PoseSettings(weights=save(model, tmp_path, s, {}), **values), CPU)
        for s in (".safetensors", suffix)
    ]
    for estimator in estimators:
        assert str(estimator.head) == "integral (divide_sum)"
        assert estimator.skeleton.name == "hand21"
        assert [rule.input_size for rule in estimator.rules] == [SIZE]
    (expected, _), (actual, _) = map(keypoints, estimators)
    np.testing.assert_allclose(actual, expected, atol=0.02)


def test_the_decoding_of_a_setting_decides_how_outputs_are_counted(tmp_path: Path) -> None:
    weights = save(network("fpn_offset_r50"), tmp_path, ".onnx", {})
    estimator = PoseEstimator.from_settings(PoseSettings(weights=weights, decode="offset"), CPU)
    assert estimator.skeleton.name == "coco17"
    with pytest.raises(UserError, match="exported network with 51 joints: no skeleton has 51 joints"):
        PoseEstimator.from_settings(PoseSettings(weights=weights), CPU)


def test_an_ensemble_of_an_exported_network_and_weights(tmp_path: Path) -> None:
    model, metadata = network(), {"input_size": "64x96"}
    weights, exported = (save(model, tmp_path, suffix, metadata) for suffix in (".safetensors", ".onnx"))
    alone = PoseEstimator.from_settings(PoseSettings(weights=weights, batch=3), CPU)
    both = PoseEstimator.from_settings(
        PoseSettings(weights=weights, ensemble=(NetworkSettings(weights=exported),), batch=3), CPU
    )
    assert [n.description for n in both.networks] == [
        "hourglass with 17 joints, stacks=1, depth=2, width=16",
        "exported network with 17 joints",
    ]
    np.testing.assert_allclose(keypoints(both)[0], keypoints(alone)[0], atol=0.02)


class Output(nn.Module):
    """Zeros of a fixed shape, for any input."""

    def __init__(self, *shape: int) -> None:
        super().__init__()
        self.shape = shape

    def forward(self, x: Tensor) -> Tensor:
        return x.new_zeros(self.shape) + 0 * x.mean()


@pytest.mark.parametrize(
    ("shape", "metadata", "message"),
    [
        ((1, 17, 2), {}, r"its output \[1, 17, 2\] for crops of 256x192 is not \(B, K, H, W\) heatmaps"),
        ((1, 17, 48, 64), {}, r"its output \[1, 17, 48, 64\] for crops of 256x192 is not .* of the same aspect ratio"),
        ((1, 16, 64, 48), {"skeleton": "coco17"}, "has 16 channels; 17 joints with decoding argmax need 17"),
        ((1, 17, 64, 48), {"skeleton": "coco17", "decode": "offset"}, "17 joints with decoding offset need 51"),
        ((1, 52, 64, 48), {"decode": "offset"}, "has 52 channels; 17 joints with decoding offset need 51"),
    ],
)
def test_outputs_that_are_not_heatmaps_of_the_joints_are_refused(
    shape: tuple[int, ...], metadata: dict[str, str], message: str, tmp_path: Path
) -> None:
    weights = save(Output(*shape), tmp_path, ".torchscript", metadata, (256, 192))
    with pytest.raises(UserError, match=rf"pose\.torchscript: .*{message}"):
        load_checkpoint(NetworkSettings(weights=weights), CPU)


def test_a_network_that_cannot_run_is_refused(tmp_path: Path) -> None:
    weights = tmp_path / "pose.torchscript"
    torch.jit.trace(nn.Conv2d(4, 17, 1), torch.zeros(1, 4, 64, 96)).save(str(weights))
    with pytest.raises(UserError, match=r"pose\.torchscript: cannot run on an input \[1, 3, 256, 192\]: .*4 channels"):
        load_checkpoint(NetworkSettings(weights=str(weights)), CPU)


def test_settings_that_contradict_an_exported_file_are_refused(tmp_path: Path) -> None:
    weights = save(network(), tmp_path, ".onnx", {})
    with pytest.raises(UserError, match=r"^--pose\.input_size is 256x192, but .*pose\.onnx was exported for 64x96"):
        load_checkpoint(NetworkSettings(weights=weights, input_size=(256, 192)), CPU)
    with pytest.raises(UserError, match=r"^--pose\.name hourglass cannot be used with the exported .*pose\.onnx"):
        load_checkpoint(NetworkSettings(weights=weights, name="hourglass"), CPU)
    with pytest.raises(UserError, match=r"--pose\.skeleton halpe26 has 26 joints, but the network is exported network"):
        PoseEstimator.from_settings(PoseSettings(weights=weights, skeleton="halpe26"), CPU)


def test_unknown_metadata_is_ignored(tmp_path: Path) -> None:
    metadata = {"decode": "voting", "norm": "l2", "skeleton": "horse", "input_size": "large"}
    checkpoint = load_checkpoint(NetworkSettings(weights=save(network(), tmp_path, ".safetensors", metadata)), CPU)
    assert (checkpoint.decodings, checkpoint.norm, checkpoint.skeleton) == (("argmax",), "sigmoid", None)
    assert checkpoint.input_size == (256, 192)


def test_an_ambiguous_decoding_must_be_set(tmp_path: Path) -> None:
    """Published checkpoints of this network are decoded in two ways."""
    model = build_pose_model("fastpose_r50", 133)
    weights = str(tmp_path / "pose.safetensors")
    save_file(model.state_dict(), weights)
    message = (
        r"^cannot tell how to decode fastpose_r50 with 133 joints \(published ones use combined or integral\); set --"
    )
    with pytest.raises(UserError, match=message):
        PoseEstimator.from_settings(PoseSettings(weights=weights), CPU)
    estimator = PoseEstimator.from_settings(PoseSettings(weights=weights, decode="combined"), CPU)
    assert str(estimator.head) == "combined (sigmoid)"


def test_networks_that_are_decoded_differently_need_a_setting(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    first = save(network(), tmp_path, ".safetensors", {"decode": "argmax"})
    second = save(network(), tmp_path / "a", ".safetensors", {"decode": "integral"})
    settings = PoseSettings(weights=first, ensemble=(NetworkSettings(weights=second),))
    with pytest.raises(UserError, match=r"decoded differently \(argmax, integral\); set --pose\.decode"):
        PoseEstimator.from_settings(settings, CPU)


def test_a_decoding_that_does_not_fit_the_output_is_refused(tmp_path: Path) -> None:
    for suffix in (".safetensors", ".onnx"):
        weights = save(network("fpn_offset_r50"), tmp_path, suffix, {"decode": "offset", "input_size": "64x96"})
        with pytest.raises(UserError, match=r"^--pose\.decode classic does not fit the output of .*use offset$"):
            PoseEstimator.from_settings(PoseSettings(weights=weights, crop="classic"), CPU)


def test_no_weights_and_no_name_are_refused() -> None:
    with pytest.raises(UserError, match=r"^--pose\.weights and --pose\.name are both none"):
        load_checkpoint(NetworkSettings(), CPU)
    assert str(load_checkpoint(NetworkSettings(name="fastpose_lite0"), CPU)) == "fastpose_lite0 with 17 joints"
