"""What is added to the logits of language, so that it names the classes as often as they occur."""

from __future__ import annotations

import numpy as np
import pytest

from clipcleaner_plugin.offsets import fit_offsets
from clipcleaner_plugin.zeroshot import log_softmax


@pytest.fixture(scope="module")
def logits() -> np.ndarray:
    return np.random.default_rng(0).normal(0, 3, (600, 5)).astype(np.float32)


def predicted(logits: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """How many images a softmax gives to each class."""
    return weights @ np.exp(log_softmax(logits))


def as_labels(sizes: list[int]) -> np.ndarray:
    """One-hot rows of classes with these sizes."""
    return np.eye(len(sizes), dtype=np.float32)[np.repeat(np.arange(len(sizes)), sizes)]


def test_every_class_is_predicted_as_often_as_it_occurs(logits: np.ndarray) -> None:
    shares = np.random.default_rng(1).dirichlet([6, 3, 1.5, 1, 0.5], 600).astype(np.float32)
    weights = np.where(np.arange(600) % 2, 3, 1).astype(np.float32)
    offsets = fit_offsets(logits, shares, weights, np.zeros(5))
    probs = np.exp(log_softmax(logits + offsets))
    # Of the images on which it may be believed: .8 p + .2 / 5 is the chance of a label
    agreement = (probs * shares).sum(axis=1)
    trust = weights * 0.8 * agreement / (0.8 * agreement + 0.2 / 5)
    assert trust @ probs == pytest.approx(trust @ shares, rel=0.03, abs=1)


def test_what_a_name_draws_too_much_is_taken_back(logits: np.ndarray) -> None:
    ones, shares = np.ones(600, np.float32), as_labels([120] * 5)
    plain = fit_offsets(logits, shares, ones, np.zeros(5))
    drawn = logits + np.array([0, 0, 0, 0, 8], np.float32)
    found = fit_offsets(drawn, shares, ones, np.zeros(5))
    lead = [offsets[4] - offsets[:4].mean() for offsets in (plain, found)]
    # Not all: for images that seem to contradict their labels it does not give way
    assert 5.5 < lead[0] - lead[1] < 8


def test_a_name_that_clearly_contradicts_wrong_labels_keeps_its_images() -> None:
    truth = as_labels([100, 100, 100])
    given = truth.copy()
    given[:80] = [0, 1, 0]  # most of the first class has the label of the second
    offsets = fit_offsets(20 * truth, given, np.ones(300, np.float32), np.zeros(3))
    assert np.abs(offsets).max() < 3


def test_a_class_that_nobody_has_is_not_ruled_out(logits: np.ndarray) -> None:
    ones = np.ones(600, np.float32)
    offsets = fit_offsets(logits, as_labels([150, 150, 150, 150, 0]), ones, np.zeros(5))
    assert np.isfinite(offsets).all()
    assert 0 < predicted(logits + offsets, ones)[4] < 60
