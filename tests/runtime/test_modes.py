"""The fastest way to run a network, by measuring. `graph` needs a GPU and is not run here."""

import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from torch import Tensor, nn

from pipeline.errors import UserError
from pipeline.runtime import modes
from pipeline.runtime import torch as torch_runtime
from pipeline.runtime.device import Compute
from pipeline.runtime.modes import Mode, Runner, fastest_runner
from pipeline.runtime.torch import TorchNetwork

INPUTS = torch.rand(2, 3, 32, 32).to(memory_format=torch.channels_last)


@pytest.fixture
def network(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> nn.Module:
    """A network, and an empty cache."""
    monkeypatch.setenv("POSEMILL_CACHE", str(tmp_path))
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 4, 1)).eval()


class Machine:
    """Modes that take known times, or fail."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, **milliseconds: float | Exception) -> None:
        self.tried: list[str] = []
        self._milliseconds = milliseconds
        self._clock = 0.0
        monkeypatch.setattr(modes, "time", SimpleNamespace(perf_counter=lambda: self._clock))
        monkeypatch.setattr(modes, "make_runner", self._make)
        monkeypatch.setattr(torch_runtime, "make_runner", self._make)

    def _make(self, mode: Mode, module: nn.Module, inputs: Tensor) -> Runner:
        self.tried.append(mode)
        time_or_error = self._milliseconds[mode]
        if isinstance(time_or_error, Exception):
            raise time_or_error

        def run(inputs: Tensor) -> Tensor:
            self._clock += time_or_error / 1000
            return module(inputs)

        return run


def test_the_fastest_mode_is_chosen_once_per_network_and_shape(network: nn.Module, monkeypatch) -> None:
    machine = Machine(monkeypatch, eager=8.0, graph=2.0, compile=5.0)
    mode, runner, note = fastest_runner(network, INPUTS)
    assert (mode, note) == ("graph", None)
    assert torch.equal(runner(INPUTS), network(INPUTS))
    assert machine.tried == ["eager", "graph", "compile"]
    assert fastest_runner(network, INPUTS)[0] == "graph"
    assert machine.tried[3:] == ["graph"], "remembered"
    fastest_runner(network, INPUTS[:1])
    fastest_runner(network.double(), INPUTS.double())
    assert machine.tried[4:] == ["eager", "graph", "compile"] * 2, "another shape, another precision"


def test_a_small_gain_does_not_replace_a_simpler_mode(network: nn.Module, monkeypatch) -> None:
    Machine(monkeypatch, eager=20.0, graph=20.0, compile=19.8)
    assert fastest_runner(network, INPUTS)[0] == "eager"


def test_modes_that_fail_are_left_out_and_told(network: nn.Module, monkeypatch) -> None:
    machine = Machine(monkeypatch, eager=4.0, graph=torch.OutOfMemoryError("no memory"), compile=RuntimeError("no g++"))
    mode, _, note = fastest_runner(network, INPUTS)
    assert mode == "eager"
    assert note == "a network runs without mode compile on this machine: RuntimeError: no g++"
    compute = Compute.resolve("cpu", "float32")
    object.__setattr__(compute, "mode", "auto")  # as on a GPU
    Machine(monkeypatch, eager=1.0, graph=5.0, compile=RuntimeError("no g++"))
    with torch.inference_mode():
        TorchNetwork(network, compute)(INPUTS[:, :, :20])
    assert compute.notes == {note}
    machine = Machine(monkeypatch, eager=torch.OutOfMemoryError("no memory"), graph=1.0, compile=1.0)
    with pytest.raises(torch.OutOfMemoryError):  # so that the batch is halved
        fastest_runner(network, INPUTS[:1])
    assert machine.tried == ["eager"]


def test_no_further_mode_is_tried_after_the_budget(network: nn.Module, monkeypatch) -> None:
    machine = Machine(monkeypatch, eager=1.0, graph=1.0, compile=1.0)
    monkeypatch.setattr(modes, "_BUDGET_SECONDS", 0.0)
    assert fastest_runner(network, INPUTS)[0] == "eager"
    assert machine.tried == ["eager"]


def test_a_mode_that_works_no_more_is_measured_again(network: nn.Module, monkeypatch) -> None:
    Machine(monkeypatch, eager=9.0, graph=9.0, compile=1.0)
    assert fastest_runner(network, INPUTS)[0] == "compile"
    machine = Machine(monkeypatch, eager=9.0, graph=1.0, compile=RuntimeError("the compiler is gone"))
    mode, _, note = fastest_runner(network, INPUTS)
    assert mode == "graph"
    assert note is not None
    assert "the compiler is gone" in note
    assert machine.tried == ["compile", "eager", "graph", "compile"]


def test_a_mode_that_the_user_chose_must_work(network: nn.Module, monkeypatch) -> None:
    Machine(monkeypatch, compile=RuntimeError("no compiler\nis installed"))
    with pytest.raises(
        UserError,
        match=r"^--compute\.mode compile cannot run a network on this .* \(RuntimeError: no compiler\); leave it out$",
    ):
        TorchNetwork(network, Compute.resolve("cpu", "float32", mode="compile"))(INPUTS)


def test_batches_of_many_shapes_run_eagerly(network: nn.Module, monkeypatch) -> None:
    machine = Machine(monkeypatch, compile=0.0)
    run = TorchNetwork(network, Compute.resolve("cpu", "float32", mode="compile"))
    with torch.inference_mode():
        for side in (*range(20, 30), 20):
            run(INPUTS[:, :, :side])
    assert machine.tried == ["compile"] * 4


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("g++") is None, reason="compiling for a CPU needs g++")
def test_a_compiled_network_gives_the_same_output(network: nn.Module) -> None:
    """The real torch.compile, through the settings and through the measurement."""
    with torch.inference_mode():
        expected = network(INPUTS)
        compiled = TorchNetwork(network, Compute.resolve("cpu", "float32", mode="compile"))
        torch.testing.assert_close(compiled(INPUTS), expected)
        assert compiled.runtime == "torch compile"
        mode, runner, note = fastest_runner(compiled.module, INPUTS, ("eager", "compile"))
        assert mode in ("eager", "compile")
        assert note is None
        torch.testing.assert_close(runner(INPUTS), expected)
