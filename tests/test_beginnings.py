"""Where a search begins: by hand, and rows that stand for several."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from clipcleaner_plugin.beginnings import (
    by_confusion,
    by_labels,
    calibrated,
    joint_opinion,
    start_from,
)
from clipcleaner_plugin.labeled import Labeled
from clipcleaner_plugin.noise_fit import start_model

LABELS = np.array([0, 1, 2, 0, 1, 2, 0, 1, 2, 0])


def sure_of(classes: np.ndarray) -> np.ndarray:
    return np.where(np.eye(3, dtype=bool)[classes], 0, -20).astype(np.float32)


def opinion(
    images_wrong: int, language_wrong: int, weights: np.ndarray, unjudged: int = 0
) -> tuple[np.ndarray, float]:
    """The joint opinion on ten labels, of which images contradict the last, language the first."""
    images, language = LABELS.copy(), LABELS.copy()
    images[10 - images_wrong :] += 1
    language[:language_wrong] += 1
    looks = sure_of(images % 3)
    looks[:unjudged] = 0
    fold_of = np.where(np.arange(10) < unjudged, -1, 0)
    names = sure_of(language % 3)
    rows = Labeled(looks, names, LABELS, fold_of, weights)
    return joint_opinion(calibrated(looks, rows), names, rows)


def test_trust_is_a_power_of_how_often_each_opinion_agrees() -> None:
    one = np.ones(10, dtype=np.float32)
    assert opinion(4, 2, one)[1] == pytest.approx(8**6 / (8**6 + 6**6))
    assert opinion(0, 5, one)[1] == pytest.approx(5**6 / (5**6 + 10**6))
    # The last label, which the images contradict, stands for three: 6 and 10 of 12 agree
    of_three = np.array([1] * 9 + [3], dtype=np.float32)
    assert opinion(4, 2, of_three)[1] == pytest.approx(10**6 / (10**6 + 6**6))


def test_trust_is_measured_where_both_have_an_opinion() -> None:
    one = np.ones(10, dtype=np.float32)
    # Of the last seven labels language contradicts none, the images four
    assert opinion(4, 2, one, unjudged=3)[1] == pytest.approx(7**6 / (7**6 + 3**6))


def test_logits_are_scaled_to_be_right_as_often_as_they_say() -> None:
    # Of images that are said to be of class 0 a quarter are not: odds of three to one
    labels, looks = np.repeat([0, 1], [3000, 1000]), np.zeros((4000, 2), dtype=np.float32)
    looks[:, 1] = -10
    one = np.ones(4000, dtype=np.float32)
    found = calibrated(looks, Labeled(looks, None, labels, np.zeros(4000, dtype=int), one))
    # A fifth of all labels is arbitrary, half of that of class 0: .75 is .8 p + .1
    assert np.exp(found[0, 0]) == pytest.approx(0.8125, abs=0.01)


def test_the_more_trusted_opinion_wins() -> None:
    joint, trust = opinion(4, 1, np.ones(10, dtype=np.float32))
    assert trust > 0.5
    assert joint[1:].argmax(axis=1).tolist() == LABELS[1:].tolist()
    assert joint.sum(axis=1) == pytest.approx(np.ones(10), rel=1e-5)


@pytest.mark.parametrize("weight", [1, 10])
def test_confusion_begins_with_what_is_beyond_one_and_a_half_images(weight: int) -> None:
    # Of class 0: 20 labels of its own, 10 of class 1, 1 of class 2; of class 2: 8 of 9 are lost
    labels = np.repeat([0, 1, 2, 1, 2], [20, 10, 1, 8, 1])
    table = np.eye(3, dtype=np.float32)[np.repeat([0, 2], [31, 9])]
    weights = np.full(40, weight, dtype=np.float32)
    found = start_from(table, labels, weights, start_model(3, 0.2)).confusion
    expected = np.zeros((3, 3))
    expected[0, 1], expected[2, 1] = 8.5 / 31, 6.5 / 9
    assert found == pytest.approx(expected)


def test_no_class_begins_with_nearly_all_labels_lost() -> None:
    table = np.eye(3, dtype=np.float32)[np.zeros(90, dtype=int)]
    labels = np.repeat([1, 2], [60, 30])
    found = start_from(table, labels, np.ones(90, np.float32), start_model(3, 0.2)).confusion
    assert found[0].sum() == pytest.approx(0.8)
    assert found[0, 1] / found[0, 2] == pytest.approx(58.5 / 28.5)


def test_opinions_and_labels_are_weighed_as_by_hand() -> None:
    table = np.array([[0.6, 0.3, 0.1]], dtype=np.float32)
    label, fifth = np.array([1]), 0.2 / 3
    shares = np.sqrt(table[0]) * [fifth, 0.8, fifth]
    assert by_labels(table, label)[0] == pytest.approx(shares / shares.sum(), rel=1e-5)
    confusion = np.array([[0, 0.3, 0], [0, 0, 0.1], [0, 0, 0]])
    model = replace(start_model(3, 0.2), confusion=confusion)
    shares = table[0] * [0.3 + fifth, model.right[1], fifth]
    assert by_confusion(table, label, model)[0] == pytest.approx(shares / shares.sum(), rel=1e-5)
