"""The logistic regression: scikit-learn's objective, many models at once, the same bits always."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest
import torch
from feature_clusters import flip, make_clusters
from scipy.special import softmax
from sklearn.linear_model import LogisticRegression

from benchmarks.data import DEFAULT_FOLDER, DataMissingError, load_stand_in
from benchmarks.scoring import make_data
from clipcleaner_plugin import coupling, curvature, fitting, logistic, logistic_rows
from clipcleaner_plugin.fitting import one_blas_thread
from clipcleaner_plugin.logistic import Logistic, fit_logistic
from clipcleaner_plugin.noise import draw_noise
from clipcleaner_plugin.visual import SEEN_TOLERANCE, UNSEEN_TOLERANCE

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
C = [1.0, 10.0]
TOLERANCE = {1.0: SEEN_TOLERANCE, 10.0: UNSEEN_TOLERANCE}
EXACT = {1.0: 1e-4, 10.0: 1e-3}
MINIMUM = 1e-6  # a tolerance


def by_scikit_learn(x: np.ndarray, y: np.ndarray, weights: np.ndarray, c: float) -> np.ndarray:
    """Probabilities for all rows, fitted on those with weight."""
    x, used = x.astype(np.float64), weights > 0
    with one_blas_thread():
        model = LogisticRegression(C=c, tol=1e-7, max_iter=10_000)
        return model.fit(x[used], y[used], weights[used]).predict_proba(x)


def probabilities(models: Logistic, m: int, x: np.ndarray) -> np.ndarray:
    return softmax(models.logits(m, x), axis=1)


def third(n: int) -> np.ndarray:
    """A pilot: every third row, standing for three."""
    pilot = np.zeros(n, dtype=np.float32)
    pilot[::3] = 3
    return pilot


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("c", C)
@pytest.mark.parametrize("classes", [2, 3, 11])
@pytest.mark.parametrize("pilot", [None, third(400)], ids=["from nothing", "from a pilot"])
def test_it_is_scikit_learns_model(
    classes: int, c: float, device: str, pilot: np.ndarray | None
) -> None:
    x, y, weights = noisy(400, classes)
    weights[1] = np.random.default_rng(0).uniform(0.1, 5, 400)
    found = fit_logistic(x, y, classes, weights, c, TOLERANCE[c], pilot=pilot, device=device)
    assert found.converged.all()
    for m in range(4):
        expected = by_scikit_learn(x, y, weights[m], c)
        assert np.abs(probabilities(found, m, x) - expected).max() <= EXACT[c]


@pytest.mark.parametrize("pilot", [False, True], ids=["from nothing", "from a pilot"])
def test_it_is_scikit_learns_model_on_real_features(pilot: bool) -> None:
    try:
        data = load_stand_in(DEFAULT_FOLDER, "dtd")
    except DataMissingError as error:
        pytest.skip(str(error))
    classes = len(data.texts)
    y = draw_noise(data.labels, classes, "symmetric", 0.3, seed=1)
    x = data.features
    unseen = np.arange(len(y)) < len(y) // 5
    balanced = (len(y) / (classes * np.bincount(y)))[y]
    for c, weights, rows in ((1.0, balanced, slice(None)), (10.0, ~unseen, unseen)):
        weights = weights[None].astype(np.float32)
        some = third(len(y)) if pilot else None
        found = fit_logistic(x, y, classes, weights, c, TOLERANCE[c], pilot=some)
        expected = by_scikit_learn(x, y, weights[0], c)[rows]
        assert np.abs(probabilities(found, 0, x[rows]) - expected).max() <= EXACT[c]


def test_two_labels_of_a_row_count_by_their_shares() -> None:
    x, y, weights = noisy(300, 5)
    other, share = (y + 1) % 5, np.random.default_rng(0).uniform(0, 1, 300).astype(np.float32)
    found = fit_logistic(x, y, 5, weights, 10, 1e-4, doubts=(other, share), pilot=third(300))
    twice = np.concatenate([x, x]), np.concatenate([y, other])
    for m in range(4):
        both = np.concatenate([weights[m] * (1 - share), weights[m] * share])
        expected = by_scikit_learn(*twice, both, 10)[:300]
        assert probabilities(found, m, x) == pytest.approx(expected, abs=1e-3)


def test_many_models_at_once_are_the_models_one_by_one() -> None:
    x, y, weights = noisy(300, 5)
    for pilot in (None, third(300)):
        together = fit_logistic(x, y, 5, weights, 10, 2e-4, pilot=pilot)
        for m in range(4):
            alone = fit_logistic(x, y, 5, weights[m : m + 1], 10, 2e-4, pilot=pilot)
            expected = probabilities(together, m, x)
            assert probabilities(alone, 0, x) == pytest.approx(expected, abs=1e-3)


def test_a_pilot_saves_passes() -> None:
    x, _, _ = make_data(5000, 40)
    y, weights = np.arange(5000) % 40, np.ones((1, 5000), dtype=np.float32)
    fifth = np.float32(5) * (np.random.default_rng(0).random(5000) < 0.2)
    nothing, some = (fit_logistic(x, y, 40, weights, 10, 2e-4, pilot=p) for p in (None, fifth))
    assert some.passes < 0.6 * nothing.passes
    assert probabilities(some, 0, x) == pytest.approx(probabilities(nothing, 0, x), abs=1e-3)


def test_classes_that_know_of_each_other_save_passes(monkeypatch: pytest.MonkeyPatch) -> None:
    x, _, _ = make_data(5000, 100)
    y, weights = np.arange(5000) % 100, np.ones((1, 5000), dtype=np.float32)
    together = fit_logistic(x, y, 100, weights, 10, 2e-4, pilot=third(5000))
    monkeypatch.setattr(coupling, "_MOST_COLUMNS", 0)
    alone = fit_logistic(x, y, 100, weights, 10, 2e-4, pilot=third(5000))
    assert together.passes < 0.9 * alone.passes
    assert probabilities(together, 0, x) == pytest.approx(probabilities(alone, 0, x), abs=1e-3)


def test_a_step_moves_no_model_along_what_its_classes_share() -> None:
    x, y, weights = noisy(300, 5)
    found = fit_logistic(x, y, 5, weights, 10, 2e-4, pilot=third(300))
    for together in (found.coefficients.sum(axis=1), found.intercepts.sum(axis=1)):
        assert np.abs(together).max() < 1e-6 * np.abs(found.coefficients).max()


def test_many_classes_begin_with_one_shape(monkeypatch: pytest.MonkeyPatch) -> None:
    x, y, weights = noisy(300, 5)
    expected = fit_logistic(x, y, 5, weights, 10, MINIMUM, pilot=third(300))
    monkeypatch.setattr(curvature, "MOST_NUMBERS", 5 * 17**2 - 1)
    monkeypatch.setattr(logistic, "at_model", None)
    found = fit_logistic(x, y, 5, weights, 10, MINIMUM, pilot=third(300))
    for m in range(4):
        difference = probabilities(found, m, x) - probabilities(expected, m, x)
        assert np.abs(difference).max() < 1e-4


def test_cores_and_repetition_change_no_bit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(logistic_rows, "_BLOCK", {"cpu": 0})  # the smallest blocks
    monkeypatch.setattr(curvature, "_CLASSES", 2)
    monkeypatch.setattr(curvature, "_ROWS_OF_BLOCK", 128)
    monkeypatch.setattr(curvature, "_MOST_LOOKED_AT", 400)
    monkeypatch.setattr(coupling, "_ROWS_OF_BLOCK", 5)
    x, y, weights = noisy(3000, 7, 64)
    found = []
    for cores in (1, 2, 5):
        monkeypatch.setattr(fitting, "_cores", lambda cores=cores: cores)
        found.append(fit_logistic(x, y, 7, weights, 10, 2e-4, pilot=third(3000)))
    for one, other in itertools.pairwise(found):
        assert np.array_equal(one.coefficients, other.coefficients)
        assert np.array_equal(one.intercepts, other.intercepts)


def test_blocks_do_not_show(monkeypatch: pytest.MonkeyPatch) -> None:
    x, y, weights = noisy(1000, 4)
    whole = fit_logistic(x, y, 4, weights, 10, 2e-4)
    monkeypatch.setattr(logistic_rows, "_ROWS_OF_BLOCK", {"cpu": (7, 7)})
    parts = fit_logistic(x, y, 4, weights, 10, 2e-4)
    for m in range(4):
        assert probabilities(parts, m, x) == pytest.approx(probabilities(whole, m, x), abs=1e-3)


def test_rows_without_weight_play_no_part() -> None:
    x, y, weights = noisy(300, 5)
    garbled = x.copy()
    garbled[:150] = x[150:][::-1]  # the rows that the last model does not see
    found = fit_logistic(x, y, 5, weights[3:], 10, 1e-5)
    other = fit_logistic(garbled, y, 5, weights[3:], 10, 1e-5)
    assert probabilities(other, 0, x) == pytest.approx(probabilities(found, 0, x), abs=1e-4)


def test_all_rows_alike() -> None:
    x = np.ones((20, 3), dtype=np.float32) / np.sqrt(3).astype(np.float32)
    y = np.arange(20) % 4 // 3  # a quarter of the rows in class 1
    found = fit_logistic(x, y, 2, np.ones((1, 20), np.float32), 1.0, 1e-5)
    assert found.converged.all()
    assert probabilities(found, 0, x)[0] == pytest.approx([0.75, 0.25], abs=1e-4)


@pytest.mark.parametrize("line", [False, True])
def test_many_rows_of_little_variety(line: bool) -> None:
    random = np.random.default_rng(0)
    x = np.ones((1500, 4), dtype=np.float32) / 2
    if line:
        x[:, 0] += random.normal(0, 1e-3, 1500)
    y = (random.random(1500) < 0.3).astype(np.int64)
    weights = np.full((1, 1500), 1e4, dtype=np.float32)
    found = fit_logistic(x, y, 2, weights, 10, 2e-4, pilot=np.ones(1500, dtype=np.float32))
    expected = by_scikit_learn(x, y, weights[0], 10)
    assert probabilities(found, 0, x) == pytest.approx(expected, abs=2e-3)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize("pilot", [None, third(300)], ids=["from nothing", "from a pilot"])
def test_features_that_do_not_fit_on_the_gpu(
    monkeypatch: pytest.MonkeyPatch, pilot: np.ndarray | None
) -> None:
    x, y, weights = noisy(300, 5)
    expected = fit_logistic(x, y, 5, weights, 10, MINIMUM, pilot=pilot, device="cuda")
    monkeypatch.setattr(logistic_rows, "_free_bytes", lambda device: 0)
    found = fit_logistic(x, y, 5, weights, 10, MINIMUM, pilot=pilot, device="cuda")
    assert probabilities(found, 0, x) == pytest.approx(probabilities(expected, 0, x), abs=1e-4)


def test_where_the_gpu_is_too_small_the_cpu_goes_on(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    x, y, weights = noisy(300, 5)
    rows_here = logistic.Rows

    def rows(*args: Any) -> logistic_rows.Rows:
        if args[5].type == "cuda":
            raise torch.cuda.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")
        return rows_here(*args)

    monkeypatch.setattr(logistic, "Rows", rows)
    found = fit_logistic(x, y, 5, weights, 10, MINIMUM, pilot=third(300), device="cuda")
    expected = fit_logistic(x, y, 5, weights, 10, MINIMUM, pilot=third(300))
    np.testing.assert_array_equal(found.coefficients, expected.coefficients)
    [said] = caplog.messages
    assert "on the CPU" in said and "2.00 GiB" in said
    # Other processes would wait for ever for what this one has to tell them
    with pytest.raises(torch.cuda.OutOfMemoryError):
        fit_logistic(x, y, 5, weights, 10, MINIMUM, device="cuda", team=logistic_rows.Team())


def test_a_fit_that_may_not_go_on_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(logistic, "MAX_PASSES", 3)
    x, y, weights = noisy(300, 5)
    found = fit_logistic(x, y, 5, weights, 10, 2e-4)
    assert found.passes == 3
    assert not found.converged.any()
    assert np.isfinite(found.coefficients).all()
