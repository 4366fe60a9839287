"""A second implementation of the pose networks, as plain functions of a state dict, to test the modules against.

The architecture follows from the keys and shapes of the state dict. All steps are those of evaluation mode. Call
`forward`.
"""

from itertools import count

import torch
import torch.nn.functional as F
from torch import Tensor

State = dict[str, Tensor]

# In torchvision's MobileNetV3 features: the blocks of stride 2, the first block with hardswish, the closing conv.
MOBILE_LARGE = ({2, 4, 7, 13}, 7, 16)
MOBILE_SMALL = ({1, 2, 4, 9}, 4, 12)
MOBILE_EPS = 1e-3

# EfficientNet-Lite0: the stages whose first block halves the map, and those that the head uses.
LITE_STRIDED, LITE_USED = {1, 2, 3, 5}, (2, 4, 6)


def forward(state: State, x: Tensor) -> Tensor:
    """Heatmaps (B, outputs, H/4, W/4) of the network of `state`, or the features of a backbone without a head."""
    if "stage2.0.branches.0.0.conv1.weight" in state:
        return hrnet(state, x)
    if "preact.stem.0.weight" in state:
        return lite(state, x)
    if "preact.conv1.weight" not in state and "preact.features.0.0.weight" not in state:
        return resnet(state, "", x)
    x = mobilenet(state, x) if "preact.features.0.0.weight" in state else resnet(state, "preact.", x)
    if "deconv_layers.0.weight" in state:
        return simple_head(state, x)
    if "duc_dense.0.1.weight" in state:
        body = conv(state, "conv_out", long_ducs(state, ["duc.0", "duc.1", "duc.2"], x))
        dense = conv(state, "conv_out_dense", long_ducs(state, ["duc_dense.0", "duc_dense.1", "duc_dense.2"], x))
        return torch.cat([body, dense], dim=1)
    if "duc3.1.weight" in state:
        return conv(state, "conv_out", long_ducs(state, ["duc1", "duc2", "duc3"], x))
    x = F.pixel_shuffle(x, 2)
    for name in ("duc1", "duc2"):
        x = F.pixel_shuffle(conv_bn(state, f"{name}.conv", f"{name}.bn", x).relu(), 2)
    return conv(state, "conv_out", x)


