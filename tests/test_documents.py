"""The documents: commands and flags exist, links resolve, examples run."""

from __future__ import annotations

import argparse
import ast
import importlib
import re
import shlex
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple, cast
from unittest.mock import patch

import numpy as np
import pytest
from support.paths import PROJECT
from support.runs import planned_run, write_part

import jobs.bench
import jobs.evaluate
import jobs.reduce
from jobs.annotate import DEMO
from pipeline.export.settings import ExportSettings
from pipeline.people import People
from pipeline.run.reduction import reduce_run
from pipeline.settings.flags import leaves, load_settings, parse_settings
from pipeline.settings.tree import Section, Settings
from pipeline.sweep.settings import SweepSettings
from pipeline.sweep.trials import trials_of
from pipeline.training.settings import TrainSettings

README_MAX_LINES = 130
SETTINGS: dict[str, type[Section]] = {
    "annotate": Settings,
    "sweep": SweepSettings,
    "train": TrainSettings,
    "export": ExportSettings,
}
JOBS_WITH_A_PARSER: dict[str, Callable[[Sequence[str]], int]] = {
    "reduce": jobs.reduce.main,
    "evaluate": jobs.evaluate.main,
    "bench": jobs.bench.main,
}
_WITH_ANNOTATIONS = "[{annotations: people.json, images: images}]"
# Flags that a command with the placeholder `...` leaves out, and without which its settings are refused.
REQUIRED = {
    "annotate": (),
    "export": (),
    "sweep": (("--annotations", "people.json"), ("--trials", "[{pose.flip_test: true}]")),
    "train": (("--sets", _WITH_ANNOTATIONS),),
}
_FENCE = re.compile(r"^( *)```(\w*)\n(.*?)^\1```", re.MULTILINE | re.DOTALL)
_COMMAND = re.compile(
    r"(?:\buv run (?:--with \S+ )?|\bpython )(-m pipeline[\w.]*|(?:jobs|infra|tests)/\S+\.py)([^\n]*)"
)
# Everything before a description, a pipe or another command; quoted text may hold all of these.
_ARGUMENTS = re.compile(r"""(?:"[^"]*"|'[^']*'|(?!   | \| | && |; |\s>\s).)*""")
_FLAG = re.compile(r"(?<![\w-])--([a-z][\w.*-]*)")


class Command(NamedTuple):
    """A command in a document.

    Attributes:
        document: path of the document, relative to the project.
        script: `jobs/X.py`, the path of another script, or `-m MODULE`.
        arguments: the arguments after the script.
    """

    document: str
    script: str
    arguments: tuple[str, ...]

    def __str__(self) -> str:
        return f"{self.document}: {self.script} {shlex.join(self.arguments)}"


class _ParserBuilt(Exception):
    """A job has built its parser; the job ends here."""


def markdown_files() -> list[Path]:
    """All Markdown files of the project."""
    ignored = ("node_modules", "out", "data")
    return sorted(
        path
        for path in PROJECT.rglob("*.md")
        if not any(part.startswith(".") or part in ignored for part in path.relative_to(PROJECT).parts)
    )


def header(path: Path) -> str:
    """The comment at the head of a YAML file, or the docstring of a module, without comment marks."""
    if path.suffix == ".py":
        return ast.get_docstring(ast.parse(path.read_text())) or ""
    lines = []
    for line in path.read_text().splitlines():
        if not line.startswith("#"):
            break
        lines.append(line.removeprefix("#"))
    return "\n".join(lines)


def code_of(path: Path) -> str:
    """Everything in a document that may hold commands, one command per line."""
    if path.suffix != ".md":
        return re.sub(r"\\\n\s*", "", header(path))
    text = path.read_text()
    blocks = [re.sub(r"\\\n\s*", "", match[3]) for match in _FENCE.finditer(text)]
    return "\n".join([*blocks, *inline_code(text)])


def inline_code(text: str) -> list[str]:
    """The code spans of a Markdown document."""
    return [" ".join(span.split()) for span in re.findall(r"`([^`]+)`", _FENCE.sub("", text))]


def documents() -> list[Path]:
    """The documents that hold commands."""
    configs = sorted((PROJECT / "configs").rglob("*.yaml"))
    return [*markdown_files(), *configs, *sorted((PROJECT / "jobs").glob("*.py"))]


def commands_of(path: Path) -> Iterator[Command]:
    """The commands of a document, with its shell variables replaced and descriptions after them removed."""
    code = code_of(path)
    variables = dict(re.findall(r'\b([A-Z]+)="([^"]*)"', code))
    for script, rest in _COMMAND.findall(code):
        arguments = cast("re.Match[str]", _ARGUMENTS.match(f"{rest} "))[0]
        arguments = re.sub(r"\$([A-Z]+)", lambda match: variables[match[1]], arguments)
        yield Command(str(path.relative_to(PROJECT)), script, tuple(shlex.split(arguments, comments=True)))


