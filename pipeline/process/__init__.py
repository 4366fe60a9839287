"""One process's own machinery: queue, stopwatch, deadline, memory, watchdog. Nothing of images or people."""
