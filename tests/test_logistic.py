"""The logistic regression: scikit-learn's objective, many models at once, the same bits always."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from feature_clusters import flip, make_clusters
from scipy.special import softmax
from sklearn.linear_model import LogisticRegression

from benchmarks.data import DEFAULT_FOLDER, DataMissingError, load_stand_in
from clipcleaner_plugin import fitting, logistic
from clipcleaner_plugin.fitting import one_blas_thread
from clipcleaner_plugin.logistic import Logistic, fit_logistic
from clipcleaner_plugin.noise import draw_noise

Problem = tuple[np.ndarray, np.ndarray, np.ndarray]


def noisy(n: int, classes: int, dim: int = 16, seed: int = 0) -> Problem:
    """Features, labels, and the weights of a balanced, a plain and two partial models."""
    data = make_clusters(n, classes, dim, 0.4, seed)
    labels = flip(data.truth, classes, 0.3, seed)
    return data.images, labels, weights_of(labels, classes)


def weights_of(labels: np.ndarray, classes: int) -> np.ndarray:
    n = len(labels)
    balanced = n / (classes * np.bincount(labels))
    halves = np.arange(n) < n // 2
    return np.stack([balanced[labels], np.ones(n), halves, ~halves]).astype(np.float32)


DEVICES = ["cpu", "cuda"] if torch.cuda.is_available() else ["cpu"]
C = [1.0, 10.0, 10.0, 10.0]
TOLERANCE = [5e-5, 1.5e-4, 1.5e-4, 1.5e-4]


def by_scikit_learn(x: np.ndarray, y: np.ndarray, weights: np.ndarray, c: float) -> np.ndarray:
    """Probabilities for all rows, fitted on those with weight."""
    x, used = x.astype(np.float64), weights > 0
    with one_blas_thread():
        model = LogisticRegression(C=c, tol=1e-7, max_iter=10_000)
        return model.fit(x[used], y[used], weights[used]).predict_proba(x)


def probabilities(models: Logistic, m: int, x: np.ndarray) -> np.ndarray:
    return softmax(models.logits(m, x), axis=1)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("classes", [2, 3, 11])
def test_it_is_scikit_learns_model(classes: int, device: str) -> None:
    x, y, weights = noisy(400, classes)
    weights[1] = np.random.default_rng(0).uniform(0.1, 5, 400)
    found = fit_logistic(x, y, classes, weights, C, TOLERANCE, device=device)
    assert found.converged.all()
    for m in range(4):
        expected = by_scikit_learn(x, y, weights[m], C[m])
        difference = np.abs(probabilities(found, m, x) - expected).max()
        assert difference <= (1e-4 if m == 0 else 1e-3)


def test_it_is_scikit_learns_model_on_real_features() -> None:
    try:
        data = load_stand_in(DEFAULT_FOLDER, "dtd")
    except DataMissingError as error:
        pytest.skip(str(error))
    classes = len(data.texts)
    y = draw_noise(data.labels, classes, "symmetric", 0.3, seed=1)
    x = data.features
    unseen = np.arange(len(y)) < len(y) // 5
    weights = np.stack([(len(y) / (classes * np.bincount(y)))[y], ~unseen]).astype(np.float32)
    found = fit_logistic(x, y, classes, weights, [1, 10], TOLERANCE[:2])
    for m, (c, rows) in enumerate([(1, slice(None)), (10, unseen)]):
        expected = by_scikit_learn(x, y, weights[m], c)[rows]
        difference = np.abs(probabilities(found, m, x[rows]) - expected).max()
        assert difference <= (1e-4, 1e-3)[m]


def test_many_models_at_once_are_the_models_one_by_one() -> None:
    x, y, weights = noisy(300, 5)
    together = fit_logistic(x, y, 5, weights, C, TOLERANCE)
    for m in range(4):
        alone = fit_logistic(x, y, 5, weights[m : m + 1], C[m : m + 1], TOLERANCE[m : m + 1])
        assert probabilities(alone, 0, x) == pytest.approx(probabilities(together, m, x), abs=1e-3)


def test_cores_and_repetition_change_no_bit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(logistic, "_BLOCK", {"cpu": 0})  # the smallest blocks
    x, y, weights = noisy(3000, 7, 64)
    found = []
    for cores in (1, 2, 5):
        monkeypatch.setattr(fitting, "_cores", lambda cores=cores: cores)
        found.append(fit_logistic(x, y, 7, weights, C, TOLERANCE))
    for one, other in itertools.pairwise(found):
        assert np.array_equal(one.coefficients, other.coefficients)
        assert np.array_equal(one.intercepts, other.intercepts)


def test_blocks_do_not_show(monkeypatch: pytest.MonkeyPatch) -> None:
    x, y, weights = noisy(1000, 4)
    whole = fit_logistic(x, y, 4, weights, C, TOLERANCE)
    monkeypatch.setattr(logistic, "_ROWS_OF_BLOCK", {"cpu": (7, 7)})
    parts = fit_logistic(x, y, 4, weights, C, TOLERANCE)
    for m in range(4):
        assert probabilities(parts, m, x) == pytest.approx(probabilities(whole, m, x), abs=1e-3)


def test_a_start_at_the_optimum_takes_one_pass() -> None:
    x, y, weights = noisy(300, 5)
    found = fit_logistic(x, y, 5, weights, C, TOLERANCE)
    loose = [10 * t for t in TOLERANCE]
    again = fit_logistic(x, y, 5, weights, C, loose, init=found)
    assert again.passes == 1 < found.passes
    assert again.coefficients == pytest.approx(found.coefficients, abs=1e-4)


def test_rows_without_weight_play_no_part() -> None:
    x, y, weights = noisy(300, 5)
    garbled = x.copy()
    garbled[:150] = x[150:][::-1]  # the rows that the last model does not see
    found = fit_logistic(x, y, 5, weights[3:], C[3:], [1e-5])
    other = fit_logistic(garbled, y, 5, weights[3:], C[3:], [1e-5])
    assert probabilities(other, 0, x) == pytest.approx(probabilities(found, 0, x), abs=1e-4)


def test_all_rows_alike() -> None:
    x = np.ones((20, 3), dtype=np.float32) / np.sqrt(3).astype(np.float32)
    y = np.arange(20) % 4 // 3  # a quarter of the rows in class 1
    found = fit_logistic(x, y, 2, np.ones((1, 20), np.float32), [1.0], [1e-5])
    assert found.converged.all()
    assert probabilities(found, 0, x)[0] == pytest.approx([0.75, 0.25], abs=1e-4)


def test_a_fit_that_may_not_go_on_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(logistic, "MAX_PASSES", 3)
    x, y, weights = noisy(300, 5)
    found = fit_logistic(x, y, 5, weights, C, TOLERANCE)
    assert found.passes == 3
    assert not found.converged.any()
    assert np.isfinite(found.coefficients).all()
