"""Classes that images of no class are taken for, told from classes that lost their labels."""

from __future__ import annotations

import numpy as np

from .labeled import Labeled

# Share of the pairs in which what keeps its label looks more like the class than what the class
# draws, beyond one half: in standard deviations of chance
_SURE = 2.0
_LEAST = 0.05  # and at least, since images that are hard to judge make a little
_ITS_OWN = 0.75  # share of what a class draws that looks most like it: then all of that is its own


def find_refuges(
    rows: Labeled, looks: np.ndarray, shares: np.ndarray, scattered: np.ndarray
) -> np.ndarray:
    """Finds classes whose scattered labels are of images that do not look like them.

    Images that belong to none of the classes have labels of all. Once some of them are taken for
    one class, it looks a little more like them, and so draws the others. In the end this seems to
    be a class most of whose labels were scattered. But before any label was doubted, they looked
    less like that class than the images that keep its label do, out of fold alike. What a class has
    lost has to look even more like it, since its labels speak against that. How the images rank by
    this is compared, as in the test of Mann & Whitney ("On a Test of Whether one of Two Random
    Variables is Stochastically Larger than the Other", 1947). A class may also lose what is less
    typical of it; that still looks more like it than like any other.

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
        own = looks[of_class]
        ahead = own[:, label] - np.delete(own, label, axis=1).max(axis=1)
        kept = rows.labels[of_class] == label
        found[label] = _is_larger(ahead, kept) and np.mean(ahead[~kept] > 0) < _ITS_OWN
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
