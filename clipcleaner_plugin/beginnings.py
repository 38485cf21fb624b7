"""Where the search for an explanation of given labels begins: opinions on the true ones."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

import numpy as np

from .habits import MOST_CONFUSED, weights_of_labels
from .labeled import Labeled
from .noise_model import NoiseModel
from .offsets import SUPPOSED_NOISE
from .tables import ByLabel, by_rows
from .zeroshot import log_softmax

_TRUST_EXPONENT, _SHARPNESS = 6, 4


def calibrated(logits: np.ndarray, rows: Labeled) -> np.ndarray:
    """Log-probabilities by logits, (n, K) float32, scaled to explain the given labels best.

    A fifth of the labels is supposed to be arbitrary.
    """
    from scipy.optimize import minimize_scalar

    n, k = logits.shape

    def of_given(block: slice, scale: float) -> np.ndarray:
        labels = rows.labels[block]
        return log_softmax(np.float32(scale) * logits[block])[np.arange(len(labels)), labels]

    def cost(scale: float) -> float:
        log_probs = np.concatenate(by_rows(partial(of_given, scale=scale), n, k))
        probs = np.exp(log_probs.astype(np.float64))
        mixed = np.log((1 - SUPPOSED_NOISE) * probs + SUPPOSED_NOISE / k)
        return -float((rows.weights * mixed).sum())

    found = minimize_scalar(cost, bounds=(0.01, 1), method="bounded", options={"xatol": 0.01})
    return log_softmax(np.float32(found.x) * logits)


def joint_opinion(
    images: np.ndarray, language: np.ndarray | None, rows: Labeled
) -> tuple[np.ndarray, float]:
    """What both opinions hold probable, each trusted by a power of its agreement with the labels.

    Wrong labels that do not depend on the image lower both agreements by the same factor, so that
    their ratio compares how often the two are *right*; those with a structure mislead the images
    only. The power turns a clear lead into a decision. Sharpened, since a model of wrong labels is
    less sure than it should be.

    Args:
        images: (n, K) float32, from :func:`calibrated`
        language: (n, K) float32 logits, or None
        rows: where no model judges one by its image, it tells nothing of how far to trust either

    Returns:
        (n, K) float32 probabilities, and the trust in language, in [0, 1]
    """
    joint, trust = images, 0.0
    if language is not None:
        language = log_softmax(language)
        judged = rows.judged
        right = [
            float(np.average(agrees[judged], weights=rows.weights[judged]))
            for agrees in (table.argmax(axis=1) == rows.labels for table in (language, images))
        ]
        best = max(*right, 1e-9)  # divided by it, no power runs out of digits
        by_language, by_images = ((share / best) ** _TRUST_EXPONENT for share in right)
        trust = by_language / (by_language + by_images) if by_language + by_images else 0.5
        joint = np.float32(trust) * language + np.float32(1 - trust) * images
    return np.exp(log_softmax(_SHARPNESS * joint)), trust


def start_from(
    opinion: np.ndarray, labels: np.ndarray, weights: np.ndarray, start: NoiseModel
) -> NoiseModel:
    """The confusion of classes that lies in an opinion of the images, (n, K), and their labels."""
    groups = ByLabel(labels, opinion.shape[1])
    counts = groups.sum(lambda rows: opinion[rows] * weights[rows, None]).T
    sizes = counts.sum(axis=1)
    np.fill_diagonal(counts, 0)
    by_chance = 1.5 * weights_of_labels(groups, weights)
    confusion = np.maximum(counts - by_chance, 0) / np.maximum(sizes, 1)[:, None]
    confusion *= np.minimum(1, MOST_CONFUSED / np.maximum(confusion.sum(axis=1), 1e-9))[:, None]
    return replace(start, confusion=confusion)


def by_labels(opinion: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Probability of each true label by half an opinion's log-odds, if a fifth is arbitrary."""
    any_label = np.float32(SUPPOSED_NOISE / opinion.shape[1])
    return _weighted(np.sqrt(opinion), labels, 1 - SUPPOSED_NOISE, any_label)


def by_confusion(opinion: np.ndarray, labels: np.ndarray, model: NoiseModel) -> np.ndarray:
    """Probability of each true label by an opinion and the confusion of classes."""
    any_label = np.float32(SUPPOSED_NOISE / opinion.shape[1])
    wrong = model.confusion.T[labels].astype(np.float32) + any_label
    return _weighted(opinion, labels, model.right[labels], wrong)


def _weighted(
    opinion: np.ndarray,
    labels: np.ndarray,
    right: float | np.ndarray,
    wrong: np.float32 | np.ndarray,
) -> np.ndarray:
    """An opinion times how probable it is that a label is right or, for other classes, wrong."""
    rows = np.arange(len(labels))
    shares = opinion * wrong
    shares[rows, labels] = opinion[rows, labels] * right
    return shares / shares.sum(axis=1, keepdims=True)