def conv(state: State, name: str, x: Tensor, stride: int = 1) -> Tensor:
    """The convolution `name`: odd square kernel, "same" padding, groups and bias as in its tensors."""
    weight = state[f"{name}.weight"]
    groups = x.shape[1] // weight.shape[1]
    return F.conv2d(x, weight, state.get(f"{name}.bias"), stride=stride, padding=weight.shape[-1] // 2, groups=groups)


def norm(state: State, name: str, x: Tensor, eps: float = 1e-5) -> Tensor:
    """The batch norm `name` with its running statistics."""
    mean, var = state[f"{name}.running_mean"], state[f"{name}.running_var"]
    return F.batch_norm(x, mean, var, state[f"{name}.weight"], state[f"{name}.bias"], training=False, eps=eps)


def conv_bn(state: State, conv_name: str, bn_name: str, x: Tensor, stride: int = 1, eps: float = 1e-5) -> Tensor:
    """Convolution, then batch norm."""
    return norm(state, bn_name, conv(state, conv_name, x, stride), eps)


# ---------------------------------------------------------------- heads


def long_ducs(state: State, stages: list[str], x: Tensor) -> Tensor:
    """FastPose_DUC's upsampling stages: pixel shuffle, then convs at index 1, 4, 7, ... each with BN and ReLU."""
    for stage in stages:
        x = F.pixel_shuffle(x, 2)
        for i in count(1, 3):
            if f"{stage}.{i}.weight" not in state:
                break
            x = conv_bn(state, f"{stage}.{i}", f"{stage}.{i + 1}", x).relu()
    return x


def simple_head(state: State, x: Tensor) -> Tensor:
    """SimplePose's head: three 4x4 stride-2 deconvolutions with BN and ReLU, then a 1x1 conv."""
    for i in (0, 3, 6):
        x = F.conv_transpose2d(x, state[f"deconv_layers.{i}.weight"], stride=2, padding=1)
        x = norm(state, f"deconv_layers.{i + 1}", x).relu()
    return conv(state, "final_layer", x)


# ---------------------------------------------------------------- ResNet, plain, squeeze-excite, deformable, unshuffle


def resnet(state: State, prefix: str, x: Tensor) -> Tensor:
    """Features (B, 2048, H/32, W/32) of the bottleneck ResNet under `prefix`."""
    x = conv_bn(state, f"{prefix}conv1", f"{prefix}bn1", x, stride=2).relu()
    x = F.max_pool2d(x, kernel_size=3, stride=2, padding=1)
    for layer, stride in enumerate((1, 2, 2, 2), start=1):
        x = bottlenecks(state, f"{prefix}layer{layer}", x, stride)
    return x


def bottlenecks(state: State, layer: str, x: Tensor, stride: int) -> Tensor:
    """One stage of bottleneck blocks, the first of them with the stage's stride."""
    for i in count():
        if f"{layer}.{i}.conv1.weight" not in state:
            break
        x = bottleneck(state, f"{layer}.{i}", x, stride if i == 0 else 1)
    return x


def bottleneck(state: State, block: str, x: Tensor, stride: int) -> Tensor:
    """1x1, 3x3 with the stride, 1x1; the squeeze-excite and the downsampled shortcut if their keys exist."""
    y = conv_bn(state, f"{block}.conv1", f"{block}.bn1", x).relu()
    if f"{block}.conv2.1.weight" in state:
        y = conv(state, f"{block}.conv2.1", F.pixel_unshuffle(y, 2))
    elif f"{block}.conv2_offset.weight" in state:
        y = deformable_conv(state, f"{block}.conv2", y, stride)
    else:
        y = conv(state, f"{block}.conv2", y, stride)
    y = norm(state, f"{block}.bn2", y).relu()
    y = conv_bn(state, f"{block}.conv3", f"{block}.bn3", y)
    if f"{block}.se.fc.0.weight" in state:
        gate = F.linear(y.mean((2, 3)), state[f"{block}.se.fc.0.weight"], state[f"{block}.se.fc.0.bias"]).relu()
        gate = F.linear(gate, state[f"{block}.se.fc.2.weight"], state[f"{block}.se.fc.2.bias"]).sigmoid()
        y = y * gate[:, :, None, None]
    if f"{block}.downsample.0.weight" in state:
        x = conv_bn(state, f"{block}.downsample.0", f"{block}.downsample.1", x, stride)
    return (y + x).relu()


def deformable_conv(state: State, name: str, x: Tensor, stride: int) -> Tensor:
    """Deformable 3x3 conv `name`, padding 1, one group; `name`_offset gives 18 offsets and, if modulated, 9 masks."""
    prediction = conv(state, f"{name}_offset", x, stride)
    batch, channels, height, width = prediction.shape
    if channels not in (18, 27):
        raise ValueError(f"{name}_offset has {channels} channels, not 18 or 27")
    offset = prediction[:, :18].reshape(batch, 9, 2, height, width)  # (dy, dx) for each tap, taps row by row
    tap = torch.arange(9, device=x.device)[:, None, None]
    rows = stride * torch.arange(height, device=x.device)[:, None] - 1 + tap // 3 + offset[:, :, 0]
    columns = stride * torch.arange(width, device=x.device) - 1 + tap % 3 + offset[:, :, 1]
    samples = bilinear(x, rows, columns)
    if channels == 27:
        samples = samples * prediction[:, 18:].sigmoid()[:, None]
    return torch.einsum("bcthw,oct->bohw", samples, state[f"{name}.weight"].flatten(2))


def bilinear(x: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    """`x` (B, C, H, W) sampled at the positions (B, T, h, w) -> (B, C, T, h, w); zero outside the map."""
    batch, channels, height, width = x.shape
    flat = x.flatten(2)
    total = x.new_zeros(batch, channels, rows[0].numel())
    for row in (rows.floor(), rows.floor() + 1):
        for column in (columns.floor(), columns.floor() + 1):
            weight = (1 - (rows - row).abs()) * (1 - (columns - column).abs())
            inside = (row >= 0) & (row < height) & (column >= 0) & (column < width)
            index = row.clamp(0, height - 1).long() * width + column.clamp(0, width - 1).long()
            values = flat.gather(2, index.flatten(1)[:, None].expand(-1, channels, -1))
            total = total + values * (weight * inside).flatten(1)[:, None]
    return total.reshape(batch, channels, *rows.shape[1:])


# ---------------------------------------------------------------- HRNet


def hrnet(state: State, x: Tensor) -> Tensor:
    """HRNet: stem to H/4, four bottlenecks, then stages 2 to 4, each with one more branch of half the resolution."""
    for i in (1, 2):
        x = conv_bn(state, f"conv{i}", f"bn{i}", x, stride=2).relu()
    branches = [bottlenecks(state, "layer1", x, stride=1)]
    for stage in (2, 3, 4):
        branches = transition(state, f"transition{stage - 1}", branches, size=stage)
        for module in count():
            if f"stage{stage}.{module}.branches.0.0.conv1.weight" not in state:
                break
            branches = exchange(state, f"stage{stage}.{module}", branches)
    return conv(state, "final_layer", branches[0])


def transition(state: State, name: str, branches: list[Tensor], size: int) -> list[Tensor]:
    """One branch more, `size` in total: a 3x3 conv if the width changes, one with stride 2 for the new branch."""
    result = []
    for i in range(size):
        if i == len(branches):
            result.append(conv_bn(state, f"{name}.{i}.0.0", f"{name}.{i}.0.1", branches[-1], stride=2).relu())
        elif f"{name}.{i}.0.weight" in state:
            result.append(conv_bn(state, f"{name}.{i}.0", f"{name}.{i}.1", branches[i]).relu())
        else:
            result.append(branches[i])
    return result


def exchange(state: State, module: str, branches: list[Tensor]) -> list[Tensor]:
    """One HRNet module: basic blocks on each branch, then each output the ReLU of the sum over all branches."""
    inputs = []
    for i, x in enumerate(branches):
        for k in count():
            block = f"{module}.branches.{i}.{k}"
            if f"{block}.conv1.weight" not in state:
                break
            y = conv_bn(state, f"{block}.conv1", f"{block}.bn1", x).relu()
            x = (conv_bn(state, f"{block}.conv2", f"{block}.bn2", y) + x).relu()
        inputs.append(x)
    outputs = 1 if not any(key.startswith(f"{module}.fuse_layers.1.") for key in state) else len(inputs)
    return [sum_to(state, f"{module}.fuse_layers.{i}", inputs, i) for i in range(outputs)]


def sum_to(state: State, fuse: str, inputs: list[Tensor], i: int) -> Tensor:
    """The ReLU of the sum of all branches, resized to branch `i`."""
    total = torch.zeros_like(inputs[i])
    for j, x in enumerate(inputs):
        if j > i:
            x = conv_bn(state, f"{fuse}.{j}.0", f"{fuse}.{j}.1", x)
            x = x.repeat_interleave(2 ** (j - i), dim=2).repeat_interleave(2 ** (j - i), dim=3)
        for k in range(i - j):
            x = conv_bn(state, f"{fuse}.{j}.{k}.0", f"{fuse}.{j}.{k}.1", x, stride=2)
            x = x.relu() if k < i - j - 1 else x
        total = total + x
    return total.relu()


# ---------------------------------------------------------------- EfficientNet-Lite


def lite(state: State, x: Tensor) -> Tensor:
    """FastPose on EfficientNet-Lite0: maps at 1/32, then joined with those at 1/16, then at 1/8."""
    x = conv_bn(state, "preact.stem.0", "preact.stem.1", x, stride=2, eps=MOBILE_EPS).clamp(0, 6)
    stages = []
    for i in range(7):
        for j in count():
            block = f"preact.stages.{i}.{j}.block"
            layers = sum(key.startswith(f"{block}.") and key.endswith(".0.weight") for key in state)
            if not layers:
                break
            y = x
            for k in range(layers):
                stride = 2 if k == layers - 2 and j == 0 and i in LITE_STRIDED else 1
                y = conv_bn(state, f"{block}.{k}.0", f"{block}.{k}.1", y, stride, MOBILE_EPS)
                y = y.clamp(0, 6) if k < layers - 1 else y
            x = x + y if x.shape == y.shape else y
        stages.append(x)
    fine, middle, coarse = (stages[i] for i in LITE_USED)
    x = torch.cat([F.pixel_shuffle(coarse, 2), middle], dim=1)
    x = torch.cat([F.pixel_shuffle(conv_bn(state, "duc1.conv", "duc1.bn", x).relu(), 2), fine], dim=1)
    x = F.pixel_shuffle(conv_bn(state, "duc2.conv", "duc2.bn", x).relu(), 2)
    return conv(state, "conv_out", x)


# ---------------------------------------------------------------- MobileNetV3


def mobilenet(state: State, x: Tensor) -> Tensor:
    """Features (B, 960 or 576, H/32, W/32) of MobileNetV3 large or small under `preact.features`."""
    strided, first_hardswish, last = MOBILE_LARGE if "preact.features.16.0.weight" in state else MOBILE_SMALL
    stem, end = "preact.features.0", f"preact.features.{last}"
    x = F.hardswish(conv_bn(state, f"{stem}.0", f"{stem}.1", x, stride=2, eps=MOBILE_EPS))
    for i in range(1, last):
        block, stride = f"preact.features.{i}.block", 2 if i in strided else 1
        x = inverted_residual(state, block, x, stride, hardswish=i >= first_hardswish)
    return F.hardswish(conv_bn(state, f"{end}.0", f"{end}.1", x, eps=MOBILE_EPS))


def inverted_residual(state: State, block: str, x: Tensor, stride: int, hardswish: bool) -> Tensor:
    """Expansion if any, depthwise conv with the stride, squeeze-excite if any, projection; a shortcut if it fits."""
    y = x
    length = 1 + max(int(key[len(block) + 1 :].split(".")[0]) for key in state if key.startswith(f"{block}."))
    for i in range(length):
        part = f"{block}.{i}"
        if f"{part}.fc1.weight" in state:
            gate = conv(state, f"{part}.fc1", y.mean((2, 3), keepdim=True)).relu()
            y = y * F.hardsigmoid(conv(state, f"{part}.fc2", gate))
            continue
        depthwise = state[f"{part}.0.weight"].shape[1:] != (y.shape[1], 1, 1)
        y = conv_bn(state, f"{part}.0", f"{part}.1", y, stride if depthwise else 1, eps=MOBILE_EPS)
        if i < length - 1:
            y = F.hardswish(y) if hardswish else y.relu()
    return y + x if stride == 1 and y.shape[1] == x.shape[1] else y
