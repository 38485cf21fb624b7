"""The opinion of the images themselves: logistic regression on the given (noisy) labels."""

from __future__ import annotations

import hashlib
from functools import partial

import numpy as np

from .fitting import convergence_logged, one_blas_thread, run_side_by_side
from .zeroshot import log_softmax

MAX_ITERATIONS = 10_000
# Largest entry of the gradient at which a fit has converged. The in-sample fit is part of the
# paper's rule and is compared sample by sample; the other is ten times as dear.
IN_SAMPLE_TOLERANCE = 1e-6
OUT_OF_FOLD_TOLERANCE = 1e-5
ALWAYS_TRAIN = -1  # the fold of samples that every model is fitted on and none predicts


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
    return np.frombuffer(b"".join(digests), dtype="<u8")


def assign_folds(hashes: np.ndarray, labels: np.ndarray, folds: int) -> np.ndarray:
    """Assigns samples to folds by their content, stratified by label.

    The members of a class are ordered by hash and dealt out in turn; each class starts at another
    fold. The order of the samples plays no part, and the copies of one image within a class share
    a fold, so that no model is tested on what it was fitted on.

    Args:
        hashes: (N,) uint64 array from :func:`row_hashes`
        labels: (N,) int array
        folds: number of folds, >= 2

    Returns:
        (N,) int array in [0, folds); ``ALWAYS_TRAIN`` for the members of a class without two
        different images, which would otherwise be missing from the model that predicts them
    """
    assigned = np.empty(len(labels), dtype=np.int64)
    for label in np.unique(labels):
        members = np.flatnonzero(labels == label)
        images, rank = np.unique(hashes[members], return_inverse=True)
        assigned[members] = (rank + label) % folds if len(images) > 1 else ALWAYS_TRAIN
    return assigned


def in_sample_log_probs(features: np.ndarray, labels: np.ndarray, num_classes: int) -> np.ndarray:
    """Class-balanced logistic regression (``C=1``), predicted on the samples it was fitted on.

    Multinomial, with intercept, L2 on the coefficients only, run to convergence, as in Feng et
    al. (CLIPCleaner, ACM MM 2024) and their reference implementation.

    Args:
        features: (N, d) float array of unit rows
        labels: (N,) int array in [0, K), at least two different ones
        num_classes: K

    Returns:
        (N, K) float64 array of log-probabilities; -inf for classes without samples
    """
    with convergence_logged("class-balanced fit"), one_blas_thread():
        return _fit_predict(
            features, labels, features, num_classes, 1.0, "balanced", IN_SAMPLE_TOLERANCE
        )


def out_of_fold_log_probs(
    features: np.ndarray, labels: np.ndarray, num_classes: int, fold_of: np.ndarray
) -> np.ndarray:
    """Logistic regression (``C=10``) where no model predicts a sample that it has seen.

    Classes are weighted by their size: balanced weights were no better on imbalanced data.

    Args:
        features: (N, d) float array of unit rows
        labels: (N,) int array in [0, K), at least two different ones
        num_classes: K
        fold_of: (N,) int array from :func:`assign_folds`

    Returns:
        (N, K) float64 array of log-probabilities; -inf for classes without samples. A row of NaN,
        no opinion, for samples that every model was fitted on
    """
    held_out = [fold_of == fold for fold in np.unique(fold_of[fold_of != ALWAYS_TRAIN])]
    fits = [partial(_out_of_fold_fit, features, labels, num_classes, test) for test in held_out]
    log_probs = np.full((len(labels), num_classes), np.nan)
    with convergence_logged("out-of-fold fit"):
        for test, rows in zip(held_out, run_side_by_side(fits), strict=True):
            log_probs[test] = rows
    return log_probs


def _out_of_fold_fit(
    features: np.ndarray, labels: np.ndarray, num_classes: int, test: np.ndarray
) -> np.ndarray:
    train = ~test
    return _fit_predict(
        features[train], labels[train], features[test], num_classes, 10.0, None,
        OUT_OF_FOLD_TOLERANCE,
    )  # fmt: skip


def _fit_predict(
    train: np.ndarray,
    labels: np.ndarray,
    test: np.ndarray,
    num_classes: int,
    c: float,
    class_weight: str | None,
    tolerance: float,
) -> np.ndarray:
    """Fits on ``train`` and returns the (len(test), K) log-probabilities of ``test``."""
    from sklearn.linear_model import LogisticRegression

    model = LogisticRegression(
        C=c, class_weight=class_weight, tol=tolerance, max_iter=MAX_ITERATIONS
    )
    model.fit(train.astype(np.float64), labels)
    logits = model.decision_function(test.astype(np.float64))
    if logits.ndim == 1:  # two classes: one logit, that of the second
        logits = np.stack([np.zeros_like(logits), logits], axis=1)
    log_probs = np.full((len(test), num_classes), -np.inf)
    log_probs[:, model.classes_] = log_softmax(logits)
    return log_probs
