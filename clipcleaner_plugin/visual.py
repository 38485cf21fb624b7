"""The opinion of the images themselves: logistic regression on the labels."""

from __future__ import annotations

import hashlib
import logging
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from .cleaning import draw_sample
from .evidence import groups
from .logistic import Logistic, fit_logistic
from .zeroshot import log_softmax

if TYPE_CHECKING:
    import torch

logger = logging.getLogger(__name__)

SEEN_C, UNSEEN_C = 1.0, 10.0
# How far logits may be from their optimum, root mean square; the probability that is furthest off
# is so by about twice as much. The in-sample fit is part of the paper's rule and is compared sample
# by sample; for the others, every digit takes many passes.
SEEN_TOLERANCE = 3e-5
UNSEEN_TOLERANCE = 2e-4
# Samples whose label is doubted count less, with the other label too: a model fitted to all that
# the first cleaning says would only say it again, mistakes and all
_DOUBTED, _CORRECTED = 0.95, 0.5
_PILOT_SHARE = 0.25  # of many samples; a fit of more saves less than it takes
ALWAYS_TRAIN = -1  # the fold of samples that every model is fitted on and none predicts


def row_hashes(features: np.ndarray, seed: int) -> np.ndarray:
    """Hashes the content of every row.

    Args:
        features: (N, d) array
        seed: changes all hashes

    Returns:
        (N,) uint64 array; equal rows have equal hashes, wherever they stand
    """
    key = str(seed).encode()
    rows = np.ascontiguousarray(features)
    digests = [hashlib.blake2b(row, digest_size=8, key=key).digest() for row in rows]
    return np.frombuffer(b"".join(digests), dtype="<u8")


def assign_folds(hashes: np.ndarray, labels: np.ndarray, folds: int) -> np.ndarray:
    """Assigns samples to folds by their content, stratified by label.

    The members of a class are ordered by hash and dealt out in turn; each class starts at another
    fold. The order of the samples plays no part, and the copies of one image within a class share
    a fold, so that no model is tested on what it was fitted on.

    Args:
        hashes: (N,) uint64 array from :func:`row_hashes`
        labels: (N,) int array
        folds: number of folds, >= 2

    Returns:
        (N,) int array in [0, folds); ``ALWAYS_TRAIN`` for the members of a class without two
        different images, which would otherwise be missing from the model that predicts them
    """
    assigned = np.empty(len(labels), dtype=np.int64)
    for members in groups(labels):
        images, rank = np.unique(hashes[members], return_inverse=True)
        first = labels[members[0]]
        assigned[members] = (rank + first) % folds if len(images) > 1 else ALWAYS_TRAIN
    return assigned


@dataclass(frozen=True)
class VisualModels:
    """Models of :func:`fit_visual`.

    Attributes:
        of_all: one model, fitted on all samples
        of_folds: one for each of ``tested``, fitted on the others; None where there are none
        classes: (K',) int, the classes with samples, which are all that the models know
        tested: the folds that samples are in
        num_classes: K
    """

    of_all: Logistic
    of_folds: Logistic | None
    classes: np.ndarray
    tested: np.ndarray
    num_classes: int

    def seen(self, features: np.ndarray) -> np.ndarray:
        """What the model of all samples says of some rows.

        Args:
            features: (n, d) float32

        Returns:
            (n, K) float32 log-probabilities; -inf for classes without samples
        """
        return self._table(self.of_all.logits(0, features))

    def unseen(self, features: np.ndarray, fold_of: np.ndarray) -> np.ndarray:
        """What the models say of rows that they were not fitted on.

        Args:
            features: (n, d) float32
            fold_of: (n,) int, the folds of these rows

        Returns:
            (n, K) float32 log-probabilities; -inf for classes without samples. A row of NaN, no
            opinion, for samples that every model was fitted on
        """
        table = np.full((len(features), self.num_classes), np.nan, dtype=np.float32)
        for place, fold in enumerate(self.tested):
            rows = fold_of == fold
            if self.of_folds is not None and rows.any():
                table[rows] = self._table(self.of_folds.logits(place, features[rows]))
        return table

    def _table(self, logits: np.ndarray) -> np.ndarray:
        """Log-probabilities of all classes, by logits of those with samples."""
        log_probs = log_softmax(logits)
        if len(self.classes) == self.num_classes:
            return log_probs
        table = np.full((len(logits), self.num_classes), -np.inf, dtype=np.float32)
        table[:, self.classes] = log_probs
        return table


