"""One progress display for all commands: a bar on a terminal, periodic lines elsewhere. Both go to stderr."""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn

_SECONDS_BETWEEN_LINES = 10.0
_BAR_WIDTH = 20  # at most


class ProgressLine:
    """Shows how far a command is, as a text that replaces the one before."""

    def __init__(self, title: str, console: Console | None = None) -> None:
        """
        Args:
            title: shown before the bar.
            console: to write to; by default stderr.
        """
        self._console = console or Console(stderr=True)
        self._bar: Progress | None = None
        self._title = title
        self._last_text = self._printed_text = ""
        self._last_printed = time.monotonic()

    def __enter__(self) -> ProgressLine:
        if self._console.is_terminal:
            columns = (TextColumn(self._title), BarColumn(self._bar_width), TextColumn("{task.fields[text]}"))
            self._bar = Progress(*columns, console=self._console, refresh_per_second=4)
            self._bar.start()
            self._bar.add_task(self._title, total=None, text="starting")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar is not None:
            self._bar.stop()
        elif self._last_text != self._printed_text:
            self.note(self._last_text)

    def begin(self, text: str) -> None:
        """Show what happens before the first progress; elsewhere than on a terminal it is printed at once."""
        if self._bar is not None:
            self._bar.update(self._bar.task_ids[0], text=text)
        else:
            self.note(text)

    def update(self, completed: float, total: float, parts: Sequence[str]) -> None:
        """Set the length of the bar and the text beside it; elsewhere print the text every ten seconds.

        Args:
            completed, total: the length of the bar.
            parts: of the text, the most important first; the last ones are left out where they don't fit.
        """
        self._last_text = ", ".join(parts)
        if self._bar is not None:
            text = self._fitting(parts)
            self._bar.update(self._bar.task_ids[0], completed=completed, total=total, text=text)
        elif time.monotonic() - self._last_printed > _SECONDS_BETWEEN_LINES:
            self._last_printed, self._printed_text = time.monotonic(), self._last_text
            print(self._last_text, file=sys.stderr, flush=True)

    def note(self, text: str) -> None:
        """Print a line that stays, above the bar."""
        self._console.print(text, highlight=False, soft_wrap=True)

    @property
    def _bar_width(self) -> int:
        return min(_BAR_WIDTH, self._console.width // 5)

    def _fitting(self, parts: Sequence[str]) -> str:
        room = self._console.width - len(self._title) - self._bar_width - 2  # two spaces between the columns
        text = parts[0]
        for part in parts[1:]:
            if len(text) + len(part) + 2 > room:
                break
            text += f", {part}"
        return text


def duration(seconds: float) -> str:
    """Hours, minutes and seconds.

    >>> duration(3723.4), duration(59)
    ('1:02:03', '0:59')
    """
    minutes, seconds = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{seconds:02d}" if hours else f"{minutes}:{seconds:02d}"
