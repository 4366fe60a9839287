import dataclasses
import subprocess
import sys

import numpy as np
import pytest
import torch
from support.paths import PROJECT

from pipeline.errors import UserError
from pipeline.pose import build_pose_model
from pipeline.pose.networks import pose_spec
from pipeline.skeletons import SKELETONS
from pipeline.training.loop import Trainer, TrainingDiverged, parameter_groups
from pipeline.training.options import NO_POSE_AUGMENTATION, Optimisation, PoseAugmentation
from pipeline.training.pose.data import AnnotatedPerson, PeopleSet, cut_people
from pipeline.training.pose.losses import PoseLoss
from pipeline.training.pose.task import PoseTask, network_input

SKELETON = SKELETONS["mpii16"]
OPTIONS = Optimisation(batch=4, epochs=2, bf16=False, warm_up=0.5)


def toy_people(count: int = 12) -> PeopleSet:
    """Images of coloured dots, one colour per joint."""
    r = np.random.default_rng(0)
    colours = r.integers(60, 256, (16, 3))
    images = []
    for number in range(count):
        pixels = np.zeros((80, 80, 3), np.uint8)
        joints = r.uniform(12, 68, (16, 2)).astype(np.float32)
        for (x, y), colour in zip(joints.astype(int), colours, strict=True):
            pixels[y - 3 : y + 4, x - 3 : x + 4] = colour
        person = AnnotatedPerson(number, np.float32([8, 8, 72, 72]), joints, np.ones(16, bool))
        images.append((pixels, [person], 1.0 + number % 3))
    return cut_people(images, (64, 64))


def trainer(
    options: Optimisation = OPTIONS,
    people: PeopleSet | None = None,
    augmentation: PoseAugmentation = PoseAugmentation(),
    **more: int,
) -> Trainer:
    torch.manual_seed(0)
    network = build_pose_model("hourglass", 16, stacks=2, depth=2, width=32)
    outputs = pose_spec("hourglass").training_outputs
    task = PoseTask(people or toy_people(), SKELETON, augmentation, PoseLoss((64, 64)), outputs)
    return Trainer(network, task, options, torch.device("cpu"), **more)


def test_training_reduces_the_loss() -> None:
    options = dataclasses.replace(OPTIONS, epochs=30, batch=12, learning_rate=3e-3)
    training = trainer(options, augmentation=NO_POSE_AUGMENTATION)
    losses = [step.loss for _ in range(30) for step in training.train_epoch()]
    assert len(losses) == 30
    assert losses[-1] < losses[0] / 2


def test_a_resumed_run_has_the_losses_of_an_uninterrupted_one() -> None:
    whole = trainer()
    losses = [step.loss for _ in range(2) for step in whole.train_epoch()]
    stopped = trainer()
    steps = stopped.train_epoch()
    losses_resumed = [next(steps).loss, next(steps).loss]  # in mid-epoch, which has three steps
    state = stopped.state()
    steps.close()
    resumed = trainer()
    resumed.load_state(state)
    assert resumed.step == 2
    losses_resumed += [step.loss for step in resumed.train_epoch()]
    losses_resumed += [step.loss for step in resumed.train_epoch()]
    assert losses_resumed == losses
    for key, tensor in whole.averaged.items():
        assert torch.equal(tensor, resumed.averaged[key])


def test_early_layers_learn_more_slowly_if_wanted() -> None:
    """A learning rate falls by `layer_decay` with each layer towards the input; a BatchNorm is of the layer before."""
    network = torch.nn.Sequential(
        torch.nn.Conv2d(3, 8, 3),
        torch.nn.BatchNorm2d(8),
        torch.nn.ReLU(),
        torch.nn.Conv2d(8, 8, 3),
        torch.nn.Conv2d(8, 1, 1),
    )
    groups = parameter_groups(network, dataclasses.replace(OPTIONS, layer_decay=0.5, weight_decay=0.01))
    facts = {id(p): (group["scale"], group["weight_decay"]) for group in groups for p in group["params"]}
    expected = {"0.weight": (0.25, 0.01), "0.bias": (0.25, 0), "1.weight": (0.25, 0), "1.bias": (0.25, 0),
                "3.weight": (0.5, 0.01), "3.bias": (0.5, 0), "4.weight": (1, 0.01), "4.bias": (1, 0)}  # fmt: skip
    assert {name: facts[id(p)] for name, p in network.named_parameters()} == expected
    assert len(facts) == len(expected)
    assert [group["scale"] for group in parameter_groups(network, OPTIONS)] == [1, 1]

    def moved(layer_decay: float) -> dict[str, float]:
        training = trainer(dataclasses.replace(OPTIONS, layer_decay=layer_decay, optimizer="adam", warm_up=0))
        before = {name: p.detach().clone() for name, p in training.network.named_parameters()}
        next(training.train_epoch())
        return {name: float((p.detach() - before[name]).abs().max()) for name, p in training.network.named_parameters()}

    alike, decayed = moved(1.0), moved(0.8)
    first, *_, last = [name for name, p in trainer().network.named_parameters() if p.ndim > 1]
    assert decayed[last] == pytest.approx(alike[last])
    assert decayed[first] < 0.1 * alike[first]


