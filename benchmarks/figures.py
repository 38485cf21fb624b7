"""Figures of what a method found, against the truth."""

from __future__ import annotations

import numpy as np

from benchmarks.peers import Found
from clipcleaner_plugin.rules import noise_rate, noise_rates

FIGURES = ("F1", "precision", "recall", "AUROC", "AP", "flagged")
BINS = 10


def measure(found: Found, wrong: np.ndarray) -> dict[str, float]:
    """Measures the labels said to be wrong, and their order.

    Args:
        found: what a method says
        wrong: (N,) bool, the truth

    Returns:
        name of ``FIGURES`` → value: F1, precision and recall of what is flagged, area under the
        ROC curve and average precision of the order, share of labels flagged; NaN for the order
        where no label is wrong, or all are
    """
    from sklearn.metrics import average_precision_score, roc_auc_score

    hits, flagged, all_wrong = (
        int(np.sum(part)) for part in (found.flagged & wrong, found.flagged, wrong)
    )
    auroc = ap = np.nan
    if 0 < all_wrong < len(wrong):
        auroc = float(roc_auc_score(wrong, -found.score))
        ap = float(average_precision_score(wrong, -found.score))
    return {
        "F1": 2 * hits / max(flagged + all_wrong, 1),
        "precision": hits / max(flagged, 1),
        "recall": hits / max(all_wrong, 1),
        "AUROC": auroc,
        "AP": ap,
        "flagged": flagged / len(wrong),
    }


def calibration(clean_score: np.ndarray, given: np.ndarray, wrong: np.ndarray) -> dict[str, float]:
    """Measures probabilities that labels are right.

    Args:
        clean_score: (N,) float array in [0, 1]; NaN is left out
        given: (N,) int array, the given labels
        wrong: (N,) bool, the truth

    Returns:
        ``ece``, the expected calibration error in ten bins; ``estimated`` and ``true`` noise rate;
        ``covered``, 1 where the 95 % interval of the estimate holds the truth, else 0;
        ``by class``, the mean error of the estimate for the samples of one given label, weighted by
        their number; ``classes covered``, the share of the given labels whose own interval holds
        the truth, each counting once
    """
    scored = np.isfinite(clean_score)
    scores, given, wrong = clean_score[scored].astype(np.float64), given[scored], wrong[scored]
    rate, true = noise_rate(scores), float(wrong.mean())
    counts, misses, held = [], [], []
    for label, found in noise_rates(scores, given).items():
        share = float(wrong[given == label].mean())
        counts.append(found.count)
        misses.append(abs(found.rate - share))
        held.append(found.low <= share <= found.high)
    return {
        "ece": expected_calibration_error(scores, ~wrong),
        "estimated": rate.rate,
        "true": true,
        "covered": float(rate.low <= true <= rate.high),
        "by class": float(np.average(misses, weights=counts)),
        "classes covered": float(np.mean(held)),
    }


def expected_calibration_error(probs: np.ndarray, happened: np.ndarray) -> float:
    """Mean distance between probability and frequency over ten bins of equal width.

    Args:
        probs: (N,) float array in [0, 1]
        happened: (N,) bool

    Returns:
        the error, in [0, 1]
    """
    bins = np.minimum((probs * BINS).astype(int), BINS - 1)
    gaps = np.bincount(bins, weights=probs - happened, minlength=BINS)
    return float(np.abs(gaps).sum() / len(probs))
