"""Logistic regression on noisy labels: folds by content, out of fold, log-probabilities."""

from __future__ import annotations

import logging
from typing import Any

import numpy as np
import pytest
from feature_clusters import flip, make_clusters
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.linear_model import LogisticRegression

from clipcleaner_plugin import cleaning, logistic, visual
from clipcleaner_plugin.visual import ALWAYS_TRAIN, assign_folds, fit_visual, row_hashes


def test_hashes_are_of_the_content() -> None:
    rows = np.arange(12, dtype=np.float32).reshape(4, 3)
    rows[3] = rows[0]
    hashes = row_hashes(rows, 51)
    assert len(set(hashes.tolist())) == 3
    assert hashes[3] == hashes[0]
    assert np.array_equal(row_hashes(rows[::-1], 51), hashes[::-1])
    assert set(row_hashes(rows, 52).tolist()).isdisjoint(hashes.tolist())
    assert row_hashes(np.zeros((0, 3), np.float32), 51).shape == (0,)


@given(
    st.lists(st.integers(0, 3), min_size=1, max_size=60),
    st.integers(2, 6),
    st.randoms(use_true_random=False),
)
def test_folds_are_stratified_and_follow_a_permutation(
    labels: list[int], folds: int, random: np.random.RandomState
) -> None:
    y = np.array(labels)
    hashes = np.arange(len(y), dtype=np.uint64) * np.uint64(7919)
    assigned = assign_folds(hashes, y, folds)
    for label in np.unique(y):
        members = assigned[y == label]
        if len(members) == 1:
            assert members[0] == ALWAYS_TRAIN
        else:
            sizes = np.bincount(members, minlength=folds)
            assert sizes.max() - sizes.min() <= 1
            assert len(sizes) == folds
    order = np.array(random.sample(range(len(y)), len(y)))
    assert np.array_equal(assign_folds(hashes[order], y[order], folds), assigned[order])


def test_small_classes_do_not_crowd_the_first_folds() -> None:
    hashes = np.arange(20, dtype=np.uint64)
    assigned = assign_folds(hashes, np.repeat(np.arange(10), 2), 5)
    assert np.bincount(assigned).tolist() == [4] * 5


def test_copies_of_an_image_share_a_fold() -> None:
    hashes = np.array([5, 5, 5, 9, 9, 1], dtype=np.uint64)
    assigned = assign_folds(hashes, np.zeros(6, dtype=int), 3)
    assert len(set(assigned[:3])) == len(set(assigned[3:5])) == 1
    assert len(set(assigned)) == 3


def test_a_class_of_copies_has_nothing_to_learn_from() -> None:
    hashes = np.array([5, 5, 1, 2], dtype=np.uint64)
    assigned = assign_folds(hashes, np.array([0, 0, 1, 1]), 2)
    assert assigned[:2].tolist() == [ALWAYS_TRAIN] * 2
    assert sorted(assigned[2:]) == [0, 1]


@pytest.mark.parametrize("classes", [2, 5])
def test_the_model_of_all_samples_is_scikit_learns_balanced_one(classes: int) -> None:
    data = make_clusters(120, classes)
    labels = flip(data.truth, classes, 0.3)
    labels[labels == 1] = 0  # class 1 has no samples, class 0 twice as many
    labels[:3] = 1 if classes == 2 else labels[:3]
    x = data.images.astype(np.float64)
    model = LogisticRegression(C=1, class_weight="balanced", tol=1e-9, max_iter=10_000)
    expected = model.fit(x, labels).predict_proba(x)
    found = np.exp(fit_visual(data.images, labels, np.arange(120) % 2, classes).seen(data.images))
    assert found[:, model.classes_] == pytest.approx(expected, abs=1e-4)
    absent = np.setdiff1d(np.arange(classes), model.classes_)
    assert np.all(found[:, absent] == 0)


def test_every_sample_is_predicted_by_a_model_that_has_not_seen_it() -> None:
    data = make_clusters(60, 3)
    fold_of = np.arange(60) % 4
    fold_of[5] = ALWAYS_TRAIN
    found = fit_visual(data.images, data.truth, fold_of, 3).unseen(data.images, fold_of)
    x = data.images.astype(np.float64)
    for fold in range(4):
        test = fold_of == fold
        model = LogisticRegression(C=10, tol=1e-9, max_iter=10_000).fit(x[~test], data.truth[~test])
        assert np.exp(found[test]) == pytest.approx(model.predict_proba(x[test]), abs=1e-3)
    assert np.isnan(found[5]).all()
    assert not np.isnan(np.delete(found, 5, axis=0)).any()


def test_many_samples_begin_from_a_quarter_of_them(monkeypatch: pytest.MonkeyPatch) -> None:
    data = make_clusters(400, 4)
    labels, fold_of = flip(data.truth, 4, 0.3), np.arange(400) % 5
    whole = fit_visual(data.images, labels, fold_of, 4)
    pilots = []

    def fit(*args: Any, **kwargs: Any) -> logistic.Logistic:
        pilots.append(kwargs["pilot"])
        return logistic.fit_logistic(*args, **kwargs)

    monkeypatch.setattr(visual, "fit_logistic", fit)
    monkeypatch.setattr(cleaning, "_ROWS_OF_CLASS", 5)
    for least, sizes in ((30, [100, 100]), (300, [None, 300])):
        monkeypatch.setattr(cleaning, "_LEAST_ROWS", least)
        part = fit_visual(data.images, labels, fold_of, 4)
        taken = [None if pilot is None else np.sum(pilot > 0) for pilot in pilots[-2:]]
        assert taken == [size and pytest.approx(size, abs=4) for size in sizes]
        assert all(pilot is None or pilot.sum() == pytest.approx(400) for pilot in pilots)
        for found, expected in (
            (part.seen(data.images), whole.seen(data.images)),
            (part.unseen(data.images, fold_of), whole.unseen(data.images, fold_of)),
        ):
            assert np.exp(found) == pytest.approx(np.exp(expected), abs=1e-3)


def test_nothing_to_predict_is_no_error() -> None:
    data = make_clusters(3, 3)
    nowhere = np.full(3, ALWAYS_TRAIN)
    models = fit_visual(data.images, data.truth, nowhere, 3)
    assert np.isnan(models.unseen(data.images, nowhere)).all()
    assert models.seen(data.images).argmax(axis=1).tolist() == data.truth.tolist()


@settings(max_examples=5)
@given(st.integers(0, 100))
def test_rows_are_distributions(seed: int) -> None:
    data = make_clusters(40, 4, seed=seed)
    fold_of = assign_folds(row_hashes(data.images, seed), data.truth, 3)
    models = fit_visual(data.images, data.truth, fold_of, 5)
    for log_probs in (models.seen(data.images), models.unseen(data.images, fold_of)):
        assert np.exp(log_probs).sum(axis=1) == pytest.approx(np.ones(40))
        assert np.all(np.isneginf(log_probs[:, 4]))


def test_a_fit_that_does_not_converge_is_logged(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(logistic, "MAX_PASSES", 2)
    data = make_clusters(60, 3)
    with caplog.at_level(logging.WARNING, "clipcleaner_plugin"):
        fit_visual(data.images, data.truth, np.arange(60) % 2, 3)
    assert "3 of 3 logistic regressions did not converge in 2 passes" in caplog.text
