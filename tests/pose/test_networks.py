import json
import sys
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import SHARED, needs_reference
from torch import nn

from pipeline.compute import Compute
from pipeline.pose import build_pose_model
from pipeline.pose.networks import POSE_MODELS

GOLDEN = Path(__file__).parent / "golden.json"
REFERENCE = SHARED / "reference"


def fill(model: nn.Module) -> nn.Module:
    """Weights that depend on the parameters' names alone."""
    state = {}
    for name, tensor in model.state_dict().items():
        r = np.random.RandomState(zlib.crc32(name.encode()))
        if not tensor.is_floating_point():
            state[name] = tensor
        elif tensor.ndim > 1:
            state[name] = torch.from_numpy(r.standard_normal(tensor.shape) * (2 / tensor[0].numel()) ** 0.5)
        elif name.endswith("running_var"):
            state[name] = torch.from_numpy(r.uniform(0.8, 1.25, tensor.shape))
        elif name.endswith("weight"):
            state[name] = torch.from_numpy(r.uniform(0.6, 1.1, tensor.shape))
        else:
            state[name] = torch.from_numpy(r.normal(0, 0.1, tensor.shape))
    model.load_state_dict(state)
    return model.eval()


def probe() -> torch.Tensor:
    return torch.from_numpy(np.random.RandomState(1).random_sample((1, 3, 128, 96)) - 0.45).float()


def digest(name: str) -> list[float]:
    """Forty values of a network's output."""
    with torch.inference_mode():
        out = fill(build_pose_model(name))(probe())
    assert out.shape == (1, 17, 32, 24)
    return out.flatten()[:: out.numel() // 40][:40].tolist()


@pytest.mark.parametrize("name", POSE_MODELS)
def test_numbers_stay_what_they_were(name: str) -> None:
    golden = json.loads(GOLDEN.read_text())[name]
    np.testing.assert_allclose(digest(name), golden, atol=1e-4 * np.std(golden))


@pytest.mark.parametrize(
    ("name", "options", "parameters"),
    [
        ("fastpose_r50", {}, 40_577_745),
        ("fastpose_r50", {"num_joints": 136, "conv_dim": 256}, 42_052_296),
        ("fastpose_mobile_small", {}, 3_456_433),
        ("fastpose_mobile_large", {}, 6_386_113),
        ("fastpose_mobile_large", {"num_joints": 136, "conv_dim": 256}, 7_860_664),
    ],
)
def test_parameter_counts_are_the_published(name: str, options: dict, parameters: int) -> None:
    assert sum(p.numel() for p in build_pose_model(name, **options).parameters()) == parameters


@needs_reference
@pytest.mark.parametrize(
    ("name", "options", "entry"),
    [
        ("fastpose_r50", {}, "coco/256x192_res50_lr1e-3_1x.yaml"),
        ("fastpose_r50", {"num_joints": 26}, "halpe_26/256x192_res50_lr1e-3_1x.yaml"),
        ("fastpose_r50", {"conv_dim": 256}, "variant/fastpose_res50_convdim256"),
        ("fastpose_mobile_small", {}, "fastposemobile/fastposemobile_small_convdim128_17j"),
        ("fastpose_mobile_large", {}, "fastposemobile/fastposemobile_large_convdim128_17j"),
        (
            "fastpose_mobile_large",
            {"num_joints": 136, "conv_dim": 256},
            "fastposemobile/fastposemobile_large_convdim256_136j",
        ),
    ],
)
def test_published_checkpoints_fit_key_by_key(name: str, options: dict, entry: str) -> None:
    reference = json.loads((REFERENCE / "state_dicts.json").read_text())
    keys = reference["key_lists"][reference["models"][entry]["keys_id"]]
    state = {key: torch.zeros(shape, dtype=getattr(torch, dtype)) for key, shape, dtype in keys}
    build_pose_model(name, **options).load_state_dict(state, strict=True)


@needs_reference
@pytest.mark.parametrize(
    ("name", "vector"),
    [
        ("fastpose_r50", "forward_fastpose_res50.npz"),
        ("fastpose_mobile_small", "forward_fastposemobile_small_convdim128_17j.npz"),
    ],
)
def test_reference_forward(name: str, vector: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(REFERENCE))
    import recipe

    expected = np.load(REFERENCE / vector)
    model = recipe.fill_torch_module(build_pose_model(name), tuple(expected["gamma_range"])).eval()
    x = torch.from_numpy(recipe.net_input())
    with torch.inference_mode():
        plain = model(x).numpy()
        folded = Compute.resolve("cpu", "float32").prepare(model)(x).numpy()
    tolerance = 1e-4 * expected["output"].std()
    np.testing.assert_allclose(plain, expected["output"], atol=tolerance)
    np.testing.assert_allclose(folded, expected["output"], atol=tolerance)


def test_unknown_networks_get_the_nearest() -> None:
    with pytest.raises(ValueError, match=r"fastpose_50.: no such network; did you mean fastpose_r50\?"):
        build_pose_model("fastpose_50")


if __name__ == "__main__":  # PYTHONPATH=tests uv run python tests/pose/test_networks.py: write the golden values anew
    json.dump({name: digest(name) for name in POSE_MODELS}, GOLDEN.open("w"), indent=0)
    sys.exit()
