"""The opinion of the images themselves: logistic regression on the given (noisy) labels."""

from __future__ import annotations

import hashlib
import logging
import os
import threading
import warnings
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from .zeroshot import log_softmax

logger = logging.getLogger(__name__)

MAX_ITERATIONS = 10_000
TOLERANCE = 1e-6

# The limit on BLAS threads holds for the whole process: two fits that set and reset it in turn
# could leave it set for good.
_FIT_LOCK = threading.Lock()


def row_hashes(features: np.ndarray, seed: int) -> np.ndarray:
    """Hashes the content of every row.

    Args:
        features: (N, d) array
        seed: changes all hashes

    Returns:
        (N,) uint64 array; equal rows have equal hashes, wherever they stand
    """
    key = str(seed).encode()
    rows = np.ascontiguousarray(features)
    digests = [hashlib.blake2b(row, digest_size=8, key=key).digest() for row in rows]
    return np.frombuffer(b"".join(digests), dtype=np.uint64)


def assign_folds(features: np.ndarray, labels: np.ndarray, folds: int, seed: int) -> np.ndarray:
    """Assigns samples to folds by their content, stratified by label.

    The members of a class are ordered by a seeded hash of their features and dealt out in turn;
    each class starts at another fold. The order of the samples plays no part, and the copies of
    one image within a class share a fold, so that no model is tested on what it was fitted on.

    Args:
        features: (N, d) array
        labels: (N,) int array
        folds: number of folds, >= 2
        seed: seeds the order

    Returns:
        (N,) int array in [0, folds)
    """
    hashes = row_hashes(features, seed)
    assigned = np.empty(len(labels), dtype=np.int64)
    for label in np.unique(labels):
        members = np.flatnonzero(labels == label)
        _, rank = np.unique(hashes[members], return_inverse=True)
        assigned[members] = (rank + label) % folds
    return assigned


def in_sample_log_probs(features: np.ndarray, labels: np.ndarray, num_classes: int) -> np.ndarray:
    """Class-balanced logistic regression (``C=1``), predicted on the samples it was fitted on.

    Args:
        features: (N, d) float array of unit rows
        labels: (N,) int array in [0, K)
        num_classes: K

    Returns:
        (N, K) float64 array of log-probabilities; -inf for classes without samples, NaN
        everywhere where fewer than two classes have samples
    """
    return _run_fits([_in_sample_job(features, labels, num_classes)])[0]


def out_of_fold_log_probs(
    features: np.ndarray, labels: np.ndarray, num_classes: int, fold_of: np.ndarray
) -> np.ndarray:
    """Logistic regression (``C=10``) where no model predicts a sample it has seen.

    Args:
        features: (N, d) float array of unit rows
        labels: (N,) int array in [0, K)
        num_classes: K
        fold_of: (N,) int array from :func:`assign_folds`

    Returns:
        (N, K) float64 array of log-probabilities; -inf for classes that the model of the fold has
        not seen. A sample whose own class its model has not seen has a row of NaN: no opinion
    """
    jobs = [
        _fold_job(features, labels, num_classes, fold_of == fold) for fold in np.unique(fold_of)
    ]
    log_probs = np.full((len(labels), num_classes), np.nan)
    for fold, rows in zip(np.unique(fold_of), _run_fits(jobs), strict=True):
        log_probs[fold_of == fold] = rows
    own = np.take_along_axis(log_probs, labels[:, None], axis=1)[:, 0]
    log_probs[np.isneginf(own)] = np.nan
    return log_probs


def _in_sample_job(
    features: np.ndarray, labels: np.ndarray, num_classes: int
) -> Callable[[], np.ndarray]:
    return lambda: _fit_predict(features, labels, features, num_classes, 1.0, "balanced")


def _fold_job(
    features: np.ndarray, labels: np.ndarray, num_classes: int, held_out: np.ndarray
) -> Callable[[], np.ndarray]:
    train = ~held_out
    return lambda: _fit_predict(
        features[train], labels[train], features[held_out], num_classes, 10.0, None
    )


def _run_fits(jobs: list[Callable[[], np.ndarray]]) -> list[np.ndarray]:
    """Runs fits side by side, each on one BLAS thread: the result is the same on any number."""
    from threadpoolctl import threadpool_limits

    workers = min(len(jobs), len(os.sched_getaffinity(0)))
    with _FIT_LOCK, threadpool_limits(1), ThreadPoolExecutor(max(workers, 1)) as pool:
        return list(pool.map(lambda job: job(), jobs))


def _fit_predict(
    train: np.ndarray,
    labels: np.ndarray,
    test: np.ndarray,
    num_classes: int,
    c: float,
    class_weight: str | None,
) -> np.ndarray:
    """Fits on ``train`` and returns the (len(test), K) log-probabilities of ``test``."""
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression

    log_probs = np.full((len(test), num_classes), -np.inf)
    if len(np.unique(labels)) < 2:
        return np.full_like(log_probs, np.nan)
    model = LogisticRegression(
        C=c, class_weight=class_weight, max_iter=MAX_ITERATIONS, tol=TOLERANCE
    )
    with warnings.catch_warnings():
        warnings.simplefilter("error", ConvergenceWarning)
        model.fit(train.astype(np.float64), labels)
    scores = model.decision_function(test.astype(np.float64))
    if scores.ndim == 1:  # two classes: one score, that of the second
        scores = np.stack([np.zeros_like(scores), scores], axis=1)
    log_probs[:, model.classes_] = log_softmax(scores)
    return log_probs
