"""One typed settings tree, filled by a YAML file and by dotted command-line flags."""

from __future__ import annotations

import argparse
import dataclasses
import difflib
import os
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import NoneType, UnionType
from typing import (
    Annotated,
    Any,
    Literal,
    NamedTuple,
    NoReturn,
    TypeVar,
    Union,
    get_args,
    get_origin,
    get_type_hints,
    overload,
)

import yaml
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, model_validator

from pipeline import storage, weights
from pipeline.suppression import PoseNMS

GIVEN = "given"  # the detector's name where boxes come with the images
FILE_DETECTORS = ("darknet", "yolox", "yolo")  # those that need a weights file
OWN_DETECTORS = (*FILE_DETECTORS, GIVEN, "whole_image")  # all others are torchvision's


class Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    def problem(self) -> str | None:
        """What is wrong with settings that are each right, in words; None where nothing is."""
        return None


class InputSettings(Section):
    """What to annotate. `--input X` is short for `--input.uri X`."""

    uri: str | None = Field(
        None,
        description="folder, prefix, glob, .tar/.tar.gz, Parquet with images, list (.txt .csv .parquet), or COCO .json",
    )
    image_root: str | None = Field(None, description="folder that the names of a list or COCO file are relative to")
    image_column: str | None = Field(None, description="column of a Parquet or CSV input; by default recognised")
    shard_size: int = Field(1000, ge=1, description="images per shard, for loose files")


class OutputSettings(Section):
    """What to write. `--output X` is short for `--output.uri X`."""

    uri: str = Field("out/demo", description="run directory, local or on object storage")
    candidates: bool = Field(False, description="also store the people before suppression, for sweeps")
    table_megabytes: int = Field(256, ge=1, description="parts folded into one table file, megabytes")


class ImageSettings(Section):
    """Limits that are checked before an image is decoded."""

    max_megapixels: float = Field(100.0, gt=0, description="a header that announces more is refused, megapixels")
    max_megabytes: float = Field(256.0, gt=0, description="a file that is larger is refused unread, megabytes")


class DetectorSettings(Section):
    """Where people are."""

    name: str = Field(
        "fasterrcnn_mobilenet_v3_large_fpn",
        description="darknet, yolox, yolo (exports of YOLOv5/v8), given, whole_image, or a torchvision model's name",
    )
    cfg: str | None = Field(None, description="darknet: network description, .cfg; by default YOLOv3-SPP's")
    weights: str | None = Field(
        None,
        description="weights file, .onnx or TorchScript, or a name in the catalogue; else torchvision's own download",
    )
    boxes: str | None = Field(None, description="given: COCO detection results or annotations; --annotations if empty")
    input_size: int | None = Field(
        None, ge=32, multiple_of=32, description="side of the letterbox, pixels; by default the file's own, or 608"
    )
    confidence: float = Field(0.1, ge=0, le=1, description="least objectness (darknet) or score, exclusive")
    nms_iou: float = Field(0.6, gt=0, le=1, description="overlap from which the weaker of two boxes goes")
    max_boxes: int = Field(100, ge=1, description="more boxes in an image tighten its NMS")
    batch: int = Field(8, ge=1, description="images per batch")


PoseName = Literal[
    "fastpose_r50",
    "fastpose_r101",
    "fastpose_r152",
    "fastpose_r50_dcn",
    "fastpose_duc_r50",
    "fastpose_duc_r152",
    "fastpose_duc_dense",
    "fastpose_mobile_small",
    "fastpose_mobile_large",
    "fastpose_classic",
    "simplepose_r50",
    "simplepose_r101",
    "simplepose_r152",
    "hrnet_w32",
    "hourglass",
    "fpn_offset_r50",
]
SkeletonName = Literal["coco17", "halpe26", "halpe68", "halpe136", "wholebody133", "hand21", "mpii16"]
_InputSize = tuple[int, int]


def _multiples_of_32(size: _InputSize | None) -> _InputSize | None:
    if size is not None and any(side < 32 or side % 32 for side in size):
        raise ValueError("height and width must be multiples of 32")
    return size


InputSize = Annotated[_InputSize | None, AfterValidator(_multiples_of_32)]


class NetworkSettings(Section):
    """A pose network of an ensemble."""

    weights: str | None = Field(None, description="weights file, URI, or name in the catalogue")
    name: PoseName | None = Field(None, description="pose network; by default the one that the weights are for")
    input_size: InputSize = Field(None, description="height and width of a crop, pixels; by default the published")


