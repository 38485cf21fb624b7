"""Features with a known truth: clusters on a sphere, seen by an imperfect language."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np


class Clusters(NamedTuple):
    """Features, the true labels, and one text feature a class."""

    images: np.ndarray
    truth: np.ndarray
    texts: np.ndarray


def make_clusters(
    n: int = 200, classes: int = 4, dim: int = 16, spread: float = 0.25, seed: int = 0
) -> Clusters:
    """n images in clusters of about equal size, spread around the text of their class."""
    rng = np.random.default_rng(seed)
    texts = rng.standard_normal((classes, dim))
    texts /= np.linalg.norm(texts, axis=1, keepdims=True)
    truth = np.arange(n) % classes
    images = texts[truth] + spread * rng.standard_normal((n, dim))
    images /= np.linalg.norm(images, axis=1, keepdims=True)
    return Clusters(images.astype(np.float32), truth, texts.astype(np.float32))


def flip(truth: np.ndarray, classes: int, share: float, seed: int = 0) -> np.ndarray:
    """Gives a share of the labels another class than their own."""
    rng = np.random.default_rng(seed)
    labels = truth.copy()
    hit = rng.permutation(len(truth))[: round(share * len(truth))]
    labels[hit] = (labels[hit] + rng.integers(1, classes, len(hit))) % classes
    return labels
