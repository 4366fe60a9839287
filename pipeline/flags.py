"""A settings tree filled by a YAML file and by dotted command-line flags, with errors that say what was meant."""

from __future__ import annotations

import argparse
import dataclasses
import difflib
import sys
from collections.abc import Iterator, Sequence
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
from pydantic import BaseModel, ValidationError

from pipeline import storage
from pipeline.config import Section, Settings, with_uris

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
            tree = with_uris(tree)
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
        if first["type"] == "value_error" and isinstance(first["input"], dict):
            raise SettingsError(f"{source}: {first['msg'].removeprefix('Value error, ')}") from None
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
        raise SettingsError(f"{source}: {name} is unknown{nearest(name, known)}")


def nearest(name: str, known: Sequence[str]) -> str:
    """What may have been meant by an unknown name, in words that go on from `... is unknown`."""
    close = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    if not close:
        close = [k for k in known if k.rsplit(".", 1)[-1] == name.rsplit(".", 1)[-1]][:1]
    return f"; did you mean {close[0]}?" if close else "; --help lists every setting"


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        print(f"{self.prog}: {message}", file=sys.stderr)
        raise SystemExit(2)


def as_flags(settings: Section) -> list[str]:
    """The flags that say what differs from the defaults: `parse_settings` makes the same settings of them."""
    defaults = {leaf.name: leaf.default for leaf in leaves(type(settings)())}
    return [
        f"--{leaf.name}={_flag_text(leaf.default, leaf.type)}"
        for leaf in leaves(settings)
        if leaf.default != defaults[leaf.name]
    ]


def _flag_text(value: Any, annotation: Any) -> str:
    if _holds_sections(_plain(annotation)[0]):
        plain = [v.model_dump(mode="json", exclude_defaults=True) for v in value] if isinstance(value, tuple) else value
        return yaml.safe_dump(plain, default_flow_style=True, width=10**6).strip()
    return "none" if value is None else _text(value)


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
            f"{name} is unknown" + nearest(name[2:], [leaf.name for leaf in known]).replace("mean ", "mean --")
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
    """Whether a setting is a section, or several, or free names with values; a flag gives it as YAML."""
    if get_origin(kind) is tuple:
        kind = _plain(get_args(kind)[0])[0]
    return get_origin(kind) is dict or (isinstance(kind, type) and issubclass(kind, Section))


def _text(value: Any) -> str:
    return ",".join(map(str, value)) or "none" if isinstance(value, tuple) else str(value)
