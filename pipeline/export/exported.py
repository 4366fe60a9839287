"""The export of one network: written in a format, compared with the network, and refused if it differs."""

from __future__ import annotations

import copy
import hashlib
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from pipeline import storage
from pipeline.errors import UserError
from pipeline.export.formats import Files, onnx_files, openvino_files, torchscript_files
from pipeline.export.parity import Accuracy, Differences, Speed, check_equal, compare
from pipeline.export.precision import Half, to_int8
from pipeline.export.settings import Format, Precision
from pipeline.runtime.device import Compute
from pipeline.runtime.network import EXPORTED_SUFFIXES, Network, load_exported
from pipeline.runtime.onnx_export import to_onnx
from pipeline.runtime.torch import TorchNetwork
from pipeline.weights.catalogue import local_file
from pipeline.weights.metadata import TRAINING_IMAGES, read_safetensors_metadata

_MIN_ANNOTATED = 100  # people; with fewer, AP is a matter of chance
_MIN_FOUND = 10  # people, where a file is compared with its network alone
_SPEED_BATCH = 8

Measure = Callable[[Network], Mapping[str, float]]  # metrics of a network by name, in 0..1
Difference = Callable[[Tensor, Tensor], tuple[float, float]]  # see `compare`


@dataclass(frozen=True)
class Truth:
    """What the accuracy of a network is measured against.

    Attributes:
        description: in words.
        max_loss: by which a metric may fall.
        people: their number.
        annotated: whether people annotated it; else it is what the network itself finds.
    """

    description: str
    measure: Measure
    max_loss: float
    people: int
    annotated: bool

    def check(self) -> None:
        """
        Raises:
            UserError: there are too few people to judge a file.
        """
        least = _MIN_ANNOTATED if self.annotated else _MIN_FOUND
        if self.people < least:
            setting = "--annotations" if self.annotated else "--input"
            raise UserError(f"{setting}: accuracy is measured on at least {least} people, not on {self.people}")


@dataclass(frozen=True)
class NetworkToExport:
    """A network, and how its exported file is judged.

    Attributes:
        name: of the file, without suffix.
        size: height and width of the input, pixels.
        output: name of the output.
        inputs: (N, 3, H, W) float32 on the CPU, from real images: to compare on, and to calibrate.
        truth: what the accuracy is measured against; a function, because the network may have to run for it.
        is_annotated: whether people annotated the truth, so that the accuracy of a float32 file is measured, too.
    """

    name: str
    module: nn.Module
    size: tuple[int, int]
    output: str
    metadata: Mapping[str, str]
    inputs: Tensor
    difference: Difference
    truth: Callable[[], Truth]
    is_annotated: bool


@dataclass(frozen=True)
class Exported:
    """An exported network, ready to be written.

    Attributes:
        files: by name; the first is the network.
        metadata: stored in it.
        accuracy: None for float32 without annotations, where the differences suffice.
    """

    files: Files
    metadata: Mapping[str, str]
    differences: Differences
    accuracy: Accuracy | None
    speed: Speed

    @property
    def name(self) -> str:
        return next(iter(self.files))

    def to_json(self) -> dict[str, Any]:
        """As plain values: digests, sizes, metadata, differences, accuracy and speed."""
        files = {n: {"sha256": hashlib.sha256(data).hexdigest(), "bytes": len(data)} for n, data in self.files.items()}
        return {
            "files": files,
            "metadata": dict(self.metadata),
            "differences": asdict(self.differences),
            "accuracy": asdict(self.accuracy) if self.accuracy else None,
            "speed": asdict(self.speed),
        }


def export_network(network: NetworkToExport, kind: Format, precision: Precision) -> Exported:
    """Export a network, and measure what its file computes.

    Raises:
        UserError: the format does not support the network.
        ExportDiffers: the file computes something else, or is less accurate than allowed.
    """
    truth = network.truth() if precision != "float32" or network.is_annotated else None
    if truth is not None:
        truth.check()
    if precision != "float32":
        network = replace(network, name=f"{network.name}_{precision}")
    write = _writer(network, kind, precision)
    metadata = {**network.metadata, "precision": precision}
    compute = Compute.resolve("cpu", "float32")
    with tempfile.TemporaryDirectory(prefix="posemill-") as folder:
        for name, data in (files := write(metadata)).items():
            (Path(folder) / name).write_bytes(data)
        exported = load_exported(Path(folder) / next(iter(files)), compute)
    torch_network = TorchNetwork(copy.deepcopy(network.module), compute)
    differences = compare(torch_network, exported, network.inputs, network.difference)
    if precision == "float32":
        check_equal(differences)
    accuracy = None
    if truth is not None:
        before, after = truth.measure(torch_network), truth.measure(exported)
        accuracy = Accuracy(truth.description, before, after, truth.max_loss)
        accuracy.check()
        metadata["accuracy"] = accuracy.to_text()
    speed = Speed.measure(torch_network, exported, network.inputs[:_SPEED_BATCH])
    return Exported(write(metadata), metadata, differences, accuracy, speed)


def _writer(network: NetworkToExport, kind: Format, precision: Precision) -> Callable[[Mapping[str, str]], Files]:
    """The network's files for given metadata."""
    if kind == "torchscript":
        return lambda metadata: torchscript_files(network.name, network.module, network.size, metadata)
    module = Half(network.module) if precision == "fp16" else network.module
    data = to_onnx(module, network.size, network.output)
    if precision == "int8":
        data = to_int8(data, network.inputs.numpy())
    files = openvino_files if kind == "openvino" else onnx_files
    return lambda metadata: files(network.name, data, metadata)


def weights_to_export(setting: str, uri: str) -> Path:
    """Local path of the weights that a setting names.

    Raises:
        UserError: they are an exported file, or there is no such file.
    """
    path = local_file(uri)
    if path.suffix.lower() in EXPORTED_SUFFIXES:
        raise UserError(f"--{setting} {uri} is an exported file already")
    return path


def provenance(weights: Path) -> dict[str, str]:
    """Metadata about where a file comes from: name and digest of the weights, their training images, versions."""
    packages = [f"{name} {_version(name)}" for name in ("posemill", "torch", "onnxscript")]
    stated = read_safetensors_metadata(weights) if weights.suffix == ".safetensors" else {}
    seen = {TRAINING_IMAGES: stated[TRAINING_IMAGES]} if TRAINING_IMAGES in stated else {}
    made_from = {"source": weights.name, "source_sha256": storage.file_sha256(weights)}
    return made_from | {"exported_by": ", ".join(packages)} | seen


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:  # the project itself, if it runs from its folder
        return "not installed"
