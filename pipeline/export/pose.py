"""Pose networks as exported files."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from functools import partial

import numpy as np
import torch
from torch import Tensor

from pipeline.annotator import Annotator, Picture
from pipeline.coco.columns import Detections, GroundTruth
from pipeline.errors import UserError
from pipeline.evaluation.matching import keypoint_similarity
from pipeline.export.exported import Difference, NetworkToExport, Truth, provenance, weights_to_export
from pipeline.export.settings import ExportSettings
from pipeline.people import Boxes, People
from pipeline.pose.checkpoint import PoseCheckpoint, common_decoding, common_skeleton, load_checkpoint
from pipeline.pose.crop import MEAN_RGB, CropRule, subtract_mean
from pipeline.pose.estimator import PoseEstimator, PoseNetwork, make_head
from pipeline.pose.heads import Head, View
from pipeline.pose.networks.recognition import load_pose_network
from pipeline.runtime.device import Compute
from pipeline.runtime.network import Network
from pipeline.settings.tree import NetworkSettings
from pipeline.skeletons import Skeleton
from pipeline.storage import basename
from pipeline.suppression import PoseNMS
from pipeline.training.pose.validation import PoseValidation
from pipeline.training.settings import AnnotatedSet
from pipeline.weights.checkpoints import read_state_dict

_MAX_CROPS = 100
_SURE = 0.5  # share of a person's best score from which a joint counts in comparisons between networks
_MAX_DISAGREEMENT = 0.08  # by which the mean OKS may miss 1; see infra/benchmarks for what INT8 files reach
_CPU = Compute.resolve("cpu", "float32", "torch")


def pose_to_export(settings: ExportSettings, images: Sequence[np.ndarray], boxes: Sequence[Boxes]) -> NetworkToExport:
    """A pose network, from mean-subtracted RGB crops to its output.

    Args:
        images: (H, W, 3) uint8 RGB, to compare on.
        boxes: of the people in each image, at least one in all.

    Raises:
        UserError: the weights or annotations cannot be used.
    """
    pose = settings.pose
    assert pose.weights is not None
    path = weights_to_export("pose.weights", pose.weights)
    checkpoint = load_checkpoint(
        NetworkSettings(weights=pose.weights, name=pose.name, input_size=pose.input_size), _CPU, pose.decode
    )
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
    head = make_head(decode, checkpoint.norm, checkpoint.input_size)
    rule = CropRule(checkpoint.input_size)
    cut = [rule.cut(image, found.xyxy)[0] for image, found in zip(images, boxes, strict=True) if len(found)]
    inputs = subtract_mean(_CPU.to_input(torch.from_numpy(np.concatenate(cut)[:_MAX_CROPS]))).contiguous()
    return NetworkToExport(
        name=path.stem,
        module=module,
        size=checkpoint.input_size,
        output="heatmaps",
        metadata=metadata,
        inputs=inputs,
        difference=_difference(head, skeleton, checkpoint.input_size),
        truth=partial(_truth, settings, checkpoint, head, skeleton, images, boxes),
        is_annotated=settings.annotations is not None,
    )


def _difference(head: Head, skeleton: Skeleton, size: tuple[int, int]) -> Difference:
    """The largest difference of joints, in pixels of the crop, and of scores."""
    channels = head.channels(len(skeleton))

    def decoded(output: Tensor) -> tuple[np.ndarray, np.ndarray]:
        # Boxes of the size of the crop: the joints are in its pixels.
        frame = np.tile(np.array([0, 0, size[1], size[0]], np.float32), (len(output), 1))
        return head.decode([View(output[:, :channels], frame)])

    def difference(expected: Tensor, actual: Tensor) -> tuple[float, float]:
        (joints, scores), (other_joints, other_scores) = decoded(expected), decoded(actual)
        return float(np.abs(joints - other_joints).max()), float(np.abs(scores - other_scores).max())

    return difference


def _truth(
    settings: ExportSettings,
    checkpoint: PoseCheckpoint,
    head: Head,
    skeleton: Skeleton,
    images: Sequence[np.ndarray],
    boxes: Sequence[Boxes],
) -> Truth:
    """The annotations, if there are any; else the joints that the network itself finds."""

    def estimator(network: Network) -> PoseEstimator:
        rules = (CropRule(checkpoint.input_size),)
        return PoseEstimator([PoseNetwork(network, checkpoint.description, rules)], head, skeleton, _CPU)

    def accuracy(network: Network) -> Mapping[str, float]:
        found = validation.accuracy([poses for _, poses in validation.poses(estimator(network), _CPU)])
        return {"AP": found.ap, "PCK": found.pck_body}

    def agreement(network: Network) -> Mapping[str, float]:
        poses = list(Annotator(None, estimator(network), none, _CPU).candidates(map(Picture, images, boxes)))
        similarity = [_similarity(*pair, skeleton) for pair in zip(own_poses, poses, strict=True)]
        return {"OKS": float(np.concatenate(similarity).mean())}

    if settings.annotations is not None and settings.input is not None:
        annotated = AnnotatedSet(annotations=settings.annotations, images=settings.input)
        validation = PoseValidation.read(annotated, skeleton, "annotations")
        described = f"{basename(settings.annotations)}, {validation.num_people} people in true boxes"
        return Truth(described, accuracy, settings.max_loss / 100, validation.num_people, annotated=True)
    none = PoseNMS(kind="none")
    own = Annotator(None, estimator(checkpoint.network), none, _CPU)
    own_poses = list(own.candidates(map(Picture, images, boxes)))
    people = sum(map(len, own_poses))
    described = f"the joints of the network itself, {people} people"
    return Truth(described, agreement, _MAX_DISAGREEMENT, people, annotated=False)


def _similarity(expected: People, actual: People, skeleton: Skeleton) -> np.ndarray:
    """(N,) OKS of the joints of the same people by two networks; joints count if the first is sure of them."""
    sure = expected.keypoint_scores >= _SURE * expected.keypoint_scores.max(axis=1, keepdims=True)
    joints = np.concatenate([expected.keypoints, sure[..., None]], axis=2)
    first, last = expected.boxes[:, :2], expected.boxes[:, 2:]
    boxes = np.concatenate([first, last - first], axis=1)
    neither = np.zeros(len(boxes), bool)
    truth = GroundTruth(boxes, np.prod(last - first, axis=1), neither, neither, joints, np.full(len(boxes), np.nan))
    found = Detections.from_poses(actual.keypoints, actual.keypoint_scores, actual.pose_scores)
    return np.diag(keypoint_similarity(truth, found, np.array(skeleton.oks_sigmas)))
