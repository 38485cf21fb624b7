"""What is added to the logits of language, so that it names the classes as often as they occur."""

from __future__ import annotations

import numpy as np
import pytest

from clipcleaner_plugin.offsets import match_sizes
from clipcleaner_plugin.zeroshot import log_softmax


@pytest.fixture(scope="module")
def logits() -> np.ndarray:
    return np.random.default_rng(0).normal(0, 3, (600, 5)).astype(np.float32)


def predicted(logits: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """How many images a softmax gives to each class."""
    return weights @ np.exp(log_softmax(logits))


def test_every_class_is_predicted_as_often_as_it_occurs(logits: np.ndarray) -> None:
    weights = np.where(np.arange(600) % 2, 3, 1).astype(np.float32)
    sizes = np.array([600.0, 300.0, 150.0, 100.0, 50.0])
    offsets = match_sizes(logits, sizes, weights, np.zeros(5))
    assert predicted(logits + offsets, weights) == pytest.approx(sizes, rel=0.03, abs=1)


def test_what_a_name_draws_too_much_is_taken_back(logits: np.ndarray) -> None:
    ones, sizes = np.ones(600, np.float32), np.full(5, 120.0)
    plain = match_sizes(logits, sizes, ones, np.zeros(5))
    drawn = logits + np.array([0, 0, 0, 0, 8], np.float32)
    found = match_sizes(drawn, sizes, ones, np.zeros(5))
    assert found[4] - found[:4].mean() == pytest.approx(plain[4] - plain[:4].mean() - 8, abs=0.1)


def test_a_class_that_nobody_has_is_not_ruled_out(logits: np.ndarray) -> None:
    sizes = np.array([150.0, 150.0, 150.0, 150.0, 0.0])
    offsets = match_sizes(logits, sizes, np.ones(600, np.float32), np.zeros(5))
    assert np.isfinite(offsets).all()
    assert 0 < predicted(logits + offsets, np.ones(600, np.float32))[4] < 2
