"""Habits of labeling: classes that are taken for one other, or that lose labels to all others."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from .mixture import sigmoid
from .noise_model import SMALLEST, NoiseModel
from .tables import ByLabel

# A column of the confusion may not take all the labels of a class: it would not exist
LEAST_KEPT = 0.02
MOST_CONFUSED = 0.8  # of a class, so that a share of right labels is left
SUPPOSED_LOOKALIKE = 0.05
_RATES = np.array([0.05, 0.1, 0.2, 0.3, 0.4, 0.55, 0.7, 0.85])  # that a habit may have
_PAIRS_OF_CLASS = 0.2  # habits that a class has, before anything is seen
_MOST_PAIRS = 0.5  # share of all pairs that may be thought to be habits
# The images of a class are misjudged together, and prove less than if each were by itself. Classes
# that overlap seem to lose a few labels to each other, which takes more proof than a frequent habit
_SHARE_OF_PROOF = np.clip(0.2 + 1.3 * _RATES, 0, 0.7)
# Pairs that only look like a habit: the higher the rate, the rarer. And habits before one is found
_OVERLAPS_OF_CLASS, _HABITS_IN_ADVANCE = 0.02, 0.2
_TYPICAL, _HOPELESS = 0.3, -3.0  # rate and log-odds at which a pair is not looked at closer
_TOLD_APART = 0.03  # rate of a pair below which its labels count as scattered
_LEAST_KEPT_ROWS = 1.0
_LEAST_SCATTERED, _BY_CHANCE = 3.0, 3.0  # rows, and standard deviations of their number (Poisson)


@dataclass(frozen=True)
class Explained:
    """How a model explains given labels, one entry a row.

    Attributes:
        groups: n rows by their given labels
        weights: (n,) float32 > 0, how many samples each row stands for
        sharp: (n, K) float32, the probability of each true label before the given one is seen
        plain: (n,) float64, the same of the given label, that hard images are thought of
        total: (n,) float64 > 0, the probability of the given label
        kept: (K,) float64, samples of each given label that are right
    """

    groups: ByLabel
    weights: np.ndarray
    sharp: np.ndarray
    plain: np.ndarray
    total: np.ndarray
    kept: np.ndarray

    @cached_property
    def of_label(self) -> np.ndarray:
        """(K,) float64, how many samples a row with each label stands for; 0 without one."""
        return weights_of_labels(self.groups, self.weights)


@dataclass(frozen=True)
class Pairs:
    """Classes that are taken for one other.

    Attributes:
        confusion: (K, K) float64, the chance of each class to be labeled as each other
        rates: (R,) float64, shares of all pairs that are habits with each of some rates
        overlap: (K, K) float64, the part of the confusion that is none, see :class:`.NoiseModel`
        price: what they cost, in nats: how far they are from what was thought of them before
    """

    confusion: np.ndarray
    rates: np.ndarray
    overlap: np.ndarray
    price: float


def supposed_rates(num_classes: int) -> np.ndarray:
    """Shares of all pairs of classes that are habits with each rate, before anything is seen."""
    each = _PAIRS_OF_CLASS / ((num_classes - 1) * len(_RATES))
    return np.full(len(_RATES), each)


def find_pairs(by: Explained, confusion: np.ndarray, rates: np.ndarray) -> Pairs:
    """Finds pairs of classes that are confused, by Bayes' rule for each pair by itself.

    A pair is a habit of one of some rates, or none. How frequent these are is learned from all
    pairs (empirical Bayes): where all classes lose three in ten labels to another, a class of five
    images is known to do so by one or two wrong labels, which would else be chance.

    Right labels of images that look just like another class seem to be such a habit, too. Nothing
    that such a pair shows tells it from one; but among many pairs with about its rate, it is hardly
    the one that only looks so.

    Args:
        by: how a model explains the labels
        confusion: (K, K) chances of that model
        rates: (R,) shares of all pairs that are habits with each rate

    Returns:
        the pairs, as they are to be expected
    """
    k, prior = len(confusion), rates.sum()
    found = np.zeros_like(confusion)
    of, given = np.nonzero(_possible(by, confusion, prior))
    if not len(of):
        return Pairs(found, rates, np.zeros_like(found), 0.0)
    gains = _gains(by, confusion, of, given)
    # How frequent a habit is, if it is one, and whether it is
    which = _softmax(np.log(rates)[:, None] + _SHARE_OF_PROOF.max() * gains)
    habit, none = _softmax(np.stack([_for_it(rates, gains), np.full(len(of), np.log1p(-prior))]))
    found[of, given] = habit * (_RATES @ which)
    probs = habit * which
    price = (probs * np.log(np.maximum(probs, SMALLEST) / rates[:, None])).sum()
    price += (none * np.log(np.maximum(none, SMALLEST) / (1 - prior))).sum()
    learned = (probs.sum(axis=1) + 1 / len(rates)) / (k * (k - 1) + 1)
    learned *= min(1.0, _MOST_PAIRS / learned.sum())
    overlap = np.zeros_like(found)
    looks_so = _looks_so(probs, gains, k)
    overlap[of, given] = habit * (_RATES[:, None] * looks_so * which).sum(axis=0)
    return Pairs(found, learned, overlap, float(price))


def _looks_so(probs: np.ndarray, gains: np.ndarray, num_classes: int) -> np.ndarray:
    """How probable it is that pairs, if any, are classes that overlap and no habit, (R, C).

    By the numbers of either kind: of habits those that are found beside the pair itself. A pair
    that only these others make likely is no sign of overlap, of which each shows by itself.
    """
    padded = np.pad(probs, ((1, 1), (0, 0)))
    near = padded[:-2] + probs + padded[2:]  # one rate is hardly told from the next
    habits = _HABITS_IN_ADVANCE + near.sum(axis=1, keepdims=True) - near
    of_class = _OVERLAPS_OF_CLASS * (1 - _RATES) ** 2
    shown = sigmoid(_for_it(of_class / (num_classes - 1), gains))
    overlaps = of_class[:, None] * num_classes
    return shown * overlaps / (overlaps + habits)


def _possible(by: Explained, confusion: np.ndarray, prior: float) -> np.ndarray:
    """Which pairs are worth a closer look, (K, K) bool."""
    taken = confusion.T.astype(np.float32)

    def typical(rows: np.ndarray) -> np.ndarray:
        ratio = _ratio(by.sharp[rows], by.total[rows, None], taken[by.groups.labels[rows]])
        return np.log(np.float32(_TYPICAL) * ratio + 1)

    proof, sizes = by.groups.sum(typical).T, by.groups.sizes
    possible = _SHARE_OF_PROOF.max() * proof + np.log(prior) > _HOPELESS
    least = np.maximum(_LEAST_KEPT_ROWS * by.of_label, LEAST_KEPT * by.of_label * sizes)
    possible &= (by.kept >= least) & (sizes > 0)
    np.fill_diagonal(possible, False)
    return possible


def _ratio(sharp: np.ndarray, total: np.ndarray, taken: np.ndarray) -> np.ndarray:
    """How much likelier a label is if its class takes all of another, than without, float32.

    Args:
        sharp: float32 probability of that other class
        total: float64 probability of the label
        taken: float32 chance that the other class is taken for it
    """
    return (sharp / np.maximum(total - sharp * taken, SMALLEST)).astype(np.float32)


def _for_it(rates: np.ndarray, gains: np.ndarray) -> np.ndarray:
    """How much speaks for each pair, if these shares of pairs have each rate, (C,) log-odds."""
    return np.logaddexp.reduce(np.log(rates)[:, None] + _SHARE_OF_PROOF[:, None] * gains, axis=0)


def _softmax(logits: np.ndarray) -> np.ndarray:
    exp = np.exp(logits - logits.max(axis=0))
    return exp / exp.sum(axis=0)


def _gains(by: Explained, confusion: np.ndarray, of: np.ndarray, given: np.ndarray) -> np.ndarray:
    """How much better some pairs explain the labels with each rate than without, (R, C) nats.

    A row with the label that is given gains, as far as it may be of the class that is taken for it;
    a row with the label of that class loses, since such labels are less frequent.
    """
    rows, begins, lengths = by.groups.segments(given)
    taken = np.repeat(confusion[of, given].astype(np.float32), lengths)
    sharp = by.sharp[rows, np.repeat(of, lengths)]
    there = _ratio(sharp, by.total[rows], taken).astype(np.float64)
    # Rows of one label weigh the same, and count as what was seen: one each
    gains = [np.add.reduceat(np.log1p(rate * there), begins) for rate in _RATES]
    mine, starts, lengths = by.groups.segments(of)
    if not len(mine):
        return np.stack(gains)
    alone = by.plain[mine]
    without = by.total[mine] + alone * np.repeat(confusion[of, given], lengths)
    share = alone / np.maximum(without, SMALLEST)
    filled = np.flatnonzero(lengths)
    relative = (by.of_label[of] / by.of_label[given])[filled]
    for gain, rate in zip(gains, _RATES, strict=True):
        left = np.log(np.maximum(1 - rate * share, 1e-3))
        gain[filled] += relative * np.add.reduceat(left, starts[filled])
    return np.stack(gains)


def find_scattered(
    model: NoiseModel, by: Explained, counts: np.ndarray, any_label: np.ndarray, sizes: np.ndarray
) -> np.ndarray:
    """Finds classes that lose their labels to all others, more than by chance and than the others.

    Args:
        model: which the counts are by
        by: how it explains the labels
        counts: (K, K) samples of each class by their label, by its chance to be mistaken for that
        any_label: (K,) samples of each class by the chance that all classes share
        sizes: (K,) samples of each class

    Returns:
        (K,) chances
    """
    one_other = np.where(model.confusion >= _TOLD_APART, model.confusion, 0)
    one_other /= np.maximum(model.mistaken, SMALLEST)
    any_label = any_label + (counts * (1 - one_other)).sum(axis=1)
    rates = any_label / np.maximum(sizes, SMALLEST)
    order = np.argsort(rates, kind="stable")
    half = np.searchsorted(np.cumsum(sizes[order]), sizes.sum() / 2)
    typical = rates[order][min(half, len(order) - 1)]
    shared = max(model.uniform, typical) * sizes
    present = by.of_label > 0
    each = sizes.sum() / (sizes / np.where(present, by.of_label, 1)).sum()
    by_chance = _LEAST_SCATTERED * each + _BY_CHANCE * np.sqrt(shared * each)
    excess = any_label - shared
    return np.where(excess > by_chance, excess, 0) / np.maximum(sizes, 1)


def weights_of_labels(groups: ByLabel, weights: np.ndarray) -> np.ndarray:
    """How many samples a row with each label stands for, (K,) float64; 0 for a missing label."""
    sums = np.bincount(groups.labels, weights, groups.num_classes)
    return sums / np.maximum(groups.sizes, 1)
