"""Classes that images of no class are taken for, told from classes that lost their labels."""

from __future__ import annotations

import numpy as np

from .labeled import Labeled

_SURE = 2.0  # standard deviations of a difference of two shares
_LEAST = 0.1  # difference, which images that are hard to judge do not make


def find_refuges(
    rows: Labeled, looks: np.ndarray, shares: np.ndarray, scattered: np.ndarray
) -> np.ndarray:
    """Finds classes whose scattered labels are of images that do not look like them.

    Images that belong to none of the classes have labels of all. Once some of them are taken for
    one class, it looks a little more like them, and so draws the others. In the end this seems to
    be a class most of whose labels were scattered. But before any label was doubted, they looked
    less like that class than the images with its label do, out of fold alike; what a class has
    lost does look like it.

    Args:
        rows: n of them
        looks: (n, K) float32 logits of the images, by models of the given labels
        shares: (n, K) float32, the probability of each true label
        scattered: (K,) share of each class's labels that are scattered

    Returns:
        (K,) bool
    """
    labels, judged = rows.labels, rows.judged
    found = np.zeros(looks.shape[1], dtype=bool)
    first, best = looks.argmax(axis=1), shares.argmax(axis=1)
    for label in np.flatnonzero(scattered).tolist():
        own = first[judged & (labels == label)] == label
        taken = first[judged & (labels != label) & (best == label)] == label
        if len(own) and len(taken):
            both = (own.sum() + taken.sum()) / (len(own) + len(taken))
            deviation = np.sqrt(both * (1 - both) * (1 / len(own) + 1 / len(taken)))
            found[label] = own.mean() - taken.mean() > max(_SURE * deviation, _LEAST)
    return found
