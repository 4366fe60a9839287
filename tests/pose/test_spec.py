"""The specs of the pose networks, against the networks themselves and the catalogue of checkpoints."""

import pytest
import torch

from pipeline.pose.networks import POSE_NETWORKS, build_pose_model, pose_spec
from pipeline.pose.networks.hourglass import Hourglass
from pipeline.skeletons import SKELETONS
from pipeline.weights.catalogue import CatalogueEntry, catalogue

POSE_ENTRIES = [entry for entry in catalogue().values() if entry.joints is not None]


@pytest.mark.parametrize("name", POSE_NETWORKS)
def test_networks_build_and_have_the_output_of_their_spec(name: str) -> None:
    spec = pose_spec(name)
    joints = spec.num_outputs or 17
    height, width = spec.input_size
    with torch.device("meta"):
        output = build_pose_model(name, joints).eval()(torch.zeros(1, 3, height, width))
    channels = 3 * joints if spec.decodings == ("offset",) else joints
    assert output.shape == (1, channels, height // 4, width // 4)
    assert spec.num_skeleton_joints(joints) == 17


@pytest.mark.parametrize("name", [name for name, spec in POSE_NETWORKS.items() if spec.num_outputs])
def test_fixed_numbers_of_outputs_are_enforced(name: str) -> None:
    outputs = pose_spec(name).num_outputs
    assert outputs is not None
    with torch.device("meta"), pytest.raises(ValueError, match=f"{name} has {outputs} outputs"):
        build_pose_model(name, outputs + 1)


@pytest.mark.parametrize("entry", POSE_ENTRIES, ids=lambda entry: entry.name)
def test_specs_agree_with_the_catalogue(entry: CatalogueEntry) -> None:
    spec = pose_spec(entry.network)
    assert entry.joints is not None
    assert spec.num_skeleton_joints(entry.joints) in {len(skeleton) for skeleton in SKELETONS.values()}
    assert entry.decode in spec.decodings
    assert entry.input_size is not None
    # Some networks are published for several sizes. That of the spec is one of them.
    sizes = {other.input_size for other in POSE_ENTRIES if other.network == entry.network}
    assert spec.input_size in sizes
    if spec.num_outputs:
        assert entry.joints == spec.num_outputs


@pytest.mark.parametrize("name", ["hourglass", "fastpose_lite0", "fpn_offset_r50"])
def test_the_last_training_output_is_the_output(name: str) -> None:
    options = {"stacks": 2, "depth": 2, "width": 16} if name == "hourglass" else {}
    torch.manual_seed(0)
    network = build_pose_model(name, **options).eval()
    inputs = torch.rand(1, 3, 64, 64)
    with torch.inference_mode():
        outputs = pose_spec(name).training_outputs(network, inputs)
        assert len(outputs) == (2 if isinstance(network, Hourglass) else 1)
        torch.testing.assert_close(outputs[-1], network(inputs))
