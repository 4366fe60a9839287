"""The error of annotation files.

It imports nothing else: training uses it where only torch, numpy and OpenCV are installed.
"""

from __future__ import annotations

from pipeline.errors import UserError


class AnnotationError(UserError):
    """A COCO file that cannot be used; the message names the file, the entry and what was expected."""
