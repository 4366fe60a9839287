"""The benchmark that compares two commands."""

import re
import subprocess
import sys

from support.paths import PROJECT

SCRIPT = PROJECT / "infra" / "benchmarks" / "side_by_side.py"


def compare(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, SCRIPT, *arguments], capture_output=True, text=True)


def test_two_commands_take_turns_in_folders_of_their_own() -> None:
    done = compare("--rounds=2", "--images=10", "mkdir {folder}/run && sleep 0.1", "mkdir {folder}/run && sleep 0.4")
    assert done.returncode == 0, done.stderr
    assert re.findall(r"command (\d):", done.stdout) == ["1", "2", "2", "1", "1", "2"]
    assert re.search(r"second / first: least [\d.]+, by round [\d.]+ to [\d.]+", done.stdout)


def test_a_command_that_fails_ends_the_comparison() -> None:
    done = compare("true", "echo the reason >&2; exit 3")
    assert done.returncode == 1
    assert done.stderr == "exit code 3: echo the reason >&2; exit 3: the reason\n"
