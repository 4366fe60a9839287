"""Utilities of one process, independent of images and people: queue, stopwatch, deadline, memory, watchdog."""
