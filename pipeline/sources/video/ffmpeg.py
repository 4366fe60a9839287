"""FFmpeg, through PyAV: what the other modules of this folder have in common.

PyAV is an extra (`uv sync --extra video`), and therefore imported when a video is read.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import av


def load_av() -> ModuleType:
    """PyAV, with FFmpeg's error messages for `logged_errors`.

    Raises:
        ModuleNotFoundError: it is not installed.
    """
    import av
    import av.logging

    if av.logging.get_level() != av.logging.ERROR:
        logging.getLogger("libav").setLevel(logging.CRITICAL + 1)  # nothing on stderr: they belong to rows
        av.logging.set_skip_repeated(False)
        av.logging.set_level(av.logging.ERROR)
    return av


@contextmanager
def logged_errors() -> Iterator[list[str]]:
    """Collects the error messages of FFmpeg in this thread."""
    from av.logging import Capture

    collected: list[str] = []
    with Capture(local=True) as messages:
        yield collected
    collected += [text.strip() for _, _, text in messages]


def time_stamp(packet: av.Packet) -> int:
    """The presentation time stamp of a packet, in units of its time base; the decoding time stamp without one."""
    stamp = packet.dts if packet.pts is None else packet.pts
    assert stamp is not None
    return stamp
