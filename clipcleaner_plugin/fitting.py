"""How models are fitted: with a result that no number of threads changes, warnings in the log."""

from __future__ import annotations

import logging
import os
import threading
import warnings
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from typing import TypeVar

logger = logging.getLogger(__name__)

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


def run_side_by_side(jobs: Sequence[Callable[[], T]]) -> list[T]:
    """Runs functions on all cores, each of them on one thread of BLAS.

    Args:
        jobs: functions without arguments, independent of each other

    Returns:
        their results, in order, the same on any number of cores
    """
    with one_blas_thread():
        return list(in_order(lambda job: job(), jobs))


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


@contextmanager
def convergence_logged(what: str) -> Iterator[None]:
    """Logs a fit's complaint that it did not converge, once; other warnings pass.

    Args:
        what: names the fit in the log
    """
    from sklearn.exceptions import ConvergenceWarning

    # Catching warnings changes the whole process, like the limit above: one thread after the other,
    # or the last to finish would leave them caught for good
    with _LOCK, warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", ConvergenceWarning)
        yield
    complaints = [w for w in caught if issubclass(w.category, ConvergenceWarning)]
    if complaints:
        logger.warning("The %s did not converge: %s", what, complaints[0].message)
    for other in caught:
        if other not in complaints:
            warnings.warn_explicit(other.message, other.category, other.filename, other.lineno)
