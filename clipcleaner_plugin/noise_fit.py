"""Fits the model of how labels go wrong to given labels."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from .habits import (
    MOST_CONFUSED,
    SUPPOSED_LOOKALIKE,
    Explained,
    Pairs,
    find_pairs,
    find_scattered,
    supposed_rates,
)
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
from .tables import ByLabel, by_rows
from .zeroshot import log_softmax

_STEPS, _COUNTS = 5, 4
# How often both are repeated at most, and the gain in log-likelihood a sample that is too little
_ROUGHLY, _FINELY = (4, 3e-3), (8, 1e-3)
_RESOLUTION = 1e-6  # relative gain below which sums of float32 only round
_SCALES = ((-6.0, 3.0), (-8.0, 2.0))  # bounds of their logarithms, images and language
_CHANCE = (-11.0, 4.0)  # bounds of the log-odds of a chance
# Samples that got any label before one was seen: what cannot happen could never be learned
_IN_ADVANCE = 0.2
# Of the logarithms of the scales: that of regressions is known better than that of language, and
# little else tells an opinion that is unsure of itself from labels that are wrong at random
_PRECISION = np.array([4.0, 0.25])
_DAMPING = 2.0  # rows of each class: the shifts of classes of few rows move slowly, and not far
_QUANTILES = 129


@dataclass(frozen=True)
class Fit:
    """A fitted model and how well it explains the labels.

    Attributes:
        model: the model
        surprise: its negative log-likelihood, as of so many samples as there are rows: what a row
            stands for has not been seen
        price: what its pairs of classes cost, see :class:`.Pairs`, and its scattered classes: half
            the logarithm of the size of a class each (BIC)
    """

    model: NoiseModel
    surprise: float
    price: float

    @property
    def cost(self) -> float:
        """What the labels cost to tell by the model, in nats."""
        return self.surprise + self.price


def start_model(num_classes: int, images_scale: float) -> NoiseModel:
    """A model to start from: a fifth of the labels wrong, in all ways but carelessness.

    Args:
        num_classes: K >= 2
        images_scale: about what the logits of the images need to be calibrated
    """
    k = num_classes
    nothing = NoiseModel(
        images_scale=images_scale,
        language_scale=0.1,
        uniform=0.1,
        lookalike=SUPPOSED_LOOKALIKE,
        careless=0.0,
        confusion=np.zeros((k, k)),
        scattered=np.zeros(k),
        refuge=np.zeros(k, dtype=bool),
        shifts=np.zeros(k),
        overlap=np.zeros((k, k)),
    )
    return spread(nothing, 2)


def spread(model: NoiseModel, strength: float = 1) -> NoiseModel:
    """Lets every pair of classes be confused a little, so that a fit can find other pairs."""
    k = len(model.confusion)
    confusion = 0.5 * model.confusion + strength * 0.05 / (k - 1)
    np.fill_diagonal(confusion, 0)
    return replace(model, confusion=confusion, overlap=0.5 * model.overlap)


def fit_noise_model(
    evidence: Evidence,
    labels: np.ndarray,
    weights: np.ndarray,
    start: NoiseModel,
    least_images_scale: float = 0.0,
    members: float | None = None,
    fine: bool = False,
) -> Fit:
    """Fits the model to given labels by maximum likelihood.

    In turn, by L-BFGS the scales and the chances that all classes share, and by expectation
    maximisation all chances. The scales have a normal prior around their start and a weak one
    around CLIP's own scale (1), which matter for a few hundred samples at most. Carelessness that
    is 0 at the start stays 0. Call it within
    :func:`clipcleaner_plugin.fitting.one_blas_thread`.

    Args:
        evidence: of n samples
        labels: (n,) int in [0, K), their given labels
        weights: (n,) float32 > 0, how many samples each stands for
        start: where to begin
        least_images_scale: the least that ``images_scale`` may be
        members (None): rows of each class that are as expected without shifts, before one was
            seen: the more, the smaller the shifts. None: they stay as they are
        fine (False): go on for longer, which matters the most where samples are few

    Returns:
        the model and its cost in two parts
    """
    model, prior = start, np.log([start.images_scale, 1.0])
    least = max(np.log(max(least_images_scale, SMALLEST)), _SCALES[0][0])
    before = -np.inf
    rounds, enough = _FINELY if fine else _ROUGHLY
    for turn in range(rounds):
        clear = _clarity(model, evidence, len(labels))
        model = replace(model, clarities=_quantiles(clear, weights))
        ambiguity = model.ambiguity(clear)
        surprise = Surprise(evidence, labels, weights, model.mistaken, ambiguity, model.shifts)
        # First the scales alone: to take most labels for noise would explain any opinion
        model = _fit_shared(model, prior, least, surprise, chances_too=turn > 0)
        model, likelihood, pairs = _fit_chances(model, evidence, labels, weights, members)
        if likelihood - before < enough * weights.sum():
            break
        before = likelihood
    n, k = len(labels), len(model.confusion)
    rate = 0.5 * float(np.log(max(n / k, 1.0)))
    price = pairs.price + np.count_nonzero(model.scattered) * rate
    return Fit(model, -likelihood * n / float(weights.sum()), price)


def _clarity(model: NoiseModel, evidence: Evidence, n: int) -> np.ndarray:
    """How clear n images are, (n,) float32."""
    k = len(model.confusion)
    return np.concatenate(by_rows(lambda b: clarity(model.logits(evidence[b])), n, k))


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
        value += float(off @ (_PRECISION * off)) / 2 - _IN_ADVANCE * float(np.log(chances[0]))
        return value, np.concatenate([by_scales * scales + _PRECISION * off, by_odds])

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
    model: NoiseModel,
    evidence: Evidence,
    labels: np.ndarray,
    weights: np.ndarray,
    members: float | None,
) -> tuple[NoiseModel, float, Pairs]:
    """Improves the chances to be wrong; returns the log-likelihood and the pairs too."""
    rows, k = np.arange(len(labels)), len(model.confusion)
    groups = ByLabel(labels, k)
    sharp, hard, ambiguity, nearby = _look(model, evidence, labels)
    total_weight, likelihood = float(weights.sum()), 0.0
    rates = supposed_rates(k)
    for _ in range(_COUNTS):
        of_given = sharp[rows, labels].astype(np.float64)
        plain = (1 - HARD_SHARE) * of_given + HARD_SHARE * hard[rows, labels]
        unseen, seen = ambiguity * nearby, (1 - ambiguity) * plain
        uniform, lookalike = model.uniform / k, model.lookalike * nearby
        right = plain * model.right[labels] + model.careless * seen
        by_looks = lookalike + model.careless * unseen
        total, counts = _count(model.mistaken, groups, sharp, right, uniform, by_looks, weights)
        likelihood = float((weights * np.log(total)).sum())
        share = weights / total
        kept = np.bincount(labels, right * share, minlength=k)
        # Where the label suits the image next to the best, it is of any class but the given one
        looks = by_looks * share / np.maximum(1 - of_given, SMALLEST)
        any_label, of_looks, expected = (
            np.stack([uniform * share, looks, weights]).astype(np.float32) @ sharp
        ).astype(np.float64)
        of_looks -= np.bincount(labels, looks * of_given, minlength=k)
        sizes = kept + any_label + counts.sum(axis=1) + np.maximum(of_looks, 0)
        by = Explained(groups, weights, sharp, plain, total, kept)
        scattered = find_scattered(model, by, counts, any_label, sizes)
        # A pair has to explain labels better than scattered ones and look-alikes would
        more = (scattered - model.scattered) / (k - 1)
        other = sharp @ more.astype(np.float32) - (of_given + (k - 1) * plain) * more[labels]
        other += max(SUPPOSED_LOOKALIKE - model.lookalike, 0.0) * nearby
        by = replace(by, total=np.maximum(total + other, SMALLEST))
        pairs = find_pairs(by, model.confusion, rates)
        rates = pairs.rates
        habits = pairs.confusion.sum(axis=1) + scattered
        most = np.minimum(1, MOST_CONFUSED / np.maximum(habits, SMALLEST))
        model = replace(
            model,
            # A number of numpy's would make float64 tables of float32 ones
            uniform=max((float((uniform * share).sum()) + _IN_ADVANCE) / total_weight, 1e-4),
            lookalike=max(float((lookalike * share).sum()) / total_weight, 1e-5),
            careless=float((model.careless * (unseen + seen) * share).sum()) / total_weight,
            confusion=pairs.confusion * most[:, None],
            overlap=pairs.overlap * most[:, None],
            scattered=scattered * most,
        )
        if members is not None:
            each = total_weight / len(labels)
            more = (_DAMPING + members) * each, (_DAMPING + members * np.exp(model.shifts)) * each
            change = np.log(sizes + more[0]) - np.log(expected + more[1])
            change -= change.mean()
            model = replace(model, shifts=model.shifts + change)
            _shift(sharp, change)
            _shift(hard, HARD_SCALE * change)
    return model, likelihood, pairs


def _look(
    model: NoiseModel, evidence: Evidence, labels: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """What a model makes of the evidence of n samples.

    Returns:
        (n, K) float32, the probability of each true label before the given one is seen; (n, K)
        float32, the same of hard images; (n,) float64, how ambiguous they are; and (n,) float64,
        the probability of the given label for a look-alike
    """
    n, k = len(labels), len(model.confusion)
    sharp, hard = np.empty((n, k), dtype=np.float32), np.empty((n, k), dtype=np.float32)
    ambiguity, nearby = np.empty(n), np.empty(n)

    def look(block: slice) -> None:
        logits, given = model.logits(evidence[block]), labels[block]
        sharp[block] = np.exp(log_softmax(logits))
        hard[block] = np.exp(log_softmax(logits * np.float32(HARD_SCALE)))
        ambiguity[block] = model.ambiguity(clarity(logits))
        nearby[block] = lookalikes(logits)[np.arange(len(given)), given]

    by_rows(look, n, k)
    return sharp, hard, ambiguity, nearby


def _count(
    mistaken: np.ndarray,
    groups: ByLabel,
    sharp: np.ndarray,
    right: np.ndarray,
    uniform: float,
    by_looks: np.ndarray,
    weights: np.ndarray,
) -> tuple[np.ndarray, np.ndarray]:
    """Finds how probable the given labels are, and counts mistakes.

    Args:
        mistaken: (K, K) chances, see :attr:`.NoiseModel.mistaken`
        groups: n rows by their labels
        sharp: (n, K) float32, the probability of each true label
        right: (n,), how probable the given label is as the right one
        uniform: the same as one that is drawn at random
        by_looks: (n,), the same as that of a look-alike
        weights: (n,) float32 > 0

    Returns:
        the probabilities, (n,) float64 > 0, and samples of each class by the label that they have
        by mistake, (K, K)
    """
    total, taken = np.empty(len(weights)), mistaken.T.astype(np.float32)

    def confused(rows: np.ndarray) -> np.ndarray:
        table = sharp[rows] * taken[groups.labels[rows]]
        sums = right[rows] + uniform + table.sum(axis=1, dtype=np.float64) + by_looks[rows]
        total[rows] = np.maximum(sums, SMALLEST)
        table *= (weights[rows] / total[rows]).astype(np.float32)[:, None]
        return table

    counts = groups.sum(confused).T
    return total, counts


def _shift(probs: np.ndarray, change: np.ndarray) -> None:
    """Changes the logits of probabilities, (n, K) float32, in their place."""
    factors = np.exp(change).astype(np.float32)

    def shift(block: slice) -> None:
        probs[block] *= factors
        probs[block] /= probs[block].sum(axis=1, keepdims=True)

    by_rows(shift, *probs.shape)


def _quantiles(values: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Evenly spaced quantiles of weighted values, ascending float64."""
    order = np.argsort(values, kind="stable")
    below = np.cumsum(weights[order], dtype=np.float64) - 0.5 * weights[order]
    return np.interp(np.linspace(0, below[-1], _QUANTILES), below, values[order])
