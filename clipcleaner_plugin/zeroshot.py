"""The opinion of language: CLIP's zero-shot classifier as log-probabilities."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import numpy as np

from .fitting import run_side_by_side

REDUCTIONS = ("mean", "sum")
_BLOCK = 8192  # rows; fixed, so that a row's result does not depend on the number of cores


def normalize_rows(matrix: np.ndarray) -> np.ndarray:
    """Scales every row to unit length.

    Args:
        matrix: (N, d) real array

    Returns:
        (N, d) float32 array. A row that holds a value which is not finite, or no direction (all
        zeros), becomes a row of NaN
    """
    with np.errstate(over="ignore"):  # beyond float32 is not finite, hence NaN below
        rows = np.array(matrix, dtype=np.float32)
    # Dividing by the largest entry first keeps the squares of huge and of tiny rows in range.
    with np.errstate(invalid="ignore", divide="ignore", over="ignore"):
        rows /= np.max(np.abs(rows), axis=1, keepdims=True, initial=0)
        rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    rows[~np.isfinite(rows).all(axis=1)] = np.nan
    return rows


def zeroshot_log_probs(
    image_features: np.ndarray,
    text_features: Sequence[np.ndarray],
    temperature: float,
    prompt_reduce: str = "mean",
) -> np.ndarray:
    """Classifies images by their similarity to the prompts of each class.

    ``P(k|i)`` is proportional to ``sum_j exp(<f_i, t_kj> / T)`` over the prompts ``j`` of class
    ``k`` (Feng et al., CLIPCleaner, ACM MM 2024, section 3); with ``prompt_reduce="mean"`` the sum
    is divided by the number of prompts, so that a class gains nothing by having more of them.

    Args:
        image_features: (N, d) float array of unit rows; a NaN row gives a NaN row
        text_features: K float arrays of shape (m_k, d) of unit rows, m_k >= 1
        temperature: ``T`` > 0
        prompt_reduce: "mean" or "sum" over the prompts of a class

    Returns:
        (N, K) float32 array of log-probabilities, finite however small the probability
    """
    counts = np.array([len(prompts) for prompts in text_features])
    prompts = np.concatenate([np.asarray(t, dtype=np.float32) for t in text_features])
    images = np.asarray(image_features, dtype=np.float32)
    log_probs = np.empty((len(images), len(counts)), dtype=np.float32)

    def classify(start: int) -> None:
        rows = slice(start, start + _BLOCK)
        logits = images[rows] @ prompts.T / np.float32(temperature)
        if len(prompts) > len(counts):
            logits = _logsumexp_groups(logits, counts)
            if prompt_reduce == "mean":
                logits -= np.log(counts).astype(np.float32)
        log_probs[rows] = log_softmax(logits)

    run_side_by_side([partial(classify, start) for start in range(0, len(images), _BLOCK)])
    return log_probs


def log_softmax(logits: np.ndarray) -> np.ndarray:
    """Normalises rows of logits to log-probabilities without ever taking the log of zero.

    Args:
        logits: (N, K) float array

    Returns:
        (N, K) array of the same dtype
    """
    shifted = logits - logits.max(axis=1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))


def _logsumexp_groups(logits: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """``log(sum(exp(x)))`` over runs of ``counts`` columns, each shifted by its own maximum."""
    starts = np.cumsum(counts) - counts
    peaks = np.maximum.reduceat(logits, starts, axis=1)
    sums = np.add.reduceat(np.exp(logits - np.repeat(peaks, counts, axis=1)), starts, axis=1)
    return peaks + np.log(sums)
