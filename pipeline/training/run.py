"""A training run: read what is annotated, train, measure, keep. Knows files, not Ray.

OUTPUT/
  train.json            settings
  checkpoint.pt         everything that going on needs; the newest only
  last.safetensors      the averaged weights, half precision
  best.safetensors      those that measured best
  history.jsonl         a line per epoch: loss, learning rate, measurements
"""

from __future__ import annotations

import copy
import io
import json
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from safetensors.torch import save as safetensors_bytes
from torch import Tensor, nn

from pipeline import storage
from pipeline.annotator import Annotator
from pipeline.checkpoints import read_state_dict
from pipeline.compute import Compute
from pipeline.evaluation.keypoints import PERSON, evaluate_keypoints
from pipeline.evaluation.pck import pck
from pipeline.images import ImageRefused, decode_image
from pipeline.people import Boxes
from pipeline.pose import build_pose_model
from pipeline.pose.crop import CropRule
from pipeline.pose.estimator import PoseEstimator, PoseNetwork, head_of
from pipeline.pose.networks.recognise import Architecture, load_pose_network
from pipeline.skeletons import SKELETONS, Skeleton
from pipeline.sources import read_coco
from pipeline.suppression import PoseNMS
from pipeline.training.data import AnnotatedPerson, AnnotationError, PeopleSet, cut_people, people_of
from pipeline.training.loop import Step, Trainer
from pipeline.training.settings import AnnotatedSet, TrainSettings
from pipeline.weights import local_file


class TrainingRefused(ValueError):
    """A run directory that is taken, or that cannot be gone on with; the text says why."""


@dataclass(frozen=True)
class TrainRun:
    """The files of one training run."""

    uri: str
    settings: TrainSettings

    @classmethod
    def start(cls, settings: TrainSettings) -> TrainRun:
        """A new run, or with `resume` one that was started.

        Raises:
            TrainingRefused: there is a run already, or none to go on with, or one with other settings.
        """
        run = cls(settings.output, settings)
        told = settings.model_dump(mode="json", exclude={"resume", "output", "compute"})
        exists = storage.exists(run.path("train.json"))
        if exists and not settings.resume:
            raise TrainingRefused(f"{run.uri} holds a training run; --resume goes on with it, or name another --output")
        if exists:
            before = json.loads(storage.read_bytes(run.path("train.json")))
            changed = [key for key in told if before.get(key) != told[key]]
            if changed:
                raise TrainingRefused(f"{run.uri} was started with other settings of: {', '.join(changed)}")
        else:
            storage.write_bytes(run.path("train.json"), json.dumps(told, indent=2).encode())
        return run

    def path(self, name: str) -> str:
        return storage.join(self.uri, name)

    def keep(self, trainer: Trainer) -> None:
        """Write the checkpoint, whole or not at all."""
        sink = io.BytesIO()
        torch.save(trainer.state(), sink)
        storage.write_bytes(self.path("checkpoint.pt"), sink.getvalue())

    def go_on(self, trainer: Trainer) -> bool:
        """Load the checkpoint where there is one."""
        if not storage.exists(self.path("checkpoint.pt")):
            return False
        content = io.BytesIO(storage.read_bytes(self.path("checkpoint.pt")))
        trainer.load_state(torch.load(content, map_location=trainer.device, weights_only=True))
        return True

    def keep_weights(self, name: str, weights: dict[str, Tensor], metadata: dict[str, str]) -> None:
        """Averaged weights in half precision, as `--pose.weights` takes them."""
        halved = {k: (t.half() if t.is_floating_point() else t).contiguous().cpu() for k, t in weights.items()}
        storage.write_bytes(self.path(name), safetensors_bytes(halved, metadata))

    def note(self, entry: dict[str, Any]) -> None:
        """Add a line to the history; of an epoch that was made before, the newest line counts."""
        lines = [line for line in self.history() if line["epoch"] < entry["epoch"]]
        text = "\n".join(json.dumps(line) for line in [*lines, entry])
        storage.write_bytes(self.path("history.jsonl"), text.encode())

    def history(self) -> list[dict[str, Any]]:
        path = self.path("history.jsonl")
        return [json.loads(line) for line in storage.read_bytes(path).splitlines()] if storage.exists(path) else []


def read_people(settings: TrainSettings) -> PeopleSet:
    """Everyone to learn from, from the cache where there is one.

    Raises:
        AnnotationError: annotations or images that cannot be used, named.
    """
    if settings.cache and storage.exists(settings.cache):
        return PeopleSet.from_bytes(storage.read_bytes(settings.cache))
    skeleton = SKELETONS[settings.network.skeleton]
    people = PeopleSet.join(
        [cut_people(_images(annotated, skeleton), settings.training.input_size) for annotated in settings.sets]
    )
    if settings.cache:
        storage.write_bytes(settings.cache, people.to_bytes())
    return people


def _images(annotated: AnnotatedSet, skeleton: Skeleton) -> Iterator[tuple[np.ndarray, list[AnnotatedPerson], float]]:
    content = read_coco(annotated.annotations)
    people = people_of(content, skeleton.joints, annotated.annotations)
    for image in content["images"]:
        if image["id"] in people and annotated.source in (None, image.get("source")):
            yield _pixels(annotated, image), people[image["id"]], annotated.weight


def _pixels(annotated: AnnotatedSet, image: dict[str, Any]) -> np.ndarray:
    uri = storage.join(annotated.images, image["file_name"])
    try:
        return decode_image(storage.read_bytes(uri)).pixels
    except (ImageRefused, OSError) as error:
        raise AnnotationError(f"{annotated.annotations}: image {image['id']}, {uri}: {error}") from None


