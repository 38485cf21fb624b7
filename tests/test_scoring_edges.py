"""Scores where there is little to go by: one class, one image of a class, images all alike."""

from __future__ import annotations

import logging

import numpy as np
import pytest
from feature_clusters import Clusters, make_clusters

from clipcleaner_plugin.scoring import score_labels

CLASSES = 4


@pytest.fixture(scope="module")
def clusters() -> Clusters:
    return make_clusters(200, CLASSES)


@pytest.mark.parametrize(("takers", "kept"), [(1, 10), (1, 20), (3, 5), (3, 20)])
@pytest.mark.parametrize("with_texts", [True, False])
def test_a_class_whose_labels_are_lost_to_one_or_all_others_is_found_again(
    takers: int, kept: int, with_texts: bool
) -> None:
    data = make_clusters(200, 4, spread=0.1)
    labels = data.truth.copy()
    lost = np.flatnonzero(data.truth == 3)[kept:]
    labels[lost] = np.arange(len(lost)) % takers
    found = score_labels(data.images, labels, data.texts if with_texts else None)
    assert np.array_equal(found.suggested_label, data.truth)
    assert np.array_equal(found.verdict == "mislabeled", labels != data.truth)


def test_the_only_image_of_a_class_is_judged_by_language(clusters: Clusters) -> None:
    images = np.concatenate([clusters.images, clusters.texts[[3]], clusters.texts[[0]]])
    keep = np.concatenate([clusters.truth != 3, [True, True]])
    texts = np.concatenate([clusters.texts, -clusters.texts[[0]]])
    labels = np.concatenate([clusters.truth, [3, 4]])[keep]
    found = score_labels(images[keep], labels, texts)
    right, wrong = found.verdict[-2:], found.clean_score[-2:]
    assert right[0] == "clean" and wrong[0] > 0.5
    assert found.suggested_label[-1] == 0 and wrong[1] < 0.5
    assert not np.isnan(found.evidence["margin"]).any()
    assert "2 samples belong to classes that have only one" in found.warnings[0]
    assert "language alone" in found.warnings[0]


def test_without_language_the_only_image_of_a_class_is_unscorable(clusters: Clusters) -> None:
    images = np.concatenate([clusters.images, clusters.texts[[0]]])
    labels = np.concatenate([clusters.truth, [CLASSES]])
    found = score_labels(images, labels)
    assert found.verdict[-1] == "unscorable"
    assert np.isnan([values[-1] for values in found.evidence.values()]).all()
    assert not found.selected[-1]
    assert np.all(found.verdict[:-1] != "unscorable")
    assert "unscorable" in found.warnings[0]


def test_one_class_with_many_and_one_with_one(clusters: Clusters) -> None:
    labels = np.zeros(200, dtype=int)
    labels[5] = 1
    found = score_labels(clusters.images, labels)
    assert np.flatnonzero(found.verdict == "unscorable").tolist() == [5]


def test_every_class_has_one_image() -> None:
    data = make_clusters(4, 4, spread=0.05)
    by_language = score_labels(data.images, data.truth, data.texts)
    assert by_language.language_weight == 1
    assert by_language.suggested_label.tolist() == [0, 1, 2, 3]
    assert by_language.selected.all()
    assert np.all(score_labels(data.images, data.truth).verdict == "unscorable")


def test_two_samples_a_class() -> None:
    data = make_clusters(6, 3, spread=0.05)
    found = score_labels(data.images, data.truth)
    assert np.isfinite(found.clean_score).all()
    assert found.suggested_label.tolist() == data.truth.tolist()


def test_all_samples_of_one_class(clusters: Clusters) -> None:
    labels = np.zeros(200, dtype=int)
    found = score_labels(clusters.images, labels, clusters.texts)
    assert np.isnan(found.evidence["visual_loss"]).all()
    assert np.isfinite(found.evidence["zeroshot_loss"]).all()
    assert found.language_weight == 1
    assert np.mean((found.verdict == "mislabeled") == (clusters.truth != 0)) > 0.95
    assert "one class" in found.warnings[0] and "language alone" in found.warnings[0]
    silent = score_labels(clusters.images, labels, num_classes=CLASSES)
    assert np.all(silent.verdict == "unscorable")
    assert "one class" in silent.warnings[0] and "unscorable" in silent.warnings[0]


def test_a_list_of_one_class(clusters: Clusters, caplog: pytest.LogCaptureFixture) -> None:
    labels = np.zeros(200, dtype=int)
    with caplog.at_level(logging.WARNING, "clipcleaner_plugin"):
        found = score_labels(clusters.images, labels, clusters.texts[:1])
    assert np.all(found.verdict == "unscorable")
    assert np.all(found.suggested_label == -1)
    assert not found.selected.any()
    assert "only one class" in found.warnings[0]
    assert "only one class" in caplog.text


def test_all_images_alike() -> None:
    images = np.ones((40, 5))
    labels = np.arange(40) % 2
    with_language = score_labels(images, labels, np.eye(2, 5))
    assert np.isfinite(with_language.clean_score).all()
    assert np.all(with_language.evidence["zeroshot_loss"] == 1)
    assert np.all(score_labels(images, labels).verdict == "unscorable")


def test_probabilities_that_vanish_stay_defined() -> None:
    """The given class is so improbable that its probability underflows."""
    images = np.repeat(np.array([[1.0, 0.0], [-1.0, 0.0]]), 30, axis=0)
    images += np.random.default_rng(0).normal(0, 1e-3, images.shape)
    labels = np.repeat([0, 1], 30)
    labels[[0, 59]] = [1, 0]
    found = score_labels(images, labels, np.array([[1.0, 0.0], [-1.0, 0.0]]), temperature=1e-4)
    for values in (found.clean_score, *found.evidence.values()):
        assert np.isfinite(values).all()
    assert np.flatnonzero(found.verdict == "mislabeled").tolist() == [0, 59]
