import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from support.paths import PROJECT

from pipeline.settings.flags import SettingsError, leaves, load_settings, parse_settings
from pipeline.settings.paths import absolute_paths
from pipeline.settings.tree import Settings
from pipeline.training.settings import TrainSettings


def refused(argv: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    with pytest.raises(SystemExit) as exit_:
        parse_settings(argv, "")
    assert exit_.value.code == 2
    text = capsys.readouterr().err
    assert text.count("\n") == 1, "one clear line"
    return text


@pytest.mark.parametrize(
    ("argv", "parts"),
    [
        (["--detector.confidnce", "0.1"], ["--detector.confidnce is unknown", "did you mean --detector.confidence?"]),
        (["--confidence=0.1"], ["did you mean --detector.confidence?"]),
        (["--detector.confidence", "2"], ["--detector.confidence is '2'", "less than or equal to 1"]),
        (["--pose.batch", "many"], ["--pose.batch is 'many'", "integer"]),
        (["--pose.input_size", "256"], ["--pose.input_size"]),
        (["--suppression.gama", "1"], ["did you mean --suppression.gamma?"]),
        (["--pose.name", "fastpose_r5O"], ["--pose.name is 'fastpose_r5O'", "fastpose_r50"]),
        (["--pose.input_size", "250x190"], ["multiples of 32"]),
        (["--images.max_megabytes", "inf"], ["--images.max_megabytes is 'inf'", "finite"]),
        (["--detector.cfg", "yolov4.cfg"], ["--detector.weights is none; a darknet detector needs its file"]),
        (["--detector.name", "yolox"], ["--detector.weights is none; a yolox detector needs its file"]),
        (["--pose.scales", "1,0"], ["--pose.scales is '0'", "greater than 0.2"]),
        (
            ["--pose.crop", "classic", "--pose.scales", "1,1.5"],
            ["--pose.crop: pose: pose.crop is classic, which cannot be averaged over scales"],
        ),
        (
            ["--pose.decode", "classic"],
            ["--pose.decode: pose: pose.decode is classic, which only the classic pose.crop fits"],
        ),
        (["--pose.ensemble", "[{weigths: b.pth}]"], ["--pose.ensemble: pose.ensemble.weigths", "not permitted"]),
        (["--suppression.kind", "okss"], ["--suppression.kind is 'okss'", "soft_oks"]),
        (["--compute.precision", "fp8"], ["--compute.precision is 'fp8'", "bf16"]),
        (["photos/"], ["'photos/' is not expected", "--help"]),
        (["--config", "nowhere.yaml"], ["nowhere.yaml: no such file"]),
    ],
)
def test_a_mistake_is_one_line_that_names_it(argv: list[str], parts: list[str], capsys) -> None:
    text = refused(argv, capsys)
    for part in parts:
        assert part in text


@pytest.mark.parametrize(
    ("content", "parts"),
    [
        ("detector: {confidnce: 1}", ["detector.confidnce is unknown", "did you mean detector.confidence?"]),
        ("detector: {confidence: high}", ["detector.confidence is 'high'", "number"]),
        ("detectr: {}", ["detectr is unknown"]),
        ("- a\n- b", ["expected sections"]),
        ("a: [", ["not valid YAML"]),
        ("detector: 3", ["detector"]),
        ("!!python/object/apply:os.system ['true']", ["not valid YAML"]),
    ],
)
def test_a_mistake_in_a_file_names_the_file(content: str, parts: list[str], tmp_path, capsys) -> None:
    path = tmp_path / "x.yaml"
    path.write_text(content)
    text = refused(["--config", str(path)], capsys)
    assert str(path) in text
    for part in parts:
        assert part in text


def test_flags_win_over_the_file(tmp_path) -> None:
    path = tmp_path / "x.yaml"
    path.write_text("input: photos\ndetector: {confidence: 0.3, batch: 2}\nsuppression: {gamma: 20}\n")
    flags = ["--config", str(path), "--detector.confidence=0.4", "--pose.input_size", "384x288", "--pose.flip_test"]
    settings = parse_settings([*flags, "--input.shard_size", "7", "--pose.weights", "none"], "")
    assert settings.input.uri == "photos"
    assert settings.input.shard_size == 7
    assert settings.detector.confidence == 0.4
    assert settings.detector.batch == 2
    assert settings.suppression.gamma == 20
    assert settings.pose.input_size == (384, 288)
    assert settings.pose.flip_test
    assert settings.pose.weights is None


def test_printed_settings_read_back_the_same(tmp_path, capsys) -> None:
    with pytest.raises(SystemExit) as exit_:
        parse_settings(["--print-config", "--input", "x", "--detector.nms_iou", "0.5"], "")
    assert exit_.value.code == 0
    path = tmp_path / "x.yaml"
    path.write_text(capsys.readouterr().out)
    settings = load_settings(str(path), {})
    assert settings == Settings.model_validate({"input": "x", "detector": {"nms_iou": 0.5}})


def test_help_lists_every_setting_with_type_and_default(capsys) -> None:
    with pytest.raises(SystemExit) as exit_:
        parse_settings(["--help"], "What it does.")
    assert exit_.value.code == 0
    text = " ".join(capsys.readouterr().out.split())
    assert text.count("(default:") == len(list(leaves()))
    assert re.search(r"--detector\.confidence FLOAT .*?least objectness.*?\(default: 0\.3\)", text)
    assert re.search(r"--pose\.input_size INT,INT .*?\(default: none\)", text)
    assert re.search(r"--pose\.scales FLOAT,\.\.\. .*?\(default: 1\.0\)", text)
    assert re.search(r"--pose\.ensemble YAML .*?\(default: none\)", text)


def test_an_ensemble_is_read_from_a_flag_and_a_file(tmp_path) -> None:
    flags = ["--pose.scales", "1,1.25", "--pose.ensemble", "[{weights: b.pth, input_size: [384, 288]}]"]
    settings = parse_settings(["--input", "x", *flags], "")
    assert settings.pose.scales == (1.0, 1.25)
    assert [n.weights for n in settings.pose.networks()] == [settings.pose.weights, "b.pth"]
    assert settings.pose.ensemble[0].input_size == (384, 288)
    path = tmp_path / "x.yaml"
    path.write_text("pose:\n  ensemble:\n  - weights: b.pth\n    input_size: [384, 288]\n  scales: [1, 1.25]\n")
    assert load_settings(str(path), {}).pose == settings.pose
    absolute = absolute_paths(settings)
    assert absolute.pose.ensemble[0].weights == str(Path.cwd() / "b.pth")


def test_every_setting_has_a_description() -> None:
    assert all(leaf.description for leaf in leaves())


def test_a_mistake_is_told_before_ray_and_torch_are_loaded() -> None:
    code = (
        "import sys; sys.argv = ['annotate', '--detector.confidnce', '1']\n"
        "from jobs.annotate import main\n"
        "try: main(sys.argv[1:])\n"
        "except SystemExit as e: assert e.code == 2\n"
        "import ray; assert not ray.is_initialized(); assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], cwd=PROJECT, check=True, capture_output=True)


@pytest.mark.parametrize("path", sorted((PROJECT / "configs").rglob("annotate/*.yaml")), ids=lambda p: p.name)
def test_shipped_configs_are_valid_and_say_their_command(path) -> None:
    load_settings(str(path), {})
    head = path.read_text().split("\n\n")[0]
    assert "jobs/annotate.py" in head
    assert "Expected" in head


@pytest.mark.parametrize("path", sorted((PROJECT / "configs" / "train").glob("*.yaml")), ids=lambda p: p.name)
def test_shipped_training_configs_are_valid_and_say_their_command(path) -> None:
    load_settings(str(path), {}, TrainSettings)
    head = path.read_text()
    assert "jobs/train.py" in head
    assert "Expected" in head


def test_a_section_that_is_no_section_is_refused(tmp_path) -> None:
    path = tmp_path / "x.yaml"
    path.write_text(yaml.safe_dump({"pose": {"batch": 0}}))
    with pytest.raises(SettingsError, match=r"pose\.batch is 0: input should be greater than or equal to 1"):
        load_settings(str(path), {})
