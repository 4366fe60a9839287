from typing import get_args

import pytest
from support.paths import PROJECT

from pipeline.pose.networks import POSE_NETWORKS
from pipeline.settings.paths import absolute_paths
from pipeline.settings.tree import PoseName, Settings, SkeletonName
from pipeline.skeletons import SKELETONS


def test_names_in_settings_match_the_networks_and_skeletons() -> None:
    assert set(get_args(PoseName)) == set(POSE_NETWORKS)
    assert set(get_args(SkeletonName)) == set(SKELETONS)


def test_names_in_the_catalogue_are_not_changed_to_paths() -> None:
    settings = Settings.model_validate({"pose": {"weights": "fastpose_lite0_coco17"}})
    assert absolute_paths(settings).pose.weights == "fastpose_lite0_coco17"


def test_only_local_paths_become_absolute(tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    settings = Settings.model_validate(
        {"input": "photos", "output": "s3://b/out", "annotations": "file:///data/a.json"}
    )
    absolute = absolute_paths(settings)
    assert absolute.input.uri == str(tmp_path / "photos")
    assert absolute.output.uri == "s3://b/out"
    assert absolute.annotations == "/data/a.json"
    assert absolute.pose.weights == str(PROJECT / "weights" / "movenet_thunder_coco17.safetensors")


@pytest.mark.parametrize(
    ("compute", "message"),
    [
        ({"runtime": "onnx", "precision": "bf16"}, "onnx has no bf16; leave out --compute.precision"),
        ({"runtime": "openvino", "precision": "bf16"}, "openvino has no bf16; leave out --compute.precision"),
        ({"runtime": "openvino", "device": "cuda"}, "openvino runs on the CPU; leave out --compute.device"),
        ({"runtime": "tensorrt", "device": "cpu"}, "tensorrt needs a GPU; leave out --compute.device"),
    ],
)
def test_a_runtime_does_not_support_everything(compute: dict[str, str], message: str) -> None:
    assert Settings.model_validate({"compute": compute}).problem() == f"--compute.runtime {message}"
    assert Settings.model_validate({"compute": {"runtime": compute["runtime"]}}).problem() is None


def test_torchvision_detectors_run_in_torch_alone() -> None:
    tree = {"detector": {"name": "fcos_resnet50_fpn"}, "compute": {"runtime": "onnx"}}
    assert Settings.model_validate(tree).problem() == (
        "--compute.runtime onnx does not run torchvision detectors; leave it out"
    )
