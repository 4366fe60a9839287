from typing import get_args

from support.paths import PROJECT

from pipeline.pose.networks import POSE_MODELS
from pipeline.settings.paths import absolute_paths
from pipeline.settings.tree import PoseName, Settings, SkeletonName
from pipeline.skeletons import SKELETONS


def test_names_in_settings_are_the_names_that_exist() -> None:
    assert set(get_args(PoseName)) == set(POSE_MODELS)
    assert set(get_args(SkeletonName)) == set(SKELETONS)


def test_names_in_the_catalogue_stay_names() -> None:
    settings = Settings.model_validate({"pose": {"weights": "fastpose_lite0_coco17"}})
    assert absolute_paths(settings).pose.weights == "fastpose_lite0_coco17"


def test_local_paths_become_absolute_and_others_stay(tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    settings = Settings.model_validate(
        {"input": "photos", "output": "s3://b/out", "annotations": "file:///data/a.json"}
    )
    absolute = absolute_paths(settings)
    assert absolute.input.uri == str(tmp_path / "photos")
    assert absolute.output.uri == "s3://b/out"
    assert absolute.annotations == "/data/a.json"
    assert absolute.pose.weights == str(PROJECT / "weights" / "fastpose_lite0_coco17.safetensors")