COMMANDS = [command for path in documents() for command in commands_of(path)]


def commands(*scripts: str) -> list[Any]:
    """The commands that run one of the scripts, as test parameters."""
    return [pytest.param(c, id=str(c)) for c in COMMANDS if c.script in scripts]


def other_commands() -> list[Any]:
    """The commands that do not run a job, as test parameters."""
    return [pytest.param(c, id=str(c)) for c in COMMANDS if not c.script.startswith("jobs/")]


def parser_of(main: Callable[[Sequence[str]], int]) -> argparse.ArgumentParser:
    """The parser that a job builds."""
    parsers = []

    def capture(parser: argparse.ArgumentParser, *_: Any) -> None:
        parsers.append(parser)
        raise _ParserBuilt

    with patch.object(argparse.ArgumentParser, "parse_args", capture), pytest.raises(_ParserBuilt):
        main([])
    return parsers[0]


def settings_of(command: Command) -> Section:
    """The settings of a command; placeholders are left out, or replaced by an existing file."""
    job = Path(command.script).stem
    abbreviated = "..." in command.arguments
    arguments: list[str] = []
    for argument in command.arguments:
        if argument == "...":
            if arguments and arguments[-1] in ("--config", "--input", "--output"):
                arguments.pop()
            continue
        if argument.startswith("configs/") and "NAME" in argument:
            abbreviated = True
            argument = str(sorted(PROJECT.glob(argument.replace("NAME", "*")))[0].relative_to(PROJECT))
        if argument not in ("--print-config", "--help"):
            arguments.append(argument)
    if abbreviated:
        set_flags = [argument.partition("=")[0] for argument in arguments]
        has_trials = {"--grid", "--random", "--trials", "--config"} & set(set_flags)
        for name, value in REQUIRED[job]:
            if name not in set_flags and not (name == "--trials" and has_trials):
                arguments += [name, value]
    default = str(DEMO) if job == "annotate" else None
    return parse_settings(arguments, "", default, kind=SETTINGS[job])


@pytest.mark.parametrize("command", commands("jobs/annotate.py", "jobs/sweep.py", "jobs/train.py"))
def test_commands_have_valid_settings(
    command: Command, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(PROJECT)
    try:
        settings = settings_of(command)
    except SystemExit:
        pytest.fail(f"{command}\n{capsys.readouterr().err}")
    if isinstance(settings, SweepSettings):
        assert trials_of(settings.model_copy(update={"run": None}))  # the run of an example does not exist


@pytest.mark.parametrize("command", commands("jobs/reduce.py", "jobs/evaluate.py", "jobs/bench.py"))
def test_commands_have_known_flags(command: Command, capsys: pytest.CaptureFixture[str]) -> None:
    parser = parser_of(JOBS_WITH_A_PARSER[Path(command.script).stem])
    try:
        parser.parse_args([argument for argument in command.arguments if argument != "..."])
    except SystemExit:
        pytest.fail(f"{command}\n{capsys.readouterr().err}")


@pytest.mark.parametrize("command", other_commands())
def test_other_scripts_exist_and_have_the_flags(command: Command) -> None:
    if command.script.startswith("-m "):
        module = PROJECT / command.script.removeprefix("-m ").replace(".", "/")
        source = module / "__main__.py" if module.is_dir() else module.with_suffix(".py")
    else:
        source = PROJECT / command.script
    assert source.is_file(), f"{command}: {source} does not exist"
    text = source.read_text()
    for argument in command.arguments:
        if argument.startswith("--"):
            assert f'"{argument.partition("=")[0]}"' in text, f"{command}: {source.name} has no flag {argument}"


@pytest.mark.parametrize("command", [pytest.param(c, id=str(c)) for c in COMMANDS])
def test_project_files_in_commands_exist(command: Command) -> None:
    assert not command.script.startswith("jobs/") or (PROJECT / command.script).is_file(), command
    for argument in command.arguments:
        path = argument.rpartition("=")[2]
        if path.startswith(("configs/", "infra/", "tests/")) and "NAME" not in path:
            assert (PROJECT / path).exists(), f"{command}: {path} does not exist"


def test_the_main_documents_have_commands() -> None:
    names = {command.document for command in COMMANDS}
    assert {
        "README.md",
        "jobs/README.md",
        "weights/README.md",
        "infra/README.md",
        "infra/benchmarks/README.md",
    } <= names
    configs = {str(path.relative_to(PROJECT)) for path in (PROJECT / "configs").rglob("*.yaml")}
    assert configs <= names, "the header of every configuration has its command"
    scripts = {command.script for command in COMMANDS if command.document == "jobs/README.md"}
    assert {f"jobs/{name}.py" for name in (*SETTINGS, *JOBS_WITH_A_PARSER)} <= scripts


def known_flags() -> set[str]:
    """All flags of the jobs and of the scripts below infra/ and tests/, without dashes."""
    names = {leaf.name for kind in SETTINGS.values() for leaf in leaves(kind())}
    names |= {"config", "print-config", "help", "input", "output"}
    for main in JOBS_WITH_A_PARSER.values():
        names |= {option.lstrip("-") for action in parser_of(main)._actions for option in action.option_strings}
    for path in (*(PROJECT / "infra").rglob("*.py"), PROJECT / "tests" / "fleet" / "drill.py"):
        names |= set(re.findall(r'"--([\w-]+)"', path.read_text()))
    return names


@pytest.mark.parametrize("path", [pytest.param(p, id=str(p.relative_to(PROJECT))) for p in markdown_files()])
def test_flags_in_documents_exist(path: Path) -> None:
    known = known_flags()
    text = path.read_text()
    spans = [span for span in inline_code(text) if span.startswith("--")]
    mentioned = {match for span in spans for match in _FLAG.findall(span)}
    mentioned |= {match for match in _FLAG.findall(text) if "." in match.rstrip(".")}

    def exists(flag: str) -> bool:
        flag = flag.rstrip(".")
        if flag.endswith("*"):
            return any(name.startswith(flag.rstrip("*")) for name in known)
        return flag in known

    assert not sorted(flag for flag in mentioned if not exists(flag))


def anchors(path: Path) -> set[str]:
    """The anchors of the headings of a Markdown file, as GitHub makes them."""
    names: list[str] = []
    for heading in re.findall(r"^#+ +(.+?) *$", _FENCE.sub("", path.read_text()), re.MULTILINE):
        text = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading)
        slug = re.sub(r"[^\w\- ]", "", text.lower()).replace(" ", "-")
        names.append(f"{slug}-{names.count(slug)}" if slug in names else slug)
    return set(names)


