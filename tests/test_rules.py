"""The paper's selection, the four verdicts and the noise rate, from evidence alone."""

from __future__ import annotations

import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from clipcleaner_plugin.rules import (
    CONSISTENCIES,
    LOSSES,
    noise_rate,
    noise_rate_of,
    noise_rates,
    select_paper,
    verdicts,
)

NAMES = LOSSES + CONSISTENCIES


def make_evidence(n: int, seed: int, **given: list[float]) -> dict[str, np.ndarray]:
    """Random evidence, mostly clean; named columns are taken as given."""
    rng = np.random.default_rng(seed)
    good = rng.random(n) < 0.7
    out = {}
    for name in NAMES:
        values = np.where(good, rng.uniform(0.7, 1, n), rng.uniform(0, 0.5, n))
        out[name] = np.asarray(given.get(name, values), dtype=np.float32)
    return out


@st.composite
def cases(draw: st.DrawFn) -> tuple[dict[str, np.ndarray], np.ndarray, int]:
    n, k = draw(st.integers(1, 60)), draw(st.integers(2, 5))
    evidence = make_evidence(n, draw(st.integers(0, 10_000)))
    labels = np.array(draw(st.lists(st.integers(-1, k - 1), min_size=n, max_size=n)))
    gone = np.array(draw(st.lists(st.booleans(), min_size=n, max_size=n)))
    if draw(st.booleans()):
        for name in NAMES:
            evidence[name][gone] = np.nan
    return evidence, labels, k


@given(cases())
@settings(max_examples=60)
def test_a_better_supported_sample_of_a_class_is_never_left_out(
    case: tuple[dict[str, np.ndarray], np.ndarray, int],
) -> None:
    evidence, labels, k = case
    selected = select_paper(evidence, labels, k)
    stacked = np.stack([evidence[name] for name in NAMES])
    for kept in np.flatnonzero(selected):
        better = np.all(stacked >= stacked[:, [kept]], axis=0)
        better &= np.any(stacked > stacked[:, [kept]], axis=0) & (labels == labels[kept])
        assert selected[better].all()


@given(cases(), st.randoms(use_true_random=False))
@settings(max_examples=60)
def test_the_order_of_samples_plays_no_part(
    case: tuple[dict[str, np.ndarray], np.ndarray, int], random: np.random.RandomState
) -> None:
    evidence, labels, k = case
    order = np.array(random.sample(range(len(labels)), len(labels)))
    permuted = {name: values[order] for name, values in evidence.items()}
    assert np.array_equal(
        select_paper(permuted, labels[order], k), select_paper(evidence, labels, k)[order]
    )


@given(cases())
@settings(max_examples=60)
def test_rows_without_label_or_evidence_are_never_selected_and_cost_nothing_else(
    case: tuple[dict[str, np.ndarray], np.ndarray, int],
) -> None:
    evidence, labels, k = case
    selected = select_paper(evidence, labels, k)
    usable = (labels >= 0) & np.isfinite(evidence["visual_loss"])
    assert not selected[~usable].any()
    rest = {name: values[usable] for name, values in evidence.items()}
    assert np.array_equal(selected[usable], select_paper(rest, labels[usable], k))


@given(cases())
@settings(max_examples=60)
def test_no_class_with_evidence_stays_empty(
    case: tuple[dict[str, np.ndarray], np.ndarray, int],
) -> None:
    evidence, labels, k = case
    selected = select_paper(evidence, labels, k, theta_cons=1.0)
    usable = labels[(labels >= 0) & np.isfinite(evidence["visual_loss"])]
    assert set(labels[selected]) == set(usable)


@pytest.mark.parametrize("weak", NAMES)
def test_all_four_have_to_agree(weak: str) -> None:
    labels = np.zeros(40, dtype=int)
    values = np.concatenate([np.linspace(0.9, 1, 30), np.linspace(0, 0.1, 10)])
    evidence = make_evidence(40, 0, **{name: [1.0] * 40 for name in NAMES})
    evidence[weak] = values.astype(np.float32)
    assert select_paper(evidence, labels, 1).tolist() == [True] * 30 + [False] * 10


