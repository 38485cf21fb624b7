"""The opinion of language: CLIP's zero-shot classifier as log-probabilities."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

REDUCTIONS = ("mean", "sum")


def normalize_rows(matrix: np.ndarray) -> np.ndarray:
    """Scales every row to unit length.

    Args:
        matrix: (N, d) real array

    Returns:
        (N, d) float32 array. A row that holds a value which is not finite, or no direction (all
        zeros), becomes a row of NaN
    """
    with np.errstate(over="ignore"):  # beyond float32 is not finite, hence NaN below
        rows = np.array(matrix, dtype=np.float32, order="C")
    # Dividing by the largest entry first keeps the squares of huge and of tiny rows in range.
    with np.errstate(invalid="ignore", divide="ignore", over="ignore"):
        rows /= np.max(np.abs(rows), axis=1, keepdims=True, initial=0)
        rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    rows[~np.isfinite(rows).all(axis=1)] = np.nan
    return rows


class ZeroShot:
    """The zero-shot classifier of some classes, for a block of images at a time.

    ``P(k|i)`` is proportional to ``sum_j exp(<f_i, t_kj> / T)`` over the prompts ``j`` of class
    ``k`` (Feng et al., CLIPCleaner, ACM MM 2024, section 3); with ``prompt_reduce="mean"`` the sum
    is divided by the number of prompts, so that a class gains nothing by having more of them.
    """

    def __init__(self, text_features: Sequence[np.ndarray], prompt_reduce: str = "mean") -> None:
        """Makes the classifier.

        Args:
            text_features: K float arrays of shape (m_k, d) of unit rows, m_k >= 1
            prompt_reduce: "mean" or "sum" over the prompts of a class
        """
        self._counts = np.array([len(prompts) for prompts in text_features])
        self._prompts = np.concatenate([np.asarray(t, dtype=np.float32) for t in text_features])
        self._mean = prompt_reduce == "mean"

    def log_probs(self, image_features: np.ndarray, temperature: float) -> np.ndarray:
        """Classifies images.

        Args:
            image_features: (n, d) float array of unit rows; a NaN row gives a NaN row
            temperature: ``T`` > 0

        Returns:
            (n, K) float32 array of log-probabilities, finite however small the probability
        """
        images = np.asarray(image_features, dtype=np.float32)
        logits = images @ self._prompts.T / np.float32(temperature)
        if len(self._prompts) > len(self._counts):
            logits = _logsumexp_groups(logits, self._counts)
            if self._mean:
                logits -= np.log(self._counts).astype(np.float32)
        return log_softmax(logits)


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
