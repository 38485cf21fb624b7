"""Gaussian classes: scikit-learn's discriminant analysis on the other folds is the reference."""

from __future__ import annotations

import numpy as np
from feature_clusters import make_clusters
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis

from clipcleaner_plugin.gaussians import SHRINKAGE, GaussianFitter


def one_hot(labels: np.ndarray, k: int) -> np.ndarray:
    return np.eye(k, dtype=np.float32)[labels]


def test_coefficients_are_those_of_scikit_learn_on_the_other_folds() -> None:
    data = make_clusters(240, 4)
    fold_of = np.arange(240) // 4 % 3
    ones = np.ones(240, np.float32)
    found = GaussianFitter(data.images, fold_of, ones).fit(one_hot(data.truth, 4))
    for fold in range(3):
        rest = fold_of != fold
        reference = LinearDiscriminantAnalysis(
            solver="lsqr", shrinkage=SHRINKAGE, priors=np.full(4, 0.25)
        ).fit(data.images[rest] - found.mean, data.truth[rest])
        assert np.allclose(found.coefficients[fold], reference.coef_, rtol=1e-3, atol=1e-3)
        # Classes of one size: what is taken back of the noise in the means is the same for all
        off = found.intercepts[fold] - reference.intercept_
        assert np.ptp(off) < 1e-2


def test_a_row_is_judged_without_itself() -> None:
    data = make_clusters(200, 4)
    labels = data.truth.copy()
    labels[0] = 3
    fold_of = np.arange(200) % 5
    fitter = GaussianFitter(data.images, fold_of, np.ones(200, np.float32))
    right, wrong = fitter.fit(one_hot(data.truth, 4)), fitter.fit(one_hot(labels, 4))
    rows = fold_of == 0
    same = [g.logits(data.images[rows], fold_of[rows]) for g in (right, wrong)]
    assert np.array_equal(*same)
    assert not np.array_equal(right.coefficients[1], wrong.coefficients[1])


def test_a_weight_stands_for_copies_of_a_row() -> None:
    data = make_clusters(60, 3)
    fold_of = np.arange(60) // 3 % 2
    weights = np.where(np.arange(60) % 2, 1, 3).astype(np.float32)
    copies = np.repeat(np.arange(60), weights.astype(int))
    a = GaussianFitter(data.images, fold_of, weights).fit(one_hot(data.truth, 3))
    b = GaussianFitter(data.images[copies], fold_of[copies], np.ones(len(copies), np.float32)).fit(
        one_hot(data.truth[copies], 3)
    )
    assert np.allclose(a.coefficients, b.coefficients, rtol=1e-3, atol=1e-3)
    assert np.allclose(a.intercepts, b.intercepts, rtol=1e-3, atol=1e-3)


def test_no_fold_no_opinion() -> None:
    data = make_clusters(40, 2)
    fold_of = np.where(np.arange(40) < 3, -1, np.arange(40) // 2 % 2)
    found = GaussianFitter(data.images, fold_of, np.ones(40, np.float32)).fit(
        one_hot(data.truth, 2)
    )
    logits = found.logits(data.images, fold_of)
    assert not logits[:3].any() and logits[3:].any(axis=1).all()
    assert np.mean(logits[3:].argmax(axis=1) == data.truth[3:]) > 0.95
