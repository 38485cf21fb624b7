"""Habits of labeling: pairs of classes that are confused, and what is learned from all of them."""

from __future__ import annotations

import numpy as np
import pytest

from clipcleaner_plugin.habits import Explained, Pairs, find_pairs, find_scattered, supposed_rates
from clipcleaner_plugin.noise_fit import start_model
from clipcleaner_plugin.tables import ByLabel

UNIFORM = 0.02


def explained(
    sizes: list[int], flips: dict[tuple[int, int], int], confusion: np.ndarray, weight: float = 1
) -> Explained:
    """Clear images of classes of some sizes, of which some have the label of another class."""
    k = len(sizes)
    truth = np.repeat(np.arange(k), sizes)
    labels = truth.copy()
    for (of, given), count in flips.items():
        labels[np.flatnonzero(truth == of)[:count]] = given
    sharp = np.full((len(truth), k), 0.05 / (k - 1), np.float32)
    sharp[np.arange(len(truth)), truth] = 0.95
    plain = sharp[np.arange(len(truth)), labels].astype(np.float64)
    right = 1 - UNIFORM - confusion.sum(axis=1)
    total = plain * right[labels] + UNIFORM / k + (sharp * confusion.T[labels]).sum(axis=1)
    kept = np.bincount(labels[labels == truth], minlength=k) * weight
    weights = np.full(len(truth), weight, np.float32)
    return Explained(ByLabel(labels, k), weights, sharp, plain, total, kept)


def learned(sizes: list[int], flips: dict[tuple[int, int], int], weight: float = 1) -> Pairs:
    """The pairs that are found, when what is learned has been learned."""
    k = len(sizes)
    confusion, rates = np.zeros((k, k)), supposed_rates(k)
    for _ in range(8):
        pairs = find_pairs(explained(sizes, flips, confusion, weight), confusion, rates)
        confusion, rates = pairs.confusion, pairs.rates
    return pairs


def found(sizes: list[int], flips: dict[tuple[int, int], int], weight: float = 1) -> np.ndarray:
    """Their confusion."""
    return learned(sizes, flips, weight).confusion


def test_a_pair_is_found_with_its_rate() -> None:
    confusion = found([40] * 8, {(0, 3): 12})
    assert confusion[0, 3] == pytest.approx(0.3, abs=0.05)
    confusion[0, 3] = 0
    assert confusion.max() < 0.005


@pytest.mark.parametrize("weight", [1, 50])
def test_small_classes_learn_from_the_habits_of_large_ones(weight: float) -> None:
    """One of four wrong is chance, until all the others are known to lose three in ten."""
    large = {(k, (k + 1) % 20): 12 for k in range(19)}
    alone = found([40] * 19 + [4], {(19, 0): 1}, weight)
    among = found([40] * 19 + [4], {**large, (19, 0): 1}, weight)
    assert alone[19, 0] < 0.03
    assert among[19, 0] > 2 * alone[19, 0]
    assert among[19, 0] < 0.4
    assert found([40] * 19 + [4], {**large, (19, 0): 2}, weight)[19, 0] > 0.2


def test_the_only_pair_may_look_so_and_one_of_many_hardly() -> None:
    sizes, flips = [40] * 40, {(k, (k + 1) % 40): 8 for k in range(40)}

    def looks_so(flips: dict[tuple[int, int], int], of: int = 0) -> float:
        pairs = learned(sizes, flips)
        assert np.all(pairs.overlap <= pairs.confusion)
        return float(pairs.overlap[of, of + 1] / pairs.confusion[of, of + 1])

    alone = looks_so({(0, 1): 8})
    assert alone > 0.5
    assert looks_so(flips) < 0.03
    assert looks_so({(0, 1): 32}) < 0.2, "hardly any image looks like its own class"
    assert looks_so({(0, 1): 3}) < 0.1, "three images may as well be wrong"
    other_rate = {pair: 24 for pair in flips} | {(0, 1): 8}
    assert looks_so(other_rate) > 0.5, "others tell of their own rate"


def test_a_pair_gains_what_the_likelihood_gains() -> None:
    """With one rate only, the odds are those of the two likelihoods, row by row."""
    confusion = np.zeros((5, 5))
    confusion[2, 3] = 0.2
    by = explained([9, 12, 15, 6, 8], {(0, 1): 1, (2, 3): 2}, confusion)
    rates = supposed_rates(5)
    pairs = find_pairs(by, confusion, rates)

    def likelihood(rate: float) -> float:
        total = by.total + by.plain * confusion[0, 1] * (by.groups.labels == 0)
        total = total - rate * by.plain * (by.groups.labels == 0)
        return float(np.log(total + rate * by.sharp[:, 0] * (by.groups.labels == 1)).sum())

    from clipcleaner_plugin.habits import _RATES, _SHARE_OF_PROOF

    gains = np.array([likelihood(rate) - likelihood(0) for rate in _RATES])
    odds = (rates * np.exp(_SHARE_OF_PROOF * gains)).sum() / (1 - rates.sum())
    which = rates * np.exp(_SHARE_OF_PROOF.max() * gains)
    expected = odds / (1 + odds) * (_RATES @ which) / which.sum()
    assert pairs.confusion[0, 1] == pytest.approx(expected, rel=1e-4)


def test_two_classes_and_missing_labels() -> None:
    both = found([10, 10], {(0, 1): 4, (1, 0): 4})
    assert np.isfinite(both).all() and both.max() <= 0.85
    empty = explained([10, 10, 0], {(0, 1): 3}, np.zeros((3, 3)))
    pairs = find_pairs(empty, np.zeros((3, 3)), supposed_rates(3))
    assert np.isfinite(pairs.confusion).all() and np.isfinite(pairs.price)
    assert not pairs.confusion[:, 2].any(), "a label that nobody gave"


def test_a_class_is_scattered_if_it_loses_more_than_the_typical_one() -> None:
    k, sizes = 10, np.full(10, 50.0)
    by = explained([50] * k, {}, np.zeros((k, k)))
    counts = np.zeros((k, k))
    any_label = np.full(k, 10.0)
    model = start_model(k, 1)
    assert not find_scattered(model, by, counts, any_label, sizes).any(), "all lose as many"
    any_label[4] = 35
    # 25 more than the others: beyond 3 and three deviations of 10
    expected = np.where(np.arange(k) == 4, 25 / 50, 0)
    assert find_scattered(model, by, counts, any_label, sizes) == pytest.approx(expected)
    any_label[4] = 22
    assert not find_scattered(model, by, counts, any_label, sizes).any()
