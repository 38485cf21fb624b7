"""How given labels come about: from the true one, or wrong in one of three ways."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from .zeroshot import log_softmax

if TYPE_CHECKING:
    import torch

# Of the right labels one in ten is of an image that is less clear than most, and counts as if its
# evidence were weaker. Without them a few hard images would pass for noise.
HARD_SHARE, HARD_SCALE = 0.1, 0.7
LOOKALIKE_SCALE = 0.5
# Wrong labels that a pair of classes must have, beyond which it is a habit and not chance. A
# column of the confusion may not take all the labels of a class: it would not exist.
LEAST_CONFUSED, LEAST_KEPT = 3.0, 0.1
_MOST_CONFUSED = 0.8  # of a class, so that a share of right labels is left
_ROUNDS, _STEPS, _COUNTS = 4, 5, 4
# Gain in log-likelihood a sample at which a fit ends. To go on would make hard images of what may
# be noise: look-alikes explain either way, and the more careful explanation ends last.
_ENOUGH = 1e-4
_SMALLEST, _NEVER = 1e-30, -1e9


@dataclass(frozen=True)
class Evidence:
    """What is known of some samples before their labels are asked.

    Attributes:
        images: (n, K) float32 logits by the images; zeros where they say nothing. None without
        language: (n, K) float32 logits by the class names, or None
    """

    images: np.ndarray | None
    language: np.ndarray | None

    def __getitem__(self, rows: np.ndarray | slice) -> Evidence:
        tables = (None if t is None else t[rows] for t in (self.images, self.language))
        return Evidence(*tables)


@dataclass(frozen=True)
class NoiseModel:
    """The probability of a given label, and of the true one behind it.

    The true label ``k`` has the probability ``p(k) = softmax(b g + a l)_k``, of the logits ``g`` of
    the images and ``l`` of language. The given label ``y`` is then

    - right, ``y = k``, where nothing of the following happened;
    - any label, with the chance ``uniform``;
    - the label that class ``k`` is taken for, with the chance ``confusion[k, y]``;
    - a label that suits the image next to the best, with the chance ``lookalike``.

    That is the class-conditional noise of Natarajan et al. ("Learning with Noisy Labels", NeurIPS
    2013) with a sparse matrix, beside noise that depends on the image.

    Attributes:
        images_scale: ``b`` > 0
        language_scale: ``a`` > 0
        uniform: in [0, 1]
        lookalike: in [0, 1]
        confusion: (K, K) float64 >= 0 with zeros on the diagonal; rows sum to at most 0.8
    """

    images_scale: float
    language_scale: float
    uniform: float
    lookalike: float
    confusion: np.ndarray

    @property
    def right(self) -> np.ndarray:
        """(K,) chance that a label of each true class is right."""
        return np.maximum(1 - self.uniform - self.lookalike - self.confusion.sum(axis=1), 1e-3)

    def logits(self, evidence: Evidence) -> np.ndarray:
        """Both opinions as one, (n, K) float32."""
        parts = []
        if evidence.images is not None:
            parts.append(np.float32(self.images_scale) * evidence.images)
        if evidence.language is not None:
            parts.append(np.float32(self.language_scale) * evidence.language)
        return sum(parts[1:], start=parts[0])

    def judge(self, evidence: Evidence, labels: np.ndarray) -> Judgement:
        """Finds out how the given labels of some samples came about.

        Args:
            evidence: of n samples
            labels: (n,) int in [0, K), their given labels

        Returns:
            the probabilities
        """
        logits = self.logits(evidence)
        rows, k = np.arange(len(labels)), logits.shape[1]
        sharp = np.exp(log_softmax(logits))
        plain = (1 - HARD_SHARE) * sharp[rows, labels]
        plain += HARD_SHARE * np.exp(log_softmax(logits * np.float32(HARD_SCALE)))[rows, labels]
        nearby = _lookalikes(logits)
        right = plain * self.right[labels]
        others = sharp * (self.confusion.T[labels].astype(np.float32) + self.uniform / k)
        remaining = sharp.copy()
        remaining[rows, labels] = 0
        remaining /= np.maximum(remaining.sum(axis=1, keepdims=True), _SMALLEST)
        others += (self.lookalike * nearby[rows, labels])[:, None] * remaining
        # A label drawn at random that happens to be the true one is right
        right += others[rows, labels]
        others[rows, labels] = 0
        wrong = others.sum(axis=1, dtype=np.float64)
        clarity = sharp.max(axis=1)
        right, wrong = np.maximum(right, _SMALLEST), np.maximum(wrong, _SMALLEST)
        return Judgement(right, wrong, others, plain, clarity)


@dataclass(frozen=True)
class Judgement:
    """Of n given labels.

    Attributes:
        right: (n,) joint probability of the given label and that it is right
        wrong: (n,) joint probability of the given label and that it is wrong
        others: (n, K) the same for each other true label; zero at the given one
        support: (n,) probability of the given label before noise is thought of
        clarity: (n,) the same of the most probable label
    """

    right: np.ndarray
    wrong: np.ndarray
    others: np.ndarray
    support: np.ndarray
    clarity: np.ndarray

    @property
    def log_odds(self) -> np.ndarray:
        """(n,) float32 log-odds that the given label is right."""
        return (np.log(self.right) - np.log(self.wrong)).astype(np.float32)

    @property
    def doubt(self) -> np.ndarray:
        """(n,) float32 probability that the given label is wrong."""
        return (self.wrong / (self.right + self.wrong)).astype(np.float32)

    @property
    def best_other(self) -> np.ndarray:
        """(n,) int, the most probable true label but the given one."""
        return self.others.argmax(axis=1)


@dataclass(frozen=True)
class Fit:
    """A fitted model and how well it explains the labels.

    Attributes:
        model: the model
        surprise: its negative log-likelihood
        price: what its pairs of classes cost (BIC): half the logarithm of the size of a class for
            the rate, the logarithm of K for the partner
    """

    model: NoiseModel
    surprise: float
    price: float


def start_model(num_classes: int, images_scale: float) -> NoiseModel:
    """A model to start from: a fifth of the labels wrong, in all ways.

    Args:
        num_classes: K >= 2
        images_scale: about what the logits of the images need to be calibrated
    """
    return spread(NoiseModel(images_scale, 0.1, 0.1, 0.05, np.zeros((num_classes,) * 2)), 2)


def spread(model: NoiseModel, strength: float = 1) -> NoiseModel:
    """Lets every pair of classes be confused a little, so that a fit can find other pairs."""
    k = len(model.confusion)
    confusion = 0.5 * model.confusion + strength * 0.05 / (k - 1)
    np.fill_diagonal(confusion, 0)
    return replace(model, confusion=confusion)


def fit_noise_model(
    evidence: Evidence, labels: np.ndarray, weights: np.ndarray, start: NoiseModel
) -> Fit:
    """Fits the model to given labels by maximum likelihood.

    In turn, the scales by L-BFGS and the chances by expectation maximisation. The scales have a
    weak normal prior around their start and around CLIP's own scale (1), which matters for a
    handful of samples only. Call it within :func:`clipcleaner_plugin.fitting.one_blas_thread`.

    Args:
        evidence: of n samples
        labels: (n,) int in [0, K), their given labels
        weights: (n,) float32 > 0, how many samples each stands for
        start: where to begin

    Returns:
        the model and its cost in two parts
    """
    import torch

    # Samples run along the last axis: over the classes between, a softmax is many times faster
    tables = [
        None if t is None else torch.from_numpy(np.ascontiguousarray(t.T))
        for t in (evidence.images, evidence.language)
    ]
    model, prior = start, np.log([start.images_scale, 1.0])
    before = -np.inf
    for _ in range(_ROUNDS):
        model = _fit_scales(model, prior, tables, labels, weights)
        model, likelihood = _fit_chances(model, evidence, labels, weights)
        if likelihood - before < _ENOUGH * weights.sum():
            break
        before = likelihood
    k = len(model.confusion)
    pairs = np.count_nonzero(model.confusion)
    price = np.log(k) + 0.5 * np.log(max(weights.sum() / k, 1.0))
    return Fit(model, -likelihood, pairs * price)


def _fit_scales(
    model: NoiseModel,
    prior: np.ndarray,
    tables: list[torch.Tensor | None],
    labels: np.ndarray,
    weights: np.ndarray,
) -> NoiseModel:
    """Improves the scales of both opinions."""
    import torch
    from scipy.optimize import minimize

    images, language = tables
    k = len(model.confusion)
    given = torch.from_numpy(labels)[None]
    right = torch.from_numpy(model.right[labels].astype(np.float32))
    confused = torch.from_numpy(model.confusion.astype(np.float32))[:, labels]
    each = torch.from_numpy(weights)

    def cost(point: np.ndarray) -> tuple[float, np.ndarray]:
        scales = torch.tensor(point, dtype=torch.float32, requires_grad=True)
        b, a = scales.exp()
        logits = sum(
            (scale * table for scale, table in ((b, images), (a, language)) if table is not None),
            start=torch.zeros(1),
        )
        sharp = torch.softmax(logits, dim=0)
        hard = torch.log_softmax(logits * HARD_SCALE, dim=0).gather(0, given).exp()
        plain = (1 - HARD_SHARE) * sharp.gather(0, given) + HARD_SHARE * hard
        weak = (logits * LOOKALIKE_SCALE).masked_fill(logits >= logits.amax(dim=0), _NEVER)
        nearby = torch.log_softmax(weak, dim=0).gather(0, given).exp()
        total = plain[0] * right + model.uniform / k + (sharp * confused).sum(dim=0)
        total = total + model.lookalike * nearby[0]
        loss = -(each * total.clamp_min(_SMALLEST).log()).sum(dtype=torch.float64)
        loss.backward()
        assert scales.grad is not None
        off = point - prior
        return (
            float(loss.detach()) + float(off @ off) / 8,
            scales.grad.numpy().astype(np.float64) + off / 4,
        )

    point = np.log([model.images_scale, model.language_scale])
    bounds = [(-6.0, 3.0), (-8.0, 2.0)]
    found = minimize(
        cost, point, jac=True, method="L-BFGS-B", bounds=bounds, options={"maxiter": _STEPS}
    )
    with torch.no_grad():
        b, a = np.exp(found.x).tolist()
    return replace(model, images_scale=b, language_scale=a)


def _fit_chances(
    model: NoiseModel, evidence: Evidence, labels: np.ndarray, weights: np.ndarray
) -> tuple[NoiseModel, float]:
    """Improves the chances of the ways to be wrong; returns the log-likelihood too."""
    logits = model.logits(evidence)
    rows, k = np.arange(len(labels)), logits.shape[1]
    sharp = np.exp(log_softmax(logits))
    plain = (1 - HARD_SHARE) * sharp[rows, labels].astype(np.float64)
    plain += HARD_SHARE * np.exp(log_softmax(logits * np.float32(HARD_SCALE)))[rows, labels]
    nearby = _lookalikes(logits)[rows, labels].astype(np.float64)
    del logits
    total_weight = float(weights.sum())
    class_weight = np.bincount(labels, weights, minlength=k)
    of_label = class_weight / np.maximum(np.bincount(labels, minlength=k), 1)
    likelihood = 0.0
    for _ in range(_COUNTS):
        right = plain * model.right[labels]
        confused = sharp * model.confusion.T[labels].astype(np.float32)
        uniform, lookalike = model.uniform / k, model.lookalike * nearby
        total = right + uniform + confused.sum(axis=1, dtype=np.float64) + lookalike
        total = np.maximum(total, _SMALLEST)
        likelihood = float((weights * np.log(total)).sum())
        share = (weights / total).astype(np.float64)
        counts = _sum_by_label(confused * share[:, None].astype(np.float32), labels, k).T
        sizes = (sharp * ((total - confused.sum(axis=1)) * share)[:, None].astype(np.float32)).sum(
            axis=0, dtype=np.float64
        ) + counts.sum(axis=1)
        counts = np.maximum(counts - LEAST_CONFUSED * of_label, 0)
        np.fill_diagonal(counts, 0)
        kept = np.bincount(labels, right * share, minlength=k)
        counts[:, kept < np.maximum(LEAST_CONFUSED * of_label, LEAST_KEPT * class_weight)] = 0
        confusion = counts / np.maximum(sizes, 1)[:, None]
        confusion *= np.minimum(1, _MOST_CONFUSED / np.maximum(confusion.sum(axis=1), 1e-9))[
            :, None
        ]
        model = replace(
            model,
            # A fifth of a sample in advance: what cannot happen could never be learned
            uniform=max(((uniform * share).sum() + 0.2) / total_weight, 1e-4),
            lookalike=max((lookalike * share).sum() / total_weight, 1e-5),
            confusion=confusion,
        )
    return model, likelihood


def _lookalikes(logits: np.ndarray) -> np.ndarray:
    """What an image may be taken for: the softmax of weakened logits without the best class."""
    weak = logits * np.float32(LOOKALIKE_SCALE)
    weak[weak >= weak.max(axis=1, keepdims=True)] = _NEVER
    return np.exp(log_softmax(weak))


def _sum_by_label(table: np.ndarray, labels: np.ndarray, num_classes: int) -> np.ndarray:
    """Sums the rows of each label, (K, K) float64; ``labels`` need no order."""
    order = np.argsort(labels, kind="stable")
    sizes = np.bincount(labels, minlength=num_classes)
    out = np.zeros((num_classes, table.shape[1]))
    present = np.flatnonzero(sizes)
    starts = (np.cumsum(sizes) - sizes)[present]
    out[present] = np.add.reduceat(table[order], starts, axis=0, dtype=np.float64)
    return out
