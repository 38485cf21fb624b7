"""Class names that draw all images, or none, set right by how often the classes occur."""

from __future__ import annotations

import numpy as np

from .zeroshot import log_softmax

_IN_ADVANCE = 1.0  # images that each class has, and is given, before one was seen
SUPPOSED_NOISE = 0.2  # share of labels taken for arbitrary before anything is known
_ROUNDS = 20
_ENOUGH = 0.02  # largest change of an offset at which they are found


def fit_offsets(logits: np.ndarray, shares: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Finds what to add to the logits of language, so that it names every class often enough.

    The text of a class that holds everything else ("other") lies in the middle of all texts, and
    so nearer to most images, or farther from its own, than other names. An offset for each class
    mends that. By the most likely offsets, the intercepts of multinomial regression, every class
    is predicted as often as it occurs, among the images on which language may be believed: where
    it clearly contradicts a label, the label is wrong and the name need not draw less. They are
    found by iterative scaling, in turn with the share of such images.

    Args:
        logits: (n, K) float32 of language
        shares: (n, K) float32, how probable each class is by everything else; rows sum to 1
        weights: (n,) float32 > 0, how many images each row stands for

    Returns:
        (K,) float32 offsets
    """
    right, noise = np.float32(1 - SUPPOSED_NOISE), np.float32(SUPPOSED_NOISE / logits.shape[1])
    offsets = np.zeros(logits.shape[1])
    for _ in range(_ROUNDS):
        probs = np.exp(log_softmax(logits + offsets.astype(np.float32)))
        agreement = right * (probs * shares).sum(axis=1)
        trusted = (weights * agreement / (agreement + noise))[:, None]
        # No product of matrices: how it rounds depends on the number of cores
        wanted, predicted = (
            (trusted * table).sum(axis=0, dtype=np.float64) + _IN_ADVANCE
            for table in (shares, probs)
        )
        change = np.log(wanted) - np.log(predicted)
        offsets += change
        if np.abs(change).max() < _ENOUGH:
            break
    return (offsets - offsets.mean()).astype(np.float32)


def gain_of(
    offsets: np.ndarray, logits: np.ndarray, labels: np.ndarray, weights: np.ndarray
) -> float:
    """How much better language explains given labels with its offsets, in nats.

    Args:
        offsets: (K,) float32
        logits: (n, K) float32 of language
        labels: (n,) int in [0, K)
        weights: (n,) float32 > 0
    """
    rows, gain = np.arange(len(labels)), 0.0
    for sign, table in ((1, logits + offsets), (-1, logits)):
        probs = np.exp(log_softmax(table)[rows, labels].astype(np.float64))
        mixed = (1 - SUPPOSED_NOISE) * probs + SUPPOSED_NOISE / logits.shape[1]
        gain += sign * float((weights * np.log(mixed)).sum())
    return gain
