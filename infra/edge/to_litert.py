# /// script
# requires-python = "==3.11.*"
# dependencies = [
#     "litert-torch==0.10.0", "torchvision", "safetensors", "opencv-python-headless", "fsspec", "pydantic", "pyyaml",
#     "simplejpeg",
# ]
# ///
"""A pose network as a LiteRT file, for phones. The converter needs an older PyTorch, which uv installs apart.

uv run infra/edge/to_litert.py weights/fastpose_lite0_coco17.safetensors pose.tflite
"""

import sys
from pathlib import Path

import litert_torch
import numpy as np
import torch
from torch.fx.experimental.optimization import fuse

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))  # the project is not installed in that environment

from pipeline.pose.networks.recognition import load_pose_network
from pipeline.weights.checkpoints import read_state_dict
from pipeline.weights.metadata import read_safetensors_metadata

weights, output = sys.argv[1:3]
height, width = map(int, read_safetensors_metadata(Path(weights)).get("input_size", "256x192").split("x"))
network = fuse(load_pose_network(read_state_dict(Path(weights)), weights, None)[0].eval())
inputs = torch.rand(1, 3, height, width) - 0.45
converted = litert_torch.convert(network, (inputs,))
converted.export(output)
difference = float(np.abs(network(inputs).detach().numpy() - converted(inputs.numpy())).max())
print(f"{output}: (1, 3, {height}, {width}) float32, mean-subtracted RGB; largest difference {difference:.2g}")
if not difference < 1e-3:
    sys.exit("the file differs from the network")
