"""The mixture of scores: monotone, one threshold, repeatable."""

from __future__ import annotations

import logging

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.mixture import GaussianMixture

from clipcleaner_plugin import em
from clipcleaner_plugin.mixture import ScoreMixture, fit_mixture, fit_mixtures, sigmoid

weights = st.floats(0.001, 0.999)
means = st.floats(-20, 20)
deviations = st.floats(1e-3, 10)
thetas = st.floats(0, 1)


@st.composite
def mixtures(draw: st.DrawFn) -> ScoreMixture:
    weight, low, high = draw(weights), draw(means), draw(means)
    low, high = min(low, high), max(low, high)
    spread = draw(deviations)
    other = draw(st.one_of(st.just(spread), deviations, st.floats(1, 1.0001).map(spread.__mul__)))
    return ScoreMixture((weight, 1 - weight), (low, high), (spread**2, other**2))


@given(mixtures(), st.lists(st.floats(-50, 50), min_size=2, max_size=30))
@settings(max_examples=300)
def test_a_higher_score_never_has_a_lower_posterior(
    mixture: ScoreMixture, scores: list[float]
) -> None:
    posterior = mixture.posterior(np.sort(scores))
    assert np.all(np.diff(posterior) >= 0)
    assert np.all((posterior >= 0) & (posterior <= 1))


@given(mixtures(), st.floats(0, 1))
@settings(max_examples=300)
def test_between_the_means_it_is_bayes_rule(mixture: ScoreMixture, where: float) -> None:
    low, high = mixture.means
    x = low + where * (high - low)
    logs = [
        np.log(w) - np.log(v) / 2 - (x - m) ** 2 / (2 * v)
        for w, m, v in zip(mixture.weights, mixture.means, mixture.variances, strict=True)
    ]
    expected = logs[1] - logs[0]
    assert mixture.log_odds(x) == pytest.approx(expected, rel=1e-6, abs=1e-5)


@given(mixtures(), thetas)
@settings(max_examples=300)
def test_the_threshold_is_the_first_score_that_reaches_theta(
    mixture: ScoreMixture, theta: float
) -> None:
    low, high = mixture.means
    threshold = mixture.threshold(theta)
    assert low <= threshold <= high
    if threshold < high:
        assert mixture.posterior(threshold) >= theta
    if threshold > low:
        assert mixture.posterior(np.nextafter(threshold, -np.inf)) < theta


@given(mixtures(), thetas, thetas)
def test_a_stricter_theta_never_lowers_the_threshold(
    mixture: ScoreMixture, a: float, b: float
) -> None:
    assert mixture.threshold(min(a, b)) <= mixture.threshold(max(a, b))


def test_the_wider_component_does_not_win_the_far_tail() -> None:
    """The lower component is so wide that the plain posterior calls the best score noisy."""
    rng = np.random.default_rng(0)
    scores = np.concatenate([rng.normal(0, 3, 300), rng.normal(4, 0.3, 300), [12.0]])
    plain = GaussianMixture(2, random_state=51).fit(scores[:, None])
    upper = plain.means_.ravel().argmax()
    assert plain.predict_proba([[12.0]])[0, upper] < 0.01
    mixture = fit_mixture(scores, 51)
    assert mixture is not None
    assert mixture.posterior(12.0) == mixture.posterior(scores).max() > 0.9
    assert mixture.threshold(0.5) < 12


def test_the_wider_component_does_not_win_the_near_tail() -> None:
    rng = np.random.default_rng(0)
    scores = np.concatenate([rng.normal(0, 0.3, 300), rng.normal(4, 3, 300), [-12.0]])
    plain = GaussianMixture(2, random_state=51).fit(scores[:, None])
    assert plain.predict_proba([[-12.0]])[0, plain.means_.ravel().argmax()] > 0.99
    mixture = fit_mixture(scores, 51)
    assert mixture is not None
    assert mixture.posterior(-12.0) == mixture.posterior(scores).min() < 0.5
    assert mixture.threshold(0.5) > -12


def test_where_no_score_reaches_theta_the_upper_mean_is_the_threshold() -> None:
    mixture = ScoreMixture((0.9, 0.1), (0.0, 0.5), (1.0, 1.0))
    assert mixture.posterior(0.5) < 0.5
    assert mixture.threshold(0.5) == 0.5
    assert mixture.threshold(0.0) == 0.0


def test_it_is_scikit_learns_fit() -> None:
    rng = np.random.default_rng(3)
    scores = np.concatenate([rng.normal(0.3, 0.1, 80), rng.normal(0.8, 0.05, 200)])
    plain = GaussianMixture(2, random_state=7).fit(scores[:, None])
    order = plain.means_.ravel().argsort()
    mixture = fit_mixture(scores, 7)
    assert mixture is not None
    assert mixture.means == pytest.approx(plain.means_.ravel()[order], rel=1e-6)
    assert mixture.weights == pytest.approx(plain.weights_[order], rel=1e-6)
    assert mixture.variances == pytest.approx(plain.covariances_.ravel()[order], rel=1e-6)


