"""Why a label looks wrong, in one line."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np


def reasons(
    asked: np.ndarray,
    labels: np.ndarray,
    classes: Sequence[str],
    language_label: np.ndarray,
    language_confidence: np.ndarray,
    visual_label: np.ndarray,
    visual_confidence: np.ndarray,
    given_confidence: np.ndarray,
    open_set: np.ndarray,
) -> list[str | None]:
    """Writes what class names and looks hold an image for, and how probable the given label is.

    For example ``"words: dog .91; looks: dog .88; given: cat .03"``. An opinion that does not
    exist is left out. Where the image is probably of none of the classes, that is said last.

    Args:
        asked: (N,) bool, the samples to explain
        labels: (N,) int in [0, K), the given labels, where asked
        classes: K names
        language_label: (N,) int, first choice of the class names; -1 = none
        language_confidence: (N,) float in [0, 1], its probability
        visual_label: (N,) int, first choice of the classifier of looks; -1 = none
        visual_confidence: (N,) float in [0, 1], its probability
        given_confidence: (N,) float in [0, 1], probability of the given label by both
        open_set: (N,) bool, images that are probably of none of the classes

    Returns:
        one text for each sample that is asked for, None for the others
    """
    out: list[str | None] = [None] * len(labels)
    for i in np.flatnonzero(asked).tolist():
        parts = [
            f"{who}: {classes[label[i]]} {_probability(confidence[i])}"
            for who, label, confidence in (
                ("words", language_label, language_confidence),
                ("looks", visual_label, visual_confidence),
                ("given", labels, given_confidence),
            )
            if label[i] >= 0
        ]
        out[i] = "; ".join([*parts, "probably none of the classes"] if open_set[i] else parts)
    return out


def _probability(p: float) -> str:
    """Two digits, as ``.91``; what would round to 0 or 1 is said to be near it."""
    if p < 0.01:
        return "<.01"
    return ">.99" if p > 0.99 else f"{p:.2f}"[1:]
