import json

import pytest
import torch
from support.paths import PROJECT, SHARED, needs_reference
from torch import Tensor

from pipeline.errors import UserError
from pipeline.pose import build_pose_model
from pipeline.pose.networks.recognition import Architecture, load_pose_network, recognise
from pipeline.weights.checkpoints import read_state_dict

STATE_DICTS = SHARED / "reference" / "state_dicts.json"
SHIPPED = PROJECT / "weights" / "fastpose_lite0_coco17.safetensors"
OUT_OF_SCOPE = ("hardnet", "smpl", "backbone_only")  # the last has no head, see test_networks.py


def published() -> list[str]:
    if not STATE_DICTS.is_file():
        return []
    models = json.loads(STATE_DICTS.read_text())["models"]
    return [name for name, m in models.items() if "error" not in m and not any(o in name for o in OUT_OF_SCOPE)]


def meta_state(name: str) -> tuple[dict, dict[str, Tensor]]:
    """An entry and its state dict, on the meta device."""
    reference = json.loads(STATE_DICTS.read_text())
    entry = reference["models"][name]
    keys = reference["key_lists"][entry["keys_id"]]
    return entry, {k: torch.empty(shape, dtype=getattr(torch, dtype), device="meta") for k, shape, dtype in keys}


@needs_reference
@pytest.mark.parametrize("name", published())
def test_published_configurations_are_recognised_and_fit_key_by_key(name: str) -> None:
    entry, state = meta_state(name)
    architecture = recognise(state)
    assert architecture is not None
    assert architecture.num_joints == entry["DATA_PRESET"].get("NUM_JOINTS_DENSE", entry["DATA_PRESET"]["NUM_JOINTS"])
    with torch.device("meta"):
        model = architecture.build()
    model.load_state_dict(state, strict=True, assign=True)
    assert sum(p.numel() for p in model.parameters()) == entry["num_params"]
    assert {k: v.dtype for k, v in model.state_dict().items()} == {k: v.dtype for k, v in state.items()}


@needs_reference
def test_there_are_38_published_configurations() -> None:
    assert len(published()) == 38


@needs_reference
@pytest.mark.parametrize(
    ("name", "network", "options"),
    [
        ("variant/fastpose_res50_dcn_modulated", "fastpose_r50_dcn", {"modulated": True}),
        ("halpe_136/256x192_res152_lr1e-3_1x-duc.yaml", "fastpose_r152", {"conv_dim": 256}),
        ("coco/256x192_res50_lr1e-3_1x-duc.yaml", "fastpose_duc_r50", {}),
        ("dense_coco/resnet50/256x192_adam_lr1e-3-duc-dcn_1x_crop.yaml", "fastpose_duc_dense", {}),
        ("old_pytorch_branch/duc_se", "fastpose_classic", {}),
        ("coco/hrnet/256x192_w32_lr1e-3.yaml", "hrnet_w32", {}),
        ("variant/simplepose_res101", "simplepose_r101", {}),
    ],
)
def test_published_configurations_are_recognised_by_name(name: str, network: str, options: dict) -> None:
    architecture = recognise(meta_state(name)[1])
    assert architecture is not None
    assert (architecture.name, architecture.options) == (network, options)


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("hourglass", {"stacks": 2, "depth": 3, "width": 64}),
        ("fpn_offset_r50", {}),
        ("movenet_pyramid", {}),
        ("fpn_offset_r50", {"width": 64}),
        ("fastpose_lite0", {}),
        ("fastpose_lite0", {"conv_dim": 256}),
    ],
)
def test_networks_of_this_project_are_recognised_with_their_options(name: str, options: dict) -> None:
    with torch.device("meta"):
        state = build_pose_model(name, 26, **options).state_dict()
    assert recognise(state) == Architecture(name, 26, options)


def test_loading_fills_the_network() -> None:
    state = read_state_dict(SHIPPED)
    network, architecture = load_pose_network(state, str(SHIPPED))
    assert architecture == Architecture("fastpose_lite0")
    assert torch.equal(network.conv_out.weight, state["conv_out.weight"].float())


def test_weights_of_another_network_than_named_are_refused() -> None:
    with pytest.raises(UserError) as error:
        load_pose_network(read_state_dict(SHIPPED), "w.safetensors", "fastpose_r50")
    text = str(error.value)
    assert "w.safetensors is fastpose_lite0 with 17 joints, not --pose.name fastpose_r50" in text
    assert "missing (preact.conv1.weight" in text
    assert "use weights of fastpose_r50, or set --pose.name fastpose_lite0" in text


def test_a_checkpoint_that_nearly_fits_is_explained() -> None:
    state = read_state_dict(SHIPPED)
    state["extra"] = torch.zeros(1)
    del state["duc1.bn.bias"]
    with pytest.raises(UserError) as error:
        load_pose_network(state, "w.pth")
    text = str(error.value)
    assert "w.pth resembles fastpose_lite0 with 17 joints but does not fit" in text
    assert "1 missing (duc1.bn.bias); 1 unknown (extra)" in text


def test_a_file_that_is_not_a_pose_network_is_refused() -> None:
    with pytest.raises(ValueError, match="its 1 keys do not resemble any pose network; known: fastpose_r50"):
        load_pose_network({"x": torch.zeros(3)}, "w.pth")


def test_another_name_that_fits_too_is_accepted() -> None:
    with torch.device("meta"):
        state = build_pose_model("fastpose_classic", 33).state_dict()
    architecture = recognise(state)
    assert architecture is not None
    assert architecture.name == "fastpose_classic"
    zeros = {key: torch.zeros(tensor.shape, dtype=tensor.dtype) for key, tensor in state.items()}
    assert load_pose_network(zeros, "w.pth", "fastpose_r101")[1] == Architecture("fastpose_r101", 33)


def test_a_network_that_cannot_have_this_number_of_joints_is_refused() -> None:
    with torch.device("meta"):
        state = build_pose_model("fastpose_mobile_small", 136).state_dict()
    state = {key: torch.zeros(tensor.shape, dtype=tensor.dtype) for key, tensor in state.items()}
    with pytest.raises(ValueError, match=r"not --pose\.name fastpose_classic: fastpose_classic has 33 outputs"):
        load_pose_network(state, "w.pth", "fastpose_classic")


def test_the_prefix_of_data_parallel_is_removed() -> None:
    state = {f"module.{key}": tensor for key, tensor in read_state_dict(SHIPPED).items()}
    assert load_pose_network(state, "w.pth")[1].name == "fastpose_lite0"


def test_weights_that_are_not_finite_or_not_floats_are_refused() -> None:
    state = read_state_dict(SHIPPED)
    state["duc1.bn.bias"] = torch.full_like(state["duc1.bn.bias"], torch.nan)
    with pytest.raises(ValueError, match=r"w\.pth: duc1\.bn\.bias has values that are not finite"):
        load_pose_network(state, "w.pth")
    state["duc1.bn.bias"] = state["duc1.bn.weight"].to(torch.int8)
    with pytest.raises(ValueError, match=r"w\.pth: duc1\.bn\.bias is torch\.int8; expected torch\.float32"):
        load_pose_network(state, "w.pth")
    assert recognise({"conv_out.weight": torch.zeros(3)}) is None
