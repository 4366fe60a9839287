"""The fastest way to run a network, by measuring. `graph` needs a GPU and is not run here."""

import shutil
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
def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 4, 1)).eval()


class Machine:
    """Modes that take known times, or fail.

    Attributes:
        tried: the modes that were made.
        made: the last runner.
    """

    def __init__(self, monkeypatch: pytest.MonkeyPatch, **milliseconds: float | Exception) -> None:
        self.tried: list[str] = []
        self.made: Runner | None = None
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

        self.made = self.timed(module, time_or_error)
        return self.made

    def timed(self, module: nn.Module, milliseconds: float) -> Runner:
        def run(inputs: Tensor) -> Tensor:
            self._clock += milliseconds / 1000
            return module(inputs)

        return run


@pytest.mark.parametrize(("graph", "is_used"), [(2.0, True), (7.7, False), (9.0, False)])
def test_a_graph_is_used_where_it_is_faster(graph: float, is_used: bool, network: nn.Module, monkeypatch) -> None:
    machine = Machine(monkeypatch, graph=graph)
    eager = machine.timed(network, 8.0)
    monkeypatch.setattr(machine, "timed", lambda _, milliseconds, timed=machine.timed: timed(network, milliseconds))
    runner, note = fastest_runner(eager, INPUTS)  # type: ignore[arg-type]
    assert note is None
    assert runner is (machine.made if is_used else eager)
    assert torch.equal(runner(INPUTS), network(INPUTS))


def test_a_network_without_a_graph_runs_as_it_is_and_the_user_is_told(network: nn.Module, monkeypatch) -> None:
    for error in (torch.OutOfMemoryError("no memory"), RuntimeError("an operation\nthat waits")):
        Machine(monkeypatch, graph=error)
        runner, note = fastest_runner(network, INPUTS)
        assert runner is network
        assert note == f"a network runs without a CUDA graph: {type(error).__name__}: {str(error).splitlines()[0]}"
    with pytest.raises(torch.OutOfMemoryError):  # so that the batch is halved
        fastest_runner(_Full(), INPUTS)


class _Full(nn.Module):
    def forward(self, inputs: Tensor) -> Tensor:
        raise torch.OutOfMemoryError("no memory")


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
    with torch.inference_mode():
        expected = network(INPUTS)
        compiled = TorchNetwork(network, Compute.resolve("cpu", "float32", mode="compile"))
        torch.testing.assert_close(compiled(INPUTS), expected)
