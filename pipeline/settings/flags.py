"""A settings tree filled by a YAML file and by dotted command-line flags."""

from __future__ import annotations

import argparse
import dataclasses
import difflib
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
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

_LONGEST_CHOICES = 50  # characters; longer lists of choices are shown in the description

# What is expected by the type of a pydantic error, filled with its context.
_EXPECTED = {
    "bool_parsing": "true or false",
    "bool_type": "true or false",
    "dataclass_type": "a section with settings",
    "dict_type": "a section with settings",
    "finite_number": "a finite number",
    "float_parsing": "a number",
    "float_type": "a number",
    "greater_than": "more than {gt:g}",
    "greater_than_equal": "at least {ge:g}",
    "int_from_float": "an integer",
    "int_parsing": "an integer",
    "int_type": "an integer",
    "less_than": "less than {lt:g}",
    "less_than_equal": "at most {le:g}",
    "model_type": "a section with settings",
    "multiple_of": "a multiple of {multiple_of:g}",
    "string_type": "text",
    "too_long": "at most {max_length} values",
    "too_short": "at least {min_length} values",
    "tuple_type": "a list",
}


class SettingsError(UserError):
    """An unknown or wrong setting; the message names it, its value and what was expected."""


class Leaf(NamedTuple):
    """One setting that is not a section: its dotted name, type, value and description."""

    name: str
    type: Any
    value: Any
    description: str


