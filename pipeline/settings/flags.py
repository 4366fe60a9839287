"""A settings tree filled by a YAML file and by dotted command-line flags."""

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
from pipeline.errors import UserError
from pipeline.settings.tree import Section, Settings, with_uris

_Tree = TypeVar("_Tree", bound=Section)


class SettingsError(UserError):
    """A setting that is unknown or wrong; the message names it, its value and what was expected."""


class Leaf(NamedTuple):
    """One setting: its dotted name, type, value and description."""

    name: str
    type: Any
    value: Any
    description: str


def leaves(section: Any = None, prefix: str = "") -> Iterator[Leaf]:
    """Every setting of a tree, in its order."""
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
        raise SettingsError(_message(error, config, flags)) from None


def _message(error: ValidationError, config: str | None, flags: dict[str, Any]) -> str:
    """Where the first wrong value was set, its name, the value and what was expected."""
    first = error.errors()[0]
    name = ".".join(str(part) for part in first["loc"] if isinstance(part, str))
    by_flag = next((f for f in flags if f"{f}.".startswith(f"{name}.") or f"{name}.".startswith(f"{f}.")), None)
    file = f"{config}: " if config and by_flag is None else ""
    if first["type"] == "value_error" and isinstance(first["input"], dict):
        return file + first["msg"].removeprefix("Value error, ")  # of several settings, which it names
    setting = name
    if by_flag is not None:  # a flag that holds a list of sections has the wrong value inside
        setting = f"--{by_flag} ({name})" if name.startswith(f"{by_flag}.") else f"--{by_flag}"
    return f"{file}{setting} is {first['input']!r}: {first['msg'].removeprefix('Value error, ').lower()}"


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
    defaults = {leaf.name: leaf.value for leaf in leaves(type(settings)())}
    return [
        f"--{leaf.name}={_flag_text(leaf.value, leaf.type)}"
        for leaf in leaves(settings)
        if leaf.value != defaults[leaf.name]
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
    parser = _Parser(
        usage="%(prog)s [--config FILE] [--SETTING VALUE ...]",
        description=description,
        allow_abbrev=False,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--config", metavar="FILE", help="YAML file with settings; flags override it")
    parser.add_argument("--print-config", action="store_true", help="print the effective settings and exit")
    groups: dict[str, Any] = {"": parser}
    for leaf in known:
        section = leaf.name.rpartition(".")[0]
        if section not in groups:
            groups[section] = parser.add_argument_group(section, _section_description(kind, section))
        names = [f"--{leaf.name}"] + ([f"--{section}"] if leaf.name in ("input.uri", "output.uri") else [])
        default = "none" if leaf.value is None else _text(leaf.value)
        groups[section].add_argument(
            *names,
            dest=leaf.name,
            metavar=_type_name(leaf.type),
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


def _section_description(kind: Any, section: str) -> str:
    """The first paragraph of the docstring of the section's class."""
    node = kind()
    for name in section.split("."):
        node = getattr(node, name)
    return (type(node).__doc__ or "").split("\n\n")[0].replace("%", "%%")


def _type_name(annotation: Any) -> str:
    """What may be typed: choices as they are, types in capitals."""
    kind, _ = _plain(annotation)
    if get_origin(kind) is Literal:
        return "|".join(get_args(kind))
    if _holds_sections(kind):
        return "YAML"
    if get_origin(kind) is tuple:
        parts = [part for part in get_args(kind) if part is not Ellipsis]
        return ",".join(map(_type_name, parts)) + (",..." if Ellipsis in get_args(kind) else "")
    return {"str": "TEXT", "bool": "true|false"}.get(kind.__name__, kind.__name__.upper())


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
