import copy

import pytest
import torch

from pipeline.errors import UserError
from pipeline.pose import build_pose_model
from pipeline.runtime.device import Compute, Precision, Runtime
from pipeline.runtime.torch import TorchNetwork


def test_the_last_layer_stays_float32_with_its_exact_weights() -> None:
    network = build_pose_model("fastpose_mobile_small").eval()
    exact = network.conv_out.weight.clone()
    prepared = Compute.resolve("cpu", "bf16").prepare(network)
    last = prepared.get_submodule("conv_out")
    assert torch.equal(last.weight, exact)
    others = {p.dtype for name, p in prepared.named_parameters() if not name.startswith("conv_out")}
    assert others == {torch.bfloat16}
    with torch.inference_mode():
        assert prepared(torch.zeros(1, 3, 64, 64, dtype=torch.bfloat16)).dtype == torch.float32


def test_fp16_keeps_the_last_layer_in_float32_and_refuses_what_is_too_large() -> None:
    network = build_pose_model("fastpose_mobile_small").eval()
    compute = Compute.resolve("cpu", "fp16")
    run = TorchNetwork(copy.deepcopy(network), compute)
    pixels = torch.rand(1, 3, 64, 64)
    with torch.inference_mode():
        exact, found = network(pixels), run(pixels)
    assert found.dtype == torch.float32
    assert (found - exact).abs().max() < 0.02 * exact.abs().max()

    growing = torch.nn.Sequential(torch.nn.Conv2d(3, 3, 1), torch.nn.Conv2d(3, 3, 1))
    torch.nn.init.constant_(growing[0].weight, 6e4)
    with pytest.raises(UserError, match=r"values that are too large for fp16; set --compute\.precision float32"):
        TorchNetwork(growing, compute)(pixels)
    torch.nn.init.constant_(growing[0].weight, 7e4)
    with pytest.raises(UserError, match="the weights of a network are too large for fp16"):
        TorchNetwork(growing, compute)


class _Greedy(torch.nn.Module):
    """Needs too much memory for more than three rows."""

    def __init__(self) -> None:
        super().__init__()
        self.batches: list[int] = []

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        self.batches.append(len(inputs))
        if len(inputs) > 3:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return 2 * inputs


def test_a_batch_that_is_too_large_for_the_memory_is_halved(monkeypatch: pytest.MonkeyPatch) -> None:
    compute = Compute.resolve("cpu", "float32")
    monkeypatch.setattr(Compute, "prepare", lambda _, module: module)
    network = _Greedy()
    run = TorchNetwork(network, compute)
    inputs = torch.arange(16.0).reshape(8, 2, 1, 1)
    for _ in range(2):
        assert torch.equal(run(inputs), 2 * inputs)
    assert network.batches == [8, 4, 2, 2, 2, 2, *[2] * 4], "the second time without trying again"
    assert len(compute.notes) == 2
    assert "the memory of a GPU is too small for a batch of 4; it is run in pieces of 2" in compute.notes
    monkeypatch.setattr(network, "forward", lambda _: (_ for _ in ()).throw(torch.OutOfMemoryError("CUDA")))
    with pytest.raises(torch.OutOfMemoryError):
        run(inputs)


@pytest.mark.parametrize(
    ("precision", "native", "warned"),
    [("bf16", False, True), ("bf16", True, False), ("auto", False, False), ("fp16", True, True)],
)
def test_emulated_bf16_is_warned_of(precision: str, native: bool, warned: bool, monkeypatch) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"avx2": True, "amx_bf16": native})
    warning = Compute.resolve("cpu", precision).warning  # type: ignore[arg-type]
    assert (warning is not None) == warned
    assert warning is None or "many times slower than float32; leave out --compute.precision" in warning


def test_cuda_without_a_gpu_is_refused() -> None:
    if torch.cuda.is_available():
        pytest.skip("this machine has a GPU")
    with pytest.raises(ValueError, match=r"^--compute\.device cuda: no GPU is visible to this process"):
        Compute.resolve("cuda")


@pytest.mark.parametrize(
    ("precision", "native", "runtime", "expected"),
    [
        ("auto", False, "auto", "onnx"),
        ("auto", True, "auto", "torch"),
        ("bf16", False, "auto", "torch"),
        ("auto", False, "torch", "torch"),
        ("auto", True, "openvino", "openvino"),
    ],
)
def test_onnx_runtime_runs_networks_where_bf16_is_missing(
    precision: Precision, native: bool, runtime: Runtime, expected: str, monkeypatch
) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"avx2": True, "amx_bf16": native})
    compute = Compute.resolve("cpu", precision, runtime)
    assert compute.own_runtime == expected


def test_a_mode_is_for_torch_and_a_graph_for_a_gpu(monkeypatch) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"avx2": True})
    assert Compute.resolve("cpu").own_runtime == "onnx"
    for mode in ("eager", "compile"):
        assert Compute.resolve("cpu", mode=mode).own_runtime == "torch"
    with pytest.raises(UserError, match=r"^--compute\.mode graph needs a GPU"):
        Compute.resolve("cpu", mode="graph")


def test_onnx_runtime_computes_in_float32() -> None:
    assert Compute.resolve("cpu", "auto", "onnx").dtype == torch.float32


def test_tensorrt_without_a_gpu_is_refused() -> None:
    with pytest.raises(ValueError, match=r"^--compute\.runtime tensorrt needs a GPU"):
        Compute.resolve("cpu", "auto", "tensorrt")
