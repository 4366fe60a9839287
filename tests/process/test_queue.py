import threading
import time

import pytest

from pipeline.process.queue import BoundedQueue


def start(
    queue: BoundedQueue[int], items: int, size: int, log: list[int], error: Exception | None = None
) -> threading.Thread:
    def fill() -> None:
        with queue.filling():
            for i in range(items):
                queue.put(i, size)
                log.append(i)
            if error is not None:
                raise error

    thread = threading.Thread(target=fill)
    thread.start()
    return thread


@pytest.mark.parametrize(("items", "size", "ahead"), [(4, 1, 4), (100, 30, 3), (100, 1000, 1)])
def test_put_waits_for_room_by_number_of_items_and_by_bytes(items: int, size: int, ahead: int) -> None:
    queue: BoundedQueue[int] = BoundedQueue(items, 100)
    log: list[int] = []
    thread = start(queue, 20, size, log)
    time.sleep(0.2)
    assert len(log) == ahead
    assert list(queue) == list(range(20))
    thread.join()


def test_an_error_of_the_writer_is_raised_in_the_reader_after_the_items() -> None:
    queue: BoundedQueue[int] = BoundedQueue(9, 100)
    thread = start(queue, 3, 1, [], OSError("gone"))
    received = []
    with pytest.raises(OSError, match="gone"):
        for item in queue:
            received.append(item)
    assert received == [0, 1, 2]
    thread.join()


def test_closing_the_queue_ends_the_writer() -> None:
    queue: BoundedQueue[int] = BoundedQueue(2, 100)
    thread = start(queue, 1000, 1, [])
    next(iter(queue))
    queue.close()
    thread.join(5)
    assert not thread.is_alive()
