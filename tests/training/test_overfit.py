"""A network must overfit sixteen people; if it does not, the data, targets, loss or loop are wrong."""

import json

import numpy as np
import pytest
import torch
from support.paths import SHARED, needs_people

from pipeline.boxes import long_sides
from pipeline.evaluation.pck import pck
from pipeline.images import decode_image
from pipeline.pose import build_pose_model
from pipeline.pose.heatmap import decode_argmax
from pipeline.pose.networks import pose_spec
from pipeline.skeletons import SKELETONS
from pipeline.training.loop import Trainer
from pipeline.training.options import NO_POSE_AUGMENTATION, Optimisation
from pipeline.training.pose.data import PeopleSet, cut_people, people_by_image
from pipeline.training.pose.losses import PoseLoss
from pipeline.training.pose.task import PoseTask, network_input

SKELETON = SKELETONS["coco17"]
SIZE = (128, 96)
PEOPLE = 16


def sixteen() -> PeopleSet:
    folder = SHARED / "people"
    content = json.loads((folder / "train.json").read_text())
    people = people_by_image(content, SKELETON.joints, "train.json", min_joints=14)
    names = {image["id"]: image["file_name"] for image in content["images"]}
    images = (
        (decode_image((folder / "images" / names[number]).read_bytes()).pixels, annotated[:1], 1.0)
        for number, annotated in list(people.items())[:PEOPLE]
    )
    return cut_people(images, SIZE)


@pytest.mark.slow
@needs_people
def test_a_network_overfits_sixteen_people() -> None:
    people = sixteen()
    assert len(people) == PEOPLE
    torch.manual_seed(0)
    network = build_pose_model("fastpose_mobile_small", len(SKELETON))
    outputs = pose_spec("fastpose_mobile_small").training_outputs
    task = PoseTask(people, SKELETON, NO_POSE_AUGMENTATION, PoseLoss(SIZE, foreground=20.0), outputs)
    options = Optimisation(batch=PEOPLE, epochs=120, learning_rate=1e-3, ema=0.99)
    trainer = Trainer(network, task, options, torch.device("cpu"))
    while trainer.epoch < options.epochs:
        list(trainer.train_epoch())
    network.load_state_dict(trainer.with_precise_batchnorm())
    network.eval()
    pixels, true, labelled = task.views(range(PEOPLE), [np.random.default_rng(0)] * PEOPLE)
    with torch.inference_mode():
        heatmaps = network(network_input(torch.from_numpy(pixels)))
    covered = np.tile(np.float32([0, 0, SIZE[1], SIZE[0]]), (PEOPLE, 1))
    predicted, _ = decode_argmax(heatmaps, covered)
    correct = pck(predicted, true, labelled, long_sides(covered), SKELETON)
    assert correct.people == PEOPLE
    assert correct.body == 1.0
    assert np.nanmin(list(correct.joints.values())) == 1.0
