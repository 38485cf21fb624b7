"""Classes that another has taken the place of: most images with their label look like its own."""

from __future__ import annotations

import numpy as np

from .labeled import Labeled

_LEAST_OWN = 5  # images, for a class to be given back
# Labels of another class in its place, as a multiple of its own: clear cases first, then others,
# since one that is none may spoil what is found with it. Where 40 % of the labels of all classes
# are flipped to one other, classes of equal size that are in their places have 2/3.
LEADS = (1.0, 0.75)
_REACH = 0.95  # of the images with the leading label


def with_places(
    rows: Labeled, looks: np.ndarray, shares: np.ndarray, lead: float
) -> np.ndarray | None:
    """Gives classes their own images back, where a larger class has pushed them out.

    If a small class is the one that a large class is mistaken for, most of its labels may be of
    images of the large one. What it is said to look like then settles on these, or half-way, and
    its own few images count as strange. That shows: where images look like it, another label leads,
    or nearly so. Images that look like either of the two are then taken to be of the leading class,
    but for those that are farther from it than nearly all with its label; these, and images with
    the small class's label that look like neither, are what the small class is.

    Args:
        rows: n of them
        looks: (n, K) float32 logits of the images
        shares: (n, K) float32, the probability of each true label so far
        lead: one of ``LEADS``

    Returns:
        (n, K) float32 shares to explain the labels from anew, or None where no class is displaced
    """
    labels, judged = rows.labels, rows.judged
    k, of_class = looks.shape[1], np.eye(looks.shape[1], dtype=np.float32)
    place = np.where(judged, looks.argmax(axis=1), -1)
    pairs = place[judged] * k + labels[judged]
    counts = np.bincount(pairs, rows.weights[judged], minlength=k * k).reshape(k, k)
    own_counts = counts.diagonal().copy()
    np.fill_diagonal(counts, 0)
    found = []
    for own, leader in enumerate(counts.argmax(axis=1).tolist()):
        if counts[own, leader] <= lead * own_counts[own] or not np.any(labels == own):
            continue
        here, away = place == own, looks[:, own] - looks[:, leader]
        # Images with the leading label show how far its class reaches; few are farther off
        reach = np.quantile(away[here & (labels == leader)], _REACH)
        kept = here & (labels != leader) & (away > reach)
        kept |= judged & (labels == own) & (place != own) & (place != leader)
        if np.count_nonzero(kept) >= _LEAST_OWN:
            found.append((own, leader, kept))
    if not found:
        return None
    changed = shares.copy()
    for own, leader, _ in found:
        changed[(place == own) | (place == leader)] = of_class[leader]
    for own, _, kept in found:
        changed[kept] = of_class[own]
    return changed
