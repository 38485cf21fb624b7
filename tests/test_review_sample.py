"""Measuring a run by a random sample: what is drawn, the interval, the threshold, the report."""

from __future__ import annotations

from collections.abc import Callable

import fiftyone as fo
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from noisy_features import Noisy
from scipy.stats import binomtest

import clipcleaner_plugin as cc
from clipcleaner_plugin.sampling import draw_strata, precision_threshold, stratified_rate

# --- drawing


@given(
    size=st.integers(1, 300),
    n=st.integers(1, 300),
    strata=st.integers(1, 7),
    seed=st.integers(0, 99),
)
def test_strata_cut_the_population_by_score_and_share_the_draw(
    size: int, n: int, strata: int, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    scores = rng.random(size).round(1)
    drawn = draw_strata(scores, n, strata, rng)
    assert sum(stratum.size for stratum in drawn) == size
    chosen = np.concatenate([stratum.drawn for stratum in drawn])
    assert len(chosen) == len(set(chosen)) == min(n, size)
    for stratum in drawn:
        assert len(stratum.drawn) >= 1
        assert np.all(
            (stratum.low <= scores[stratum.drawn]) & (scores[stratum.drawn] <= stratum.high)
        )
        assert abs(len(stratum.drawn) - stratum.size * min(n, size) / size) <= 1
    assert [s.low for s in drawn] == sorted(s.low for s in drawn)


# --- the interval


def test_one_stratum_is_clopper_and_pearson() -> None:
    for hits in (0, 3, 30, 40):
        rate = stratified_rate([hits], [40], [10**9])
        exact = binomtest(hits, 40).proportion_ci(0.95, method="exact")
        assert (rate.low, rate.high) == pytest.approx((exact.low, exact.high), abs=1e-6)
        assert rate.rate == hits / 40 and rate.count == 40


def test_worked_by_hand() -> None:
    # 1 of 10 in a stratum of 300, 5 of 10 in one of 100: (30 + 50) / 400
    assert stratified_rate([1, 5], [10, 10], [300, 100]).rate == pytest.approx(0.2)
    # Nobody looked at the middle one of 50: it counts with the one below
    assert stratified_rate([1, 0, 5], [10, 0, 10], [250, 50, 100]).rate == pytest.approx(0.2)
    nothing = stratified_rate([0, 0], [0, 0], [10, 10])
    assert np.isnan(nothing.rate) and nothing.count == 0


def test_whoever_has_seen_all_knows() -> None:
    assert stratified_rate([3, 0], [10, 5], [10, 5])[:3] == pytest.approx((0.2, 0.2, 0.2))


@given(table=st.lists(st.tuples(st.integers(0, 20), st.integers(0, 20)), min_size=1, max_size=5))
def test_the_estimate_lies_in_its_interval(table: list[tuple[int, int]]) -> None:
    hits = [a for a, _ in table]
    checked = [a + b for a, b in table]
    if sum(checked):
        rate = stratified_rate(hits, checked, [n + 7 for n in checked])
        assert 0 <= rate.low <= rate.rate <= rate.high <= 1


# Shares of wrong labels by score, as a list of flagged and as one of other labels may have them
_CURVES = {
    "mostly wrong": lambda s: 0.9 + 0 * s,
    "worse below": lambda s: 1 - s,
    "rare": lambda s: 0.02 * (1 - s) ** 3,
    "all in a corner": lambda s: 0.5 * (s < 0.02),
}


@pytest.mark.parametrize("share", _CURVES.values(), ids=_CURVES)
@pytest.mark.parametrize(
    ("size", "n", "decided"), [(150, 60, 1), (20_000, 100, 1), (20_000, 100, 0.5)]
)
def test_the_interval_covers_the_truth(
    share: Callable[[np.ndarray], np.ndarray], size: int, n: int, decided: float
) -> None:
    """By simulation, with a reviewer who stops half-way, too: at least 95 %, less three errors."""
    rng, repetitions, covered = np.random.default_rng(0), 400, 0
    scores = rng.random(size)
    wrong = rng.random(size) < share(scores)
    for _ in range(repetitions):
        strata = draw_strata(scores, n, 5, rng)
        seen = [s.drawn[rng.random(len(s.drawn)) < decided] for s in strata]
        rate = stratified_rate(
            [int(wrong[s].sum()) for s in seen], [len(s) for s in seen], [s.size for s in strata]
        )
        covered += rate.low <= wrong.mean() <= rate.high
    assert covered / repetitions >= 0.95 - 3 * np.sqrt(0.95 * 0.05 / repetitions)


# --- the threshold


def test_the_threshold_worked_by_hand() -> None:
    scores = np.array([0.1, 0.2, 0.3, 0.4, 0.5])
    wrong = np.array([True, True, True, False, False])
    even = np.ones(5)
    # 3 of 3, then 3 of 4, then 3 of 5
    assert precision_threshold(scores, wrong, even, 1.0) == pytest.approx(0.35)
    assert precision_threshold(scores, wrong, even, 0.75) == pytest.approx(0.45)
    assert precision_threshold(scores, wrong, even, 0.6) == 1.0
    # The fourth stands for four: 3 of 7
    assert precision_threshold(scores, wrong, np.array([1, 1, 1, 4, 1]), 0.75) == pytest.approx(
        0.35
    )
    assert precision_threshold(scores, ~wrong, even, 0.8) is None
    assert precision_threshold(scores[:0], wrong[:0], even[:0], 0.8) is None


def test_the_threshold_gives_about_the_wanted_precision() -> None:
    rng = np.random.default_rng(0)
    scores = rng.random(50_000)
    wrong = rng.random(50_000) < 1 - scores  # of all below t, 1 - t / 2 are wrong
    sample = rng.choice(50_000, 2000, replace=False)
    found = precision_threshold(scores[sample], wrong[sample], np.ones(2000), 0.8)
    assert found == pytest.approx(0.4, abs=0.08)
    assert wrong[scores < found].mean() == pytest.approx(0.8, abs=0.04)


# --- a review


def review(noisy: Noisy, view: fo.DatasetView) -> None:
    """Decides as a reviewer does who knows the truth."""
    ids, given, right = view.values(["id", "ground_truth.label", "trusted.label"])
    wrong = [i for i, a, b in zip(ids, given, right, strict=True) if a != b]
    results = cc.load_results(noisy.dataset)
    for sample_id in wrong:
        label = noisy.dataset[sample_id].trusted.label
        results.accept_suggestions([sample_id], label=label)
    results.confirm_labels([i for i in ids if i not in wrong])


def test_the_sample_is_half_flagged_random_and_repeatable(noisy: Noisy) -> None:
    view = cc.start_review(noisy.dataset, n=40, seed=3)
    assert len(view) == 40
    assert view.count_values("clipcleaner_verdict")["mislabeled"] == 20
    assert noisy.dataset.load_saved_view("clipcleaner: review sample").values("id") == (
        view.values("id")
    )
    assert cc.start_review(noisy.dataset, n=40, seed=3).values("id") == view.values("id")
    other = cc.start_review(noisy.dataset, n=40, seed=4).values("id")
    assert set(other) != set(view.values("id"))
    half = noisy.dataset.select(view.values("id")[:20])
    assert 5 <= half.count_values("clipcleaner_verdict")["mislabeled"] <= 15, "not sorted"


def test_few_flagged_make_room_for_others(noisy: Noisy) -> None:
    view = cc.start_review(noisy.dataset, n=120)
    assert view.count_values("clipcleaner_verdict")["mislabeled"] == 40
    assert len(view) == 120
    assert len(cc.start_review(noisy.dataset, n=1000)) == 240


def test_the_report_measures_the_run(noisy: Noisy) -> None:
    # Flag 20 right labels too, and miss 10 wrong ones
    dataset = noisy.dataset
    right = [i for i in noisy.ids if i not in noisy.wrong]
    dataset.select(right[:20]).set_field("clipcleaner_verdict", "mislabeled").save()
    dataset.select(list(noisy.wrong)[:10]).set_field("clipcleaner_verdict", "uncertain").save()
    view = cc.start_review(dataset, n=60)
    empty = cc.review_report(dataset)
    assert empty.decided == 0 and np.isnan(empty.precision.rate)
    assert empty.threshold() is None
    assert "0 of 60 samples decided, 60 to go" in str(empty)
    review(noisy, view)
    report = cc.load_results(dataset).review_report()
    assert (report.decided, report.drawn) == (60, 60)
    assert (report.flagged, report.unflagged) == (50, 190)
    assert report.precision.low <= 30 / 50 <= report.precision.high
    assert report.missed.low <= 10 / 190 <= report.missed.high
    estimate, low, high = report.missed_labels
    assert low <= 10 <= high and low <= estimate <= high
    text = str(report)
    assert "60 of 60 samples decided" in text and "of 50 flagged are wrong" in text
    assert f"precision: {report.precision.rate:.1%}" in text


def test_the_report_of_all_samples_is_the_truth(noisy: Noisy) -> None:
    view = cc.start_review(noisy.dataset, n=240)
    review(noisy, view)
    report = cc.review_report(noisy.dataset)
    assert report.precision[:3] == (1, 1, 1) and report.missed[:3] == (0, 0, 0)
    threshold = report.threshold(1.0)
    scores = np.array(noisy.dataset.values("clipcleaner_score"))
    assert threshold is not None
    assert (scores < threshold).sum() == 40
    with pytest.raises(ValueError, match="precision must be in"):
        report.threshold(80)


def test_verdicts_follow_the_measured_threshold(noisy: Noisy) -> None:
    review(noisy, cc.start_review(noisy.dataset, n=40))
    threshold = cc.review_report(noisy.dataset).threshold(0.8)
    results = cc.load_results(noisy.dataset)
    results.reselect(theta_score=threshold)
    left = results.mislabeled_view()
    assert len(left) == 20 and set(left.values("id")) <= noisy.wrong


def test_decisions_of_another_kind(noisy: Noisy) -> None:
    results = cc.load_results(noisy.dataset)
    results.confirm_labels(results.mislabeled_view().values("id")[:5])
    ids = cc.start_review(noisy.dataset, n=10).values("id")
    assert cc.review_report(noisy.dataset).flagged == 35, "decided before: not drawn"
    results.drop(ids[:1])
    results.accept_suggestions(ids[1:2], label="owl")
    results.accept_suggestions(ids[1:2], label="cat", overwrite=True)
    results.accept_suggestions(ids[1:2], label="dog", overwrite=True)
    results.confirm_labels(ids[1:2], overwrite=True)
    results.confirm_labels(results.clean_view().exclude(ids).limit(3))
    report = cc.review_report(noisy.dataset)
    assert (report.decided, report.dropped) == (1, 1)
    first = noisy.dataset[ids[1]].ground_truth_review_log[0]["from"].label
    assert report.wrong.tolist() == [first != "dog"], "however often it was changed"
    for _ in range(2):
        cc.undo_review(noisy.dataset)
    assert cc.review_report(noisy.dataset).decided == 1
    # A decision taken back does not count
    for _ in range(4):
        cc.undo_review(noisy.dataset)
    report = cc.review_report(noisy.dataset)
    assert (report.decided, report.dropped) == (0, 0)


def test_the_sample_goes_with_its_run(noisy: Noisy) -> None:
    ids = cc.start_review(noisy.dataset, n=10).values("id")
    cc.rename_run(noisy.dataset, "clipcleaner", "renamed")
    names = noisy.dataset.list_saved_views()
    assert "renamed: review sample" in names and "clipcleaner: review sample" not in names
    assert noisy.dataset.load_saved_view("renamed: review sample").values("id") == ids
    assert cc.review_report(noisy.dataset, "renamed").drawn == 10
    noisy.dataset.reload()
    assert cc.review_report(noisy.dataset, "renamed").drawn == 10
    assert "review_sample" not in cc.get_run_info(noisy.dataset, "renamed")["parameters"]
    noisy.apply(key="renamed")
    assert "renamed: review sample" not in noisy.dataset.list_saved_views()
    with pytest.raises(ValueError, match="start_review draws one"):
        cc.review_report(noisy.dataset, "renamed")


@pytest.mark.parametrize("n", [1, 10_001])
def test_a_bad_size_is_refused(noisy: Noisy, n: int) -> None:
    with pytest.raises(ValueError, match="n must be from 2 to 10000"):
        cc.start_review(noisy.dataset, n=n)


def test_where_all_is_decided_there_is_nothing_to_draw(noisy: Noisy) -> None:
    cc.confirm_labels(noisy.dataset)
    with pytest.raises(ValueError, match="no scored labels that are not decided"):
        cc.start_review(noisy.dataset)
