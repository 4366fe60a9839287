import copy

import pytest
import torch
from torch import nn

from pipeline.training.depthwise import with_fast_gradients


@pytest.mark.parametrize(
    ("channels", "kernel", "stride", "dilation"), [(16, 3, 2, 1), (24, 5, 2, 1), (72, 3, 1, 1), (32, 5, 1, 2)]
)
def test_gradients_equal_those_of_the_plain_convolution(channels: int, kernel: int, stride: int, dilation: int) -> None:
    torch.manual_seed(0)
    conv = nn.Conv2d(channels, channels, kernel, stride, kernel // 2, dilation, groups=channels)
    plain = nn.Sequential(conv, nn.Conv2d(channels, 4, 1)).double()
    fast = with_fast_gradients(copy.deepcopy(plain))
    assert type(fast[0]) is not nn.Conv2d
    assert type(fast[1]) is nn.Conv2d
    assert list(fast.state_dict()) == list(plain.state_dict())
    inputs = [torch.randn(3, channels, 17, 14, generator=torch.Generator().manual_seed(1)).double() for _ in range(2)]
    gradients = []
    for network, x in zip((plain, fast), inputs, strict=True):
        x.requires_grad_()
        network(x).square().sum().backward()
        gradients.append([x.grad, *(p.grad for p in network.parameters())])
    for expected, actual in zip(*gradients, strict=True):
        torch.testing.assert_close(actual, expected)


def test_bf16_works_and_other_convolutions_are_unchanged() -> None:
    network = nn.Sequential(
        nn.Conv2d(3, 8, 3), nn.Conv2d(8, 8, 3, groups=8), nn.Conv2d(8, 8, 3, groups=2), nn.Conv2d(8, 8, 3, groups=8,
        padding=1, padding_mode="reflect"), nn.Conv2d(8, 6, 1), nn.Conv2d(6, 6, 3, groups=6),
    )  # fmt: skip
    kinds = [type(layer) is nn.Conv2d for layer in with_fast_gradients(network)]
    assert kinds == [True, False, True, True, True, True]
    with torch.autocast("cpu", torch.bfloat16):
        output = network(torch.randn(2, 3, 16, 16))
    assert output.dtype == torch.bfloat16
    output.float().square().sum().backward()
    assert network[1].weight.grad.dtype == torch.float32
    assert network[1].weight.grad.abs().sum() > 0