@pytest.mark.parametrize("capabilities", [{"avx512_bf16": True}, {"avx2": True}])
def test_bf16_is_used_if_it_is_enabled_and_the_machine_has_it(capabilities, monkeypatch) -> None:
    """In training and for the precise statistics of BatchNorm."""
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: capabilities)
    used: list[bool] = []
    loss = PoseTask.loss
    monkeypatch.setattr(
        PoseTask, "loss", lambda task, net, views, bf16: used.append(bf16) or loss(task, net, views, bf16)
    )
    for enabled in (True, False):
        training = trainer(dataclasses.replace(OPTIONS, batch=12, bf16=enabled))
        next(training.train_epoch())
        training.with_precise_batchnorm()
    has_bf16 = capabilities.get("avx512_bf16", False)
    assert used == [has_bf16, has_bf16, False, False]


def test_a_loss_that_is_not_finite_stops_before_the_weights_change() -> None:
    broken = trainer()
    with torch.no_grad():
        broken.network.heatmaps[0].bias.fill_(torch.inf)
    before = {key: tensor.clone() for key, tensor in broken.network.state_dict().items() if "num_batches" not in key}
    with pytest.raises(
        TrainingDiverged, match=r"step 1: the loss is (inf|nan).*--optimisation\.learning_rate \(now 0\.001\)"
    ):
        list(broken.train_epoch())
    assert broken.step == 0
    parameters = {key for key, _ in broken.network.named_parameters()}
    for key in parameters:
        assert torch.equal(broken.network.state_dict()[key], before[key])


def test_learning_rate_schedules() -> None:
    cosine = trainer(dataclasses.replace(OPTIONS, epochs=10, warm_up=1.0))
    rates = [cosine.learning_rate(step) for step in range(30)]
    assert rates[0] < rates[1] < rates[2] < 1e-3
    assert rates[3] == pytest.approx(1e-3)
    assert rates[3:] == sorted(rates[3:], reverse=True)
    assert rates[-1] < 2e-5
    steps = trainer(dataclasses.replace(OPTIONS, epochs=270, schedule="step", warm_up=0.0))
    at = [steps.learning_rate(epoch * 3) for epoch in (0, 169, 170, 199, 200, 269)]
    assert at == pytest.approx([1e-3, 1e-3, 1e-4, 1e-4, 1e-5, 1e-5])


def test_a_batch_that_cannot_be_shared_evenly_is_refused() -> None:
    with pytest.raises(UserError, match=r"--optimisation\.batch 4 cannot be shared evenly by 3 processes"):
        trainer(world=3)


def test_people_are_drawn_in_proportion_to_their_weights() -> None:
    training = trainer(people=toy_people(60))
    counts = np.zeros(60)
    for step in range(15 * 40):
        for row in training._rows(step)[1]:
            counts[row] += 1
    by_weight = [counts[np.arange(60) % 3 == rest].mean() for rest in range(3)]  # weights 1, 2, 3
    np.testing.assert_allclose(np.array(by_weight) / by_weight[0], [1, 2, 3], rtol=0.12)


def test_the_moving_average_of_the_weights() -> None:
    training = trainer(dataclasses.replace(OPTIONS, ema=0.5))
    name = "heatmaps.0.weight"
    start = training.averaged[name].clone()
    next(training.train_epoch())
    moved = training.network.state_dict()[name]
    decay = 1 / 10  # of the first step, lower than `ema`
    torch.testing.assert_close(training.averaged[name], decay * start + (1 - decay) * moved)


def test_precise_batchnorm_statistics_fit_the_weights() -> None:
    """After few steps the running statistics of BatchNorm do not fit the weights; the precise ones do."""
    training = trainer(dataclasses.replace(OPTIONS, batch=12), augmentation=NO_POSE_AUGMENTATION)
    list(training.train_epoch())
    precise = training.with_precise_batchnorm()
    network, views = training.network, next(training._batches(range(1)))
    differences = []
    for weights in (training.averaged, precise):
        network.load_state_dict(weights)
        outputs = []
        for mode in (True, False):
            network.train(mode)
            with torch.no_grad():
                outputs.append(network(network_input(views[0])))
        differences.append((outputs[0] - outputs[1]).abs().mean().item())
    assert differences[1] < differences[0] / 5
    parameters = {name for name, _ in network.named_parameters()}
    assert all(torch.equal(precise[name], training.averaged[name]) for name in parameters)


def test_the_loop_needs_only_torch_numpy_and_opencv() -> None:
    code = (
        "import sys\n"
        "for name in ('ray', 'pydantic', 'fsspec', 's3fs', 'pyarrow', 'safetensors', 'yaml', 'simplejpeg',\n"
        "             'rich', 'onnxruntime', 'tensorboard'):\n"
        "    sys.modules[name] = None\n"
        "import pipeline.training.loop, pipeline.training.pose.data, pipeline.pose.networks\n"
    )
    subprocess.run([sys.executable, "-c", code], cwd=PROJECT, check=True)
