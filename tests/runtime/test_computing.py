"""The time in which a device computes."""

import threading
import time

import torch
from hypothesis import given
from hypothesis import strategies as st

from pipeline.runtime.computing import ComputingTime, covered

moments = st.integers(0, 30)


@given(st.lists(st.tuples(moments, moments).map(sorted)), moments)
def test_moments_covered_by_several_spans_count_once(spans, since) -> None:
    seconds = {moment for start, end in spans for moment in range(start, end) if moment >= since}
    assert covered([(float(start), float(end)) for start, end in spans], float(since)) == len(seconds)


def test_threads_that_compute_at_once_count_once() -> None:
    computing = ComputingTime(torch.device("cpu"))
    both = threading.Barrier(2)

    def compute() -> None:
        with computing():
            both.wait()
            time.sleep(0.2)
            both.wait()

    started = time.perf_counter()
    threads = [threading.Thread(target=compute) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    passed = time.perf_counter() - started
    assert 0.2 <= computing.take() <= passed
    assert computing.take() == 0.0  # nothing counts twice


def test_a_block_that_fails_counts_too() -> None:
    computing = ComputingTime(torch.device("cpu"))
    try:
        with computing():
            time.sleep(0.01)
            raise MemoryError
    except MemoryError:
        pass
    assert computing.take() >= 0.01
