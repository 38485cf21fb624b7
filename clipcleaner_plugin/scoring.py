"""Scores given labels: two classifiers from one frozen CLIP, four evidences, one verdict."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from . import rules, visual
from .mixture import fit_mixture, sigmoid
from .zeroshot import REDUCTIONS, normalize_rows, zeroshot_log_probs

logger = logging.getLogger(__name__)

EVIDENCE = ("zeroshot_loss", "zeroshot_consistency", "visual_loss", "visual_consistency", "margin")
FUSED_TEMPERATURE = 0.01  # CLIP's own scale: 1 / 100


@dataclass(frozen=True)
class LabelScores:
    """What :func:`score_labels` found, one entry a sample.

    Attributes:
        clean_score: (N,) float32 in [0, 1], the probability that the given label is right; NaN
            where unscorable
        verdict: (N,) of "clean", "mislabeled", "uncertain" or "unscorable"
        suggested_label: (N,) int, the most probable label; -1 where unscorable
        suggested_confidence: (N,) float32 in [0, 1], its probability; NaN where unscorable
        selected: (N,) bool, the selection of the paper's rule
        evidence: (N,) float32 arrays, higher is cleaner, NaN where missing: zeroshot_loss,
            zeroshot_consistency, visual_loss, visual_consistency in [0, 1], and margin, the
            fused log margin of the given label over the best other one
        language_weight: in [0, 1], the share of language in the fused opinion
        warnings: what a user should know of this result, in sentences
    """

    clean_score: np.ndarray
    verdict: np.ndarray
    suggested_label: np.ndarray
    suggested_confidence: np.ndarray
    selected: np.ndarray
    evidence: dict[str, np.ndarray]
    language_weight: float
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True)
class _Opinions:
    """Log-probabilities of the scorable samples, (n, K); None where there is no such opinion."""

    zeroshot: np.ndarray | None
    zeroshot_fused: np.ndarray | None
    visual: np.ndarray
    visual_fused: np.ndarray


def score_labels(
    image_features: np.ndarray,
    labels: np.ndarray,
    text_features: np.ndarray | Sequence[np.ndarray] | None = None,
    *,
    num_classes: int | None = None,
    theta_gmm: float = 0.5,
    theta_cons: float = 0.8,
    temperature: float = 0.07,
    prompt_reduce: str = "mean",
    folds: int = 5,
    seed: int = 51,
) -> LabelScores:
    """Scores how likely each given label is right. (first working version)"""
    features = normalize_rows(image_features)
    labels = np.asarray(labels)
    texts = None if text_features is None else [normalize_rows(np.atleast_2d(t)) for t in text_features]
    k = len(texts) if texts is not None else int(num_classes or labels.max() + 1)
    scorable = np.isfinite(features).all(axis=1) & (labels >= 0)
    rows = np.flatnonzero(scorable)
    rows = rows[np.lexsort([visual.row_hashes(features[rows], seed), labels[rows]])]
    x, y = features[rows], labels[rows]

    fold_of = visual.assign_folds(x, y, folds, seed)
    vis = visual.in_sample_log_probs(x, y, k)
    oof = visual.out_of_fold_log_probs(x, y, k, fold_of)
    zs = zs_fused = None
    if texts is not None:
        zs = zeroshot_log_probs(x, texts, temperature, prompt_reduce)
        zs_fused = zeroshot_log_probs(x, texts, FUSED_TEMPERATURE, prompt_reduce)

    evidence = {name: np.full(len(labels), np.nan, dtype=np.float32) for name in EVIDENCE}
    for prefix, log_probs in (("zeroshot", zs), ("visual", vis)):
        if log_probs is not None:
            evidence[f"{prefix}_loss"][rows] = loss_scores(log_probs, y)
            evidence[f"{prefix}_consistency"][rows] = consistency_scores(log_probs, y)
    selected = rules.select_paper(evidence, labels, k, theta_gmm, theta_cons, seed)

    weight = language_weight(zs_fused, oof, y)
    log_q = fuse(zs_fused, oof, weight)
    margins = label_margins(log_q, y)
    evidence["margin"][rows] = margins
    score = np.full(len(labels), np.nan, dtype=np.float32)
    score[rows] = clean_scores(margins, seed)
    suggested = np.full(len(labels), -1)
    suggested[rows] = log_q.argmax(axis=1)
    confidence = np.full(len(labels), np.nan, dtype=np.float32)
    confidence[rows] = np.exp(log_q.max(axis=1))
    verdict = rules.verdicts(labels, suggested, score, selected)
    return LabelScores(score, verdict, suggested, confidence, selected, evidence, weight)


def loss_scores(log_probs, y):
    own = log_probs[np.arange(len(y)), y].astype(np.float64)
    out = np.ones(len(y))
    for c in np.unique(y):
        m = y == c
        lo, hi = own[m].min(), own[m].max()
        if hi > lo:
            out[m] = (own[m] - lo) / (hi - lo)
    return out.astype(np.float32)


def consistency_scores(log_probs, y):
    own = log_probs[np.arange(len(y)), y].astype(np.float64)
    return np.exp(own - log_probs.max(axis=1)).astype(np.float32)


def language_weight(zs, oof, y) -> float:
    if zs is None:
        return 0.0
    ratio = np.mean(zs.argmax(1) == y) / np.mean(np.nan_to_num(oof, nan=-1e9).argmax(1) == y)
    return float(0.5 * np.clip((ratio - 0.7) / 0.2, 0, 1))


def fuse(zs, oof, weight):
    from .zeroshot import log_softmax
    floor = np.log(1e-6)
    v = np.maximum(np.nan_to_num(oof, nan=0.0, neginf=floor), floor)
    q = (1 - weight) * v
    if zs is not None and weight:
        q = q + weight * zs
    return log_softmax(q)


def label_margins(log_q, y):
    own = log_q[np.arange(len(y)), y]
    other = log_q.copy()
    other[np.arange(len(y)), y] = -np.inf
    return (own - other.max(axis=1)).astype(np.float32)


def clean_scores(margins, seed):
    mixture = fit_mixture(margins, seed)
    return sigmoid(margins) if mixture is None else mixture.posterior(margins)
