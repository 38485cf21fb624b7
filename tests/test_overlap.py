"""Right labels of images that look just like another class, beside labels that are wrong."""

from __future__ import annotations

import numpy as np
import pytest

from clipcleaner_plugin.scoring import LabelScores, score_labels

CLASSES, EACH = 40, 40


@pytest.fixture(scope="module", params=[True, False], ids=["with names", "without names"])
def images(request: pytest.FixtureRequest) -> tuple[np.ndarray, np.ndarray, np.ndarray | None]:
    """Features of clear classes, but that ten images of class 3 look like class 7; truth, names."""
    random = np.random.default_rng(0)
    centres = random.standard_normal((CLASSES, 64))
    truth = np.repeat(np.arange(CLASSES), EACH)
    looks = truth.copy()
    looks[np.flatnonzero(truth == 3)[:10]] = 7
    features = centres[looks] + 0.8 * random.standard_normal((len(truth), 64))
    features /= np.linalg.norm(features, axis=1, keepdims=True)
    return features.astype(np.float32), truth, centres if request.param else None


def odd_ones(found: LabelScores, truth: np.ndarray) -> np.ndarray:
    return found.clean_score[np.flatnonzero(truth == 3)[:10]]


def test_one_class_that_looks_like_another_is_no_heap_of_errors(
    images: tuple[np.ndarray, np.ndarray, np.ndarray | None],
) -> None:
    features, truth, names = images
    found = score_labels(features, truth, names)
    assert not np.any(found.verdict == "mislabeled")
    odd = odd_ones(found, truth)
    assert odd.max() < np.delete(found.clean_score, np.flatnonzero(truth == 3)[:10]).min()
    assert odd.min() > 0.5 and np.median(odd) < 0.9, "they are to be looked at first, all the same"


def test_where_all_classes_lose_labels_to_one_other_they_are_errors(
    images: tuple[np.ndarray, np.ndarray, np.ndarray | None],
) -> None:
    features, truth, names = images
    labels = truth.copy()
    flipped = np.random.default_rng(1).random(len(labels)) < 0.25
    labels[flipped] = (truth[flipped] - 4) % CLASSES  # 7 is taken for 3
    found = score_labels(features, labels, names)
    wrong = labels != truth
    assert np.mean(found.verdict[wrong] == "mislabeled") > 0.99
    assert odd_ones(found, truth)[~wrong[truth == 3][:10]].max() < 0.2
