"""What each recipe trains on, and with which weights."""

from __future__ import annotations

import logging
from dataclasses import dataclass

import numpy as np

from .bundle import Bundle

logger = logging.getLogger(__name__)

# Recipe → what it does
RECIPES = {
    "mixfix": "MixFix: mixup on the selection, which grows by confident predictions",
    "ce": "plain cross-entropy on all given labels",
    "ce-clean": "plain cross-entropy on the selection",
    "weighted": "plain cross-entropy on all given labels, weighted by the clean score",
}


@dataclass(frozen=True)
class Recipe:
    """A recipe's choices.

    Args:
        members: (N,) bool, the samples to train on at first
        weights: (N,) float32, factors of their losses, 1 on average
        mixfix: balanced draws, mixup, absorption and relabelling
    """

    members: np.ndarray
    weights: np.ndarray
    mixfix: bool


def choose_recipe(name: str, bundle: Bundle) -> Recipe:
    """Looks up what a recipe trains on.

    Args:
        name: one of ``RECIPES``
        bundle: the samples

    Returns:
        the choices

    Raises:
        ValueError: if the bundle has nothing for it
    """
    members = np.zeros(len(bundle), dtype=bool)
    members[bundle.splits["train"]] = True
    weights = np.ones(len(bundle), dtype=np.float32)
    if name in ("mixfix", "ce-clean"):
        members &= bundle.selected
        _check_selection(name, bundle, members)
    if name == "weighted":
        weights = _weights(bundle, members)
        members &= weights > 0
    return Recipe(members, weights, name == "mixfix")


def _weights(bundle: Bundle, train: np.ndarray) -> np.ndarray:
    scores = np.nan_to_num(bundle.clean_score, nan=0.0)
    used = train & (scores > 0)
    if not used.any():
        raise ValueError("--recipe weighted: no training sample has a clean score above 0")
    left_out = int(train.sum() - used.sum())
    if left_out:
        logger.warning("%d samples have no clean score, or 0: they are left out", left_out)
    return (scores / scores[used].mean()).astype(np.float32)


def _check_selection(name: str, bundle: Bundle, members: np.ndarray) -> None:
    if not members.any():
        raise ValueError(
            f"--recipe {name}: no sample of the training split is selected; loosen the "
            "selection, or use --recipe ce"
        )
    counts = np.bincount(bundle.labels[members], minlength=len(bundle.classes))
    for count, words in ((0, "no sample in the selection"), (1, "only one")):
        few = [c for c, n in zip(bundle.classes, counts, strict=True) if n == count]
        if few:
            shown = ", ".join(few[:8]) + (", ..." if len(few) > 8 else "")
            logger.warning(
                "%d of %d classes have %s: %s", len(few), len(bundle.classes), words, shown
            )