def fit_visual(
    features: np.ndarray,
    labels: np.ndarray,
    fold_of: np.ndarray,
    num_classes: int,
    doubts: tuple[np.ndarray, np.ndarray] | None = None,
    *,
    device: torch.device | str = "cpu",
) -> VisualModels:
    """Fits the model of the paper, and one for each fold that is fitted on the others.

    The first is class-balanced, with ``C=1``, as in Feng et al. (CLIPCleaner, ACM MM 2024) and
    their reference implementation. The others have ``C=10`` and weigh classes by their size:
    balanced weights were no better on imbalanced data. All are multinomial, with intercept and L2
    on the coefficients only. Where samples are many, the first begins from its like of a quarter of
    them. So do the others; the folds differ so little that one such model serves all. It has seen
    labels that they are asked about, which plays no part once they have converged.

    Args:
        features: (N, d) float32 of unit rows; those of a fold together, if it is to be fast
        labels: (N,) int in [0, K), at least two different ones
        fold_of: (N,) int from :func:`assign_folds`
        num_classes: K
        doubts (None): another label for each sample, (N,) int in [0, K), and the probability p that
            the given one is wrong, (N,) float32; the models of the folds are fitted to both labels,
            with weights of 1 - .95 p and .5 p, the first to the given ones alone
        device ("cpu"): torch device, CPU or CUDA

    Returns:
        the models
    """
    sizes = np.bincount(labels, minlength=num_classes)
    classes = np.flatnonzero(sizes)
    tested = np.unique(fold_of[fold_of != ALWAYS_TRAIN])
    position = np.cumsum(sizes > 0) - 1
    known = position[labels]
    balanced = (sizes.sum() / (len(classes) * np.maximum(sizes, 1)))[labels].astype(np.float32)
    sample = draw_sample(labels, num_classes, _PILOT_SHARE)
    pilot = np.zeros(len(labels), dtype=np.float32)
    pilot[sample.rows] = sample.weights
    fit = partial(fit_logistic, features, known, len(classes), device=device)
    # Of few samples the first, which takes few passes, is fitted sooner without
    of_few = 2 * len(sample.rows) > len(labels)
    of_all = fit(balanced[None], SEEN_C, SEEN_TOLERANCE, pilot=None if of_few else pilot)
    of_folds = None
    if len(tested):
        weights = (fold_of != tested[:, None]).astype(np.float32)
        if doubts is not None:
            other, share = doubts
            # A label that nobody has is none that the models know
            share = np.where(sizes[other] > 0, share, 0)
            kept, changed = 1 - _DOUBTED * share, _CORRECTED * share
            weights *= (kept + changed).astype(np.float32)
            share = (changed / (kept + changed)).astype(np.float32)
            doubts = np.maximum(position[other], 0), share
        of_folds = fit(weights, UNSEEN_C, UNSEEN_TOLERANCE, doubts=doubts, pilot=pilot)
    fits = [models for models in (of_all, of_folds) if models is not None]
    converged = np.concatenate([models.converged for models in fits])
    if not converged.all():
        logger.warning(
            "%d of %d logistic regressions did not converge in %d passes over the samples",
            np.sum(~converged), len(converged), max(models.passes for models in fits),
        )  # fmt: skip
    return VisualModels(of_all, of_folds, classes, tested, num_classes)