@pytest.mark.parametrize("seed", [0, 51])
def test_many_groups_at_once_are_scikit_learns_fits_one_by_one(seed: int) -> None:
    rng = np.random.default_rng(seed)
    sizes = [2, 3, 5, 1, 40, 400, 3000, 20, 17]
    labels = rng.permutation(np.repeat(np.arange(len(sizes)), sizes))
    scores = np.where(
        rng.uniform(size=len(labels)) < 0.3,
        rng.uniform(0, 0.7, len(labels)),
        rng.beta(5, 1 + labels % 3, len(labels)),
    ).astype(np.float32)
    scores[labels == 7] = 0.25
    members = [np.flatnonzero(labels == group) for group in range(len(sizes))]
    found = fit_mixtures(scores, members, seed)
    assert found[3] is None and found[7] is None
    for mixture, group in zip(found, members, strict=True):
        if mixture is None:
            continue
        values = np.sort(scores[group]).astype(np.float64)[:, None]
        plain = GaussianMixture(2, random_state=seed, max_iter=2000).fit(values)
        order = plain.means_.ravel().argsort()
        assert mixture.means == pytest.approx(plain.means_.ravel()[order], abs=1e-9)
        assert mixture.weights == pytest.approx(plain.weights_[order], abs=1e-9)
        assert mixture.variances == pytest.approx(plain.covariances_.ravel()[order], abs=1e-9)
        assert fit_mixture(scores[group], seed) == mixture


def test_a_tied_mixture_is_scikit_learns() -> None:
    rng = np.random.default_rng(2)
    scores = np.concatenate([rng.normal(-3, 1, 200), rng.normal(1, 1.5, 900)])
    plain = GaussianMixture(2, covariance_type="tied", tol=1e-7, max_iter=2000, random_state=51)
    plain.fit(np.sort(scores)[:, None])
    mixture = fit_mixture(scores, 51, tied=True)
    assert mixture is not None
    assert mixture.means == pytest.approx(np.sort(plain.means_.ravel()), abs=1e-6)
    assert mixture.variances[0] == pytest.approx(plain.covariances_.item(), abs=1e-6)


def test_a_fit_without_end_is_logged(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(em, "MAX_STEPS", 1)
    with caplog.at_level(logging.WARNING, "clipcleaner_plugin"):
        mixture = fit_mixture(np.random.default_rng(0).uniform(size=50), 51)
    assert mixture is not None
    assert "1 mixtures did not converge in 1 steps" in caplog.text


def test_a_tied_mixture_finds_a_small_cluster_and_has_straight_log_odds() -> None:
    rng = np.random.default_rng(1)
    scores = np.concatenate([rng.normal(-7, 1.6, 50), rng.normal(4, 1.6, 950)])
    mixture = fit_mixture(scores, 51, tied=True)
    assert mixture is not None
    assert mixture.weights[0] == pytest.approx(0.05, abs=0.01)
    assert mixture.variances[0] == mixture.variances[1]
    steps = np.diff(mixture.log_odds(np.linspace(-10, 10, 9)))
    assert steps == pytest.approx(np.full(8, steps[0]))


@pytest.mark.parametrize("tied", [False, True])
def test_order_and_repetition_change_nothing(tied: bool) -> None:
    rng = np.random.default_rng(5)
    scores = rng.uniform(size=400)
    first = fit_mixture(scores, 51, tied=tied)
    assert first is not None
    assert fit_mixture(rng.permutation(scores), 51, tied=tied) == first
    np.random.seed(9)
    assert fit_mixture(scores, 51, tied=tied) == first


@pytest.mark.parametrize("scores", [[], [0.3], [0.3, 0.3], [1.0] * 50])
def test_nothing_to_tell_apart(scores: list[float]) -> None:
    assert fit_mixture(np.array(scores), 51) is None


@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize("scores", [[0.0, 1.0], [0, 0, 1], [0.5] * 99 + [0.5000001], [-1e30, 1e30]])
def test_two_values_are_enough(scores: list[float], tied: bool) -> None:
    mixture = fit_mixture(np.array(scores), 51, tied=tied)
    assert mixture is not None
    posterior = mixture.posterior(np.sort(scores))
    assert np.isfinite(posterior).all()
    assert np.all(np.diff(posterior) >= 0)


def test_sigmoid_at_the_ends() -> None:
    assert sigmoid(np.array([-1e4, 0, 1e4])).tolist() == [0, 0.5, 1]
