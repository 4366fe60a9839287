import json
import sys
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from support.functional_networks import forward
from support.paths import SHARED, needs_reference
from torch import nn

from pipeline.pose import build_pose_model
from pipeline.pose.networks import POSE_NETWORKS
from pipeline.pose.networks.hourglass import Hourglass
from pipeline.pose.networks.resnet import ResNet
from pipeline.runtime.device import Compute

GOLDEN = Path(__file__).parent / "golden.json"
REFERENCE = SHARED / "reference"

# All architectures and variants with published checkpoints.
WITH_WEIGHTS = [
    ("fastpose_r50", {}),
    ("fastpose_r50", {"num_joints": 136, "conv_dim": 256}),
    ("fastpose_r101", {}),
    ("fastpose_r152", {"num_joints": 26, "conv_dim": 256}),
    ("fastpose_r50_dcn", {}),
    ("fastpose_r50_dcn", {"modulated": True}),
    ("fastpose_duc_r50", {}),
    ("fastpose_duc_r152", {}),
    ("fastpose_duc_dense", {"num_joints": 49}),
    ("fastpose_mobile_small", {}),
    ("fastpose_mobile_small", {"num_joints": 136, "conv_dim": 256}),
    ("fastpose_mobile_large", {}),
    ("fastpose_lite0", {}),
    ("simplepose_r50", {}),
    ("simplepose_r101", {}),
    ("simplepose_r152", {}),
    ("hrnet_w32", {}),
    ("fastpose_classic", {"num_joints": 33}),
]
WITHOUT_WEIGHTS = ("hourglass", "fpn_offset_r50", "movenet_pyramid")


def fill(model: nn.Module) -> nn.Module:
    """Fill a network with weights that depend only on the names of its parameters."""
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


def probe(height: int = 128, width: int = 96) -> torch.Tensor:
    return torch.from_numpy(np.random.RandomState(1).random_sample((1, 3, height, width)) - 0.45).float()


@pytest.mark.parametrize(("name", "options"), WITH_WEIGHTS, ids=str)
def test_networks_equal_an_independent_implementation(name: str, options: dict) -> None:
    """tests/support/functional_networks.py shares no code with the package."""
    model = fill(build_pose_model(name, **options))
    x = probe(64, 96)
    with torch.inference_mode():
        expected = forward(dict(model.state_dict()), x)
        plain = model(x)
        prepared = Compute.resolve("cpu", "float32").prepare(model)(x)
    assert plain.shape == (1, options.get("num_joints", 17), 16, 24)
    tolerance = 1e-4 * float(expected.std())
    torch.testing.assert_close(plain, expected, atol=tolerance, rtol=0)
    torch.testing.assert_close(prepared, expected, atol=tolerance, rtol=0)


