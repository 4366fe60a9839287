"""A function mapped over items in Ray tasks."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

import ray
from ray.exceptions import RayError, RayTaskError

_ITEMS_PER_CPU = 2  # in memory at a time

_In = TypeVar("_In")
_Out = TypeVar("_Out")


@ray.remote(num_cpus=1)
def _apply(function: Callable[[_In], _Out], item: _In) -> _Out:
    return function(item)


def map_on_ray(function: Callable[[_In], _Out], items: Iterable[_In]) -> Iterator[_Out]:
    """Like the builtin `map`, in tasks of the Ray session; results come in the order of the items.

    Raises:
        OSError: a task could not be finished; exceptions of the function are raised as they are.
    """
    shared = ray.put(function)
    ahead = max(1, int(ray.cluster_resources().get("CPU", 1)) * _ITEMS_PER_CPU)
    running: deque[ray.ObjectRef] = deque()
    try:
        for item in items:
            running.append(_apply.remote(shared, item))
            if len(running) >= ahead:
                yield ray.get(running.popleft())
        while running:
            yield ray.get(running.popleft())
    except RayTaskError as error:
        raise error.cause from None
    except RayError as error:
        raise OSError(f"a task could not be finished ({error}); run the command again") from None
