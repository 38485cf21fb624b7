"""Kinds of a class: which groups of doubted labels are right after all."""

from __future__ import annotations

import numpy as np
import pytest

from clipcleaner_plugin import cleaning
from clipcleaner_plugin.cleaning import clean_labels
from clipcleaner_plugin.fitting import one_blas_thread
from clipcleaner_plugin.gaussians import GaussianFitter
from clipcleaner_plugin.kinds import Kind, find_kinds, split
from clipcleaner_plugin.labeled import Labeled
from clipcleaner_plugin.noise_fit import start_model

DIM, SIZE = 32, 60  # of features; of a cluster
CLASSES = 3


def clusters(count: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Unit rows in clusters of 60, and the cluster of each; the fifth is beside the first."""
    random = np.random.default_rng(seed)
    centres = random.standard_normal((4, DIM))
    beside = centres[:1] + 0.5 * random.standard_normal((1, DIM))
    cluster = np.repeat(np.arange(count), SIZE)
    rows = np.concatenate([centres, beside])[cluster]
    rows = rows + 0.2 * random.standard_normal(rows.shape)
    order = random.permutation(len(rows))
    rows = (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)
    return rows[order], cluster[order]


def found_kinds(
    features: np.ndarray,
    labels: np.ndarray,
    believed: np.ndarray,
    known: list[Kind] | None = None,
    names: np.ndarray | None = None,
    weights: np.ndarray | None = None,
) -> list[Kind]:
    """The kinds of given labels, where others are believed to be the true ones."""
    shares = np.full((len(labels), CLASSES), 0.01, dtype=np.float32)
    shares[np.arange(len(labels)), believed] = 0.98
    fold_of = np.arange(len(labels)) % 5
    fold_of[-1] = -1
    if weights is None:
        weights = np.ones(len(labels), dtype=np.float32)
    model = start_model(CLASSES, 0.2)
    with one_blas_thread():
        fitter = GaussianFitter(features, fold_of, weights)
        rows = Labeled(features, names, labels, fold_of, weights)
        return find_kinds(fitter, rows, shares, model, known or [])


def as_labels(cluster: np.ndarray, *of_cluster: int) -> np.ndarray:
    return np.array(of_cluster)[cluster]


def test_images_that_look_like_none_of_the_class_they_are_said_to_be_of_are_a_kind() -> None:
    features, cluster = clusters(5)  # the fifth is said to be of the first
    labels, believed = as_labels(cluster, 0, 1, 2, 2, 2), as_labels(cluster, 0, 1, 2, 2, 0)
    [kind] = found_kinds(features, labels, believed)
    judged = np.arange(len(cluster)) < len(cluster) - 1
    assert kind.of == 2
    assert np.array_equal(kind.members, np.flatnonzero((cluster == 4) & judged))
    assert found_kinds(features, labels, believed, known=[kind]) == []


def test_images_that_look_like_the_class_they_are_said_to_be_of_are_none() -> None:
    features, cluster = clusters(4)
    believed = as_labels(cluster, 0, 1, 2, 2)
    labels = believed.copy()
    labels[np.flatnonzero(cluster == 0)[:25]] = 2
    assert found_kinds(features, labels, believed) == []


def test_images_beside_the_class_are_none_as_long_as_its_labels_are_around() -> None:
    features, cluster = clusters(5)
    believed = as_labels(cluster, 0, 1, 2, 2, 0)
    labels = believed.copy()
    labels[np.flatnonzero(cluster == 0)[:40]] = 2  # of 60; the class has a kind of its own besides
    assert found_kinds(features, labels, believed) == []


@pytest.mark.parametrize(("stands_for", "found"), [(1, 1), (2, 0)])
def test_labels_around_count_for_what_their_rows_stand_for(stands_for: int, found: int) -> None:
    features, cluster = clusters(5)
    labels, believed = as_labels(cluster, 0, 1, 2, 2, 2), as_labels(cluster, 0, 1, 2, 2, 0)
    around = np.flatnonzero(cluster == 4)[:15]
    labels[around] = believed[around] = 1  # three for one that is doubted, or three for two
    weights = np.ones(len(labels), dtype=np.float32)
    weights[around] = stands_for
    assert len(found_kinds(features, labels, believed, weights=weights)) == found


def test_images_that_look_like_a_known_kind_of_the_class_are_none() -> None:
    features, cluster = clusters(5)
    believed = as_labels(cluster, 0, 1, 2, 2, 0)
    labels = believed.copy()
    labels[np.flatnonzero(cluster == 4)[:50]] = 2
    known = Kind(0, np.flatnonzero(cluster == 4)[50:])
    assert found_kinds(features, labels, believed, known=[known]) == []


def test_images_that_look_like_a_known_kind_of_their_own_class_are_one() -> None:
    features, cluster = clusters(5)
    believed = as_labels(cluster, 0, 1, 2, 2, 0)
    labels = as_labels(cluster, 0, 1, 2, 2, 2)
    known = Kind(2, np.flatnonzero(cluster == 4)[50:])
    [kind] = found_kinds(features, labels, believed, known=[known])
    assert kind.of == 2
    assert kind.members.tolist() == np.flatnonzero(cluster == 4)[:50].tolist()


@pytest.mark.parametrize(("members", "found"), [(4, 0), (5, 1)])
def test_few_images_are_no_kind(members: int, found: int) -> None:
    features, cluster = clusters(5)
    left = (cluster < 4) | (np.cumsum(cluster == 4) <= members)
    features, cluster = features[left], cluster[left]
    labels, believed = as_labels(cluster, 0, 1, 2, 2, 2), as_labels(cluster, 0, 1, 2, 2, 0)
    assert len(found_kinds(features, labels, believed)) == found


def test_a_kind_of_the_class_they_are_said_to_be_of_is_none() -> None:
    features, cluster = clusters(5)  # the fifth is a kind of the first
    believed = as_labels(cluster, 0, 1, 2, 2, 0)
    labels = believed.copy()
    labels[np.flatnonzero(cluster == 4)[:25]] = 2
    assert found_kinds(features, labels, believed) == []


@pytest.mark.parametrize(("left", "found"), [(SIZE, 1), (10, 0)])
def test_a_class_with_few_labels_is_not_told_from_a_kind(left: int, found: int) -> None:
    features, cluster = clusters(5)
    labels, believed = as_labels(cluster, 0, 1, 2, 2, 2), as_labels(cluster, 0, 1, 2, 2, 0)
    labels[np.flatnonzero(cluster == 0)[left:]] = 1
    assert len(found_kinds(features, labels, believed)) == found


def test_names_that_contradict_count_too() -> None:
    features, cluster = clusters(5)
    labels, believed = as_labels(cluster, 0, 1, 2, 2, 2), as_labels(cluster, 0, 1, 2, 2, 0)
    names = np.zeros((len(labels), CLASSES), dtype=np.float32)
    assert len(found_kinds(features, labels, believed, names=names)) == 1
    names[np.arange(len(labels)), believed] = 1000
    assert found_kinds(features, labels, believed, names=names) == []


def test_a_kind_is_judged_by_its_own_gaussian() -> None:
    features, cluster = clusters(5)
    shares = np.eye(CLASSES, dtype=np.float32)[as_labels(cluster, 0, 1, 2, 2, 2)]
    kinds = [Kind(2, np.flatnonzero(cluster == 3)), Kind(2, np.flatnonzero(cluster == 4))]
    table = split(shares, kinds)
    assert np.array_equal(table, np.eye(5, dtype=np.float32)[cluster])
    fold_of = np.arange(len(cluster)) % 5
    with one_blas_thread():
        fitter = GaussianFitter(features, fold_of, np.ones(len(cluster), np.float32))
        gaussians = fitter.fit(table, [kind.of for kind in kinds])
        each, logits = gaussians.of_each(features, fold_of), gaussians.logits(features, fold_of)
    assert np.array_equal(logits[:, :2], each[:, :2])
    assert np.array_equal(logits[:, 2], each[:, 2:].max(axis=1))


@pytest.mark.parametrize("wrong", [0, 0.2])
def test_a_class_of_everything_else_keeps_its_labels(
    wrong: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    random = np.random.default_rng(0)
    centres = random.standard_normal((16, 64))
    centres = np.concatenate([centres, centres + 0.6 * random.standard_normal((16, 64))])
    cluster = random.permutation(np.repeat(np.arange(32), 25))
    features = centres[cluster] + 0.5 * random.standard_normal((800, 64))
    features = (features / np.linalg.norm(features, axis=1, keepdims=True)).astype(np.float32)
    truth = np.minimum(cluster, 16)  # sixteen classes, and one that holds a neighbour of each
    labels = np.where(random.random(800) < wrong, random.integers(0, 17, 800), truth)
    fold_of, weights = np.arange(800) % 5, np.ones(800, dtype=np.float32)

    def doubted() -> np.ndarray:
        with one_blas_thread():
            found = clean_labels(Labeled(features, None, labels, fold_of, weights), 17)
            return found.doubts(features, None, labels, fold_of)[1] > 0.5

    found, right = doubted(), labels == truth
    assert found[right].mean() < 0.01
    if wrong:
        assert found[~right].mean() > 0.9
        monkeypatch.setattr(cleaning, "find_kinds", lambda *arguments: [])
        assert doubted()[right].mean() > 0.05
