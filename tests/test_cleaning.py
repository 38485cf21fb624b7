"""The first cleaning: which samples it draws, and which labels it doubts."""

from __future__ import annotations

import numpy as np
import pytest
from feature_clusters import Clusters, flip, make_clusters
from hypothesis import given
from hypothesis import strategies as st

from clipcleaner_plugin import cleaning
from clipcleaner_plugin.cleaning import clean_labels, draw_sample
from clipcleaner_plugin.fitting import one_blas_thread
from clipcleaner_plugin.labeled import Labeled


@given(
    st.lists(st.integers(0, 60), min_size=1, max_size=8),
    st.integers(1, 100),
    st.sampled_from([0, 0.25, 1]),
)
def test_a_sample_stands_for_all_and_spares_small_classes(
    sizes: list[int], limit: int, share: float
) -> None:
    labels = np.repeat(np.arange(len(sizes)), sizes)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cleaning, "_LEAST_ROWS", limit)
        patch.setattr(cleaning, "_ROWS_OF_CLASS", 2)
        sample = draw_sample(labels, len(sizes), share)
    taken = np.bincount(labels[sample.rows], minlength=len(sizes))
    stands_for = np.bincount(labels[sample.rows], sample.weights, minlength=len(sizes))
    assert np.all(np.diff(sample.rows) > 0)
    assert np.allclose(stands_for, sizes)
    assert taken.sum() <= max(limit, 2 * len(sizes), share * len(labels))
    reduced = taken < sizes
    assert not reduced.any() or taken[reduced].min() >= taken.max()  # all are cut to one height


def test_a_sample_may_be_a_share_of_all() -> None:
    labels = np.arange(100_000) % 3
    for share, size in ((0, 10_000), (0.05, 10_000), (0.25, 25_000)):
        assert len(draw_sample(labels, 3, share).rows) == pytest.approx(size, abs=3)


def rows_of(
    data: Clusters, language: np.ndarray | None, labels: np.ndarray, fold_of: np.ndarray
) -> Labeled:
    return Labeled(data.images, language, labels, fold_of, np.ones(len(labels), np.float32))


def doubts(labels: np.ndarray, texts: bool, spread: float = 0.2) -> tuple[np.ndarray, np.ndarray]:
    data = make_clusters(400, 4, spread=spread)
    fold_of = np.arange(400) // 4 % 5
    language = 100 * data.images @ data.texts.T if texts else None
    with one_blas_thread():
        found = clean_labels(rows_of(data, language, labels, fold_of), 4)
        return found.doubts(data.images, language, labels, fold_of)


@pytest.mark.parametrize("texts", [True, False])
@pytest.mark.parametrize("kind", ["none", "symmetric", "pairs"])
def test_wrong_labels_are_doubted_and_no_others(kind: str, texts: bool) -> None:
    data = make_clusters(400, 4, spread=0.2)
    labels = data.truth if kind == "none" else flip(data.truth, 4, 0.2)
    if kind == "pairs":
        labels = data.truth.copy()
        hit = np.random.default_rng(0).random(400) < 0.35
        labels[hit] = (labels[hit] + 1) % 4
    other, doubt = doubts(labels, texts)
    wrong = labels != data.truth
    assert np.array_equal(doubt > 0.5, wrong)
    assert np.array_equal(other[wrong], data.truth[wrong])
    assert doubt.mean() == pytest.approx(wrong.mean(), abs=0.02)


def test_samples_that_no_model_may_judge_are_not_doubted() -> None:
    data = make_clusters(100, 4)
    labels = flip(data.truth, 4, 0.2)
    fold_of = np.where(np.arange(100) < 50, -1, np.arange(100) // 4 % 2)
    with one_blas_thread():
        found = clean_labels(rows_of(data, None, labels, fold_of), 4)
        _, doubt = found.doubts(data.images, None, labels, fold_of)
    assert not doubt[:50].any() and doubt[50:].any()


def test_a_name_that_draws_all_images_is_set_right_where_names_tell_more_than_looks() -> None:
    data = make_clusters(400, 4, spread=0.8)
    random = np.random.default_rng(0)
    language = 8 * np.eye(4)[data.truth] + random.normal(0, 1.5, (400, 4)) + [0, 0, 0, 10]
    language = language.astype(np.float32)
    assert np.mean(language.argmax(axis=1) == 3) > 0.6
    labels = data.truth.copy()
    hit = random.random(400) < 0.3
    labels[hit] = (labels[hit] + 1) % 4
    fold_of = np.arange(400) // 4 % 5
    with one_blas_thread():
        found = clean_labels(rows_of(data, language, labels, fold_of), 4)
        _, doubt = found.doubts(data.images, language, labels, fold_of)
    assert np.mean((language + found.offsets).argmax(axis=1) == data.truth) > 0.95
    assert np.mean((doubt > 0.5) == (labels != data.truth)) > 0.97


def test_names_that_are_right_are_believed_as_they_are() -> None:
    data = make_clusters(400, 4, spread=0.3)
    language = 30 * data.images @ data.texts.T
    labels = data.truth.copy()
    lost = (data.truth == 3) & (np.arange(400) % 5 > 0)  # 80 of 100 labels of one class
    labels[lost] = 0
    fold_of = np.arange(400) // 4 % 5
    with one_blas_thread():
        found = clean_labels(rows_of(data, language, labels, fold_of), 4)
        _, doubt = found.doubts(data.images, language, labels, fold_of)
    assert not found.offsets.any()
    assert np.mean((doubt > 0.5) == lost) > 0.97
