"""A two-component Gaussian mixture on a line whose posterior never falls as the score rises."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class ScoreMixture:
    """Two Gaussians on a line, the lower ("noisy") and the upper ("clean") component.

    Between the two means the log-odds of the upper component rise. Beyond them the *wider*
    component wins both tails, so that the plain posterior calls the very best scores noisy or the
    very worst clean. The log-odds are a parabola; here they keep the value of its vertex on the
    far side of it, which makes them monotone everywhere and changes nothing between the means.

    Attributes:
        weights: (lower, upper) mixing weights, which sum to 1
        means: (lower, upper) means, lower <= upper
        variances: (lower, upper) variances > 0
    """

    weights: tuple[float, float]
    means: tuple[float, float]
    variances: tuple[float, float]

    def log_odds(self, scores: np.ndarray) -> np.ndarray:
        """Log-odds of the upper component, never falling in the score.

        Args:
            scores: float array of any shape

        Returns:
            float64 array of the same shape
        """
        curve, slope, constant = self._parabola()
        x = np.asarray(scores, dtype=np.float64)
        if curve != 0:
            vertex = -slope / (2 * curve)
            x = np.minimum(x, vertex) if curve < 0 else np.maximum(x, vertex)
        return (curve * x + slope) * x + constant

    def posterior(self, scores: np.ndarray) -> np.ndarray:
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
        if self.posterior(np.array(low)) >= theta:
            return low
        if self.posterior(np.array(high)) < theta:
            return high
        while True:  # bisection down to neighbouring floats; high always reaches theta
            middle = (low + high) / 2
            if not low < middle < high:
                return high
            if self.posterior(np.array(middle)) >= theta:
                high = middle
            else:
                low = middle

    def _parabola(self) -> tuple[float, float, float]:
        """Coefficients of the log-odds as ``(a x + b) x + c``."""
        (w0, w1), (m0, m1), (v0, v1) = self.weights, self.means, self.variances
        curve = (1 / v0 - 1 / v1) / 2
        slope = m1 / v1 - m0 / v0
        constant = (m0 * m0 / v0 - m1 * m1 / v1 + math.log(v0 / v1)) / 2
        return curve, slope, constant + math.log(w1 / w0)


def fit_mixture(scores: np.ndarray, seed: int = 51) -> ScoreMixture | None:
    """Fits the mixture by expectation maximisation (scikit-learn's ``GaussianMixture``).

    The scores are sorted first, so that their order does not change the result.

    Args:
        scores: (n,) float array, finite
        seed: seeds the k-means start of the fit

    Returns:
        the mixture, or None where two components cannot be told apart: fewer than two scores, or
        all of them equal
    """
    from sklearn.mixture import GaussianMixture
    from threadpoolctl import threadpool_limits

    values = np.sort(np.asarray(scores, dtype=np.float64))
    if len(values) < 2 or values[0] == values[-1]:
        return None
    with threadpool_limits(1):
        fit = GaussianMixture(2, random_state=seed).fit(values[:, None])
    order = np.argsort(fit.means_[:, 0], kind="stable")
    tiny = np.finfo(np.float64).tiny
    weights = np.maximum(fit.weights_[order], tiny)
    means, variances = fit.means_[order, 0], fit.covariances_[order, 0, 0]
    return ScoreMixture(
        (float(weights[0]), float(weights[1])),
        (float(means[0]), float(means[1])),
        (float(variances[0]), float(variances[1])),
    )


def sigmoid(x: np.ndarray) -> np.ndarray:
    """The logistic function, without overflow.

    Args:
        x: float array

    Returns:
        float64 array of the same shape, in [0, 1]
    """
    from scipy.special import expit

    return expit(np.asarray(x, dtype=np.float64))
