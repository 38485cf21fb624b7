"""Classes that images of no class are taken for, told from classes that lost their labels."""

from __future__ import annotations

import numpy as np

from .labeled import Labeled

# How much more often than not an image of the class looks more like it than one that it draws: in
# standard deviations of chance, and at least, since images that are hard to judge make a little
_SURE, _LEAST = 2.0, 0.05


def find_refuges(
    rows: Labeled, looks: np.ndarray, shares: np.ndarray, scattered: np.ndarray
) -> np.ndarray:
    """Finds classes whose scattered labels are of images that do not look like them.

    Images that belong to none of the classes have labels of all. Once some of them are taken for
    one class, it looks a little more like them, and so draws the others. In the end this seems to
    be a class most of whose labels were scattered. But before any label was doubted, they looked
    less like that class than the images that keep its label do, out of fold alike. What a class has
    lost looks like it, and all the more: its labels speak against it, and those of the kept for
    it. How the images rank by this is compared, as in the test of Mann & Whitney ("On a Test of
    Whether one of Two Random Variables is Stochastically Larger than the Other", 1947).

    Args:
        rows: n of them
        looks: (n, K) float32 logits of the images, by models of the given labels
        shares: (n, K) float32, the probability of each true label
        scattered: (K,) share of each class's labels that are scattered

    Returns:
        (K,) bool
    """
    found = np.zeros(looks.shape[1], dtype=bool)
    best = np.where(rows.judged, shares.argmax(axis=1), -1)
    for label in np.flatnonzero(scattered).tolist():
        of_class = best == label
        others = np.delete(looks[of_class], label, axis=1)
        ahead = looks[of_class, label] - others.max(axis=1)
        found[label] = _is_larger(ahead, rows.labels[of_class] == label)
    return found


def _is_larger(values: np.ndarray, which: np.ndarray) -> bool:
    """Whether some of the values are larger than the others, by more than chance."""
    from scipy.stats import rankdata

    n, m = int(which.sum()), int((~which).sum())
    if not n or not m:
        return False
    wins = (rankdata(values)[which].sum() - n * (n + 1) / 2) / (n * m)  # a tie is half a win
    deviation = np.sqrt((n + m + 1) / (12 * n * m))
    return bool(wins - 0.5 > max(_SURE * deviation, _LEAST))
