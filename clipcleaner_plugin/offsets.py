"""Class names that draw all images, or none, set right by how often the classes occur."""

from __future__ import annotations

import numpy as np

from .zeroshot import log_softmax

_IN_ADVANCE = 1.0  # images that each class has, and is given, before one was seen
_ROUNDS = 20
_ENOUGH = 0.02  # largest change of an offset at which they are found


def match_sizes(
    logits: np.ndarray, sizes: np.ndarray, weights: np.ndarray, start: np.ndarray
) -> np.ndarray:
    """Finds what to add to the logits of language, so that it names every class often enough.

    The text of a class that holds everything else ("other") lies in the middle of all texts and so
    near most images, whatever they show; other names lie far from their own. An offset for each
    class mends that. By the most likely offsets, the intercepts of multinomial regression, every
    class is predicted as often as it occurs. They are found by iterative scaling.

    Args:
        logits: (n, K) float32 of language
        sizes: (K,) float >= 0, the number of images of each class, n by all weights
        weights: (n,) float32 > 0, how many images each row stands for
        start: (K,) where to begin

    Returns:
        (K,) float32 offsets
    """
    offsets = start.astype(np.float64)
    wanted = np.log(sizes + _IN_ADVANCE)
    for _ in range(_ROUNDS):
        probs = np.exp(log_softmax(logits + offsets.astype(np.float32)))
        probs *= weights[:, None]
        change = wanted - np.log(probs.sum(axis=0, dtype=np.float64) + _IN_ADVANCE)
        offsets += change
        if np.abs(change).max() < _ENOUGH:
            break
    return (offsets - offsets.mean()).astype(np.float32)