class PoseSettings(Section):
    """Which pose each person has."""

    weights: str | None = Field(
        "weights/fastpose_mobile_small_coco17.safetensors", description="weights file, URI, or name in the catalogue"
    )
    name: PoseName | None = Field(None, description="pose network; by default the one that the weights are for")
    input_size: InputSize = Field(None, description="height and width of a crop, pixels; by default the published")
    skeleton: SkeletonName | None = Field(None, description="joints of the output; by default by their number")
    crop: Literal["padded", "classic"] = Field("padded", description="crop rule; classic: the first PyTorch release's")
    decode: Literal["argmax", "integral", "combined", "offset", "classic"] | None = Field(
        None, description="how heatmaps become keypoints; by default as the catalogue says, else argmax"
    )
    norm: Literal["sigmoid", "softmax", "divide_sum"] = Field(
        "sigmoid", description="integral: how maps are normalised"
    )
    flip_test: bool = Field(False, description="average with the mirrored crop: better, half as fast")
    scales: tuple[Annotated[float, Field(gt=0.2, lt=5)], ...] = Field(
        (1.0,), min_length=1, description="average over crops that show so many times the usual, e.g. 1,1.25"
    )
    ensemble: tuple[NetworkSettings, ...] = Field(
        (), description="more networks to average with, e.g. [{weights: b.pth, input_size: [384, 288]}]"
    )
    batch: int = Field(32, ge=1, description="people per batch, over images")

    @model_validator(mode="after")
    def _classic_stands_alone(self) -> PoseSettings:
        if self.crop == "classic":
            if self.decode not in (None, "classic"):
                raise ValueError(f"pose.crop is classic, which only decode classic fits, not {self.decode}")
            if self.scales != (1.0,) or self.ensemble:
                raise ValueError("pose.crop is classic, which cannot be averaged over scales or networks")
        elif self.decode == "classic":
            raise ValueError("pose.decode is classic, which only the classic pose.crop fits")
        return self

    def networks(self) -> tuple[NetworkSettings, ...]:
        """All networks, the first one with its own settings."""
        first = NetworkSettings(weights=self.weights, name=self.name, input_size=self.input_size)
        return (first, *self.ensemble)


class ComputeSettings(Section):
    """On what, and how precisely, the networks run."""

    device: Literal["auto", "cuda", "cpu"] = Field("auto", description="auto: the GPU where there is one")
    precision: Literal["auto", "bf16", "float32"] = Field(
        "auto", description="auto: bf16 where the processor computes in it, else float32"
    )


class FleetSettings(Section):
    """How the work is spread over a Ray cluster."""

    address: str | None = Field(None, description="Ray cluster; by default RAY_ADDRESS, else a local one is started")
    workers: int | None = Field(None, ge=1, description="at most so many; by default what the cluster has room for")
    gpus_per_worker: float | None = Field(None, ge=0, description="GPUs of a worker; by default 1 where there are any")
    cpus_per_worker: int | None = Field(None, ge=1, description="CPU threads of a worker; by default up to 4")
    max_attempts: int = Field(6, ge=1, description="attempts at a shard, without news of it, until it is quarantined")
    grace_seconds: float = Field(20.0, ge=0, description="on a stop signal, time for shards in flight, seconds")


class Settings(Section):
    """Everything a run can be told."""

    input: InputSettings = InputSettings()
    output: OutputSettings = OutputSettings()
    annotations: str | None = Field(None, description="COCO annotations to evaluate against (file names or ids match)")
    draw: int = Field(0, ge=0, description="images to draw with boxes and skeletons")
    images: ImageSettings = ImageSettings()
    detector: DetectorSettings = DetectorSettings()
    pose: PoseSettings = PoseSettings()
    suppression: PoseNMS = PoseNMS()
    compute: ComputeSettings = ComputeSettings()
    fleet: FleetSettings = FleetSettings()

    @model_validator(mode="before")
    @classmethod
    def _uri_shorthand(cls, data: Any) -> Any:
        """`input: photos/` means `input: {uri: photos/}`."""
        return _with_uris(data) if isinstance(data, dict) else data

    def problem(self) -> str | None:
        if self.detector.name in FILE_DETECTORS and self.detector.weights is None:
            return f"--detector.weights is none; a {self.detector.name} detector needs its file"
        return None


def _with_uris(tree: dict[str, Any]) -> dict[str, Any]:
    short = {key: {"uri": tree[key]} for key in ("input", "output") if isinstance(tree.get(key), str)}
    return {**tree, **short}


_PATHS = {
    "input": ("uri", "image_root"),
    "detector": ("cfg", "weights", "boxes"),
    "pose": ("weights",),
}
_PROJECT = Path(__file__).resolve().parents[1]


