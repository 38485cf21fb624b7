"""Expectation maximisation for many mixtures of two Gaussians on a line at once."""

from __future__ import annotations

import logging
from dataclasses import dataclass

import numpy as np

logger = logging.getLogger(__name__)

# scikit-learn's, so that its solutions are found
_FLOOR_OF_VARIANCE = 1e-6
_FLOOR_OF_COUNT = 10 * np.finfo(np.float64).eps
_TOLERANCE_OF_KMEANS = 1e-4
_STEPS_OF_KMEANS = 300

MAX_STEPS = 2000


@dataclass
class Mixtures:
    """Parameters of G mixtures; the first component starts as the lower one.

    Attributes:
        weights: (2, G) float64
        means: (2, G) float64
        variances: (2, G) float64
    """

    weights: np.ndarray
    means: np.ndarray
    variances: np.ndarray


def fit(values: np.ndarray, sizes: np.ndarray, seed: int, *, tied: bool, tol: float) -> Mixtures:
    """Fits a mixture to each group of values, as scikit-learn's ``GaussianMixture`` does.

    The start (k-means), the steps and the rule that ends them are scikit-learn's, so that the
    solutions are the same; the steps of all groups are taken together.

    Args:
        values: (N,) float64, group after group, ascending in each; no group has only equal values
        sizes: (G,) int, sizes of the groups, >= 2
        seed: draws the start of k-means, in [0, 2**32)
        tied: one variance for both components
        tol: gain in mean log-likelihood below which a fit ends

    Returns:
        the mixtures
    """
    draws = np.random.RandomState(seed).random_sample(3)
    groups = np.split(values, np.cumsum(sizes)[:-1])
    upper = np.concatenate([np.arange(len(g)) >= two_means(g, draws) for g in groups])
    found = _maximise(values, sizes, upper.astype(np.float64), tied)
    open_ = np.arange(len(sizes))  # groups that still gain
    before = np.full(len(sizes), -np.inf)
    for _ in range(MAX_STEPS):
        share, likelihood = _expect(values, sizes, found, open_)
        step = _maximise(values, sizes, share, tied)
        for name in ("weights", "means", "variances"):
            getattr(found, name)[:, open_] = getattr(step, name)
        gains = np.abs(likelihood - before[open_]) >= tol
        before[open_] = likelihood
        if not gains.all():
            values, sizes, open_ = values[np.repeat(gains, sizes)], sizes[gains], open_[gains]
        if not len(open_):
            return found
    logger.warning("%d mixtures did not converge in %d steps", len(open_), MAX_STEPS)
    return found


def two_means(values: np.ndarray, draws: np.ndarray) -> int:
    """Parts values in two clusters: k-means with the start that scikit-learn would draw.

    Args:
        values: (n,) float64, ascending, not all equal
        draws: three random numbers in [0, 1)

    Returns:
        size of the lower cluster, in [1, n - 1]
    """
    x = values - values.mean()
    n, sums = len(x), np.concatenate([[0.0], np.cumsum(x)])
    # k-means++ with two candidates for the second centre
    first = x[min(np.searchsorted(np.arange(1, n + 1) / n, draws[0], side="right"), n - 1)]
    distances = (x - first) ** 2
    reach = np.cumsum(distances)
    candidates = x[np.minimum(np.searchsorted(reach, draws[1:] * distances.sum()), n - 1)]
    left = [np.minimum(distances, (x - c) ** 2).sum() for c in candidates]
    low, high = sorted((first, candidates[int(np.argmin(left))]))
    tolerance = _TOLERANCE_OF_KMEANS * x.var()
    cut = 0
    for _ in range(_STEPS_OF_KMEANS):
        before, cut = cut, _cut(x, low, high)
        means = sums[cut] / cut, (sums[n] - sums[cut]) / (n - cut)
        shift = (means[0] - low) ** 2 + (means[1] - high) ** 2
        low, high = means
        if cut == before:
            return cut
        if shift <= tolerance:
            break
    return _cut(x, low, high)


def _cut(x: np.ndarray, low: float, high: float) -> int:
    """How many values are nearer to the lower centre; at least one to each."""
    return min(max(int(np.searchsorted(x, (low + high) / 2, side="right")), 1), len(x) - 1)


def _expect(
    values: np.ndarray, sizes: np.ndarray, found: Mixtures, which: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Shares of the second component, (N,), and mean log-likelihoods, (G,)."""
    logs = []
    for k in (0, 1):
        mean, variance = found.means[k, which], found.variances[k, which]
        constant = np.log(found.weights[k, which]) - np.log(2 * np.pi * variance) / 2
        distance = values - np.repeat(mean, sizes)
        logs.append(np.repeat(constant, sizes) - distance**2 / np.repeat(2 * variance, sizes))
    total = np.logaddexp(*logs)
    return np.exp(logs[1] - total), _sums(total, sizes) / sizes


def _maximise(values: np.ndarray, sizes: np.ndarray, share: np.ndarray, tied: bool) -> Mixtures:
    """The most likely mixtures, given the share of the second component in every value."""
    counts, means, squares = [], [], []
    for part in (1 - share, share):
        count = _sums(part, sizes) + _FLOOR_OF_COUNT
        mean = _sums(part * values, sizes) / count
        counts.append(count)
        means.append(mean)
        squares.append(_sums(part * (values - np.repeat(mean, sizes)) ** 2, sizes))
    count, square = np.stack(counts), np.stack(squares)
    if tied:
        variances = np.broadcast_to(square.sum(axis=0) / count.sum(axis=0), square.shape)
    else:
        variances = square / count
    return Mixtures(count / count.sum(axis=0), np.stack(means), variances + _FLOOR_OF_VARIANCE)


def _sums(values: np.ndarray, sizes: np.ndarray) -> np.ndarray:
    return np.add.reduceat(values, np.cumsum(sizes) - sizes)
