"""Measuring a share from a random sample: strata, an estimate with its interval, a threshold."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from .rules import NoiseRate

# A normal distribution has 2.5 % on either side of the interval
_TAIL = 0.025


class Stratum(NamedTuple):
    """A part of a population, and what was drawn from it.

    Attributes:
        low: the smallest score in it
        high: the largest
        size: number of members
        drawn: (n,) int, positions of the members drawn
    """

    low: float
    high: float
    size: int
    drawn: np.ndarray


def draw_strata(scores: np.ndarray, n: int, strata: int, rng: np.random.Generator) -> list[Stratum]:
    """Cuts a population into strata of equal size by score, and draws as many of each, but for one.

    Args:
        scores: (N,) float array without NaN, N >= 1
        n: number of members to draw, 1 <= n; all, where there are fewer
        strata: greatest number of strata
        rng: draws without replacement within each

    Returns:
        the strata, lowest scores first; every one has at least one member drawn
    """
    order = np.argsort(scores, kind="stable")
    n = min(n, len(order))
    parts = np.array_split(order, min(strata, n))
    # Cut in the same way, so that none is empty, and none larger than its stratum
    quota = [len(part) for part in np.array_split(np.arange(n), len(parts))]
    return [
        Stratum(
            float(scores[part[0]]),
            float(scores[part[-1]]),
            len(part),
            rng.choice(part, size=k, replace=False),
        )
        for part, k in zip(parts, quota, strict=True)
    ]


def stratified_rate(hits: Sequence[int], checked: Sequence[int], sizes: Sequence[int]) -> NoiseRate:
    """Estimates a share of a population from a stratified random sample, with a 95 % interval.

    The estimate weights the share in each stratum with its size. The interval is that of Clopper
    and Pearson for an effective sample size, as Korn and Graubard propose for surveys
    ("Confidence intervals for proportions with small expected number of positive counts estimated
    from survey data", Survey Methodology 24, 1998): good where few or no hits are found. The
    effective size is Kish's, (sum of weights)^2 / sum of squared weights, over 1 - n / N for the
    part of the population that is known. The gain from stratifying is not counted, so that the
    interval is rather too wide than too narrow. Strata in which nothing was checked count with
    the nearest one below or above.

    Args:
        hits: members of each stratum that have the property
        checked: members of each stratum that were looked at
        sizes: members of each stratum

    Returns:
        the share with its interval, and the number of members looked at; NaN where that is zero
    """
    from scipy.stats import beta

    x, n, size = (np.asarray(values, dtype=float) for values in (hits, checked, sizes))
    total = int(n.sum())
    if total == 0:
        return NoiseRate(np.nan, np.nan, np.nan, 0)
    size = _merged(size, n > 0)
    x, n = x[n > 0], n[n > 0]
    population = size.sum()
    rate = float((size * x / n).sum() / population)
    if total >= population:
        return NoiseRate(rate, rate, rate, total)
    effective = population**2 / (size**2 / n).sum() / (1 - total / population)
    found = rate * effective
    low = beta.ppf(_TAIL, found, effective - found + 1) if rate > 0 else 0.0
    high = beta.isf(_TAIL, found + 1, effective - found) if rate < 1 else 1.0
    return NoiseRate(rate, float(low), float(high), total)


def precision_threshold(
    scores: np.ndarray, hits: np.ndarray, weights: np.ndarray, target: float
) -> float | None:
    """Returns how far one can go up in score so that at least ``target`` of all below are hits.

    The share of hits as a function of the score is estimated by isotonic regression (a lower score
    never has fewer), in which an observation counts as much as the members it stands for; the
    share among all below a threshold is the mean of that.

    Args:
        scores: (n,) float array, of the members that were looked at
        hits: (n,) bool array
        weights: (n,) float array > 0, how many members of the population each stands for
        target: in (0, 1]

    Returns:
        the threshold, midway between the two observations that it separates, 1.0 where the target
        is reached with all of them; None where it is not even with the lowest score
    """
    from sklearn.isotonic import IsotonicRegression

    if len(scores) == 0:
        return None
    model = IsotonicRegression(y_min=0, y_max=1, increasing=False)
    model.fit(scores, hits.astype(float), sample_weight=weights)
    steps, member = np.unique(scores, return_inverse=True)
    mass = np.bincount(member, weights=weights)
    share = np.cumsum(mass * model.predict(steps)) / np.cumsum(mass)
    # Sums of weights are not exact: 4 of 5 must reach .8
    reached = np.flatnonzero(share >= target - 1e-9)
    if len(reached) == 0:
        return None
    last = reached[-1]
    return 1.0 if last + 1 == len(steps) else float((steps[last] + steps[last + 1]) / 2)


def _merged(size: np.ndarray, known: np.ndarray) -> np.ndarray:
    """Adds the size of each unknown stratum to the nearest known one."""
    places = np.flatnonzero(known)
    nearest = np.abs(np.arange(len(size))[:, None] - places).argmin(axis=1)
    return np.bincount(nearest, weights=size, minlength=len(places))