def test_consistency_is_compared_in_the_precision_it_is_stored_in() -> None:
    labels = np.zeros(3, dtype=int)
    evidence = make_evidence(3, 0, **{name: [1.0] * 3 for name in NAMES})
    evidence["visual_consistency"] = np.array([0.8, 0.79999, 1.0], dtype=np.float32)
    assert select_paper(evidence, labels, 1).tolist() == [True, False, True]
    assert select_paper(evidence, labels, 1, theta_cons=1.0).tolist() == [False, False, True]
    assert select_paper(evidence, labels, 1, theta_cons=0.0).all()
    # float32(0.7) < 0.7: what comes back from a database as double must compare the same
    evidence["visual_consistency"] = np.array([0.7, 0.69999, 1.0], dtype=np.float32)
    for kind in (np.float32, np.float64):
        stored = {name: values.astype(kind) for name, values in evidence.items()}
        assert select_paper(stored, labels, 1, theta_cons=0.7).tolist() == [True, False, True]


def test_an_empty_class_is_filled_with_its_best_not_its_worst() -> None:
    # Class 0 keeps 2 of its 3 samples; none of class 1 is consistent enough.
    labels = np.array([0, 0, 0, 1, 1, 1, 1])
    evidence = make_evidence(
        7,
        0,
        zeroshot_loss=[1.0, 1.0, 1.0, 0.2, 1.0, 0.0, 0.9],
        visual_loss=[1.0] * 7,
        zeroshot_consistency=[1.0, 1.0, 0.1, 0.1, 0.1, 0.1, 0.1],
        visual_consistency=[1.0] * 7,
    )
    selected = select_paper(evidence, labels, 2)
    assert np.flatnonzero(selected).tolist() == [0, 1, 4, 6]


def test_the_fill_is_at_least_n_over_k_squared() -> None:
    labels = np.array([0] * 2 + [1] * 22)
    evidence = make_evidence(24, 0, **{name: [1.0] * 24 for name in NAMES})
    evidence["zeroshot_consistency"] = np.array([1.0] + [0.0] * 23, dtype=np.float32)
    evidence["zeroshot_loss"][2:] = np.linspace(0, 1, 22)
    selected = select_paper(evidence, labels, 2)
    assert np.flatnonzero(selected).tolist() == [0, *range(18, 24)]  # 24 // 4 = 6


def test_without_language_the_fill_goes_by_the_visual_loss() -> None:
    labels = np.array([0, 0, 1, 1, 1])
    evidence = make_evidence(
        5,
        0,
        zeroshot_loss=[np.nan] * 5,
        zeroshot_consistency=[np.nan] * 5,
        visual_loss=[1.0, 1.0, 0.3, 1.0, 0.0],
        visual_consistency=[1.0, 0.9, 0.2, 0.2, 0.2],
    )
    assert select_paper(evidence, labels, 2).tolist() == [True, True, True, True, False]


def test_where_nothing_at_all_is_selected_each_class_gets_its_best() -> None:
    labels = np.array([0, 0, 1, 1])
    evidence = make_evidence(4, 0, **{name: [0.2, 0.3, 0.3, 0.2] for name in NAMES})
    assert select_paper(evidence, labels, 3, theta_cons=1.0).tolist() == [False, True, True, False]


def test_a_class_of_one_and_classes_without_samples() -> None:
    labels = np.array([0, 0, 7])
    evidence = make_evidence(3, 0, **{name: [1.0] * 3 for name in NAMES})
    assert select_paper(evidence, labels, 10).all()


def test_the_same_evidence_gives_the_same_bits() -> None:
    labels = np.arange(300) % 3
    evidence = make_evidence(300, 4)
    first = select_paper(evidence, labels, 3)
    np.random.seed(1)
    assert np.array_equal(select_paper(evidence, labels, 3), first)