def leaves(section: Any = None, prefix: str = "") -> Iterator[Leaf]:
    """All settings of a tree (by default the one of the annotate job), in its order."""
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
    """Settings from a YAML file, overridden by flags.

    Args:
        config: URI of a YAML file, or None.
        flags: values by dotted name, for example `{"detector.confidence": 0.1}`.
        kind: class of the settings tree.

    Raises:
        SettingsError: an unknown or wrong setting; the message names the file or the flag.
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
            raise SettingsError(f"{config}: expected sections with settings, not a {type(tree).__name__}")
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
        raise SettingsError(_message(error, config, flags, kind)) from None


def _message(error: ValidationError, config: str | None, flags: Mapping[str, Any], kind: type[Any]) -> str:
    """The first error as one line: file, setting, value and what was expected."""
    errors = error.errors()
    first = errors[0]
    location = list(first["loc"])
    while location and isinstance(location[-1], int):  # one of several plain values
        location.pop()
    name = _dotted(location)
    section = name.partition("[")[0]
    is_flag = any(f"{flag}.".startswith(f"{section}.") or f"{section}.".startswith(f"{flag}.") for flag in flags)
    setting = f"--{name}" if is_flag else f"{config}: {name}" if config else name
    value, text = first["input"], first["msg"].removeprefix("Value error, ")
    if first["type"] == "value_error" and isinstance(value, dict):  # several settings, which the text names as flags
        outer = "".join(f"{part}." for part in location[:-1])
        text = text.replace("--", f"--{outer}")
        return text if is_flag or not config else f"{config}: {text.replace('--', '')}"
    if first["type"] == "missing" and name == _dotted(first["loc"]):
        return f"{setting} is missing"
    if first["type"] in ("extra_forbidden", "unexpected_keyword_argument"):
        return f"{setting} is unknown{nearest(str(location[-1]), _names_beside(kind, location))}"
    shown = ",".join(map(str, value)) if isinstance(value, list | tuple) else repr(value)
    context = first.get("ctx", {}) | {"missing": sum(e["type"] == "missing" for e in errors)}
    return f"{setting} is {shown}; {_expectation(first['type'], context, value, text)}"


def _expectation(error_type: str, context: Mapping[str, Any], value: Any, text: str) -> str:
    """What was expected, for the end of an error message."""
    if error_type == "literal_error":
        choices = re.findall(r"'([^']*)'", context["expected"])
        close = difflib.get_close_matches(str(value), choices, n=1, cutoff=0.5)
        return f"{f'did you mean {close[0]}? ' if close else ''}Choices: {', '.join(choices)}"
    if error_type == "missing":
        return f"expected {len(value) + context['missing']} values"
    if error_type in _EXPECTED:
        return f"expected {_EXPECTED[error_type].format(**context)}"
    return text


def _dotted(location: Sequence[int | str]) -> str:
    return "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in location).removeprefix(".")


def _names_beside(kind: Any, location: Sequence[int | str]) -> list[str]:
    """Names of the settings in the section that an error location points into."""
    for part in location[:-1]:
        kind = get_args(kind)[0] if isinstance(part, int) else kind.model_fields[part].annotation
        kind = _plain(kind)[0]
    return list(kind.model_fields) if issubclass(kind, BaseModel) else [f.name for f in dataclasses.fields(kind)]


def _refuse_unknown(tree: dict[str, Any], source: str, all_leaves: Sequence[Leaf], prefix: str = "") -> None:
    known = [leaf.name for leaf in all_leaves]
    for key, value in tree.items():
        name = f"{prefix}{key}"
        if name in known:
            continue
        if any(leaf.startswith(f"{name}.") for leaf in known):
            if not isinstance(value, dict | None):
                raise SettingsError(f"{source}: {name} is {value!r}; expected a section with settings")
            _refuse_unknown(value or {}, source, all_leaves, f"{name}.")
            continue
        beside = {leaf[len(prefix) :].split(".")[0] for leaf in known if leaf.startswith(prefix)}
        close = difflib.get_close_matches(key, sorted(beside), n=1, cutoff=0.6)
        raise SettingsError(
            f"{source}: {name} is unknown" + (f"; did you mean {prefix}{close[0]}?" if close else nearest(name, known))
        )


def nearest(name: str, known: Sequence[str]) -> str:
    """A suggestion for an unknown name, for the end of the message `NAME is unknown`."""
    close = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    if not close:
        close = [k for k in known if k.rsplit(".", 1)[-1] == name.rsplit(".", 1)[-1]][:1]
    return f"; did you mean {close[0]}?" if close else "; --help lists every setting"


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        print(f"{self.prog}: {message}", file=sys.stderr)
        raise SystemExit(2)


class _HelpFormatter(argparse.HelpFormatter):
    """Keeps the lines of the description, and wraps the one line of each section."""

    def _fill_text(self, text: str, width: int, indent: str) -> str:
        return text if "\n" in text else super()._fill_text(text, width, indent)


def as_flags(settings: Section) -> list[str]:
    """Flags for all settings that differ from the defaults and have an effect; `parse_settings` reads them back."""
    defaults = {leaf.name: leaf.value for leaf in leaves(type(settings)())}
    idle = settings.unused()
    return [
        f"--{leaf.name}={_flag_text(leaf.value, leaf.type)}"
        for leaf in leaves(settings)
        if leaf.value != defaults[leaf.name] and leaf.name not in idle
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
    """Settings of a command line. `--help`, `--print-config` and wrong settings end the process.

    Args:
        argv: the arguments after the name of the program.
        description: first lines of `--help`.
        default_config: YAML file that is used if neither `--config` nor `--input` is set.
        kind: class of the settings tree.

    Raises:
        SystemExit: 0 after `--help` and `--print-config`, 2 after one line on stderr about a wrong setting.
    """
    known = list(leaves(kind()))
    parser = _make_parser(known, description, kind)
    arguments, unknown = parser.parse_known_args(argv)
    if unknown:
        name = unknown[0].partition("=")[0]
        if not name.startswith("--"):
            parser.error(f"{name!r} is not a flag; expected --SETTING VALUE, see --help")
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
    if (problem := settings.problem()) is not None:
        parser.error(problem)
    for name, reason in settings.unused().items():
        # A flag may switch off what a file sets, such as another detector than that of its other settings.
        if name in flags or not any(flag.startswith(f"{name.split('.')[0]}.") for flag in flags):
            parser.error(f"--{name} has no effect {reason}")
    if print_config:
        print(yaml.safe_dump(settings.model_dump(mode="json"), sort_keys=False), end="")
        raise SystemExit(0)
    return settings


def _make_parser(known: Sequence[Leaf], description: str, kind: Any) -> argparse.ArgumentParser:
    parser = _Parser(
        usage="%(prog)s [--config FILE] [--SETTING VALUE ...]",
        description=description,
        allow_abbrev=False,
        formatter_class=_HelpFormatter,
    )
    parser.add_argument("--config", metavar="FILE", help="YAML file with settings; flags override it")
    parser.add_argument("--print-config", action="store_true", help="print the effective settings and exit")
    groups: dict[str, Any] = {"": parser}
    for leaf in known:
        section = leaf.name.rpartition(".")[0]
        parts = section.split(".")
        for parent in (".".join(parts[: i + 1]) for i in range(len(parts))):  # an outer section is listed first
            if parent not in groups:
                groups[parent] = parser.add_argument_group(parent, _section_description(kind, parent))
        names = [f"--{leaf.name}"] + ([f"--{section}"] if leaf.name in ("input.uri", "output.uri") else [])
        groups[section].add_argument(
            *names,
            dest=leaf.name,
            metavar=_metavar(leaf.type),
            default=argparse.SUPPRESS,
            type=_reader(leaf.type),
            help=_help(leaf).replace("%", "%%"),
            **({"nargs": "?", "const": True} if _plain(leaf.type)[0] is bool else {}),
        )
    return parser


def _help(leaf: Leaf) -> str:
    """The description of a setting, with its choices if they are too long for the metavar, and its default."""
    text = leaf.description
    if len(_type_name(leaf.type)) > _LONGEST_CHOICES:
        text += f"; one of {', '.join(get_args(_plain(leaf.type)[0]))}"
    if leaf.value is None and "by default" in text:
        return text
    return f"{text} (default: {'none' if leaf.value is None else _text(leaf.value)})"


def _metavar(annotation: Any) -> str:
    name = _type_name(annotation)
    return name if len(name) <= _LONGEST_CHOICES else "NAME"


def _reader(annotation: Any) -> Any:
    """A function from the text of a flag to a value that pydantic converts to the type of the setting."""
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
    """The first paragraph of the docstring of the section's class, as one line."""
    node = kind()
    for name in section.split("."):
        node = getattr(node, name)
    return " ".join((type(node).__doc__ or "").split("\n\n")[0].split()).replace("%", "%%")


def _type_name(annotation: Any) -> str:
    """The values of a type for `--help`: choices as they are typed, other types in capitals."""
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
    """A type without annotations and None, and whether it included None."""
    if get_origin(annotation) is Annotated:
        return _plain(get_args(annotation)[0])
    if get_origin(annotation) in (Union, UnionType):
        named = [part for part in get_args(annotation) if part is not NoneType]
        return _plain(named[0])[0], len(named) < len(get_args(annotation))
    return annotation, False


def _holds_sections(kind: Any) -> bool:
    """Whether values are sections, lists of sections, or mappings, which a flag gives as YAML."""
    if get_origin(kind) is tuple:
        kind = _plain(get_args(kind)[0])[0]
    return get_origin(kind) is dict or (isinstance(kind, type) and issubclass(kind, Section))


def _text(value: Any) -> str:
    """A value as it is typed on the command line."""
    if isinstance(value, bool):
        return str(value).lower()
    return ",".join(map(str, value)) or "none" if isinstance(value, tuple) else str(value)
