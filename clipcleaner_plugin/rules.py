"""From evidence to decisions: the paper's selection, the four verdicts, the noise rate."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from .evidence import groups
from .mixture import ScoreMixture, fit_mixtures

LOSSES = ("zeroshot_loss", "visual_loss")
CONSISTENCIES = ("zeroshot_consistency", "visual_consistency")

# Name of a loss → positions of the samples of one class, and their mixture, for every class
Mixtures = dict[str, list[tuple[np.ndarray, ScoreMixture | None]]]

# Log-odds that the scores of a run may be off together, one standard deviation: so much would have
# made estimates right where classes are hard to tell (DTD in docs/accuracy.md, root mean square)
_OFF = 0.6


class NoiseRate(NamedTuple):
    """An estimated share of wrong labels.

    Attributes:
        rate: the estimate, in [0, 1]; NaN where no label could be scored
        low: lower end of the 95 % interval
        high: upper end of the 95 % interval
        count: number of scored labels
    """

    rate: float
    low: float
    high: float
    count: int  # type: ignore[assignment]  # meant to hide tuple.count


def select_paper(
    evidence: Mapping[str, np.ndarray],
    labels: np.ndarray,
    num_classes: int,
    theta_gmm: float = 0.5,
    theta_cons: float = 0.8,
    seed: int = 51,
) -> np.ndarray:
    """The paper's selection of a pure training set (Feng et al., ACM MM 2024, section 3).

    A sample is selected if all its evidences agree: both loss scores on the clean side of the
    mixture of its class, both consistency scores at least ``theta_cons``. Evidence that is NaN
    takes no part; a sample with nothing but NaN is never selected. A class left empty gets its
    best samples by the first loss score it has, as many as the smallest selected class has, at
    least ``N / K^2`` and at least one.

    It depends on nothing but its arguments, so that stored evidence gives the same bits again.

    Args:
        evidence: (N,) float32 arrays in [0, 1] or NaN under the names ``zeroshot_loss``,
            ``zeroshot_consistency``, ``visual_loss`` and ``visual_consistency``
        labels: (N,) int array in [0, K); -1 for samples to leave out
        num_classes: K
        theta_gmm: posterior that a loss score needs, in [0, 1]
        theta_cons: consistency that is needed, in [0, 1]
        seed: seeds the mixtures

    Returns:
        (N,) bool array
    """
    mixtures = loss_mixtures(evidence, labels, seed)
    return select_with(mixtures, evidence, labels, num_classes, theta_gmm, theta_cons)


def loss_mixtures(evidence: Mapping[str, np.ndarray], labels: np.ndarray, seed: int) -> Mixtures:
    """Fits the mixtures of :func:`select_paper`, which depend on no threshold.

    Args:
        evidence, labels, seed: as there

    Returns:
        loss name → (positions of a class, its mixture or None), a class each
    """
    labels = np.asarray(labels)
    mixtures: Mixtures = {}
    for name in LOSSES:
        scores = evidence[name]
        positions = np.flatnonzero(np.isfinite(scores) & (labels >= 0))
        members = [positions[group] for group in groups(labels[positions])]
        mixtures[name] = list(zip(members, fit_mixtures(scores, members, seed), strict=True))
    return mixtures


def select_with(
    mixtures: Mixtures,
    evidence: Mapping[str, np.ndarray],
    labels: np.ndarray,
    num_classes: int,
    theta_gmm: float,
    theta_cons: float,
) -> np.ndarray:
    """The selection of :func:`select_paper` with mixtures that are fitted already.

    Args:
        mixtures: of :func:`loss_mixtures` with the same evidence and labels; the rest as there

    Returns:
        (N,) bool array
    """
    labels = np.asarray(labels)
    known = {name: np.isfinite(evidence[name]) for name in LOSSES + CONSISTENCIES}
    scored = np.any(list(known.values()), axis=0) & (labels >= 0)
    selected = scored.copy()
    for name in CONSISTENCIES:
        # The threshold is compared in the precision of the evidence: 0.8 means float32(0.8).
        selected &= ~known[name] | (evidence[name] >= np.float32(theta_cons))
    for name in LOSSES:
        for members, mixture in mixtures[name]:
            if mixture is not None:  # scores that are all equal give no reason to doubt any
                scores = evidence[name][members].astype(np.float64)
                selected[members] &= scores >= mixture.threshold(theta_gmm)
    _fill_empty_classes(selected, evidence, labels, scored, num_classes)
    return selected


def verdicts(
    evidence: Mapping[str, np.ndarray],
    labels: np.ndarray,
    suggested_label: np.ndarray,
    clean_score: np.ndarray,
    selected: np.ndarray,
    theta_score: float = 0.5,
) -> np.ndarray:
    """Joins the two rules to one verdict a sample.

    ``mislabeled``: the score is below ``theta_score`` and another label is suggested.
    ``clean``: in the paper's selection. ``uncertain``: both of these or neither.
    ``unscorable``: no score. Without class names, both are ``mislabeled``: the selection is then by
    a classifier alone that has seen the given label, and repeats a wrong one that it has learned.

    Args:
        evidence: as for :func:`select_paper`
        labels: (N,) int array, the given labels
        suggested_label: (N,) int array, -1 where none
        clean_score: (N,) float array in [0, 1], NaN where unscorable
        selected: (N,) bool array
        theta_score: score that a label needs to pass, in [0, 1]; lower flags fewer, surer errors

    Returns:
        (N,) array of str
    """
    scored = np.isfinite(clean_score)
    # In the precision of the score, as the thresholds of the evidence
    mislabeled = scored & (clean_score < np.float32(theta_score)) & (suggested_label != labels)
    verdict = np.full(len(labels), "uncertain", dtype="<U10")
    verdict[selected & ~mislabeled] = "clean"
    by_names = bool(np.isfinite(evidence["zeroshot_loss"]).any())
    verdict[mislabeled & ~(selected & by_names)] = "mislabeled"
    verdict[~scored] = "unscorable"
    return verdict


def noise_rate(clean_score: np.ndarray) -> NoiseRate:
    """Estimates the share of wrong labels from their scores.

    The estimate is the mean probability of a wrong label; for its interval see
    :func:`noise_rate_of`.

    Args:
        clean_score: (N,) float array in [0, 1]; NaN is left out

    Returns:
        the rate with a 95 % interval
    """
    scores = np.asarray(clean_score, dtype=np.float64)
    scores = scores[np.isfinite(scores)]
    return noise_rate_of(len(scores), float(scores.sum()), float(np.square(scores).sum()))


def noise_rate_of(n: int, score: float, squares: float) -> NoiseRate:
    """Estimates the share of wrong labels from sums; see :func:`noise_rate`.

    The interval is Wilson's for the chance in the labels, widened by what the scores may be off
    together: if the log-odds of all are, by as much as ``_OFF``, the estimate is by about that
    times the mean slope of the logistic function. Where evidence is clear, that is nothing.

    Args:
        n: number of scored labels; 0 = nothing is known
        score: sum of their scores
        squares: sum of the squares of their scores
    """
    if n == 0:
        return NoiseRate(np.nan, np.nan, np.nan, 0)
    rate, slope = 1 - score / n, (score - squares) / n
    z = 1.959964  # leaves 2.5 % of a normal distribution on each side
    centre = (rate + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * np.sqrt(rate * (1 - rate) / n + z * z / (4 * n * n))
    half = np.hypot(half, z * _OFF * slope)
    return NoiseRate(rate, float(max(centre - half, 0.0)), float(min(centre + half, 1.0)), n)


def noise_rates(clean_score: np.ndarray, labels: np.ndarray) -> dict[int, NoiseRate]:
    """Estimates the share of wrong labels of every given label, in one pass over the samples.

    Args:
        clean_score: (N,) float array in [0, 1]; NaN is left out
        labels: (N,) int array; -1 for samples to leave out

    Returns:
        label → rate, for the labels that occur, in ascending order
    """
    places = np.flatnonzero(labels >= 0)
    members = [places[group] for group in groups(labels[places])]
    return {int(labels[group[0]]): noise_rate(clean_score[group]) for group in members}


def _fill_empty_classes(
    selected: np.ndarray,
    evidence: Mapping[str, np.ndarray],
    labels: np.ndarray,
    scored: np.ndarray,
    num_classes: int,
) -> None:
    """Gives every class left empty its best samples, in place."""
    sizes = np.bincount(labels[selected], minlength=num_classes)
    smallest = sizes[sizes > 0].min() if sizes.any() else 1
    wanted = max(int(smallest), int(scored.sum()) // num_classes**2)
    # The other evidences break ties, so that the order of the samples does not.
    keys = [np.nan_to_num(evidence[name], nan=-1.0) for name in LOSSES + CONSISTENCIES]
    for label in np.flatnonzero(sizes == 0):
        members = np.flatnonzero(scored & (labels == label))
        best_first = np.lexsort([-key[members] for key in reversed(keys)])
        selected[members[best_first[:wanted]]] = True