def absolute_paths(settings: Settings) -> Settings:
    """The same settings with local paths made absolute, so that they hold in every process and directory.

    A relative path that isn't below the current directory is looked for in the project (its weights and demo). Names in
    the catalogue of weights stay names.
    """

    def absolute(path: str | None) -> str | None:
        if path is None or not storage.is_local(path):
            return path
        path = path.removeprefix("file://")
        here = os.path.abspath(os.path.expanduser(path))
        in_project = str(_PROJECT / path)
        if path in weights.catalogue() and not os.path.isfile(here):
            return path
        return in_project if not os.path.exists(here) and os.path.exists(in_project) else here

    changed: dict[str, Any] = {
        section: getattr(settings, section).model_copy(
            update={name: absolute(getattr(getattr(settings, section), name)) for name in names}
        )
        for section, names in _PATHS.items()
    }
    ensemble = [n.model_copy(update={"weights": absolute(n.weights)}) for n in settings.pose.ensemble]
    changed["pose"] = changed["pose"].model_copy(update={"ensemble": tuple(ensemble)})
    changed["annotations"] = absolute(settings.annotations)
    output = settings.output.uri
    if storage.is_local(output):
        output = os.path.abspath(os.path.expanduser(output.removeprefix("file://")))
    changed["output"] = settings.output.model_copy(update={"uri": output})
    return settings.model_copy(update=changed)


_Tree = TypeVar("_Tree", bound=Section)


class SettingsError(ValueError):
    """A setting that is unknown or wrong; the text names it, its value and what was expected."""


class Leaf(NamedTuple):
    """One setting: its dotted name, type, default and description."""

    name: str
    type: Any
    default: Any
    description: str


def leaves(section: Any = None, prefix: str = "") -> Iterator[Leaf]:
    """Every setting of the tree, in its order."""
    section = Settings() if section is None else section
    if isinstance(section, BaseModel):
        fields = [(name, info.annotation, info.description or "") for name, info in type(section).model_fields.items()]
    else:
        types = get_type_hints(type(section))
        fields = [(f.name, types[f.name], f.metadata.get("description", "")) for f in dataclasses.fields(section)]
    for name, annotation, description in fields:
        value = getattr(section, name)
        if isinstance(value, BaseModel) or dataclasses.is_dataclass(value):
            yield from leaves(value, f"{prefix}{name}.")
        else:
            yield Leaf(prefix + name, annotation, value, description)


@overload
def load_settings(config: str | None, flags: dict[str, Any]) -> Settings: ...
@overload
def load_settings(config: str | None, flags: dict[str, Any], kind: type[_Tree]) -> _Tree: ...
def load_settings(config: str | None, flags: dict[str, Any], kind: type[Any] = Settings) -> Any:
    """Settings from a YAML file overlaid with dotted flags.

    Args:
        config: URI of a YAML file, or None.
        flags: dotted name to value, e.g. `{"detector.confidence": 0.1}`.
        kind: of settings tree.

    Raises:
        SettingsError: naming the file or flag, the value and what was expected.
    """
    tree: dict[str, Any] = {}
    if config is not None:
        try:
            tree = yaml.safe_load(storage.read_bytes(config)) or {}
        except FileNotFoundError:
            raise SettingsError(f"--config {config}: no such file") from None
        except yaml.YAMLError as error:
            raise SettingsError(f"{config}: not valid YAML: {' '.join(str(error).split())}") from None
        if not isinstance(tree, dict):
            raise SettingsError(f"{config}: expected sections with settings, found {type(tree).__name__}")
        if kind is Settings:
            tree = _with_uris(tree)
        _refuse_unknown(tree, config, list(leaves(kind())))
    for name, value in flags.items():
        *parents, last = name.split(".")
        node = tree
        for parent in parents:
            child = node.setdefault(parent, {})
            if not isinstance(child, dict):
                raise SettingsError(f"{config}: {parent} is {child!r}; expected a section with settings")
            node = child
        node[last] = value
    try:
        return kind.model_validate(tree)
    except ValidationError as error:
        first = error.errors()[0]
        name = ".".join(str(part) for part in first["loc"] if isinstance(part, str))
        told = next(
            (flag for flag in flags if f"{flag}.".startswith(f"{name}.") or f"{name}.".startswith(f"{flag}.")), None
        )
        source = f"--{name}" if name in flags else f"--{told}: {name}" if told or not config else f"{config}: {name}"
        raise SettingsError(f"{source} is {first['input']!r}: {first['msg'].lower()}") from None


def _refuse_unknown(tree: dict[str, Any], source: str, all_leaves: Sequence[Leaf], prefix: str = "") -> None:
    known = [leaf.name for leaf in all_leaves]
    for key, value in tree.items():
        name = f"{prefix}{key}"
        if name in known:
            continue
        if any(leaf.startswith(f"{name}.") for leaf in known) and (value is None or isinstance(value, dict)):
            _refuse_unknown(value or {}, source, all_leaves, f"{name}.")
            continue
        raise SettingsError(f"{source}: {name} is unknown{_nearest(name, known)}")


