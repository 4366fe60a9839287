import threading
import time

import pytest

from pipeline.process.stopwatch import Stopwatch


def test_seconds_of_all_threads_are_summed_and_reset_by_take() -> None:
    watch = Stopwatch()

    def work() -> None:
        with watch("work"):
            time.sleep(0.05)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    with pytest.raises(ValueError, match="no"), watch("error"):
        raise ValueError("no")
    seconds = watch.take()
    assert list(seconds) == ["work", "error"]
    assert 0.2 <= seconds["work"] < 1
    assert watch.take() == {}
