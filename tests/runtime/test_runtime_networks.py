"""The same small network as a module and as exported files, in several runtimes."""

import json
import sys
from pathlib import Path

import pytest
import torch
from support.descriptions import TINY_DETECTOR
from support.exports import export_onnx, export_torchscript, write_onnx_sum
from torch import Tensor, nn

from pipeline.detectors import Darknet
from pipeline.errors import UserError
from pipeline.runtime.device import Compute, Runtime
from pipeline.runtime.network import Network, load_exported, prepare_network, trial_output
from pipeline.runtime.onnx import OnnxNetwork
from pipeline.runtime.torch import TorchNetwork

CPU = Compute.resolve("cpu", "float32", "auto")
OPENVINO = Compute.resolve("cpu", "float32", "openvino")
METADATA = {"decode": "argmax", "skeleton": "coco17", "input_size": "64x48"}


class Small(nn.Module):
    """Three convolutions; a second output that must be ignored."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.body = nn.Sequential(
            nn.Conv2d(3, 8, 3, 2, padding=1, bias=False),
            nn.BatchNorm2d(8),
            nn.ReLU(inplace=True),
            nn.Conv2d(8, 8, 3, 2, padding=1),
            nn.ReLU(),
        )
        self.out = nn.Conv2d(8, 5, 1)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        features = self.body(x)
        return self.out(features), features


class FirstOutput(nn.Module):
    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, x: Tensor) -> Tensor:
        return self.network(x)[0]


class Dictionary(nn.Module):
    def forward(self, x: Tensor) -> dict[str, Tensor]:
        return {"heatmaps": x}


def run(network: Network, inputs: Tensor) -> Tensor:
    with torch.inference_mode():
        return network(inputs)


def inputs_of(count: int) -> Tensor:
    return torch.rand(count, 3, 64, 48, generator=torch.Generator().manual_seed(1)) - 0.45


def test_all_file_formats_give_the_same_output(tmp_path: Path) -> None:
    inputs = inputs_of(3)
    with torch.inference_mode():
        expected = Small().eval()(inputs)[0]
    networks = [
        TorchNetwork(FirstOutput(Small()), CPU),
        load_exported(export_onnx(Small(), tmp_path / "n.onnx"), CPU),
        load_exported(export_torchscript(Small(), tmp_path / "n.torchscript"), CPU),
        load_exported(tmp_path / "n.onnx", OPENVINO),
    ]
    for network in networks:
        torch.testing.assert_close(run(network, inputs), expected, atol=1e-5, rtol=1e-5)


def test_other_float_types_are_converted(tmp_path: Path) -> None:
    exported = load_exported(export_onnx(Small(), tmp_path / "n.onnx"), CPU)
    assert run(exported, inputs_of(1).to(torch.bfloat16)).dtype == torch.float32
    network = TorchNetwork(FirstOutput(Small()), Compute.resolve("cpu", "bf16"))
    exact = run(TorchNetwork(FirstOutput(Small()), CPU), inputs_of(1))
    torch.testing.assert_close(run(network, inputs_of(1)).float(), exact, atol=0.05, rtol=0.05)


@pytest.mark.parametrize("count", [1, 2, 3, 4, 5])
def test_a_fixed_batch_is_split_and_padded(count: int, tmp_path: Path) -> None:
    inputs = inputs_of(count)
    with torch.inference_mode():
        expected = Small().eval()(inputs)[0]
    path = export_onnx(Small(), tmp_path / "n.onnx", batch=2)
    for compute in (CPU, OPENVINO):
        network = load_exported(path, compute)
        assert network.batch_size == 2
        torch.testing.assert_close(run(network, inputs), expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("compute", [CPU, OPENVINO])
def test_sizes_are_read_from_the_file(compute: Compute, tmp_path: Path) -> None:
    fixed = load_exported(export_onnx(Small(), tmp_path / "a.onnx"), compute)
    assert (fixed.input_size, fixed.batch_size) == ((64, 48), None)
    dynamic = load_exported(export_onnx(Small(), tmp_path / "b.onnx", any_size=True), compute)
    assert (dynamic.input_size, dynamic.batch_size) == (None, None)
    assert run(dynamic, torch.zeros(1, 3, 32, 32)).shape == (1, 5, 8, 8)
    traced = load_exported(export_torchscript(Small(), tmp_path / "c.torchscript"), CPU)
    assert (traced.input_size, traced.batch_size) == (None, None)


def test_metadata_is_read_from_onnx_and_torchscript(tmp_path: Path) -> None:
    for path in (
        export_onnx(Small(), tmp_path / "n.onnx", metadata=METADATA),
        export_torchscript(Small(), tmp_path / "n.torchscript", metadata=METADATA),
    ):
        assert load_exported(path, CPU).metadata == METADATA
    for path in (export_onnx(Small(), tmp_path / "m.onnx"), export_torchscript(Small(), tmp_path / "m.torchscript")):
        assert load_exported(path, CPU).metadata == {}
    assert load_exported(tmp_path / "n.onnx", OPENVINO).metadata == METADATA
    assert load_exported(tmp_path / "m.onnx", OPENVINO).metadata == {}


@pytest.mark.parametrize("content", ["not JSON", "[1, 2]"])
def test_other_metadata_in_torchscript_is_ignored(content: str, tmp_path: Path) -> None:
    traced = torch.jit.trace(FirstOutput(Small().eval()), torch.zeros(1, 3, 64, 48))
    torch.jit.save(traced, str(tmp_path / "n.torchscript"), _extra_files={"metadata.json": content})
    assert load_exported(tmp_path / "n.torchscript", CPU).metadata == {}


def test_metadata_values_become_text(tmp_path: Path) -> None:
    traced = torch.jit.trace(FirstOutput(Small().eval()), torch.zeros(1, 3, 64, 48))
    files = {"metadata.json": json.dumps({"joints": 17})}
    torch.jit.save(traced, str(tmp_path / "n.torchscript"), _extra_files=files)
    assert load_exported(tmp_path / "n.torchscript", CPU).metadata == {"joints": "17"}


@pytest.mark.parametrize(
    ("shapes", "message"),
    [
        ([(1, 3, 8, 8), (1, 3, 8, 8)], r"not x0 \[1, 3, 8, 8\], x1 \[1, 3, 8, 8\]"),
        ([(1, 64)], r"not x0 \[1, 64\]"),
    ],
)
def test_onnx_files_with_other_inputs_are_refused(shapes: list, message: str, tmp_path: Path) -> None:
    path = write_onnx_sum(tmp_path / "n.onnx", shapes)
    with pytest.raises(UserError, match=r"n\.onnx: expected one input \(B, 3, H, W\), " + message) as error:
        OnnxNetwork(path, CPU)
    assert "\n" not in str(error.value)
    with pytest.raises(UserError, match=r"n\.onnx: expected one input \(B, 3, H, W\)"):
        load_exported(path, OPENVINO)


def test_a_damaged_file_is_refused_in_one_line(tmp_path: Path) -> None:
    for name, message in (("n.onnx", "onnxruntime cannot load it"), ("n.torchscript", "neither .onnx nor TorchScript")):
        (tmp_path / name).write_bytes(b"not a network")
        with pytest.raises(UserError, match=f"{name}: {message}") as error:
            load_exported(tmp_path / name, CPU)
        assert "\n" not in str(error.value)
    with pytest.raises(UserError, match=r"n\.onnx: OpenVINO cannot load it \(") as error:
        load_exported(tmp_path / "n.onnx", OPENVINO)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("runtime", "name"), [("torch", "n.onnx"), ("onnx", "n.torchscript"), ("openvino", "n.torchscript")]
)
def test_a_runtime_never_runs_a_file_of_another(runtime: Runtime, name: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(b"any")
    with pytest.raises(UserError, match=rf"--compute\.runtime {runtime} cannot run .*{name}; leave it out"):
        load_exported(tmp_path / name, Compute.resolve("cpu", "float32", runtime))


@pytest.mark.parametrize("runtime", ["onnx", "openvino"])
def test_a_network_of_the_package_is_exported_once(runtime: Runtime, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setenv("POSEMILL_CACHE", str(tmp_path))
    compute = Compute.resolve("cpu", "float32", runtime)
    inputs, metadata = inputs_of(3), {"decode": "argmax"}
    with torch.inference_mode():
        expected = Small().eval()(inputs)[0]
    network = prepare_network(FirstOutput(Small()), (64, 48), compute, metadata)
    assert network.metadata == metadata
    torch.testing.assert_close(run(network, inputs), expected, atol=1e-5, rtol=1e-5)
    (stored,) = tmp_path.glob("onnx/*")
    written = stored.stat().st_mtime_ns
    again = prepare_network(FirstOutput(Small()), (64, 48), compute)
    torch.testing.assert_close(run(again, inputs), expected, atol=1e-5, rtol=1e-5)
    other = Small()
    with torch.no_grad():
        other.out.weight.mul_(2)
    doubled = run(prepare_network(FirstOutput(other), (64, 48), compute), inputs)
    assert not torch.allclose(doubled, expected)
    assert stored.stat().st_mtime_ns == written
    assert len(list(tmp_path.glob("onnx/*"))) == 2


def test_networks_that_differ_in_their_settings_alone_are_exported_apart(tmp_path: Path, monkeypatch) -> None:
    """Anchors are neither weights nor in the text of a layer."""
    monkeypatch.setenv("POSEMILL_CACHE", str(tmp_path))
    compute = Compute.resolve("cpu", "float32", "onnx")
    outputs = []
    for cfg in (TINY_DETECTOR, TINY_DETECTOR.replace("anchors=32,32", "anchors=64,64")):
        torch.manual_seed(0)
        network = Darknet(cfg).eval()
        inputs = torch.zeros(1, 3, *network.size)
        with torch.inference_mode():
            expected = network(inputs)
        outputs.append(run(prepare_network(network, network.size, compute), inputs))
        torch.testing.assert_close(outputs[-1], expected, atol=1e-3, rtol=1e-3)
    assert not torch.allclose(*outputs)
    assert not list(tmp_path.glob("onnx/*.[0-9]*")), "no unfinished file is left"


def test_openvino_that_is_missing_is_asked_for(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, "openvino", None)
    with pytest.raises(UserError, match=r"needs the package openvino: uv sync --extra openvino"):
        load_exported(export_onnx(Small(), tmp_path / "n.onnx"), OPENVINO)


def test_a_failing_first_run_is_reported_in_one_line(tmp_path: Path) -> None:
    onnx = load_exported(export_onnx(Small(), tmp_path / "n.onnx"), CPU)
    traced = load_exported(export_torchscript(Small(), tmp_path / "n.torchscript"), CPU)
    dictionary = load_exported(export_torchscript(Dictionary(), tmp_path / "d.torchscript"), CPU)
    for network, shape, reason in (
        (onnx, (1, 3, 32, 32), "Got: 32 Expected: 64"),
        (traced, (1, 4, 64, 48), "RuntimeError: .*4 channels"),
        (dictionary, (1, 3, 64, 48), "the network returns dict; expected a tensor"),
    ):
        size = ", ".join(map(str, shape))
        with pytest.raises(UserError, match=rf"^cannot run on an input \[{size}\]: .*{reason}") as error:
            trial_output(network, torch.zeros(shape))
        assert "\n" not in str(error.value)


def test_a_first_run_that_succeeds_returns_the_output(tmp_path: Path) -> None:
    network = load_exported(export_onnx(Small(), tmp_path / "n.onnx"), CPU)
    assert trial_output(network, torch.zeros(1, 3, 64, 48)).shape == (1, 5, 16, 12)
