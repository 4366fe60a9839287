"""A pose network as a program of ExecuTorch for phones, with the kernels of XNNPACK for CPUs.

uv run --with executorch==1.5.1 infra/edge/to_executorch.py weights/fastpose_lite0_coco17.safetensors pose.pte
"""

import sys
from pathlib import Path

import torch
from executorch.backends.xnnpack.partition.xnnpack_partitioner import XnnpackPartitioner
from executorch.exir import to_edge_transform_and_lower
from executorch.runtime import Runtime
from torch.fx.experimental.optimization import fuse

from pipeline.pose.checkpoint import load_checkpoint
from pipeline.pose.networks.recognition import load_pose_network
from pipeline.runtime.device import Compute
from pipeline.settings.tree import NetworkSettings
from pipeline.weights.checkpoints import read_state_dict

weights, output = sys.argv[1:3]
size = load_checkpoint(NetworkSettings(weights=weights), Compute.resolve("cpu", "float32", "torch")).input_size
network = fuse(load_pose_network(read_state_dict(Path(weights)), weights, None)[0].eval())
inputs = torch.rand(1, 3, *size) - 0.45
program = torch.export.export(network, (inputs,))
lowered = to_edge_transform_and_lower(program, partitioner=[XnnpackPartitioner()]).to_executorch()
Path(output).write_bytes(lowered.buffer)
(found,) = Runtime.get().load_program(output).load_method("forward").execute([inputs])
difference = float((network(inputs).detach() - found).abs().max())
print(f"{output}: (1, 3, {size[0]}, {size[1]}) float32, mean-subtracted RGB; largest difference {difference:.2g}")
if not difference < 1e-3:
    sys.exit("the program differs from the network")
