"""A run: its directory, tables and columns, the reduction of parts to tables. No Ray."""

from pipeline.run.directory import Run, RunRefused

__all__ = ["Run", "RunRefused"]
