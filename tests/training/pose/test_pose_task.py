import numpy as np
import torch
from support.images import gradient

from pipeline.pose import build_pose_model
from pipeline.pose.networks import pose_spec
from pipeline.skeletons import SKELETONS
from pipeline.training.options import NO_POSE_AUGMENTATION
from pipeline.training.pose.data import AnnotatedPerson, cut_people
from pipeline.training.pose.losses import PoseLoss
from pipeline.training.pose.task import PoseTask, network_input


def test_every_stack_of_an_hourglass_is_supervised() -> None:
    torch.manual_seed(0)
    points = np.random.default_rng(0).uniform(30, 90, (16, 2)).astype(np.float32)
    person = AnnotatedPerson(1, np.float32([20, 20, 100, 100]), points, np.ones(16, bool))
    people = cut_people([(gradient(120, 120), [person], 1.0)], (64, 64))
    loss = PoseLoss((64, 64))
    task = PoseTask(people, SKELETONS["mpii16"], NO_POSE_AUGMENTATION, loss, pose_spec("hourglass").training_outputs)
    network = build_pose_model("hourglass", 16, stacks=2).eval()
    pixels, keypoints, labelled = (torch.from_numpy(a) for a in task.views([0], [np.random.default_rng(0)]))
    with torch.no_grad():
        total = task.loss(network, (pixels, keypoints, labelled), bf16=False)
        stacks = network.intermediate(network_input(pixels))
        each = [loss([stack], keypoints, labelled) for stack in stacks]
    assert len(stacks) == 2
    assert min(each) > 0
    torch.testing.assert_close(total, sum(each))
