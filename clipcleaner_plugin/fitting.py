"""Work on all cores, with a result that their number does not change."""

from __future__ import annotations

import os
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from typing import TypeVar

T = TypeVar("T")
S = TypeVar("S")

# The limit below holds for the whole process: two threads that set and reset it in turn could
# leave it set for good. Reentrant, because a computation may be part of a larger one.
_LOCK = threading.RLock()


@contextmanager
def one_blas_thread() -> Iterator[None]:
    """Keeps numpy, scikit-learn and torch to one thread per call: more may round differently."""
    import torch
    from threadpoolctl import threadpool_limits

    with _LOCK, threadpool_limits(1):
        before = torch.get_num_threads()
        torch.set_num_threads(1)
        try:
            yield
        finally:
            torch.set_num_threads(before)


def in_order(work: Callable[[S], T], items: Iterable[S]) -> Iterator[T]:
    """Applies a function to items on all cores; call it within :func:`one_blas_thread`.

    Results come in the order of the items, so that what is summed up from them has the same bits on
    any number of cores. Few of them wait at a time, however many items there are.

    Args:
        work: releases the interpreter's lock, as numpy and torch do
        items: one at a time are drawn, a few ahead

    Yields:
        ``work(item)``
    """
    import torch

    # A new thread's first product of matrices would be made by as many threads as there are cores
    one_thread = partial(torch.set_num_threads, 1)
    with ThreadPoolExecutor(cores := _cores(), initializer=one_thread) as pool:
        waiting: deque[Future[T]] = deque()
        for item in items:
            waiting.append(pool.submit(work, item))
            if len(waiting) > 2 * cores:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()


def _cores() -> int:
    """Number of cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
