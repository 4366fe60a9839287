"""Networks exported to ONNX compute what they compute in PyTorch, and annotate with the same settings."""

from __future__ import annotations

import copy
import json
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import openvino
import pytest
import torch
from safetensors.torch import save_file
from support.descriptions import TINY_DETECTOR
from support.images import encode, gradient
from support.paths import PROJECT
from torch import nn
from torch.nn import functional as F

from jobs.export import main as export
from pipeline.annotator import Annotator
from pipeline.detectors import Darknet, build_detector
from pipeline.errors import UserError
from pipeline.export import exported as exported_module
from pipeline.export import precision
from pipeline.export.parity import Accuracy, ExportDiffers, compare
from pipeline.images import decode_image
from pipeline.pose.estimator import PoseEstimator
from pipeline.pose.networks import POSE_NETWORKS, build_pose_model
from pipeline.runtime.device import Compute
from pipeline.runtime.onnx_export import to_onnx
from pipeline.runtime.torch import TorchNetwork
from pipeline.settings.tree import DetectorSettings, PoseSettings, Settings
from pipeline.skeletons import SKELETONS

CPU = Compute.resolve("cpu", "float32")
TORCH = Compute.resolve("cpu", "float32", "torch")


def lively(model: nn.Module) -> nn.Module:
    """A network with random weights whose outputs vary."""
    with torch.no_grad():
        for module in model.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.running_mean.uniform_(-0.1, 0.1)
                module.running_var.uniform_(0.8, 1.2)
    return model.eval()


def pose_weights(folder: Path, name: str, **metadata: str) -> str:
    torch.manual_seed(0)
    save_file(lively(build_pose_model(name, 17)).state_dict(), folder / f"{name}.safetensors", metadata)
    return str(folder / f"{name}.safetensors")


@pytest.fixture
def photos(tmp_path: Path, request: pytest.FixtureRequest) -> str:
    """A folder of three images, or as many as the test says, and one that is none."""
    (tmp_path / "photos").mkdir()
    for number in range(getattr(request, "param", 3)):
        image = np.roll(gradient(96, 130), 17 * number, axis=1)
        (tmp_path / "photos" / f"{number}.jpg").write_bytes(encode(image))
    (tmp_path / "photos" / "damaged.jpg").write_bytes(b"no image")
    return str(tmp_path / "photos")


def run(folder: Path, *flags: str, code: int = 0) -> dict:
    """The report of an export."""
    assert export([*flags, f"--output={folder / 'exported'}"]) == code
    report = folder / "exported" / "export.json"
    return json.loads(report.read_text()) if report.exists() else {}


def test_an_exported_pose_network_gives_the_same_joints(photos: str, tmp_path: Path, capsys) -> None:
    stated = {"skeleton": "coco17", "decode": "integral", "norm": "softmax", "input_size": "96x64"}
    weights = pose_weights(tmp_path, "fastpose_mobile_small", **stated)
    report = run(tmp_path, f"--pose.weights={weights}", f"--input={photos}")
    path = tmp_path / "exported" / "fastpose_mobile_small.onnx"
    assert f"--pose.weights {path}" in capsys.readouterr().out
    entry = report[path.name]
    assert entry["differences"]["inputs"] == 3
    assert entry["differences"]["pixels"] < 0.01
    metadata = {p.key: p.value for p in onnx.load(str(path)).metadata_props}
    assert metadata == entry["metadata"]
    assert {key: metadata[key] for key in stated} == stated
    assert json.loads(metadata["joints"]) == list(SKELETONS["coco17"].joints)
    assert metadata["mean"] == "[0.406, 0.457, 0.48]"
    assert metadata["source"] == "fastpose_mobile_small.safetensors"
    files = ((weights, TORCH), (path, CPU))
    torch_poses, onnx_poses = (PoseEstimator.from_settings(PoseSettings(weights=str(w), batch=5), c) for w, c in files)
    (described,), (exported,) = torch_poses.describe(), onnx_poses.describe()
    assert exported == described.replace(", torch", ", onnx float32")
    crops = np.random.default_rng(0).integers(0, 255, (5, 96, 64, 3), np.uint8)
    boxes = np.tile(np.array([0, 0, 64, 96], np.float32), (5, 1))
    expected, actual = (poses.estimate([crops], [boxes]) for poses in (torch_poses, onnx_poses))
    np.testing.assert_allclose(actual[0], expected[0], atol=0.01)
    np.testing.assert_allclose(actual[1], expected[1], atol=1e-4)


