"""Fits the model of how labels go wrong to given labels."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from .noise_likelihood import Surprise
from .noise_model import (
    HARD_SCALE,
    HARD_SHARE,
    LEAST_RIGHT,
    SMALLEST,
    Evidence,
    NoiseModel,
    clarity,
    lookalikes,
)
from .zeroshot import log_softmax

# Wrong labels that a pair of classes must have, beyond which it is a habit and not chance. A
# column of the confusion may not take all the labels of a class: it would not exist.
LEAST_CONFUSED, LEAST_KEPT = 3.0, 0.02
MOST_CONFUSED = 0.8  # of a class, so that a share of right labels is left
_BY_CHANCE = 3.0  # standard deviations of a number of wrong labels (Poisson)
_ROUNDS, _STEPS, _COUNTS = 4, 10, 4
_ENOUGH = 1e-4  # gain in log-likelihood a sample at which a fit ends
_RESOLUTION = 1e-8  # relative gain below which sums of float32 only round
_SCALES = ((-6.0, 3.0), (-8.0, 2.0))  # bounds of their logarithms, images and language
_CHANCE = (-11.0, 4.0)  # bounds of the log-odds of a chance
# Samples that got any label before one was seen: what cannot happen could never be learned
_IN_ADVANCE = 0.2
_QUANTILES = 129


@dataclass(frozen=True)
class Fit:
    """A fitted model and how well it explains the labels.

    Attributes:
        model: the model
        surprise: its negative log-likelihood, as of so many samples as there are rows: what a row
            stands for has not been seen
        price: what its pairs of classes cost (BIC): half the logarithm of the size of a class for
            the rate, the logarithm of K for the partner; and its scattered classes, the rate alone
    """

    model: NoiseModel
    surprise: float
    price: float


def start_model(num_classes: int, images_scale: float) -> NoiseModel:
    """A model to start from: a fifth of the labels wrong, in all ways but carelessness.

    Args:
        num_classes: K >= 2
        images_scale: about what the logits of the images need to be calibrated
    """
    k = num_classes
    nothing, refuge = np.zeros((k, k)), np.zeros(k, dtype=bool)
    return spread(NoiseModel(images_scale, 0.1, 0.1, 0.05, 0.0, nothing, np.zeros(k), refuge), 2)


def spread(model: NoiseModel, strength: float = 1) -> NoiseModel:
    """Lets every pair of classes be confused a little, so that a fit can find other pairs."""
    k = len(model.confusion)
    confusion = 0.5 * model.confusion + strength * 0.05 / (k - 1)
    np.fill_diagonal(confusion, 0)
    return replace(model, confusion=confusion)


def fit_noise_model(
    evidence: Evidence,
    labels: np.ndarray,
    weights: np.ndarray,
    start: NoiseModel,
    least_images_scale: float = 0.0,
) -> Fit:
    """Fits the model to given labels by maximum likelihood.

    In turn, by L-BFGS the scales and the chances that all classes share, and by expectation
    maximisation all chances. The scales have a weak normal prior around their start and around
    CLIP's own scale (1), which matters for a handful of samples only. Carelessness that is 0 at
    the start stays 0. Call it within :func:`clipcleaner_plugin.fitting.one_blas_thread`.

    Args:
        evidence: of n samples
        labels: (n,) int in [0, K), their given labels
        weights: (n,) float32 > 0, how many samples each stands for
        start: where to begin
        least_images_scale: the least that ``images_scale`` may be

    Returns:
        the model and its cost in two parts
    """
    model, prior = start, np.log([start.images_scale, 1.0])
    least = max(np.log(max(least_images_scale, SMALLEST)), _SCALES[0][0])
    before = -np.inf
    for turn in range(_ROUNDS):
        logits = model.logits(evidence)
        model = replace(model, clarities=_quantiles(clarity(logits), weights))
        ambiguity = model.ambiguity(logits)
        del logits
        surprise = Surprise(evidence, labels, weights, model.mistaken, ambiguity)
        # First the scales alone: to take most labels for noise would explain any opinion
        model = _fit_shared(model, prior, least, surprise, chances_too=turn > 0)
        model, likelihood = _fit_chances(model, evidence, labels, weights)
        if likelihood - before < _ENOUGH * weights.sum():
            break
        before = likelihood
    n, k = len(labels), len(model.confusion)
    rate = 0.5 * float(np.log(max(n / k, 1.0)))
    pairs, classes = np.count_nonzero(model.confusion), np.count_nonzero(model.scattered)
    surprise_of_rows = -likelihood * n / float(weights.sum())
    return Fit(model, surprise_of_rows, pairs * (float(np.log(k)) + rate) + classes * rate)


def _fit_shared(
    model: NoiseModel,
    prior: np.ndarray,
    least: float,
    surprise: Surprise,
    chances_too: bool,
) -> NoiseModel:
    """Improves the scales of both opinions and the chances that all classes share."""
    from scipy.optimize import minimize

    def cost(point: np.ndarray) -> tuple[float, np.ndarray]:
        scales, chances = np.exp(point[:2]), _chances(point[2:])
        value, by_scales, by_chances = surprise(float(scales[0]), float(scales[1]), chances)
        by_chances[0] -= _IN_ADVANCE / chances[0]
        off = point[:2] - prior
        by_odds = (chances * (by_chances - by_chances @ chances))[: len(point) - 2]
        value += float(off @ off) / 8 - _IN_ADVANCE * float(np.log(chances[0]))
        return value, np.concatenate([by_scales * scales + off / 4, by_odds])

    shared = [model.uniform, model.lookalike, *([model.careless] if model.careless else [])]
    rest = max(1 - sum(shared), LEAST_RIGHT)
    point = np.log([model.images_scale, model.language_scale, *(s / rest for s in shared)])
    bounds = [(least, _SCALES[0][1]), _SCALES[1]]
    bounds += [_CHANCE if chances_too else (start, start) for start in point[2:].tolist()]
    options = {"maxiter": _STEPS, "ftol": _RESOLUTION}
    found = minimize(cost, point, jac=True, method="L-BFGS-B", bounds=bounds, options=options)
    b, a = np.exp(found.x[:2]).tolist()
    uniform, lookalike, careless = _chances(found.x[2:]).tolist()
    return replace(
        model,
        images_scale=b,
        language_scale=a,
        uniform=uniform,
        lookalike=lookalike,
        careless=careless,
    )


def _chances(log_odds: np.ndarray) -> np.ndarray:
    """Chances by their log-odds to a label that is right, (3,); a missing third one is 0."""
    odds = np.zeros(3)
    odds[: len(log_odds)] = np.exp(log_odds)
    return odds / (1 + odds.sum())


def _fit_chances(
    model: NoiseModel, evidence: Evidence, labels: np.ndarray, weights: np.ndarray
) -> tuple[NoiseModel, float]:
    """Improves the chances of the ways to be wrong; returns the log-likelihood too."""
    logits = model.logits(evidence)
    rows, k = np.arange(len(labels)), logits.shape[1]
    sharp = np.exp(log_softmax(logits))
    plain = (1 - HARD_SHARE) * sharp[rows, labels].astype(np.float64)
    plain += HARD_SHARE * np.exp(log_softmax(logits * np.float32(HARD_SCALE)))[rows, labels]
    ambiguity = model.ambiguity(logits).astype(np.float64)
    nearby = lookalikes(logits)[rows, labels].astype(np.float64)
    del logits
    unseen, seen = ambiguity * nearby, (1 - ambiguity) * plain
    total_weight = float(weights.sum())
    class_weight = np.bincount(labels, weights, minlength=k)
    of_label = weights_of_labels(labels, weights, k)
    least_kept = np.maximum(LEAST_CONFUSED * of_label, LEAST_KEPT * class_weight)
    likelihood = 0.0
    for _ in range(_COUNTS):
        right = plain * model.right[labels]
        confused = sharp * model.mistaken.T[labels].astype(np.float32)
        uniform, lookalike = model.uniform / k, model.lookalike * nearby
        careless = model.careless * (unseen + seen)
        total = right + uniform + confused.sum(axis=1, dtype=np.float64) + lookalike + careless
        total = np.maximum(total, SMALLEST)
        likelihood = float((weights * np.log(total)).sum())
        share = (weights / total).astype(np.float64)
        counts = sum_by_label(confused * share[:, None].astype(np.float32), labels, k).T
        sizes = (sharp * ((total - confused.sum(axis=1)) * share)[:, None].astype(np.float32)).sum(
            axis=0, dtype=np.float64
        ) + counts.sum(axis=1)
        kept = np.bincount(labels, (right + model.careless * seen) * share, minlength=k)
        counts[:, kept < least_kept] = 0
        any_label = uniform * (share.astype(np.float32) @ sharp)
        confusion, scattered = _habits(model, counts, any_label, sizes, of_label)
        model = replace(
            model,
            # A number of numpy's would make float64 tables of float32 ones
            uniform=max((float((uniform * share).sum()) + _IN_ADVANCE) / total_weight, 1e-4),
            lookalike=max(float((lookalike * share).sum()) / total_weight, 1e-5),
            careless=float((careless * share).sum()) / total_weight,
            confusion=confusion,
            scattered=scattered,
        )
    return model, likelihood


def _habits(
    model: NoiseModel,
    counts: np.ndarray,
    any_label: np.ndarray,
    sizes: np.ndarray,
    of_label: np.ndarray,
) -> tuple[np.ndarray, np.ndarray]:
    """Chances of each class to be labeled as one other, and as any, where there is more to it.

    Args:
        model: which the counts are by
        counts: (K, K) samples of each class by their label, by its chance to be mistaken for that
        any_label: (K,) samples of each class by the chance that all classes share
        sizes: (K,) samples of each class
        of_label: (K,) how many samples one with each label stands for

    Returns:
        (K, K) confusion and (K,) scattered
    """
    one_other = model.confusion / np.maximum(model.mistaken, SMALLEST)
    any_label = any_label + (counts * (1 - one_other)).sum(axis=1)
    shared = model.uniform * sizes
    each = sizes.sum() / (sizes / np.where(of_label > 0, of_label, 1)).sum()
    by_chance = LEAST_CONFUSED * each + _BY_CHANCE * np.sqrt(shared * each)
    excess = any_label - shared
    scattered = np.where(excess > by_chance, excess, 0) / np.maximum(sizes, 1)
    confusion = np.maximum(counts * one_other - LEAST_CONFUSED * of_label, 0)
    np.fill_diagonal(confusion, 0)
    confusion /= np.maximum(sizes, 1)[:, None]
    most = MOST_CONFUSED / np.maximum(confusion.sum(axis=1) + scattered, 1e-9)
    return confusion * np.minimum(1, most)[:, None], scattered * np.minimum(1, most)


def _quantiles(values: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Evenly spaced quantiles of weighted values, ascending float64."""
    order = np.argsort(values, kind="stable")
    below = np.cumsum(weights[order], dtype=np.float64) - 0.5 * weights[order]
    return np.interp(np.linspace(0, below[-1], _QUANTILES), below, values[order])


def weights_of_labels(labels: np.ndarray, weights: np.ndarray, num_classes: int) -> np.ndarray:
    """How many samples a row with each label stands for, (K,) float64; 0 for a missing label."""
    sizes = np.bincount(labels, minlength=num_classes)
    return np.bincount(labels, weights, num_classes) / np.maximum(sizes, 1)


def sum_by_label(table: np.ndarray, labels: np.ndarray, num_classes: int) -> np.ndarray:
    """Sums the rows of each label, (K, K) float64; ``labels`` need no order."""
    order = np.argsort(labels, kind="stable")
    sizes = np.bincount(labels, minlength=num_classes)
    out = np.zeros((num_classes, table.shape[1]))
    present = np.flatnonzero(sizes)
    starts = (np.cumsum(sizes) - sizes)[present]
    out[present] = np.add.reduceat(table[order], starts, axis=0, dtype=np.float64)
    return out