@pytest.mark.parametrize("path", [pytest.param(p, id=str(p.relative_to(PROJECT))) for p in markdown_files()])
def test_links_resolve(path: Path) -> None:
    text = re.sub(r"`[^`]+`", "code", _FENCE.sub("", path.read_text()))
    broken = []
    for target in re.findall(r"\]\(([^)\s]+)[^)]*\)", text):
        if re.match(r"[a-z]+:", target):
            continue
        file, _, anchor = target.partition("#")
        linked = (path.parent / file).resolve() if file else path
        exists = linked.is_relative_to(PROJECT) and linked.exists()
        if not exists or (anchor and linked.suffix == ".md" and anchor not in anchors(linked)):
            broken.append(target)
    assert not broken


def test_the_readme_is_short() -> None:
    assert len((PROJECT / "README.md").read_text().splitlines()) <= README_MAX_LINES


def blocks(language: str) -> list[Any]:
    """The fenced blocks of a language in all Markdown files, as test parameters."""
    return [
        pytest.param(match[3], id=f"{path.relative_to(PROJECT)}:{number}")
        for path in markdown_files()
        for number, match in enumerate(_FENCE.finditer(path.read_text()))
        if match[2] == language
    ]


@pytest.mark.parametrize("code", blocks("python"))
def test_python_examples_import_existing_names(code: str) -> None:
    for node in ast.walk(ast.parse(code)):
        if isinstance(node, ast.ImportFrom):
            assert node.module is not None
            module = importlib.import_module(node.module)
            assert all(hasattr(module, alias.name) for alias in node.names)


@pytest.mark.parametrize("code", blocks("yaml"))
def test_yaml_examples_are_settings(code: str, tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text(code)
    assert load_settings(str(tmp_path / "config.yaml"), {}).input.uri


@pytest.mark.parametrize("code", blocks("sql"))
def test_sql_examples_run_on_the_tables(code: str, tmp_path: Path) -> None:
    duckdb = pytest.importorskip("duckdb")
    run = planned_run(tmp_path, 2, 2)
    keypoints = np.full((2, 17, 2), 50.0)
    keypoints[1, 9, 1] = 10.0  # the left wrist of the second person is above the nose
    people = People(np.zeros((2, 4)), np.ones(2), keypoints, np.ones((2, 17)), np.ones(2))
    (shard,) = run.plan().shards()
    image_ids = write_part(run, shard.id, [people[:0], people])
    reduce_run(run)
    assert "out/run1" in code
    rows = duckdb.sql(code.replace("out/run1", run.uri)).fetchall()
    assert [row[:2] for row in rows] == [(image_ids[1], 1)]
