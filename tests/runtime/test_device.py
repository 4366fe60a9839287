import pytest
import torch

from pipeline.pose import build_pose_model
from pipeline.runtime.device import Compute


def test_the_last_layer_keeps_float32_and_its_own_weights() -> None:
    network = build_pose_model("fastpose_mobile_small").eval()
    exact = network.conv_out.weight.clone()
    prepared = Compute.resolve("cpu", "bf16").prepare(network)
    last = prepared.get_submodule("conv_out")
    assert torch.equal(last.weight, exact)
    others = {p.dtype for name, p in prepared.named_parameters() if not name.startswith("conv_out")}
    assert others == {torch.bfloat16}
    with torch.inference_mode():
        assert prepared(torch.zeros(1, 3, 64, 64, dtype=torch.bfloat16)).dtype == torch.float32


def test_a_gpu_that_is_not_there_is_said() -> None:
    if torch.cuda.is_available():
        pytest.skip("there is a GPU here")
    with pytest.raises(ValueError, match=r"compute\.device is cuda, but no GPU is visible"):
        Compute.resolve("cuda")
