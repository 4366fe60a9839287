import io

import pytest
from rich.console import Console

from pipeline.process.progress_line import ProgressLine

PARTS = ["12345/100000 images", "1:02:03 left", "123.4 images/s", "22345 people", "0 failed", "12/100 shards"]


def shown(width: int, terminal: bool) -> str:
    sink = io.StringIO()
    console = Console(file=sink, width=width, force_terminal=terminal, force_interactive=terminal, color_system=None)
    with ProgressLine("annotating", console) as line:
        line.begin("starting workers")
        line.update(30, 100, PARTS)
    return sink.getvalue()


@pytest.mark.parametrize(("width", "parts"), [(60, 2), (80, 3), (120, 6), (200, 6)])
def test_the_bar_and_the_time_left_fit(width: int, parts: int) -> None:
    last = [row for row in shown(width, True).replace("\r", "\n").split("\n") if "images" in row][-1]
    assert ", ".join(PARTS[:parts]) in last
    assert "━" in last
    assert "…" not in last


def test_elsewhere_every_text_is_a_whole_line() -> None:
    assert shown(80, False).splitlines() == ["starting workers", ", ".join(PARTS)]
