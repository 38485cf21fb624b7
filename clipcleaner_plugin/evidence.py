"""The four evidences of the paper: loss and consistency of a label under a classifier."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np


def loss_scores(own: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Log-probability of the given label, scaled to [0, 1] within each given class.

    Feng et al., CLIPCleaner, ACM MM 2024, section 3. Where all members of a class have the same
    log-probability, or there is only one, nothing speaks against any of them: they score 1.

    Args:
        own: (N,) float array, the log-probability of the given label
        labels: (N,) int array in [0, K)

    Returns:
        (N,) float32 array in [0, 1], higher is cleaner
    """
    own = own.astype(np.float64)
    scores = np.ones(len(labels), dtype=np.float32)
    for members in groups(labels):
        low, high = own[members].min(), own[members].max()
        if high > low:
            scores[members] = (own[members] - low) / (high - low)
    return scores


def consistency_scores(log_probs: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Probability of the given label over that of the most probable one.

    Args:
        log_probs: (N, K) float array, finite at the given labels
        labels: (N,) int array in [0, K)

    Returns:
        (N,) float32 array in [0, 1], higher is cleaner; 1 where the given label is the most
        probable
    """
    return np.exp(given(log_probs, labels) - log_probs.max(axis=1)).astype(np.float32)


def given(values: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """The entry of every row at the given label.

    Args:
        values: (N, K) array
        labels: (N,) int array in [0, K)

    Returns:
        (N,) array
    """
    return np.take_along_axis(values, labels[:, None], axis=1)[:, 0]


def groups(labels: np.ndarray) -> Iterator[np.ndarray]:
    """Yields the positions of each label in turn, found with one sort.

    Args:
        labels: (N,) int array

    Yields:
        int arrays, in the order of the labels
    """
    order = np.argsort(labels, kind="stable")
    _, starts = np.unique(labels[order], return_index=True)
    yield from np.split(order, starts[1:]) if len(order) else ()
