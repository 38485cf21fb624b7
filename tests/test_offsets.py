"""What is added to the logits of language, so that it names the classes as often as they occur."""

from __future__ import annotations

import numpy as np
import pytest

from clipcleaner_plugin.offsets import fit_offsets, gain_of
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
    offsets = fit_offsets(logits, shares, weights)
    probs = np.exp(log_softmax(logits + offsets))
    # Of the images on which it may be believed: .8 p + .2 / 5 is the chance of a label
    agreement = (probs * shares).sum(axis=1)
    trust = weights * 0.8 * agreement / (0.8 * agreement + 0.2 / 5)
    assert trust @ probs == pytest.approx(trust @ shares, rel=0.03, abs=1)


def test_what_a_name_draws_too_much_is_taken_back(logits: np.ndarray) -> None:
    ones, shares = np.ones(600, np.float32), as_labels([120] * 5)
    plain = fit_offsets(logits, shares, ones)
    drawn = logits + np.array([0, 0, 0, 0, 8], np.float32)
    found = fit_offsets(drawn, shares, ones)
    lead = [offsets[4] - offsets[:4].mean() for offsets in (plain, found)]
    # Not all: for images that seem to contradict their labels it does not give way
    assert 5.5 < lead[0] - lead[1] < 8


def test_a_name_that_clearly_contradicts_wrong_labels_keeps_its_images() -> None:
    truth = as_labels([100, 100, 100])
    given = truth.copy()
    given[:80] = [0, 1, 0]  # most of the first class has the label of the second
    offsets = fit_offsets(20 * truth, given, np.ones(300, np.float32))
    assert np.abs(offsets).max() < 3


def test_a_class_that_nobody_has_is_not_ruled_out(logits: np.ndarray) -> None:
    ones = np.ones(600, np.float32)
    offsets = fit_offsets(logits, as_labels([150, 150, 150, 150, 0]), ones)
    assert np.isfinite(offsets).all()
    assert 0 < predicted(logits + offsets, ones)[4] < 60


def test_the_gain_is_what_a_mixture_with_noise_gains_by_hand() -> None:
    logits = np.log(np.array([[0.5, 0.25, 0.25], [0.2, 0.2, 0.6]], np.float32))
    offsets, labels = np.log(np.array([1, 2, 1], np.float32)), np.array([1, 2])
    # With offsets .5 / 1.25 and .6 / 1.2 instead of .25 and .6
    chances = 0.8 * np.array([[0.25, 0.6], [0.4, 0.5]]) + 0.2 / 3
    wanted = np.log(chances[1] / chances[0]) @ [1, 3]
    found = gain_of(offsets, logits, labels, np.array([1, 3], np.float32))
    assert found == pytest.approx(wanted, rel=1e-5)
