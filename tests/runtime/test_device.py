import pytest
import torch

from pipeline.pose import build_pose_model
from pipeline.runtime.device import Compute, Precision, Runtime


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


@pytest.mark.parametrize(
    ("precision", "native", "warned"), [("bf16", False, True), ("bf16", True, False), ("auto", False, False)]
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


def test_onnx_runtime_computes_in_float32() -> None:
    assert Compute.resolve("cpu", "auto", "onnx").dtype == torch.float32


def test_tensorrt_without_a_gpu_is_refused() -> None:
    with pytest.raises(ValueError, match=r"^--compute\.runtime tensorrt needs a GPU"):
        Compute.resolve("cpu", "auto", "tensorrt")