def digest(name: str) -> list[float]:
    """Forty values of a network's output."""
    with torch.inference_mode():
        out = fill(build_pose_model(name))(probe())
    assert out.shape == (1, 17 if name == "hourglass" else 51, 32, 24)
    return out.flatten()[:: out.numel() // 40][:40].tolist()


@pytest.mark.parametrize("name", WITHOUT_WEIGHTS)
def test_outputs_equal_the_golden_values(name: str) -> None:
    golden = json.loads(GOLDEN.read_text())[name]
    np.testing.assert_allclose(digest(name), golden, atol=1e-4 * np.std(golden))


def test_every_network_is_tested() -> None:
    assert {name for name, _ in WITH_WEIGHTS} | set(WITHOUT_WEIGHTS) == set(POSE_NETWORKS)


@pytest.mark.parametrize(
    ("name", "options", "parameters"),
    [
        ("fastpose_r50", {}, 40_577_745),
        ("fastpose_r50", {"num_joints": 136, "conv_dim": 256}, 42_052_296),
        ("fastpose_mobile_small", {}, 3_456_433),
        ("fastpose_mobile_large", {}, 6_386_113),
        ("fastpose_mobile_large", {"num_joints": 136, "conv_dim": 256}, 7_860_664),
        ("simplepose_r50", {}, 33_999_697),
        ("simplepose_r152", {}, 68_635_473),
        ("hrnet_w32", {}, 28_536_113),
    ],
)
def test_parameter_counts_are_as_published(name: str, options: dict, parameters: int) -> None:
    assert sum(p.numel() for p in build_pose_model(name, **options).parameters()) == parameters


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


@needs_reference
def test_the_backbone_without_a_head_has_the_published_keys() -> None:
    reference = json.loads((REFERENCE / "state_dicts.json").read_text())
    entry = reference["models"]["old_pytorch_branch/backbone_only_SEResnet50"]
    shapes = {key: torch.Size(shape) for key, shape, _ in reference["key_lists"][entry["keys_id"]]}
    backbone = ResNet(50, attention=True)
    assert {key: tensor.shape for key, tensor in backbone.state_dict().items()} == shapes


@pytest.mark.parametrize("name", POSE_NETWORKS)
def test_every_network_runs_in_bf16(name: str) -> None:
    torch.manual_seed(0)
    model = build_pose_model(name).eval()
    with torch.inference_mode():
        exact = model(probe(64, 64))
        network = Compute.resolve("cpu", "bf16").prepare(model)
        rounded = network(probe(64, 64).to(torch.bfloat16).to(memory_format=torch.channels_last)).float()
    assert float((rounded - exact).abs().mean()) < 0.05 * float(exact.std())


@pytest.mark.parametrize(("name", "outputs"), [("fastpose_classic", 33), ("fastpose_duc_dense", 49)])
def test_networks_with_a_fixed_number_of_outputs_return_the_first(name: str, outputs: int) -> None:
    everything, first = fill(build_pose_model(name, outputs)), fill(build_pose_model(name))
    with torch.inference_mode():
        torch.testing.assert_close(first(probe(64, 64)), everything(probe(64, 64))[:, :17])
    with pytest.raises(ValueError, match=f"{name} has {outputs} outputs; {outputs + 1} joints do not fit"):
        build_pose_model(name, outputs + 1)


def train(model: nn.Module, loss_of: object, steps: int = 30) -> tuple[float, float]:
    """First and last loss on one toy batch."""
    torch.manual_seed(0)
    x = torch.rand(2, 3, 64, 64) - 0.45
    optimizer = torch.optim.Adam(model.parameters(), 3e-3)
    losses = []
    for _ in range(steps):
        loss = loss_of(x)  # type: ignore[operator]
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return losses[0], losses[-1]


@pytest.mark.parametrize(("stacks", "depth", "width"), [(1, 2, 32), (2, 3, 32)])
def test_all_stacks_of_an_hourglass_are_trained(stacks: int, depth: int, width: int) -> None:
    torch.manual_seed(0)
    model = build_pose_model("hourglass", 5, stacks=stacks, depth=depth, width=width)
    assert isinstance(model, Hourglass)
    target = torch.rand(2, 5, 16, 16)
    outputs = model.intermediate(torch.zeros(2, 3, 64, 64))
    assert [o.shape for o in outputs] == [target.shape] * stacks
    first, last = train(model, lambda x: sum(((o - target) ** 2).mean() for o in model.intermediate(x)))
    assert last < first / 2
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in model.heatmaps.parameters())


def test_hourglass_accepts_sizes_that_its_depth_does_not_divide() -> None:
    model = build_pose_model("hourglass", 3, stacks=1, width=32).eval()
    with torch.inference_mode():
        assert model(torch.zeros(1, 3, 96, 160)).shape == (1, 3, 24, 40)


def test_fpn_offset_trains() -> None:
    torch.manual_seed(0)
    model = build_pose_model("fpn_offset_r50", 5, width=32)
    target = torch.rand(2, 15, 16, 16)
    first, last = train(model, lambda x: ((model(x) - target) ** 2).mean(), steps=12)
    assert last < first / 2


def test_an_unknown_network_gets_a_suggestion() -> None:
    with pytest.raises(ValueError, match=r"^--pose\.name fastpose_50: no such network; did you mean fastpose_r50\?"):
        build_pose_model("fastpose_50")


if __name__ == "__main__":  # PYTHONPATH=tests uv run python tests/pose/test_networks.py: rewrite the golden values
    json.dump({name: digest(name) for name in WITHOUT_WEIGHTS}, GOLDEN.open("w"), indent=0)
    sys.exit()
