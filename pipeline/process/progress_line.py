"""One progress display for all commands: a bar on a terminal, periodic lines elsewhere. Both go to stderr."""

from __future__ import annotations

import sys
import time
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn

_SECONDS_BETWEEN_LINES = 10.0


class ProgressLine:
    """Shows how far a command is, as a text that replaces the one before."""

    def __init__(self, title: str) -> None:
        """
        Args:
            title: shown before the bar.
        """
        self._console = Console(stderr=True)
        self._bar: Progress | None = None
        self._title = title
        self._last_text = self._printed_text = ""
        self._last_printed = time.monotonic()

    def __enter__(self) -> ProgressLine:
        if self._console.is_terminal:
            columns = (TextColumn(self._title), BarColumn(), TextColumn("{task.fields[text]}"))
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

    def update(self, completed: float, total: float, text: str) -> None:
        """Set the length of the bar and the text beside it; elsewhere print the text every ten seconds."""
        self._last_text = text
        if self._bar is not None:
            self._bar.update(self._bar.task_ids[0], completed=completed, total=total, text=text)
        elif time.monotonic() - self._last_printed > _SECONDS_BETWEEN_LINES:
            self._last_printed, self._printed_text = time.monotonic(), text
            print(text, file=sys.stderr, flush=True)

    def note(self, text: str) -> None:
        """Print a line that stays, above the bar."""
        self._console.print(text, highlight=False, soft_wrap=True)


def duration(seconds: float) -> str:
    """Hours, minutes and seconds.

    >>> duration(3723.4), duration(59)
    ('1:02:03', '0:59')
    """
    minutes, seconds = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{seconds:02d}" if hours else f"{minutes}:{seconds:02d}"
