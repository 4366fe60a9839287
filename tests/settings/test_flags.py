import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from support.paths import PROJECT

from pipeline.settings.flags import SettingsError, as_flags, leaves, load_settings, parse_settings
from pipeline.settings.paths import absolute_paths
from pipeline.settings.tree import Section, Settings
from pipeline.sweep.settings import SweepSettings
from pipeline.training.settings import TrainSettings


def refused(argv: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    """The message about wrong settings, without the name of the program."""
    with pytest.raises(SystemExit) as exit_:
        parse_settings(argv, "")
    assert exit_.value.code == 2
    text = capsys.readouterr().err
    assert text.count("\n") == 1, "the message must be one line"
    return text.split(": ", 1)[1].rstrip()


def help_text(capsys: pytest.CaptureFixture[str], kind: type[Section] = Settings, width: int = 100) -> str:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("COLUMNS", str(width))
        with pytest.raises(SystemExit) as exit_:
            parse_settings(["--help"], "Do something.\n\nexamples:\n  uv run jobs/x.py    first example\n", kind=kind)
    assert exit_.value.code == 0
    return capsys.readouterr().out


@pytest.mark.parametrize(
    ("argv", "parts"),
    [
        (["--detector.confidnce", "0.1"], ["--detector.confidnce is unknown", "did you mean --detector.confidence?"]),
        (["--confidence=0.1"], ["did you mean --detector.confidence?"]),
        (["--detector.confidence", "2"], ["--detector.confidence is '2'; expected at most 1"]),
        (["--detector.nms_iou", "0"], ["--detector.nms_iou is '0'; expected more than 0"]),
        (["--detector.input_size", "100"], ["--detector.input_size is '100'; expected a multiple of 32"]),
        (["--pose.batch", "many"], ["--pose.batch is 'many'; expected an integer"]),
        (["--pose.batch", "0"], ["--pose.batch is '0'; expected at least 1"]),
        (["--suppression.mu", "x"], ["--suppression.mu is 'x'; expected a number"]),
        (["--pose.flip_test", "maybe"], ["--pose.flip_test is 'maybe'; expected true or false"]),
        (["--pose.input_size", "256"], ["--pose.input_size is 256; expected 2 values"]),
        (["--pose.input_size", "1,2,3"], ["--pose.input_size is 1,2,3; expected at most 2 values"]),
        (["--suppression.gama", "1"], ["did you mean --suppression.gamma?"]),
        (
            ["--pose.name", "fastpose_r5O"],
            ["--pose.name is 'fastpose_r5O'; did you mean fastpose_r50? Choices: fastpose"],
        ),
        (["--pose.norm", "l2"], ["--pose.norm is 'l2'; Choices: sigmoid, softmax, divide_sum"]),
        (["--pose.input_size", "250x190"], ["--pose.input_size is 250,190; height and width must be multiples of 32"]),
        (["--images.max_megabytes", "inf"], ["--images.max_megabytes is 'inf'; expected a finite number"]),
        (["--detector.cfg", "yolov4.cfg"], ["--detector.name darknet needs --detector.weights, which is none"]),
        (["--detector.name", "yolox"], ["--detector.name yolox needs --detector.weights, which is none"]),
        (["--pose.scales", "1,0"], ["--pose.scales is '0'; expected more than 0.2"]),
        (
            ["--pose.crop", "classic", "--pose.scales", "1,1.5"],
            ["--pose.crop classic cannot be combined with --pose.scales or --pose.ensemble"],
        ),
        (
            ["--pose.crop", "classic", "--pose.decode", "argmax"],
            ["--pose.crop classic needs --pose.decode classic, not argmax"],
        ),
        (["--pose.decode", "classic"], ["--pose.decode classic needs --pose.crop classic"]),
        (["--pose.ensemble", "[{weigths: b.pth}]"], ["--pose.ensemble[0].weigths is unknown; did you mean weights?"]),
        (["--pose.ensemble", "many"], ["--pose.ensemble is 'many'; expected a list"]),
        (["--suppression.kind", "okss"], ["--suppression.kind is 'okss'; did you mean oks?", "soft_oks"]),
        (
            ["--compute.precision", "fp8"],
            ["--compute.precision is 'fp8'; did you mean fp16? Choices: auto, bf16, fp16, float32"],
        ),
        (["photos/"], ["'photos/' is not a flag; expected --SETTING VALUE, see --help"]),
        (["--config", "nowhere.yaml"], ["nowhere.yaml: no such file"]),
    ],
)
def test_a_wrong_setting_is_named_once_in_one_line(argv: list[str], parts: list[str], capsys) -> None:
    text = refused(argv, capsys)
    assert text.startswith((parts[0], argv[0].partition("=")[0]))
    for part in parts:
        assert part in text


@pytest.mark.parametrize(
    ("content", "parts"),
    [
        ("detector: {confidnce: 1}", ["detector.confidnce is unknown", "did you mean detector.confidence?"]),
        ("detector: {confidence: high}", ["detector.confidence is 'high'; expected a number"]),
        ("pose: {crop: classic, decode: argmax}", ["pose.crop classic needs pose.decode classic, not argmax"]),
        ("pose: {ensemble: [{input_size: [1, 2]}]}", ["pose.ensemble[0].input_size is 1,2; height and width must be"]),
        ("pose: {norm: soft}", ["pose.norm is 'soft'; did you mean softmax? Choices: sigmoid"]),
        ("detectr: {}", ["detectr is unknown"]),
        ("- a\n- b", ["expected sections with settings, not a list"]),
        ("a: [", ["not valid YAML"]),
        ("detector: 3", ["detector is 3; expected a section with settings"]),
        ("!!python/object/apply:os.system ['true']", ["not valid YAML"]),
    ],
)
def test_a_wrong_setting_in_a_file_names_the_file(content: str, parts: list[str], tmp_path, capsys) -> None:
    path = tmp_path / "x.yaml"
    path.write_text(content)
    text = refused(["--config", str(path)], capsys)
    assert text.startswith(f"{path}: {parts[0]}")
    assert "--" not in text.removesuffix("--help lists every setting")
    for part in parts:
        assert part in text


def test_wrong_settings_of_a_sweep_have_their_whole_name() -> None:
    with pytest.raises(SettingsError, match=r"^--base\.pose\.decode classic needs --base\.pose\.crop classic$"):
        load_settings(None, {"base.pose.decode": "classic"}, SweepSettings)


@pytest.mark.parametrize("name", ["suppression.gama", "pose.crp"])
def test_unknown_names_of_flags_get_a_suggestion(name: str) -> None:
    with pytest.raises(SettingsError, match=rf"^--{name} is unknown; did you mean (gamma|crop)\?$"):
        load_settings(None, {name: 1})


def test_a_missing_setting_is_named(tmp_path) -> None:
    path = tmp_path / "x.yaml"
    path.write_text("sets: [{annotations: a.json}]\n")
    with pytest.raises(SettingsError, match=r"x\.yaml: sets\[0\]\.images is missing$"):
        load_settings(str(path), {}, TrainSettings)
    with pytest.raises(SettingsError, match=r"^--validation\.images is missing$"):
        load_settings(None, {"validation": {"annotations": "a.json"}}, TrainSettings)


@pytest.mark.parametrize(("flags", "value"), [([], None), (["--motion"], True), (["--motion", "false"], False)])
def test_a_switch_with_a_default_of_its_own_needs_no_value(flags: list[str], value: bool | None) -> None:
    assert parse_settings(["--input=photos", *flags, "--draw", "1"], "").motion is value


def test_flags_override_the_file(tmp_path) -> None:
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


def test_printed_settings_can_be_read_back(tmp_path, capsys) -> None:
    with pytest.raises(SystemExit) as exit_:
        parse_settings(["--print-config", "--input", "x", "--detector.nms_iou", "0.5"], "")
    assert exit_.value.code == 0
    path = tmp_path / "x.yaml"
    path.write_text(capsys.readouterr().out)
    settings = load_settings(str(path), {})
    assert settings == Settings.model_validate({"input": "x", "detector": {"nms_iou": 0.5}})


def test_help_lists_all_settings_with_type_and_default(capsys) -> None:
    text = " ".join(help_text(capsys).split())
    for leaf in leaves():
        assert re.search(rf"--{re.escape(leaf.name)} \S.*?(\(default: |by default )", text)
    assert re.search(r"--detector\.confidence FLOAT minimum objectness.*?\(default: 0\.4\)", text)
    assert re.search(r"--pose\.input_size INT,INT .*?by default as published", text)
    assert re.search(r"--pose\.scales FLOAT,\.\.\. .*?\(default: 1\.0\)", text)
    assert re.search(r"--pose\.ensemble YAML .*?\(default: none\)", text)
    assert re.search(r"--pose\.flip_test \[true\|false\] .*?\(default: false\)", text)


def test_help_shows_choices_as_they_are_typed(capsys) -> None:
    text = " ".join(help_text(capsys).split())
    assert "--pose.decode argmax|integral|combined|offset|classic|simcc " in text
    assert re.search(
        r"--pose\.name NAME [^(]*; one of fastpose_r50, .*, hourglass, fpn_offset_r50, movenet_pyramid --pose", text
    )


def test_help_starts_with_the_description_and_groups_settings_by_section(capsys) -> None:
    text = help_text(capsys)
    assert text.index("Do something.\n\nexamples:\n  uv run jobs/x.py    first example\n") < text.index("options:")
    assert "\ndetector:\n  The person detector.\n\n  --detector.name TEXT" in text
    for section in ("input", "output", "images", "detector", "pose", "suppression", "compute", "fleet"):
        assert re.search(rf"^{section}:\n  [A-Z][^.]*\.$", text, re.MULTILINE), section


def test_help_of_a_sweep_shows_outer_sections_first(capsys) -> None:
    text = help_text(capsys, SweepSettings)
    assert text.index("\nbase:\n") < text.index("\nbase.input:\n") < text.index("\nbase.fleet:\n")


@pytest.mark.parametrize("kind", [Settings, SweepSettings, TrainSettings])
@pytest.mark.parametrize("width", [80, 100])
def test_help_fits_the_terminal(kind: type[Section], width: int, capsys) -> None:
    lines = help_text(capsys, kind, width).splitlines()
    assert [line for line in lines if len(line) > width] == []


def test_flags_of_settings_are_typed_as_help_shows_them() -> None:
    settings = Settings.model_validate({"pose": {"flip_test": True, "scales": [1, 1.25], "input_size": [384, 288]}})
    flags = as_flags(settings)
    assert flags == ["--pose.input_size=384,288", "--pose.flip_test=true", "--pose.scales=1.0,1.25"]
    assert parse_settings(["--input", "x", *flags], "").pose == settings.pose


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


def test_all_settings_have_descriptions() -> None:
    assert all(leaf.description for leaf in leaves())


def test_a_wrong_setting_is_reported_before_torch_is_imported() -> None:
    code = (
        "import sys; sys.argv = ['annotate', '--detector.confidnce', '1']\n"
        "from jobs.annotate import main\n"
        "try: main(sys.argv[1:])\n"
        "except SystemExit as e: assert e.code == 2\n"
        "import ray; assert not ray.is_initialized(); assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], cwd=PROJECT, check=True, capture_output=True)


@pytest.mark.parametrize("path", sorted((PROJECT / "configs").rglob("annotate/*.yaml")), ids=lambda p: p.name)
def test_shipped_configs_are_valid_and_state_their_command(path) -> None:
    load_settings(str(path), {})
    head = path.read_text().split("\n\n")[0]
    assert "jobs/annotate.py" in head
    assert "Expected" in head


@pytest.mark.parametrize("path", sorted((PROJECT / "configs" / "train").glob("*.yaml")), ids=lambda p: p.name)
def test_shipped_training_configs_are_valid_and_state_their_command(path) -> None:
    load_settings(str(path), {}, TrainSettings)
    head = path.read_text()
    assert "jobs/train.py" in head
    assert "Expected" in head


def test_numbers_in_a_file_are_checked(tmp_path) -> None:
    path = tmp_path / "x.yaml"
    path.write_text(yaml.safe_dump({"pose": {"batch": 0}}))
    with pytest.raises(SettingsError, match=r"x\.yaml: pose\.batch is 0; expected at least 1$"):
        load_settings(str(path), {})


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--detector.boxes=x.json"], "--detector.boxes has no effect with --detector.name darknet; leave it out"),
        (["--detector.name=whole_image", "--detector.confidence=0.5"], "--detector.confidence has no effect"),
        (["--detector.name=given", "--detector.weights=x.pth"], "--detector.weights has no effect"),
        (["--detector.name=given", "--detector.confidence=0.5"], "--detector.confidence has no effect"),
        (["--detector.name=yolo", "--detector.weights=x.onnx", "--detector.cfg=x.cfg"], "--detector.cfg has no effect"),
        (["--detector.name=fcos_resnet50_fpn", "--detector.nms_iou=0.5"], "--detector.nms_iou has no effect"),
        (["--detector.name=fcos_resnet50_fpn", "--detector.max_boxes=5"], "--detector.max_boxes has no effect"),
        (["--detector.name=fcos_resnet50_fpn", "--detector.input_size=320"], "--detector.input_size has no effect"),
        (
            ["--detector.name=yolo", "--detector.weights=x.onnx", "--detector.letterbox=false"],
            "--detector.letterbox has",
        ),
        (["--input.image_root=photos"], "--input.image_root has no effect with this --input"),
        (
            ["--suppression.kind=box", "--suppression.gamma=20"],
            "--suppression.gamma has no effect with --suppression.kind",
        ),
        (
            ["--suppression.box_iou=0.5"],
            "--suppression.box_iou has no effect with --suppression.kind pose; leave it out",
        ),
        (["--suppression.kind=none", "--suppression.shift=-0.3"], "--suppression.shift has no effect"),
    ],
)
def test_settings_without_effect_are_refused(flags: list[str], message: str, capsys: pytest.CaptureFixture) -> None:
    with pytest.raises(SystemExit, match="2"):
        parse_settings(["--input=photos", *flags], "")
    error = capsys.readouterr().err
    assert message in error
    assert len(error.splitlines()) == 1


