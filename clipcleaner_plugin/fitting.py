"""How models are fitted: with a result that no number of threads changes, warnings in the log."""

from __future__ import annotations

import logging
import os
import threading
import warnings
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import TypeVar

logger = logging.getLogger(__name__)

T = TypeVar("T")

# The limit below holds for the whole process: two threads that set and reset it in turn could
# leave it set for good. Reentrant, because a computation may be part of a larger one.
_LOCK = threading.RLock()


@contextmanager
def one_blas_thread() -> Iterator[None]:
    """Keeps numpy and scikit-learn to one thread per call, since more may round differently."""
    from threadpoolctl import threadpool_limits

    with _LOCK, threadpool_limits(1):
        yield


def run_side_by_side(jobs: Sequence[Callable[[], T]]) -> list[T]:
    """Runs functions on all cores, each of them on one thread of BLAS.

    Args:
        jobs: functions without arguments, independent of each other

    Returns:
        their results, in order, the same on any number of cores
    """
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    with one_blas_thread(), ThreadPoolExecutor(max(1, min(len(jobs), cores or 1))) as pool:
        return list(pool.map(lambda job: job(), jobs))


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
