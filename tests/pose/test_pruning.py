"""Pruning removes channels and changes nothing else."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from pipeline.pose import build_pose_model
from pipeline.pose.networks.pruning import InnerChannels, inner_channels, prune
from pipeline.pose.networks.recognition import load_pose_network, recognise

PRUNABLE = (
    "fastpose_r50",
    "fastpose_r50_dcn",
    "fastpose_duc_r50",
    "fastpose_mobile_small",
    "fastpose_lite0",
    "simplepose_r50",
    "hrnet_w32",
    "fpn_offset_r50",
)


def trained(name: str) -> nn.Module:
    """A network with statistics as after training."""
    torch.manual_seed(0)
    network = build_pose_model(name)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.uniform_(module.bias, -0.5, 0.5)
            nn.init.uniform_(module.running_mean, -0.1, 0.1)
            nn.init.uniform_(module.running_var, 0.5, 1.5)
    return network.eval()


def silence(network: nn.Module, share: float) -> None:
    """Let the readers of a random share of the inner channels ignore them."""
    random = np.random.default_rng(0)
    with torch.no_grad():
        for inner in inner_channels(network).values():
            ignored = random.permutation(inner.width)[: int(inner.width * share)]
            for reader in inner.readers:
                reader.weight[:, ignored] = 0


@pytest.mark.parametrize("name", PRUNABLE)
def test_channels_that_nothing_reads_can_go(name: str) -> None:
    network = trained(name)
    silence(network, 0.5)
    x = torch.rand(2, 3, 64, 96) - 0.45
    with torch.inference_mode():
        before = network(x)
        assert prune(network, 0.4)
        after = network(x)
    torch.testing.assert_close(after, before, atol=1e-4 * float(before.std()), rtol=1e-4)


@pytest.mark.parametrize("name", PRUNABLE)
def test_pruned_weights_are_recognised_and_run(name: str) -> None:
    network = trained(name)
    assert prune(network, 0.3)
    loaded, architecture = load_pose_network(network.state_dict(), "pruned.safetensors")
    assert architecture.name == name
    assert "pruned to" in str(architecture)
    x = torch.rand(1, 3, 64, 96)
    with torch.inference_mode():
        torch.testing.assert_close(loaded.eval()(x), network(x), atol=0, rtol=0)


def test_the_number_of_channels_is_a_multiple_of_8_and_never_0() -> None:
    network = build_pose_model("fastpose_r50")
    before = {name: inner.width for name, inner in inner_channels(network).items()}
    widths = prune(network, 0.3)
    assert widths["preact.layer1.0.conv1"] == 48  # 44.8 of 64
    assert widths["duc1.conv"] == 176  # 179.2 of 256
    assert all(width % 8 == 0 and width < before[name] for name, width in widths.items())
    assert set(prune(network, 0.999).values()) == {8}
    assert prune(network, 0.9) == {}


def test_the_least_important_channels_go() -> None:
    """Importance against what a channel adds to the output, by a million random values."""
    torch.manual_seed(0)
    writer, norm, reader = nn.Conv2d(1, 32, 1), nn.BatchNorm2d(32), nn.Conv2d(32, 5, 1)
    nn.init.uniform_(norm.weight, -2, 2)
    nn.init.uniform_(norm.bias, -2, 2)
    inner = InnerChannels((writer,), norm, (reader,), (norm,))
    values = (torch.randn(1_000_000, 1) * norm.weight + norm.bias).relu()
    added = torch.stack([(values[:, i : i + 1] * reader.weight[:, i, 0, 0]).square().sum(1).mean() for i in range(32)])
    torch.testing.assert_close(inner.importance(), added.sqrt().double(), rtol=0.02, atol=1e-4)


def test_a_third_of_the_channels_is_two_fifths_of_the_arithmetic() -> None:
    network = build_pose_model("fastpose_lite0")

    def arithmetic() -> int:
        with FlopCounterMode(display=False) as counter, torch.inference_mode():
            network(torch.zeros(1, 3, 256, 192))
        return counter.get_total_flops()

    before = arithmetic()
    prune(network, 0.3)
    assert 0.5 < arithmetic() / before < 0.65


def test_a_network_without_inner_channels_is_left_alone() -> None:
    network = build_pose_model("hourglass")
    assert prune(network, 0.5) == {}


def test_other_shapes_are_not_taken_for_pruning() -> None:
    state = build_pose_model("fastpose_lite0").state_dict()
    state["preact.stem.0.weight"] = torch.zeros(24, 3, 3, 3)
    assert recognise(state) is None
