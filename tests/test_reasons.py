"""The reason of a flagged label, in one line."""

from __future__ import annotations

import numpy as np
import pytest

from clipcleaner_plugin.reasons import reasons


def explain(**changed: object) -> list[str | None]:
    arrays = {
        "asked": np.array([True, False, True]),
        "labels": np.array([0, 1, 2]),
        "language_label": np.array([1, 1, 1]),
        "language_confidence": np.array([0.912, 1, 0.5], dtype=np.float32),
        "visual_label": np.array([1, 1, 0]),
        "visual_confidence": np.array([0.88, 1, 0.3], dtype=np.float32),
        "given_confidence": np.array([0.03, 1, 0.2], dtype=np.float32),
        "open_set": np.zeros(3, dtype=bool),
    }
    return reasons(classes=["cat", "dog", "snow: owl"], **(arrays | changed))


def test_each_opinion_is_named_with_its_probability() -> None:
    assert explain() == [
        "words: dog .91; looks: dog .88; given: cat .03",
        None,
        "words: dog .50; looks: cat .30; given: snow: owl .20",
    ]


def test_an_opinion_that_does_not_exist_is_left_out() -> None:
    none, nan = np.full(3, -1), np.full(3, np.nan, dtype=np.float32)
    without_words = explain(language_label=none, language_confidence=nan)
    assert without_words[0] == "looks: dog .88; given: cat .03"
    without_looks = explain(visual_label=none, visual_confidence=nan)
    assert without_looks[2] == "words: dog .50; given: snow: owl .20"


def test_an_image_of_no_class_is_said_to_be_one() -> None:
    found = explain(open_set=np.array([False, True, True]))
    assert found == [
        "words: dog .91; looks: dog .88; given: cat .03",
        None,
        "words: dog .50; looks: cat .30; given: snow: owl .20; probably none of the classes",
    ]


@pytest.mark.parametrize(
    ("p", "text"),
    [(0, "<.01"), (0.0099, "<.01"), (0.01, ".01"), (0.99, ".99"), (0.9901, ">.99"), (1, ">.99")],
)
def test_no_probability_is_said_to_be_zero_or_one(p: float, text: str) -> None:
    found = explain(given_confidence=np.full(3, p, dtype=np.float64))
    assert found[0] == f"words: dog .91; looks: dog .88; given: cat {text}"


def test_nothing_is_asked_and_nothing_said() -> None:
    assert explain(asked=np.zeros(3, dtype=bool)) == [None] * 3