def test_an_exported_detector_gives_the_same_boxes(photos: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    network = lively(Darknet(TINY_DETECTOR))
    save_file(network.state_dict(), tmp_path / "tiny.safetensors", {"cfg": TINY_DETECTOR})
    report = run(tmp_path, f"--detector.weights={tmp_path / 'tiny.safetensors'}", f"--input={photos}")
    metadata = report["tiny.onnx"]["metadata"]
    height, width = network.size
    assert metadata["input_size"] == f"{height}x{width}"
    assert (metadata["classes"], metadata["letterbox"]) == ("1", "true")
    images = [np.random.default_rng(n).integers(0, 255, (90, 120, 3), np.uint8) for n in range(3)]
    found = []
    for name in ("tiny.safetensors", "exported/tiny.onnx"):
        settings = DetectorSettings(weights=str(tmp_path / name), confidence=0.0, batch=2, nms_iou=1.0, max_boxes=9999)
        detector = build_detector(settings, CPU)
        assert detector is not None
        found.append([*detector.detect(images[:2]), *detector.detect(images[2:])])
    for expected, actual in zip(*found, strict=True):
        assert len(expected.xyxy) == len(actual.xyxy) > 0
        np.testing.assert_allclose(actual.xyxy, expected.xyxy, atol=0.01)
        np.testing.assert_allclose(actual.scores, expected.scores, atol=1e-5)


def test_a_file_that_differs_is_not_written(photos: str, tmp_path: Path, capsys, monkeypatch) -> None:
    weights = pose_weights(tmp_path, "fastpose_mobile_small", input_size="64x64")
    correct = exported_module.to_onnx

    def wrong(module: nn.Module, *arguments) -> bytes:
        other = copy.deepcopy(module)
        with torch.no_grad():
            for parameter in other.parameters():
                parameter.mul_(1.2)
        return correct(other, *arguments)

    monkeypatch.setattr(exported_module, "to_onnx", wrong)
    run(tmp_path, f"--pose.weights={weights}", f"--input={photos}", code=1)
    error = capsys.readouterr().err
    assert error.startswith("export: the exported file differs from the network by ")
    assert error.rstrip().endswith("it is not written")
    assert not (tmp_path / "exported").exists()


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--pose.weights={folder}/none.pth"], "none.pth"),
        (["--pose.weights={folder}/x.onnx"], "x.onnx is an exported file already"),
        (["--detector.weights={folder}/x.onnx"], "x.onnx is an exported file already"),
        (["--detector.weights=nanodet_g_person", "--input={folder}/text"], "has no readable image"),
    ],
)
def test_what_cannot_be_exported_is_refused_in_one_line(flags: list[str], message: str, tmp_path: Path, capsys) -> None:
    (tmp_path / "x.onnx").write_bytes(b"x")
    (tmp_path / "text").mkdir()
    (tmp_path / "text" / "a.jpg").write_bytes(b"x")
    run(tmp_path, *(flag.format(folder=tmp_path) for flag in flags), code=2)
    error = capsys.readouterr().err
    assert message in error
    assert len(error.splitlines()) == 1


def test_nothing_to_export_is_a_wrong_setting(capsys) -> None:
    with pytest.raises(SystemExit, match="2"):
        export([])
    assert "--pose.weights and --detector.weights are both none" in capsys.readouterr().err


def test_the_export_of_another_program_is_no_darknet_network(tmp_path: Path) -> None:
    weights = pose_weights(tmp_path, "fastpose_mobile_small", input_size="64x64")
    run(tmp_path, f"--pose.weights={weights}")
    path = str(tmp_path / "exported" / "fastpose_mobile_small.onnx")
    with pytest.raises(
        UserError, match=r"not a Darknet network that jobs/export\.py wrote.*--detector\.name yolo or yolox"
    ):
        build_detector(DetectorSettings(weights=path), CPU)


