"""Classes that another has taken the place of: when they are found, and what they are given."""

from __future__ import annotations

import numpy as np
import pytest

from clipcleaner_plugin import cleaning
from clipcleaner_plugin.cleaning import clean_labels
from clipcleaner_plugin.displaced import with_places
from clipcleaner_plugin.fitting import one_blas_thread
from clipcleaner_plugin.labeled import Labeled

K = 3


def places(*rows: tuple[int, int, int, float]) -> tuple[np.ndarray, np.ndarray]:
    """Looks and labels: so many rows, which look like a class, their label, and how far they do."""
    looks, labels = [], []
    for count, look, label, lead in rows:
        looks += [np.where(np.arange(K) == look, 0, -lead)] * count
        labels += [label] * count
    return np.array(looks, dtype=np.float32), np.array(labels)


def given_back(
    looks: np.ndarray,
    labels: np.ndarray,
    judged: np.ndarray | None = None,
    lead: float = 1.0,
    weights: np.ndarray | None = None,
) -> np.ndarray | None:
    shares = np.full((len(labels), K), 1 / K, dtype=np.float32)
    if judged is None:
        judged = np.ones(len(labels), dtype=bool)
    if weights is None:
        weights = np.ones(len(labels), dtype=np.float32)
    rows = Labeled(looks, None, labels, np.where(judged, 0, -1), weights)
    return with_places(rows, looks, shares, lead)


def test_a_class_that_has_its_place_keeps_it() -> None:
    looks, labels = places((50, 0, 0, 1), (20, 0, 1, 1), (20, 1, 1, 1), (10, 1, 0, 1))
    assert given_back(looks, labels) is None


def test_images_that_look_like_neither_are_the_displaced_class() -> None:
    # Label 1 has settled on images of class 0; its own look like class 2
    looks, labels = places((50, 0, 0, 1), (20, 0, 1, 1), (50, 1, 0, 1), (20, 1, 1, 1), (8, 2, 1, 1))
    shares = given_back(looks, labels)
    assert shares is not None
    assert shares.argmax(axis=1).tolist() == [0] * 140 + [1] * 8
    assert set(shares.ravel().tolist()) == {0, 1}


def test_images_that_are_farther_from_the_leading_class_than_its_own_are_the_displaced_one() -> (
    None
):
    looks, labels = places(
        (100, 0, 0, 1), (50, 0, 1, 1), (40, 1, 0, 1), (20, 1, 1, 1), (10, 1, 1, 5), (3, 1, 2, 5)
    )
    shares = given_back(looks, labels)
    assert shares is not None
    assert np.flatnonzero(shares[:, 1]).tolist() == list(range(210, 223))
    assert np.flatnonzero(shares[:, 0]).tolist() == list(range(210))


def test_a_label_may_nearly_lead() -> None:
    looks, labels = places((50, 0, 0, 1), (20, 0, 1, 1), (40, 1, 0, 1), (50, 1, 1, 1), (8, 2, 1, 1))
    assert given_back(looks, labels, lead=1.0) is None
    assert given_back(looks, labels, lead=0.75) is not None


def test_a_label_leads_by_what_its_rows_stand_for() -> None:
    looks, labels = places((50, 0, 0, 1), (20, 0, 1, 1), (19, 1, 0, 1), (20, 1, 1, 1), (8, 2, 1, 1))
    one = np.ones(len(labels), dtype=np.float32)
    assert given_back(looks, labels) is None
    assert given_back(looks, labels, weights=np.where(labels == 0, 2 * one, one)) is not None


def test_two_displaced_classes_leave_each_other_what_is_theirs() -> None:
    looks, labels = places(
        (50, 0, 0, 1), (50, 1, 0, 1), (20, 1, 1, 1), (50, 2, 0, 1), (20, 2, 2, 1), (8, 2, 1, 1),
        (8, 1, 2, 1),
    )  # fmt: skip
    shares = given_back(looks, labels)
    assert shares is not None
    assert shares.argmax(axis=1).tolist() == [0] * 190 + [1] * 8 + [2] * 8


def test_a_class_without_labels_has_nothing_to_be_given_back() -> None:
    looks, labels = places((50, 0, 0, 1), (50, 1, 1, 1), (20, 2, 0, 1), (6, 2, 1, 5))
    assert given_back(looks, labels) is None


@pytest.mark.parametrize(("own", "found"), [(4, False), (5, True)])
def test_few_images_are_not_a_place(own: int, found: bool) -> None:
    looks, labels = places(
        (50, 0, 0, 1), (20, 0, 1, 1), (50, 1, 0, 1), (20, 1, 1, 1), (own, 2, 1, 1)
    )
    assert (given_back(looks, labels) is not None) == found


def test_images_that_no_model_judges_play_no_part() -> None:
    looks, labels = places((50, 0, 0, 1), (20, 0, 1, 1), (50, 1, 0, 1), (20, 1, 1, 1), (8, 2, 1, 1))
    judged = np.arange(len(labels)) < 144
    assert given_back(looks, labels, judged) is None
    judged[144] = True
    shares = given_back(looks, labels, judged)
    assert shares is not None
    assert shares[145:] == pytest.approx(1 / K)


@pytest.mark.parametrize(("classes", "spread"), [(5, 0.3), (8, 0.5)])
def test_a_small_class_that_a_large_one_is_mistaken_for_is_found_again(
    classes: int, spread: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    random = np.random.default_rng(0)
    truth = np.repeat(np.arange(classes), [300, 20, *[50] * (classes - 2)])
    features = random.standard_normal((classes, 32))[truth]
    features = features + spread * random.standard_normal((len(truth), 32))
    features = (features / np.linalg.norm(features, axis=1, keepdims=True)).astype(np.float32)
    labels = np.where(random.random(len(truth)) < 0.3, (truth + 1) % classes, truth)
    order = random.permutation(len(truth))
    features, truth, labels = features[order], truth[order], labels[order]
    fold_of, weights = np.arange(len(truth)) % 5, np.ones(len(truth), dtype=np.float32)

    def found() -> float:
        with one_blas_thread():
            cleaned = clean_labels(Labeled(features, None, labels, fold_of, weights), classes)
            doubts = cleaned.doubts(features, None, labels, fold_of)[1] > 0.5
        return float(np.mean(doubts == (labels != truth)))

    assert found() > 0.99
    monkeypatch.setattr(cleaning, "with_places", lambda *arguments: None)
    assert found() < 0.9