def _nearest(name: str, known: Sequence[str]) -> str:
    close = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    if not close:
        close = [k for k in known if k.rsplit(".", 1)[-1] == name.rsplit(".", 1)[-1]][:1]
    return f"; did you mean {close[0]}?" if close else "; --help lists every setting"


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        print(f"{self.prog}: {message}", file=sys.stderr)
        raise SystemExit(2)


@overload
def parse_settings(argv: Sequence[str], description: str, default_config: str | None = None) -> Settings: ...
@overload
def parse_settings(
    argv: Sequence[str], description: str, default_config: str | None = None, *, kind: type[_Tree]
) -> _Tree: ...
def parse_settings(
    argv: Sequence[str], description: str, default_config: str | None = None, *, kind: type[Any] = Settings
) -> Any:
    """Settings of a command line; prints help or the settings, or one line about a mistake, and exits where asked.

    Args:
        argv: the arguments after the program's name.
        description: first lines of `--help`.
        default_config: the YAML file of a run that names neither `--config` nor `--input`.
        kind: of settings tree.
    """
    known = list(leaves(kind()))
    parser = _Parser(description=description, allow_abbrev=False, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", metavar="FILE", help="YAML file with settings; flags win over it")
    parser.add_argument("--print-config", action="store_true", help="print the effective settings and stop")
    groups: dict[str, Any] = {}
    for leaf in known:
        section = leaf.name.rpartition(".")[0]
        if section not in groups:
            groups[section] = parser.add_argument_group(section) if section else parser
        names = [f"--{leaf.name}"] + ([f"--{section}"] if leaf.name in ("input.uri", "output.uri") else [])
        default = "none" if leaf.default is None else _text(leaf.default)
        groups[section].add_argument(
            *names,
            dest=leaf.name,
            metavar=_type_name(leaf.type).upper(),
            default=argparse.SUPPRESS,
            type=_reader(leaf.type),
            help=f"{leaf.description} (default: {default})".replace("%", "%%"),
            **({"nargs": "?", "const": True} if leaf.type is bool else {}),
        )
    arguments, unknown = parser.parse_known_args(argv)
    if unknown:
        name = unknown[0].partition("=")[0]
        if not name.startswith("--"):
            parser.error(f"{name!r} is not expected here; every argument is a flag with its value, --help lists them")
        parser.error(
            f"{name} is unknown" + _nearest(name[2:], [leaf.name for leaf in known]).replace("mean ", "mean --")
        )
    flags = vars(arguments)
    config, print_config = flags.pop("config"), flags.pop("print_config")
    if config is None and "input.uri" not in flags:
        config = default_config
    try:
        settings = load_settings(config, flags, kind)
    except SettingsError as error:
        parser.error(str(error))
    problem = settings.problem()
    if problem is not None:
        parser.error(problem)
    if print_config:
        print(yaml.safe_dump(settings.model_dump(mode="json"), sort_keys=False), end="")
        raise SystemExit(0)
    return settings


def _reader(annotation: Any) -> Any:
    """Turn a flag's text into something that pydantic reads as the setting's type."""
    kind, optional = _plain(annotation)

    def read(text: str) -> Any:
        if optional and text in ("none", "null"):
            return None
        if _holds_sections(kind):
            try:
                return yaml.safe_load(text)
            except yaml.YAMLError:
                return text
        if get_origin(kind) is not tuple:
            return text
        return text.strip("[]() ").replace("x", ",").replace(" ", "").split(",")

    return read


def _type_name(annotation: Any) -> str:
    kind, _ = _plain(annotation)
    if get_origin(kind) is Literal:
        return "|".join(get_args(kind))
    if _holds_sections(kind):
        return "yaml"
    if get_origin(kind) is tuple:
        parts = [part for part in get_args(kind) if part is not Ellipsis]
        return ",".join(map(_type_name, parts)) + (",..." if Ellipsis in get_args(kind) else "")
    return kind.__name__


def _plain(annotation: Any) -> tuple[Any, bool]:
    """A type without its annotations and None, and whether None was part of it."""
    if get_origin(annotation) is Annotated:
        return _plain(get_args(annotation)[0])
    if get_origin(annotation) in (Union, UnionType):
        named = [part for part in get_args(annotation) if part is not NoneType]
        return _plain(named[0])[0], len(named) < len(get_args(annotation))
    return annotation, False


def _holds_sections(kind: Any) -> bool:
    """Whether a setting is a section, or several; a flag gives it as YAML."""
    if get_origin(kind) is tuple:
        kind = _plain(get_args(kind)[0])[0]
    return isinstance(kind, type) and issubclass(kind, Section)


def _text(value: Any) -> str:
    return ",".join(map(str, value)) or "none" if isinstance(value, tuple) else str(value)