def test_an_unknown_key_suggests_a_name_of_its_level(tmp_path) -> None:
    for text, message in (
        ("detecter: {name: darknet}", "detecter is unknown; did you mean detector?"),
        ("detector: {confidnce: 0.1}", r"detector\.confidnce is unknown; did you mean detector\.confidence\?"),
        ("outptu: out", "outptu is unknown; did you mean output?"),
    ):
        (tmp_path / "c.yaml").write_text(text)
        with pytest.raises(
            SettingsError, match=message.replace("detector?", r"detector\?").replace("output?", r"output\?")
        ):
            load_settings(str(tmp_path / "c.yaml"), {})


def test_a_flag_may_make_settings_of_a_file_idle(tmp_path, capsys: pytest.CaptureFixture) -> None:
    (tmp_path / "c.yaml").write_text("{input: photos, detector: {name: darknet, confidence: 0.5}}")
    settings = parse_settings([f"--config={tmp_path / 'c.yaml'}", "--detector.name=whole_image"], "")
    assert settings.detector.name == "whole_image"
    (tmp_path / "c.yaml").write_text("{input: photos, detector: {name: whole_image, confidence: 0.5}}")
    with pytest.raises(SystemExit, match="2"):
        parse_settings([f"--config={tmp_path / 'c.yaml'}"], "")
    assert "--detector.confidence has no effect with --detector.name whole_image" in capsys.readouterr().err


def test_idle_settings_are_left_out_of_a_command() -> None:
    """A sweep may vary the kind of suppression and the constants of one kind."""
    tree = {"input": "photos", "suppression": {"kind": "box", "gamma": 20, "box_iou": 0.5}}
    flags = as_flags(Settings.model_validate(tree))
    assert "--suppression.box_iou=0.5" in flags
    assert not any("gamma" in flag for flag in flags)
    assert parse_settings(flags, "").suppression.kind == "box"
