"""Pose networks as exported files."""

from __future__ import annotations

import json
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from pipeline.errors import UserError
from pipeline.export.exported import Exported, provenance, weights_to_export
from pipeline.export.onnx import to_onnx
from pipeline.export.parity import compare
from pipeline.export.settings import PoseToExport
from pipeline.people import Boxes
from pipeline.pose.checkpoint import common_decoding, common_skeleton, load_checkpoint
from pipeline.pose.crop import MEAN_RGB, CropRule, subtract_mean
from pipeline.pose.estimator import make_head
from pipeline.pose.heads import View
from pipeline.pose.networks.recognition import load_pose_network
from pipeline.runtime.device import Compute
from pipeline.settings.tree import NetworkSettings
from pipeline.weights.checkpoints import read_state_dict

_MAX_CROPS = 64


def export_pose(pose: PoseToExport, images: Sequence[np.ndarray], boxes: Sequence[Boxes]) -> Exported:
    """A pose network as an ONNX file, from mean-subtracted RGB crops to the output of the network.

    Args:
        images: (H, W, 3) uint8 RGB, to compare on.
        boxes: of the people in each image, at least one in all.

    Raises:
        UserError: the weights cannot be used or exported.
        ExportDiffers: the file computes something else.
    """
    assert pose.weights is not None
    path = weights_to_export("pose.weights", pose.weights)
    compute = Compute.resolve("cpu", "float32")
    settings = NetworkSettings(weights=pose.weights, name=pose.name, input_size=pose.input_size)
    checkpoint = load_checkpoint(settings, compute, pose.decode)
    skeleton = common_skeleton(pose.skeleton, [checkpoint])
    decode = pose.decode or common_decoding([checkpoint])
    if decode not in checkpoint.possible_decodings:
        raise UserError(f"--pose.decode {decode} does not fit the output of {checkpoint}; leave it out")
    metadata = {
        "task": "pose",
        "network": checkpoint.description,
        "skeleton": skeleton.name,
        "joints": json.dumps(skeleton.joints),
        "input_size": "x".join(map(str, checkpoint.input_size)),
        "input": "RGB in 0..1 minus mean",
        "mean": json.dumps([round(float(value), 6) for value in MEAN_RGB]),
        "decode": decode,
        "norm": checkpoint.norm,
        **provenance(path),
    }
    module, _ = load_pose_network(read_state_dict(path), pose.weights, pose.name)
    data = to_onnx(module, checkpoint.input_size, "heatmaps", metadata)
    head = make_head(decode, checkpoint.norm)
    channels = head.channels(len(skeleton))
    height, width = checkpoint.input_size

    def decoded(output: Tensor) -> tuple[np.ndarray, np.ndarray]:
        # Boxes of the size of the crop: the joints are in its pixels.
        frame = np.tile(np.array([0, 0, width, height], np.float32), (len(output), 1))
        return head.decode([View(output[:, :channels], frame)])

    def difference(expected: Tensor, actual: Tensor) -> tuple[float, float]:
        (joints, scores), (other_joints, other_scores) = decoded(expected), decoded(actual)
        return float(np.abs(joints - other_joints).max()), float(np.abs(scores - other_scores).max())

    rule = CropRule(checkpoint.input_size)
    cut = [rule.cut(image, found.xyxy)[0] for image, found in zip(images, boxes, strict=True) if len(found.xyxy)]
    crops = torch.from_numpy(np.concatenate(cut)[:_MAX_CROPS])
    inputs = subtract_mean(compute.to_input(crops))
    parity = compare(checkpoint.network, data, inputs, compute, difference)
    return Exported(f"{path.stem}.onnx", data, metadata, parity)