def test_torchscript_gives_the_same_joints(photos: str, tmp_path: Path) -> None:
    weights = pose_weights(tmp_path, "fastpose_mobile_small", skeleton="coco17", decode="argmax", input_size="64x64")
    run(tmp_path, f"--pose.weights={weights}", f"--input={photos}", "--format=torchscript")
    files = (weights, tmp_path / "exported" / "fastpose_mobile_small.torchscript")
    poses, traced = (PoseEstimator.from_settings(PoseSettings(weights=str(w), batch=2), TORCH) for w in files)
    assert traced.describe() == [f"{poses.describe()[0]} float32"]
    crops = np.random.default_rng(0).integers(0, 255, (2, 64, 64, 3), np.uint8)
    boxes = np.tile(np.array([0, 0, 64, 64], np.float32), (2, 1))
    expected, actual = (p.estimate([crops], [boxes]) for p in (poses, traced))
    np.testing.assert_allclose(actual[0], expected[0], atol=0.01)


def test_openvino_writes_two_files_with_metadata(photos: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    save_file(lively(Darknet(TINY_DETECTOR)).state_dict(), tmp_path / "tiny.safetensors", {"cfg": TINY_DETECTOR})
    flags = (f"--detector.weights={tmp_path / 'tiny.safetensors'}", f"--input={photos}", "--format=openvino")
    report = run(tmp_path, *flags)
    assert list(report) == ["tiny.xml"]
    assert set(report["tiny.xml"]["files"]) == {"tiny.xml", "tiny.bin"}
    assert report["tiny.xml"]["differences"]["pixels"] < 0.1
    model = openvino.Core().read_model(tmp_path / "exported" / "tiny.xml")
    assert model.get_rt_info(["framework", "network"]).astype(str) == "darknet"
    annotate = PoseSettings(weights=str(tmp_path / "exported" / "tiny.xml"))
    with pytest.raises(UserError, match=r"tiny\.xml: annotate runs no OpenVINO files; .*--compute\.runtime openvino"):
        PoseEstimator.from_settings(annotate, CPU)


def test_openvino_refuses_deformable_convolutions_by_name(photos: str, tmp_path: Path, capsys) -> None:
    weights = pose_weights(tmp_path, "fastpose_r50_dcn", decode="argmax", input_size="64x64")
    run(tmp_path, f"--pose.weights={weights}", f"--input={photos}", "--format=openvino", code=2)
    assert "does not support the deformable convolutions of this network; use --format onnx" in capsys.readouterr().err


@pytest.mark.parametrize("photos", [10], indirect=True)
def test_fp16_keeps_the_last_convolution_in_float32(photos: str, tmp_path: Path) -> None:
    weights = pose_weights(tmp_path, "fastpose_mobile_small", skeleton="coco17", decode="argmax", input_size="64x64")
    flags = (f"--pose.weights={weights}", f"--input={photos}", "--precision=fp16")
    entry = run(tmp_path, *flags)["fastpose_mobile_small_fp16.onnx"]
    assert entry["metadata"]["precision"] == "fp16"
    assert json.loads(entry["metadata"]["accuracy"])["truth"] == entry["accuracy"]["truth"]
    assert entry["accuracy"]["exported"]["OKS"] > 0.99
    model = onnx.load(str(tmp_path / "exported" / "fastpose_mobile_small_fp16.onnx"))
    kinds = {i.name: i.data_type for i in model.graph.initializer}
    convolutions = [kinds[node.input[1]] for node in model.graph.node if node.op_type == "Conv"]
    half, exact = onnx.TensorProto.FLOAT16, onnx.TensorProto.FLOAT
    assert convolutions == [half] * (len(convolutions) - 1) + [exact]
    assert {value.type.tensor_type.elem_type for value in (*model.graph.input, *model.graph.output)} == {exact}
    # What TensorRT's parser needs, which does not run here: a valid file of standard operators, with all types and
    # shapes known, of a version that JetPack's TensorRT 10 reads.
    onnx.checker.check_model(model, full_check=True)
    assert {node.domain for node in model.graph.node} == {""}
    assert [(opset.domain, opset.version <= 20) for opset in model.opset_import] == [("", True)]
    inferred = onnx.shape_inference.infer_shapes(model, strict_mode=True, data_prop=True).graph
    known = {value.name for value in (*inferred.value_info, *inferred.output)}
    assert all(output in known for node in inferred.node for output in node.output)


class Pooled(nn.Module):
    """A stem, a pooling that the exporter pads with minus infinity, and two more convolutions."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.stem = nn.Conv2d(3, 8, 3, 2, padding=1)
        self.middle = nn.Conv2d(8, 8, 3, 2, padding=1)
        self.last = nn.Conv2d(8, 4, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = torch.relu(self.middle(torch.relu(self.stem(x))))
        return self.last(F.max_pool2d(F.pad(x, (0, 1, 0, 1), value=-torch.inf), 2, 1)).sigmoid()


def test_int8_keeps_what_is_sensitive_in_float32() -> None:
    inputs = torch.rand(8, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    data = precision.to_int8(to_onnx(Pooled(), (32, 32), "y"), inputs.numpy())
    model = onnx.load_from_string(data)
    weights = {i.name: onnx.numpy_helper.to_array(i) for i in model.graph.initializer}
    makers = {output: node for node in model.graph.node for output in node.output}
    convolutions = [makers.get(n.input[1]) for n in model.graph.node if n.op_type == "Conv"]
    assert [maker is not None for maker in convolutions] == [False, True, False]
    quantised = weights[convolutions[1].input[0]]
    assert quantised.dtype == np.int8
    assert 60 <= np.abs(quantised.astype(int)).max() <= 64  # 7 bits
    assert weights[convolutions[1].input[1]].shape == (8,)  # a scale for each output channel
    session = onnxruntime.InferenceSession(data)
    with torch.inference_mode():
        expected = Pooled()(inputs).numpy()
    np.testing.assert_allclose(session.run(None, {"images": inputs.numpy()})[0], expected, atol=0.02)


def test_an_infinite_scale_is_refused(monkeypatch) -> None:
    """As plain quantisation gives it: the network behind it would compute zeros without an error."""
    monkeypatch.setattr(precision, "padding", lambda model: [])
    with pytest.raises(UserError, match=r"int8 does not suit the network: .* has no finite range"):
        precision.to_int8(to_onnx(Pooled(), (32, 32), "y"), np.ones((4, 3, 32, 32), np.float32))


@pytest.mark.parametrize("broken", [0, 1])
def test_numbers_that_are_not_finite_are_refused(broken: int) -> None:
    """Of either: a difference that is not a number is not larger than any limit."""
    networks = [TorchNetwork(nn.Conv2d(3, 2, 1), TORCH) for _ in range(2)]
    with torch.no_grad():
        networks[broken].module.bias.fill_(torch.nan)
    with pytest.raises(ExportDiffers, match="computes numbers that are not finite"):
        compare(*networks, torch.zeros(2, 3, 8, 8), lambda expected, actual: (0.0, 0.0))


def test_a_file_that_loses_accuracy_is_refused() -> None:
    accuracy = Accuracy("val.json", {"AP": 0.5, "PCK": 0.8}, {"AP": 0.495, "PCK": 0.78}, 0.01)
    with pytest.raises(ExportDiffers, match=r"^PCK falls from 0\.800 to 0\.780 on val\.json, by more than 0\.01"):
        accuracy.check()
    Accuracy("val.json", {"AP": 0.5}, {"AP": 0.495}, 0.01).check()
    with pytest.raises(ExportDiffers, match=r"AP falls from 0\.500 to nan"):
        Accuracy("val.json", {"AP": 0.5}, {"AP": float("nan")}, 0.01).check()


def test_few_people_judge_no_file(photos: str, tmp_path: Path, capsys) -> None:
    weights = pose_weights(tmp_path, "fastpose_mobile_small", skeleton="coco17", decode="argmax", input_size="64x64")
    run(tmp_path, f"--pose.weights={weights}", f"--input={photos}", "--precision=int8", code=2)
    assert "--input: accuracy is measured on at least 10 people, not on 3" in capsys.readouterr().err
    people = {"id": 1, "image_id": 1, "category_id": 1, "bbox": [1, 1, 60, 60], "area": 900, "iscrowd": 0}
    content = {
        "images": [{"id": 1, "file_name": "0.jpg", "width": 130, "height": 96}],
        "categories": [{"id": 1, "name": "person", "keypoints": list(SKELETONS["coco17"].joints)}],
        "annotations": [{**people, "keypoints": [9, 9, 2] * 17, "num_keypoints": 17}],
    }
    (tmp_path / "truth.json").write_text(json.dumps(content))
    flags = (f"--input={photos}", f"--annotations={tmp_path / 'truth.json'}")
    run(tmp_path, f"--pose.weights={weights}", *flags, code=2)
    assert "--annotations: accuracy is measured on at least 100 people, not on 1" in capsys.readouterr().err


def test_two_files_of_one_name_are_refused(photos: str, tmp_path: Path, capsys) -> None:
    torch.manual_seed(0)
    (tmp_path / "a").mkdir()
    detector, pose = tmp_path / "a" / "fastpose_mobile_small.safetensors", "fastpose_mobile_small"
    save_file(lively(Darknet(TINY_DETECTOR)).state_dict(), detector, {"cfg": TINY_DETECTOR})
    weights = pose_weights(tmp_path, pose, skeleton="coco17", decode="argmax", input_size="64x64")
    run(tmp_path, f"--pose.weights={weights}", f"--detector.weights={detector}", f"--input={photos}", code=2)
    assert "have the same name; export them apart" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--max_loss=2"], "--max_loss has no effect without --annotations"),
        (["--precision=int8"], "--precision int8 is calibrated on images like those to annotate: set --input"),
        (["--annotations=a.json"], "--annotations needs --input, the folder of the images"),
        (["--format=torchscript", "--precision=fp16"], "torchscript holds float32 alone, not fp16; use --format onnx"),
        (["--format=tensorrt"], "annotate with --compute.runtime tensorrt, which builds the engine"),
        (["--format=litert"], "the converter needs an older PyTorch than this project"),
    ],
)
def test_what_a_format_does_not_hold_is_a_wrong_setting(flags: list[str], message: str, capsys) -> None:
    with pytest.raises(SystemExit, match="2"):
        export(["--pose.weights=x.pth", *flags])
    assert message in capsys.readouterr().err


@pytest.mark.slow
def test_the_shipped_networks_lose_little_in_int8(tmp_path: Path) -> None:
    """Measured against the networks themselves; with annotations see infra/benchmarks."""
    weights = [f"--pose.weights={PROJECT / 'weights' / 'fastpose_lite0_coco17.safetensors'}"]
    photos = PROJECT / "configs" / "demo" / "photos"
    report = run(tmp_path, *weights, "--detector.weights=nanodet_g_person", f"--input={photos}", "--precision=int8")
    for name, size, metric in (
        ("fastpose_lite0_coco17_int8.onnx", 8e6, "OKS"),
        ("nanodet_g_person_int8.onnx", 5e6, "AP"),
    ):
        assert report[name]["files"][name]["bytes"] < size
        assert report[name]["accuracy"]["exported"][metric] > 0.85
    settings = Settings.model_validate(
        {
            "detector": {"weights": str(tmp_path / "exported" / "nanodet_g_person_int8.onnx")},
            "pose": {"weights": str(tmp_path / "exported" / "fastpose_lite0_coco17_int8.onnx")},
        }
    )
    (people,) = Annotator.from_settings(settings).annotate([decode_image((photos / "group.jpg").read_bytes()).pixels])
    assert len(people) >= 3


@pytest.mark.slow
@pytest.mark.parametrize("name", POSE_NETWORKS)
def test_every_pose_network_is_exported(name: str, photos: str, tmp_path: Path) -> None:
    """Also those with deformable convolutions, as the standard operator DeformConv."""
    decode = POSE_NETWORKS[name].decodings[0]
    skeleton = "wholebody133" if decode == "combined" else "coco17"
    torch.manual_seed(0)
    joints = len(SKELETONS[skeleton])
    save_file(lively(build_pose_model(name, joints)).state_dict(), tmp_path / "net.safetensors", {"skeleton": skeleton})
    flags = [f"--pose.weights={tmp_path / 'net.safetensors'}", f"--pose.name={name}", "--pose.input_size=64x64"]
    report = run(tmp_path, *flags, f"--pose.decode={decode}", f"--input={photos}", "--images=2")
    assert report["net.onnx"]["differences"]["pixels"] < 0.1
    nodes = {node.op_type for node in onnx.load(str(tmp_path / "exported" / "net.onnx")).graph.node}
    deformable = name in ("fastpose_r50_dcn", "fastpose_duc_dense")
    assert ("DeformConv" in nodes) == deformable
    # The exporter folds BatchNorm behind plain convolutions; the hourglass has it before them.
    assert ("BatchNormalization" in nodes) == (deformable or name == "hourglass")
