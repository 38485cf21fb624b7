"""Labeled rows, as the first cleaning works on them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Labeled:
    """Some samples with their given labels.

    Attributes:
        features: (n, d) float32
        language: (n, K) float32 logits of language, or None
        labels: (n,) int in [0, K)
        fold_of: (n,) int in [-1, F)
        weights: (n,) float32 > 0, how many samples each row stands for
    """

    features: np.ndarray
    language: np.ndarray | None
    labels: np.ndarray
    fold_of: np.ndarray
    weights: np.ndarray

    @property
    def judged(self) -> np.ndarray:
        """(n,) bool, whether there is a model of the images that has not seen a row."""
        return self.fold_of >= 0
