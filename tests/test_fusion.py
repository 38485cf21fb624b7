"""Trust in language, the fused opinion, margins and clean scores."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from clipcleaner_plugin.fusion import (
    MIN_MARGINS,
    VISUAL_FLOOR,
    agreements,
    clean_scores,
    fuse,
    label_margins,
    language_weight,
)
from clipcleaner_plugin.zeroshot import log_softmax


def opinion(right: int, n: int, classes: int = 3) -> np.ndarray:
    """An opinion on labels that are all 0: class 0 first for ``right`` of ``n`` samples."""
    probs = np.full((n, classes), 0.1)
    probs[:right, 0] = probs[right:, 1] = 0.8
    return np.log(probs / probs.sum(axis=1, keepdims=True))


LABELS = np.zeros(100, dtype=int)


def weight_of(zeroshot: np.ndarray, visual: np.ndarray, labels: np.ndarray) -> float:
    return language_weight(agreements(zeroshot, visual, labels))


def test_equal_agreement_is_equal_weight() -> None:
    assert weight_of(opinion(70, 100), opinion(70, 100), LABELS) == 0.5
    assert weight_of(opinion(0, 100), opinion(0, 100), LABELS) == 0.5


def test_weights_are_the_sixth_power_of_agreement() -> None:
    weight = weight_of(opinion(60, 100), opinion(80, 100), LABELS)
    assert weight == pytest.approx(0.6**6 / (0.6**6 + 0.8**6))
    other_way = weight_of(opinion(80, 100), opinion(60, 100), LABELS)
    assert other_way == pytest.approx(1 - weight)
    assert weight_of(opinion(40, 100), opinion(80, 100), LABELS) < 0.02


def test_wrong_labels_that_hit_both_alike_cancel() -> None:
    clean = weight_of(opinion(60, 100), opinion(80, 100), LABELS)
    noisy = weight_of(opinion(30, 100), opinion(40, 100), LABELS)
    assert noisy == pytest.approx(clean)


@given(st.integers(0, 99), st.integers(0, 100))
def test_more_agreement_is_never_less_weight(right: int, visual: int) -> None:
    weights = [weight_of(opinion(r, 100), opinion(visual, 100), LABELS) for r in (right, right + 1)]
    assert 0 <= weights[0] <= weights[1] <= 1


def test_only_one_opinion_has_all_the_weight() -> None:
    assert weight_of(opinion(5, 100), np.full((100, 3), np.nan), LABELS) == 1


def test_samples_that_one_side_is_silent_on_do_not_count() -> None:
    zeroshot, visual = opinion(50, 100), opinion(100, 100)
    visual[50:] = np.nan
    assert weight_of(zeroshot, visual, LABELS) == 0.5


def test_half_and_half_is_the_square_root_of_the_product() -> None:
    rng = np.random.default_rng(0)
    a, b = (log_softmax(rng.standard_normal((5, 4))) for _ in range(2))
    expected = np.sqrt(np.exp(a) * np.exp(b))
    expected /= expected.sum(axis=1, keepdims=True)
    assert np.exp(fuse(a, b, 0.5)) == pytest.approx(expected)
    assert fuse(a, b, 1.0) == pytest.approx(a)
    assert fuse(a, b, 0.0) == pytest.approx(b)
    assert fuse(None, b, 0.0) == pytest.approx(b)


def test_classes_that_no_model_has_seen_get_the_floor() -> None:
    visual = np.array([[0.0, -np.inf]])
    assert np.exp(fuse(None, visual, 0.0))[0, 1] == pytest.approx(VISUAL_FLOOR, rel=1e-5)
    sure_of_it = np.log(np.array([[1e-12, 1 - 1e-12]]))
    assert fuse(sure_of_it, visual, 0.5).argmax() == 1


def test_where_one_side_is_silent_the_other_decides() -> None:
    zeroshot = np.log(np.array([[0.3, 0.7], [0.3, 0.7]]))
    visual = np.array([[np.nan, np.nan], [np.log(0.9), np.log(0.1)]])
    fused = np.exp(fuse(zeroshot, visual, 0.1))
    assert fused[0] == pytest.approx([0.3, 0.7])
    assert fused[1, 0] > 0.8


def test_margins_by_hand() -> None:
    log_probs = np.log(np.array([[0.5, 0.3, 0.2], [0.5, 0.3, 0.2], [0.4, 0.4, 0.2]]))
    margins = label_margins(log_probs, np.array([0, 2, 1]))
    assert margins.dtype == np.float32
    assert margins == pytest.approx(np.log([5 / 3, 2 / 5, 1]), abs=1e-6)


margin_arrays = arrays(
    np.float32, st.integers(0, 80), elements=st.floats(-60, 60, width=32, allow_nan=False)
)


@given(margin_arrays)
@settings(max_examples=100, deadline=None)
def test_a_larger_margin_never_scores_lower(margins: np.ndarray) -> None:
    scores = clean_scores(margins, 51)
    assert scores.dtype == np.float32
    assert np.all((scores >= 0) & (scores <= 1))
    assert np.all(np.diff(scores[np.argsort(margins)]) >= 0)


@given(margin_arrays)
@settings(max_examples=50, deadline=None)
def test_the_most_probable_label_is_never_below_one_half(margins: np.ndarray) -> None:
    assert np.all(clean_scores(margins, 51)[margins >= 0] >= 0.5)


@given(margin_arrays, st.randoms(use_true_random=False))
@settings(max_examples=50, deadline=None)
def test_scores_follow_a_permutation(margins: np.ndarray, random: np.random.RandomState) -> None:
    order = np.array(random.sample(range(len(margins)), len(margins)), dtype=int)
    assert np.array_equal(clean_scores(margins[order], 51), clean_scores(margins, 51)[order])


def test_few_or_equal_margins_speak_for_themselves() -> None:
    few = np.linspace(-3, 3, MIN_MARGINS - 1, dtype=np.float32)
    assert clean_scores(few, 51) == pytest.approx(1 / (1 + np.exp(-few)))
    assert clean_scores(np.full(99, -2.0), 51) == pytest.approx(np.full(99, 1 / (1 + np.e**2)))


def test_two_separate_clusters_are_told_apart_and_the_rate_is_right() -> None:
    rng = np.random.default_rng(0)
    margins = np.concatenate([rng.normal(-7, 1.6, 50), rng.normal(4, 1.6, 950)])
    scores = clean_scores(margins, 51)
    assert np.sum(scores[:50] < 0.5) >= 49
    assert np.sum(scores[50:] < 0.5) <= 1
    assert 1 - scores.mean() == pytest.approx(0.05, abs=0.005)


def test_a_clean_set_is_not_split() -> None:
    margins = np.abs(np.random.default_rng(0).normal(5, 2, 1000))
    assert clean_scores(margins, 51).min() >= 0.5
