"""One typed settings tree, filled by a YAML file and by dotted command-line flags."""

from __future__ import annotations

import argparse
import dataclasses
import difflib
import os
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple, NoReturn, get_args, get_origin, get_type_hints

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from pipeline import storage
from pipeline.suppression import PoseNMS

GIVEN = "given"  # the detector's name where boxes come with the images


class Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


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
        description="darknet, given, whole_image, or a torchvision detection model's name",
    )
    cfg: str | None = Field(None, description="darknet: network description, .cfg; by default YOLOv3-SPP's")
    weights: str | None = Field(None, description="weights file; torchvision's own download when empty")
    boxes: str | None = Field(None, description="given: COCO detection results or annotations; --annotations if empty")
    input_size: int = Field(608, ge=32, multiple_of=32, description="darknet: side of the letterbox, pixels")
    confidence: float = Field(0.1, ge=0, le=1, description="least objectness (darknet) or score (torchvision)")
    nms_iou: float = Field(0.6, gt=0, le=1, description="darknet: overlap from which the weaker of two boxes goes")
    max_boxes: int = Field(100, ge=1, description="darknet: more boxes in an image tighten its NMS")
    batch: int = Field(8, ge=1, description="images per batch")


class PoseSettings(Section):
    """Which pose each person has."""

    name: Literal["fastpose_r50", "fastpose_mobile_small", "fastpose_mobile_large"] = Field(
        "fastpose_mobile_small", description="pose network"
    )
    weights: str | None = Field("weights/fastpose_mobile_small_coco17.safetensors", description="weights file or URI")
    skeleton: Literal["coco17"] = Field("coco17", description="joints of the network's output")
    input_size: tuple[int, int] = Field((256, 192), description="height and width of a crop, pixels")
    flip_test: bool = Field(False, description="average with the mirrored crop: better, half as fast")
    batch: int = Field(32, ge=1, description="people per batch, over images")

    @field_validator("input_size")
    @classmethod
    def _strides(cls, size: tuple[int, int]) -> tuple[int, int]:
        if any(side < 32 or side % 32 for side in size):
            raise ValueError("height and width must be multiples of 32")
        return size


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
        if isinstance(data, dict):
            for key in ("input", "output"):
                if isinstance(data.get(key), str):
                    data = {**data, key: {"uri": data[key]}}
        return data


_PATHS = {
    "input": ("uri", "image_root"),
    "detector": ("cfg", "weights", "boxes"),
    "pose": ("weights",),
}
_PROJECT = Path(__file__).resolve().parents[1]


def absolute_paths(settings: Settings) -> Settings:
    """The same settings with local paths made absolute, so that they hold in every process and directory.

    A relative path that isn't below the current directory is looked for in the project (its weights and demo).
    """

    def absolute(path: str | None) -> str | None:
        if path is None or not storage.is_local(path):
            return path
        path = path.removeprefix("file://")
        here = os.path.abspath(os.path.expanduser(path))
        in_project = str(_PROJECT / path)
        return in_project if not os.path.exists(here) and os.path.exists(in_project) else here

    changed: dict[str, Any] = {
        section: getattr(settings, section).model_copy(
            update={name: absolute(getattr(getattr(settings, section), name)) for name in names}
        )
        for section, names in _PATHS.items()
    }
    changed["annotations"] = absolute(settings.annotations)
    output = settings.output.uri
    if storage.is_local(output):
        output = os.path.abspath(os.path.expanduser(output.removeprefix("file://")))
    changed["output"] = settings.output.model_copy(update={"uri": output})
    return settings.model_copy(update=changed)


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
        fields = [(f.name, types[f.name], f.metadata["description"]) for f in dataclasses.fields(section)]
    for name, annotation, description in fields:
        value = getattr(section, name)
        if isinstance(value, BaseModel) or dataclasses.is_dataclass(value):
            yield from leaves(value, f"{prefix}{name}.")
        else:
            yield Leaf(prefix + name, annotation, value, description)


def load_settings(config: str | None, flags: dict[str, Any]) -> Settings:
    """Settings from a YAML file overlaid with dotted flags.

    Args:
        config: URI of a YAML file, or None.
        flags: dotted name to value, e.g. `{"detector.confidence": 0.1}`.

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
        for key in ("input", "output"):
            if isinstance(tree.get(key), str):
                tree[key] = {"uri": tree[key]}
        _refuse_unknown(tree, config)
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
        return Settings.model_validate(tree)
    except ValidationError as error:
        first = error.errors()[0]
        name = ".".join(str(part) for part in first["loc"] if isinstance(part, str))
        source = f"--{name}" if name in flags else f"{config}: {name}"
        raise SettingsError(f"{source} is {first['input']!r}: {first['msg'].lower()}") from None


def _refuse_unknown(tree: dict[str, Any], source: str, prefix: str = "") -> None:
    known = [leaf.name for leaf in leaves()]
    for key, value in tree.items():
        name = f"{prefix}{key}"
        if name in known:
            continue
        if any(leaf.startswith(f"{name}.") for leaf in known) and (value is None or isinstance(value, dict)):
            _refuse_unknown(value or {}, source, f"{name}.")
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


def parse_settings(argv: Sequence[str], description: str, default_config: str | None = None) -> Settings:
    """Settings of a command line; prints help or the settings, or one line about a mistake, and exits where asked.

    Args:
        argv: the arguments after the program's name.
        description: first lines of `--help`.
        default_config: the YAML file of a run that names neither `--config` nor `--input`.
    """
    parser = _Parser(description=description, allow_abbrev=False, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", metavar="FILE", help="YAML file with settings; flags win over it")
    parser.add_argument("--print-config", action="store_true", help="print the effective settings and stop")
    groups: dict[str, Any] = {}
    for leaf in leaves():
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
            f"{name} is unknown" + _nearest(name[2:], [leaf.name for leaf in leaves()]).replace("mean ", "mean --")
        )
    flags = vars(arguments)
    config, print_config = flags.pop("config"), flags.pop("print_config")
    if config is None and "input.uri" not in flags:
        config = default_config
    try:
        settings = load_settings(config, flags)
    except SettingsError as error:
        parser.error(str(error))
    if settings.detector.name == "darknet" and settings.detector.weights is None:
        parser.error("--detector.weights is none; a darknet detector needs its .weights file")
    if print_config:
        print(yaml.safe_dump(settings.model_dump(mode="json"), sort_keys=False), end="")
        raise SystemExit(0)
    return settings


def _reader(annotation: Any) -> Any:
    """Turn a flag's text into something that pydantic reads as the setting's type."""

    def read(text: str) -> Any:
        if text in ("none", "null") and type(None) in get_args(annotation):
            return None
        if get_origin(annotation) is tuple:
            return text.strip("[]() ").replace("x", ",").replace(" ", "").split(",")
        return text

    return read


def _type_name(annotation: Any) -> str:
    if get_origin(annotation) is Literal:
        return "|".join(get_args(annotation))
    if get_origin(annotation) is tuple:
        return ",".join(_type_name(part) for part in get_args(annotation))
    named = [part for part in get_args(annotation) if part is not type(None)]
    if named:
        return _type_name(named[0])
    return annotation.__name__


def _text(value: Any) -> str:
    return ",".join(map(str, value)) if isinstance(value, tuple) else str(value)
