"""A two-component Gaussian mixture on a line whose posterior never falls as the score rises."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from . import em

# Variances that differ by less than this, relative to their size, count as one: the parabola is a
# straight line then, and written around a vertex that far away it would only lose digits.
_SAME_VARIANCE = 1e-9


@dataclass(frozen=True)
class ScoreMixture:
    """Two Gaussians on a line, the lower ("noisy") and the upper ("clean") component.

    Between the two means the log-odds of the upper component rise. Beyond them the *wider*
    component wins both tails, so that the plain posterior calls the very best scores noisy or the
    very worst clean. The log-odds are a parabola; here they keep the value of its vertex on the
    far side of it, which makes them monotone everywhere and changes nothing between the means.

    Attributes:
        weights: (lower, upper) mixing weights > 0, which sum to 1
        means: (lower, upper) means, lower <= upper
        variances: (lower, upper) variances > 0
    """

    weights: tuple[float, float]
    means: tuple[float, float]
    variances: tuple[float, float]

    def log_odds(self, scores: np.ndarray | float) -> np.ndarray:
        """Log-odds of the upper component, never falling in the score.

        Args:
            scores: float array of any shape

        Returns:
            float64 array of the same shape
        """
        (w0, w1), (m0, m1), (v0, v1) = self.weights, self.means, self.variances
        # a d^2 + b d + c, with d measured from the middle of the means
        d = np.asarray(scores, dtype=np.float64) - (m0 + m1) / 2
        half = (m1 - m0) / 2
        a = (1 / v0 - 1 / v1) / 2
        b = half * (1 / v0 + 1 / v1)
        c = half * half * a + math.log(w1 / w0) + math.log(v0 / v1) / 2
        if abs(v1 - v0) <= _SAME_VARIANCE * (v0 + v1):
            return b * d + c
        # Written around the vertex every step of the arithmetic is monotone, so that not even
        # rounding lets a better score fall below a worse one.
        vertex = -b / (2 * a)
        distance = np.minimum(d, vertex) - vertex if a < 0 else np.maximum(d, vertex) - vertex
        return a * distance * distance + (c - a * vertex * vertex)

    def posterior(self, scores: np.ndarray | float) -> np.ndarray:
        """Probability of the upper component, never falling in the score.

        Args:
            scores: float array of any shape

        Returns:
            float64 array of the same shape, in [0, 1]
        """
        return sigmoid(self.log_odds(scores))

    def threshold(self, theta: float) -> float:
        """The smallest score between the two means whose posterior reaches ``theta``.

        Args:
            theta: the posterior wanted, in [0, 1]

        Returns:
            a score in [lower mean, upper mean]; the upper mean where no score between them
            reaches ``theta``
        """
        low, high = self.means
        if self.posterior(low) >= theta:
            return low
        if self.posterior(high) < theta:
            return high
        while low < (middle := (low + high) / 2) < high:  # down to neighbouring floats
            if self.posterior(middle) >= theta:
                high = middle
            else:
                low = middle
        return high


def fit_mixture(scores: np.ndarray, seed: int, *, tied: bool = False) -> ScoreMixture | None:
    """Fits the mixture to one set of scores; see :func:`fit_mixtures`.

    Args:
        scores: (n,) float array, finite
        seed, tied: as there

    Returns:
        the mixture, or None where two components cannot be told apart
    """
    return fit_mixtures(scores, [np.arange(len(scores))], seed, tied=tied)[0]


def fit_mixtures(
    scores: np.ndarray, members: Sequence[np.ndarray], seed: int, *, tied: bool = False
) -> list[ScoreMixture | None]:
    """Fits a mixture to each of many groups of scores, all at once.

    The solution is that of scikit-learn's ``GaussianMixture`` on the sorted scores of the group.
    They are sorted, because its k-means start is drawn from their positions: another order of the
    same scores could end in another optimum.

    Args:
        scores: (N,) float array, finite where it is used
        members: the positions of each group, which may not overlap
        seed: seeds the k-means start of the fits, in [0, 2**32)
        tied: give both components one variance, which makes the log-odds a straight line, and
            run to convergence (otherwise scikit-learn's tolerance, as in the paper's code)

    Returns:
        a mixture each, or None where two components cannot be told apart: fewer than two scores,
        or all of them equal
    """
    groups = [np.sort(np.asarray(scores[group], dtype=np.float64)) for group in members]
    usable = [i for i, g in enumerate(groups) if len(g) > 1 and g[0] < g[-1]]
    mixtures: list[ScoreMixture | None] = [None] * len(groups)
    if usable:
        values = np.concatenate([groups[i] for i in usable])
        sizes = np.array([len(groups[i]) for i in usable])
        found = em.fit(values, sizes, seed, tied=tied, tol=1e-7 if tied else 1e-3)
        for place, i in enumerate(usable):
            columns = found.weights[:, place], found.means[:, place], found.variances[:, place]
            mixtures[i] = _in_order(*columns)
    return mixtures


def _in_order(weights: np.ndarray, means: np.ndarray, variances: np.ndarray) -> ScoreMixture:
    """Makes a mixture of two components, the lower one first."""
    order = np.argsort(means, kind="stable")
    floor = np.finfo(np.float64).tiny  # a component that has died out: its log is finite
    weights = np.maximum(weights, floor)
    (w0, w1), (m0, m1), (v0, v1) = (a[order].tolist() for a in (weights, means, variances))
    return ScoreMixture((w0, w1), (m0, m1), (v0, v1))


def sigmoid(x: np.ndarray) -> np.ndarray:
    """The logistic function, without overflow.

    Args:
        x: float array

    Returns:
        float64 array of the same shape, in [0, 1]
    """
    from scipy.special import expit

    return expit(np.asarray(x, dtype=np.float64))