def test_nothing_in_nothing_out() -> None:
    evidence = {name: np.zeros(0, np.float32) for name in NAMES}
    assert select_paper(evidence, np.zeros(0, dtype=int), 3).shape == (0,)


@pytest.mark.parametrize(
    ("score", "suggested", "selected", "verdict"),
    [
        (0.9, 1, True, "clean"),
        (0.9, 1, False, "uncertain"),
        (0.1, 2, False, "mislabeled"),
        (0.1, 2, True, "uncertain"),
        (0.1, 1, False, "uncertain"),
        (0.1, 1, True, "clean"),
        (0.5, 2, False, "uncertain"),
        (0.5, 2, True, "clean"),
        (np.nan, -1, False, "unscorable"),
    ],
)
def test_verdicts(score: float, suggested: int, selected: bool, verdict: str) -> None:
    for named in (0.5, np.nan):
        evidence = {"zeroshot_loss": np.array([named], np.float32)}
        found = verdicts(
            evidence,
            np.array([1]),
            np.array([suggested]),
            np.array([score], np.float32),
            np.array([selected]),
        )
        both = score < 0.5 and suggested == 2 and selected
        assert found.tolist() == ["mislabeled" if both and np.isnan(named) else verdict]


def test_noise_rate_is_wilsons() -> None:
    # 10 of 50: Wilson's 95 % interval of .2 is .1124 to .3304 (Newcombe 1998, method 3).
    scores = np.array([0.0] * 10 + [1.0] * 40 + [np.nan] * 5)
    rate = noise_rate(scores)
    assert rate.count == 50
    assert (rate.rate, rate.low, rate.high) == pytest.approx((0.2, 0.1124, 0.3304), abs=1e-4)


def test_the_interval_allows_for_scores_that_are_off_together() -> None:
    """So many labels that chance is nothing: what is left is the offset of the log-odds."""
    rate = noise_rate(np.repeat([0.9, 0.3], 10**6))
    doubt = (0.9 * 0.1 + 0.3 * 0.7) / 2
    assert rate.high - rate.rate == pytest.approx(1.96 * 0.6 * doubt, rel=0.01)
    assert rate.rate - rate.low == pytest.approx(1.96 * 0.6 * doubt, rel=0.01)
    # About what the rate is by scores whose log-odds are all less by two such deviations
    less = 1 / (1 + np.exp(2 * 0.6) * np.array([0.1 / 0.9, 0.7 / 0.3]))
    assert np.mean(1 - less) == pytest.approx(rate.high, abs=0.01)


@given(st.integers(1, 10**7), st.floats(1e-6, 0.05))
def test_labels_of_which_none_is_surely_wrong_may_all_be_right(n: int, doubt: float) -> None:
    assert noise_rate_of(n, n * (1 - doubt), n * (1 - doubt) ** 2).low < 1e-3


@given(st.lists(st.floats(0, 1), min_size=1, max_size=50))
def test_the_interval_holds_the_rate(scores: list[float]) -> None:
    rate = noise_rate(np.array(scores))
    assert 0 <= rate.low <= rate.rate + 1e-12
    assert rate.rate - 1e-12 <= rate.high <= 1


def test_no_scores_no_rate() -> None:
    rate = noise_rate(np.array([np.nan, np.nan]))
    assert rate.count == 0
    assert np.isnan([rate.rate, rate.low, rate.high]).all()


def test_noise_rates_of_many_classes_take_one_pass() -> None:
    labels = np.append(np.tile(np.arange(2000), 500), [-1, 5000])
    started = time.perf_counter()
    rates = noise_rates(np.where(labels == 7, 0.25, 0.75), labels)
    assert time.perf_counter() - started < 3  # one pass a class takes many times as long
    assert list(rates) == [*range(2000), 5000]
    assert {rates[k].count for k in range(2000)} == {500}
    assert (rates[7].rate, rates[8].rate) == (0.75, 0.25)
