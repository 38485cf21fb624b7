"""MixFix as functions: class-balanced draws, mixup, the loss, and the next epoch's set.

Source: CLIPCleaner, arXiv 2408.10012, section 3.4; mixup: Zhang et al., arXiv 1710.09412.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import log_softmax


def oversample(labels: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Draws every class as often as the largest one occurs ("max" mode), in random order.

    A class of m samples gives each of them ⌊n_max / m⌋ times, and a random part of them once more.

    Args:
        labels: (M,) int, the class of each sample
        rng: source of randomness

    Returns:
        (C · n_max,) int64 positions into ``labels``, C the number of classes that occur
    """
    classes, counts = np.unique(labels, return_counts=True)
    largest = int(counts.max(initial=0))
    drawn = [np.resize(rng.permutation(np.flatnonzero(labels == k)), largest) for k in classes]
    return rng.permutation(np.concatenate(drawn)) if drawn else np.empty(0, dtype=np.int64)


def draw(
    members: np.ndarray, labels: np.ndarray, count: int, balanced: bool, rng: np.random.Generator
) -> np.ndarray:
    """Draws a number of samples: pass after pass over the set, each in a new order.

    Args:
        members: (M,) int, indices of the samples in the set, M ≥ 1
        labels: (M,) int, their current labels
        count: how many to draw
        balanced: oversample every class to the size of the largest
        rng: source of randomness

    Returns:
        (count,) int64 indices, taken from ``members``
    """
    if len(members) == 0:
        raise ValueError("There is no sample to draw from")

    def passes() -> Iterator[np.ndarray]:
        left = count
        while left > 0:
            order = oversample(labels, rng) if balanced else rng.permutation(len(members))
            yield members[order[:left]]
            left -= len(order)

    return np.concatenate([np.empty(0, dtype=np.int64), *passes()])


def mixup_lambda(beta: float, rng: np.random.Generator) -> float:
    """Draws a batch's λ = max(l, 1 − l), l ~ Beta(β, β): in [0.5, 1], the own image prevails."""
    drawn = float(rng.beta(beta, beta))
    return max(drawn, 1 - drawn)


def mix(own: Tensor, partner: Tensor, lam: float) -> Tensor:
    """Returns λ · own + (1 − λ) · partner; of images or of one-hot labels, of any shape."""
    return torch.lerp(partner, own, lam)


def soft_cross_entropy(logits: Tensor, targets: Tensor, weights: Tensor | None = None) -> Tensor:
    """Mean over the batch of − Σ_k target_k · log softmax(logits)_k.

    Args:
        logits: (B, K)
        targets: (B, K), rows that sum to 1
        weights: None or (B,), a factor for each sample; the mean still divides by B

    Returns:
        a scalar
    """
    losses = -(targets * log_softmax(logits.float(), dim=1)).sum(dim=1)
    return (losses if weights is None else losses * weights).mean()


@dataclass(frozen=True)
class NextSet:
    """The samples to train on, and with which labels.

    Args:
        members: (N,) bool, absorbed ∪ relabelled ∪ initial selection
        labels: (N,) int64, the current labels: predicted where relabelled, else given
        absorbed: (N,) bool, prediction and given label agree, confidently
        relabelled: (N,) bool, they differ, and the prediction is confident
    """

    members: np.ndarray
    labels: np.ndarray
    absorbed: np.ndarray
    relabelled: np.ndarray


def initial_set(given: np.ndarray, selected: np.ndarray) -> NextSet:
    """The set before anything is predicted: the selection, with the given labels."""
    nothing = np.zeros(len(given), dtype=bool)
    return NextSet(selected.copy(), given.copy(), nothing, nothing.copy())


def next_set(
    given: np.ndarray,
    selected: np.ndarray,
    predicted: np.ndarray,
    confidence: np.ndarray,
    theta_r: float,
    theta_r2: float,
) -> NextSet:
    """Applies the rule of absorption and relabelling.

    Always against the labels as given, never against those of the epoch before: an error is not
    carried on. A confident prediction also relabels a sample of the initial selection.

    Args:
        given: (N,) int, the given labels
        selected: (N,) bool, the initial selection
        predicted: (N,) int, most probable class; -1 = no prediction, the sample is left as it is
        confidence: (N,) float, its probability
        theta_r: smallest confidence that absorbs
        theta_r2: smallest confidence that relabels

    Returns:
        the set
    """
    known = predicted >= 0
    absorbed = known & (predicted == given) & (confidence >= theta_r)
    relabelled = known & (predicted != given) & (confidence >= theta_r2)
    labels = np.where(relabelled, predicted, given)
    return NextSet(absorbed | relabelled | selected, labels, absorbed, relabelled)