def make_network(settings: TrainSettings) -> tuple[nn.Module, Architecture]:
    """The network to train, from its first weights or random.

    Raises:
        ValueError: weights of another network.
    """
    joints = len(SKELETONS[settings.network.skeleton])
    options = {} if settings.network.conv_dim is None else {"conv_dim": settings.network.conv_dim}
    wanted = Architecture(settings.network.name, joints, options)
    if settings.network.weights is None:
        torch.manual_seed(settings.training.seed)
        return build_pose_model(settings.network.name, joints, **options), wanted
    network, found = load_pose_network(
        read_state_dict(local_file(settings.network.weights)), settings.network.weights, settings.network.name
    )
    if found.num_joints != joints:
        raise ValueError(f"{settings.network.weights} is {found}; {settings.network.skeleton} has {joints} joints")
    return network, found


def make_teacher(settings: TrainSettings, device: torch.device) -> Callable[[Tensor], Tensor] | None:
    """Heatmaps of the teacher for a batch of inputs; None where none is named."""
    if settings.network.teacher is None:
        return None
    network, architecture = load_pose_network(
        read_state_dict(local_file(settings.network.teacher)), settings.network.teacher
    )
    joints = len(SKELETONS[settings.network.skeleton])
    if architecture.num_joints < joints:
        raise ValueError(f"network.teacher {settings.network.teacher} is {architecture}; {joints} joints are trained")
    teacher = network.eval().requires_grad_(False).to(device)
    return lambda inputs: teacher(inputs)[:, :joints].float()


class Validation:
    """Annotated photographs to measure on, with true boxes."""

    def __init__(self, annotated: AnnotatedSet, settings: TrainSettings) -> None:
        self._truth = read_coco(annotated.annotations)
        self._skeleton = SKELETONS[settings.network.skeleton]
        self._options = settings.training
        self._compute = Compute.resolve(settings.compute.device, settings.compute.precision)
        self._people = people_of(self._truth, self._skeleton.joints, annotated.annotations)
        self._images = [image for image in self._truth["images"] if image["id"] in self._people]
        self._annotated = annotated

    def measure(self, network: nn.Module, architecture: Architecture) -> dict[str, float]:
        """AP and PCK of a network; pose NMS has no part in it."""
        people = self._annotate(network, architecture)
        results, found, true, labelled, boxes = [], [], [], [], []
        for image, poses in zip(self._images, people, strict=True):
            for row, person in enumerate(self._people[image["id"]]):
                values = np.column_stack([poses.keypoints[row], poses.keypoint_scores[row]])
                score = float(poses.pose_scores[row])
                results.append(
                    {
                        "image_id": image["id"],
                        "category_id": PERSON,
                        "keypoints": values.ravel().tolist(),
                        "score": score,
                    }
                )
                found.append(poses.keypoints[row])
                true.append(person.keypoints)
                labelled.append(person.labelled)
                boxes.append(person.box)
        metrics = evaluate_keypoints(results, self._truth, self._skeleton)
        correct = pck(np.array(found), np.array(true), np.array(labelled), np.array(boxes), self._skeleton)
        joints = {f"pck/{joint}": share for joint, share in correct.joints.items()}
        return {"ap": metrics.ap, "ap50": metrics.ap50, "ar": metrics.ar, "pck_body": correct.body, **joints}

    def _annotate(self, network: nn.Module, architecture: Architecture) -> list[Any]:
        member = PoseNetwork(
            architecture, self._compute.prepare(copy.deepcopy(network)), (CropRule(self._options.input_size),)
        )
        head = head_of(self._options.decode, self._options.norm)
        poses = PoseEstimator([member], head, self._skeleton, self._compute)
        annotator = Annotator(None, poses, PoseNMS(kind="none"), self._compute)
        images = (
            (
                _pixels(self._annotated, image),
                Boxes(
                    np.stack([person.box for person in self._people[image["id"]]]),
                    np.ones(len(self._people[image["id"]])),
                ),
            )
            for image in self._images
        )
        return [annotator.suppress(candidates) for candidates in annotator.candidates(images)]


def train_run(
    run: TrainRun, trainer: Trainer, architecture: Architecture, report: Callable[[Step], None]
) -> list[dict[str, Any]]:
    """Train to the end of the schedule, keeping checkpoints on the way; returns the history.

    Raises:
        TrainingDiverged: the loss is no number; the last checkpoint is whole.
    """
    settings = run.settings
    validation = Validation(settings.validation, settings) if settings.validation else None
    metadata = {
        "network": str(architecture),
        "skeleton": settings.network.skeleton,
        "input_size": "x".join(map(str, settings.training.input_size)),
        "decode": settings.training.decode,
    }
    best = max((line.get("ap", -1.0) for line in run.history()), default=-1.0)
    run.go_on(trainer)
    while trainer.epoch < settings.training.epochs:
        losses = []
        for step in trainer.train_epoch():
            losses.append(step.loss)
            report(step)
            if step.step % settings.checkpoint_every == 0:
                run.keep(trainer)
        entry: dict[str, Any] = {
            "epoch": trainer.epoch,
            "loss": float(np.mean(losses)),
            "learning_rate": step.learning_rate,
        }
        weights = trainer.averaged
        if validation is not None and (
            trainer.epoch % settings.validate_every == 0 or trainer.epoch == settings.training.epochs
        ):
            averaged = architecture.build()
            averaged.load_state_dict(weights)
            entry |= validation.measure(averaged, architecture)
            if entry["ap"] > best:
                best = entry["ap"]
                run.keep_weights("best.safetensors", weights, metadata | {"ap": f"{best:.4f}"})
        run.keep_weights("last.safetensors", weights, metadata)
        run.note(
            {key: None if isinstance(value, float) and math.isnan(value) else value for key, value in entry.items()}
        )
        run.keep(trainer)
    return run.history()
