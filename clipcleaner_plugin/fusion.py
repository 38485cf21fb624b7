"""One opinion from two: how far to trust language, the fused margin, the clean score."""

from __future__ import annotations

import numpy as np

from .evidence import given
from .mixture import fit_mixture, sigmoid
from .zeroshot import log_softmax

TRUST_EXPONENT = 6
VISUAL_FLOOR = 1e-6  # what the visual model gives to a class that it has never seen
MIN_MARGINS = 20  # a mixture of five parameters on fewer points says more of chance than of them


def agreements(zeroshot: np.ndarray, visual: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Counts how often each opinion agrees with the given labels, where both have one.

    Args:
        zeroshot: (n, K) log-probabilities of the zero-shot classifier
        visual: (n, K) out-of-fold log-probabilities of the visual one; NaN rows have no opinion
        labels: (n,) int array in [0, K)

    Returns:
        (3,) int array: rows where both have an opinion, first choices of language and of the
        images that are the given label. The counts of blocks of rows add up to those of all rows
    """
    heard = ~np.isnan(visual).all(axis=1)
    right = [np.sum(table[heard].argmax(axis=1) == labels[heard]) for table in (zeroshot, visual)]
    return np.array([heard.sum(), *right])


def language_weight(agreed: np.ndarray, exponent: float = TRUST_EXPONENT) -> float:
    """Sets the share of language in the fused opinion from the data.

    Each opinion is weighted by a power of its agreement, the share of samples whose given label
    is its first choice: ``w = a_zs^p / (a_zs^p + a_vis^p)``. Wrong labels that do not depend on
    the image lower both agreements by the same factor, so that their ratio compares how often the
    two are *right*. Wrong labels with a structure, such as pair flips, mislead the visual opinion
    only, which lowers its agreement and moves the ratio towards language, as it should. The power
    turns a small lead into a small preference and a clear one into a decision: language that is
    right half as often as the images gets a weight below .02.

    Args:
        agreed: (3,) int array from :func:`agreements`, of all rows
        exponent: ``p`` > 0

    Returns:
        the weight in [0, 1]; 1 where there is nothing but language
    """
    heard, by_language, by_images = agreed.tolist()
    if not heard:
        return 1.0
    if by_language == by_images:  # both may be 0
        return 0.5
    best = max(by_language, by_images)  # divided by it, no power runs out of digits
    language, images = (by_language / best) ** exponent, (by_images / best) ** exponent
    return language / (language + images)


def fuse(zeroshot: np.ndarray | None, visual: np.ndarray, weight: float) -> np.ndarray:
    """Joins both opinions: ``Q(k|i)`` proportional to ``P_zs^w P_vis^(1-w)``.

    Args:
        zeroshot: (N, K) log-probabilities, or None for ``weight`` 0
        visual: (N, K) log-probabilities. A class at -inf gets ``VISUAL_FLOOR``, since its lack
            of samples is no proof against it; a row of NaN leaves the decision to language
        weight: ``w`` in [0, 1]

    Returns:
        (N, K) float64 log-probabilities; NaN rows where neither has an opinion
    """
    floored = np.maximum(visual.astype(np.float64), np.log(VISUAL_FLOOR))
    if zeroshot is None:
        return log_softmax(floored)
    mixed = weight * zeroshot.astype(np.float64) + (1 - weight) * floored
    mute = np.isnan(visual).all(axis=1)
    mixed[mute] = zeroshot[mute]
    return log_softmax(mixed)


def label_margins(log_probs: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Log-odds of the given label against the best other one.

    Args:
        log_probs: (N, K) float array, K >= 2
        labels: (N,) int array in [0, K)

    Returns:
        (N,) float32 array; negative where another label is more probable
    """
    others = log_probs.copy()
    np.put_along_axis(others, labels[:, None], -np.inf, axis=1)
    return (given(log_probs, labels) - others.max(axis=1)).astype(np.float32)


def clean_scores(margins: np.ndarray, seed: int) -> np.ndarray:
    """Turns margins into probabilities that the given label is right.

    The score is the posterior of the upper component of one mixture over all margins, but never
    below that of the margin itself, ``sigmoid(m)``: a label that both opinions together hold the
    most probable is not called wrong because others have larger margins still, which a mixture
    would do wherever no label is wrong. Both components have one variance: right and wrong labels
    spread alike, and a free variance lets one component eat up the tail of the other when few
    labels are wrong. Too few margins, or equal ones, score ``sigmoid(m)``.

    Args:
        margins: (N,) float array, finite
        seed: seeds the mixture, in [0, 2**32)

    Returns:
        (N,) float32 array in [0, 1], never falling in the margin
    """
    own = sigmoid(margins)
    if len(margins) < MIN_MARGINS:
        return own.astype(np.float32)
    mixture = fit_mixture(margins, seed, tied=True)
    if mixture is None:
        return own.astype(np.float32)
    return np.maximum(mixture.posterior(margins), own).astype(np.float32)
