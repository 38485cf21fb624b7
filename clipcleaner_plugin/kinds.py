"""Kinds of a class: images under one label that do not look like the others, and still belong."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from .gaussians import GaussianFitter, Gaussians
from .labeled import Labeled
from .noise_model import NoiseModel

_LEAST_MEMBERS = 5  # of which about four, in other folds, tell what it looks like
_LEAST_ODDS = 1.0  # mean log-odds of the images that they are of their own kind
_BIAS = 1.0  # else a class with few labels left would look unlike all of its images
_LEAD = 2  # of the class among the labels of all images that look like the kind


class Kind(NamedTuple):
    """Some images of one class.

    Attributes:
        of: in [0, K), the class
        members: (m,) int, rows
    """

    of: int
    members: np.ndarray


def find_kinds(
    fitter: GaussianFitter,
    rows: Labeled,
    shares: np.ndarray,
    model: NoiseModel,
    known: Sequence[Kind],
) -> list[Kind]:
    """Finds labels that are called wrong only because their class is of several kinds.

    A class that holds everything else, or a name for several things, is more than one Gaussian, and
    what lies far from its middle is soon nearer to another class. So the images with one label that
    are said to be of one other class get a Gaussian of their own. If they belong to that class, it
    will not be better, out of fold, than what that class looks like. Or it is better, because
    they are a kind of that class: then there are as many labels of that class around. Where neither
    is so, they are a kind of the class that they are labeled.

    Args:
        fitter: of these rows
        rows: n of them
        shares: (n, K) float32, the probability of each true label
        model: says how far each opinion is trusted
        known: kinds that have been found before

    Returns:
        further ones
    """
    k = shares.shape[1]
    groups = _groups(rows, shares, known)
    if not groups:
        return []

    def looks_with(kinds: list[Kind]) -> Gaussians:
        tried = [*known, *kinds]
        return fitter.fit(split(shares, tried), [kind.of for kind in tried], bias=_BIAS)

    gaussians = looks_with([kind for kind, _ in groups])
    apart, first = [], k + len(known)
    for column, (kind, taken_for) in enumerate(groups, start=first):
        table = gaussians.of_each(rows.features[kind.members], rows.fold_of[kind.members])
        # Known kinds of its own class are no rivals: it may be one of them
        of_others = (place for place, other in enumerate(known, start=k) if other.of != kind.of)
        rivals = [*range(k), *of_others]
        odds = model.images_scale * (table[:, column] - table[:, rivals].max(axis=1))
        if rows.language is not None:
            names = rows.language[kind.members]
            by_name = names[:, kind.of] - names[:, taken_for]
            odds = odds + model.language_scale * by_name
        if odds.mean() > _LEAST_ODDS:
            apart.append(kind)
    if not apart:
        return []
    nearest = looks_with(apart).of_each(rows.features, rows.fold_of).argmax(axis=1)
    return [
        kind
        for column, kind in enumerate(apart, start=first)
        if _leads(kind.of, rows.labels[nearest == column], rows.weights[nearest == column])
    ]


def _groups(rows: Labeled, shares: np.ndarray, known: Sequence[Kind]) -> list[tuple[Kind, int]]:
    """Images with one label that are probably of one other class, and that class.

    Where that has fewer labels than there are such images, the lack of its labels among them tells
    nothing.
    """
    labels, weights = rows.labels, rows.weights
    each, k = np.arange(len(labels)), shares.shape[1]
    others = shares.copy()
    others[each, labels] = -1
    doubted = (shares[each, labels] < 0.5) & rows.judged
    for kind in known:
        doubted[kind.members] = False
    doubted_rows = np.flatnonzero(doubted)
    pairs = labels[doubted] * k + others[doubted].argmax(axis=1)
    order = np.argsort(pairs, kind="stable")
    found, starts = np.unique(pairs[order], return_index=True)
    groups = np.split(doubted_rows[order], starts[1:])
    sizes = np.bincount(labels, weights, minlength=k)
    return [
        (Kind(pair // k, members), pair % k)
        for pair, members in zip(found.tolist(), groups, strict=False)
        if len(members) >= _LEAST_MEMBERS and weights[members].sum() <= sizes[pair % k]
    ]


def _leads(label: int, labels: np.ndarray, weights: np.ndarray) -> bool:
    """Whether a label is far more frequent than any other."""
    counts = np.bincount(labels, weights, minlength=label + 1)
    own, counts[label] = counts[label], 0
    return bool(own > _LEAD * counts.max())


def split(shares: np.ndarray, kinds: Sequence[Kind]) -> np.ndarray:
    """Gives kinds a column each.

    Args:
        shares: (n, K) float32, of each class
        kinds: E of them

    Returns:
        (n, K + E) float32; the members of a kind are in its column alone
    """
    k = shares.shape[1]
    table = np.zeros((len(shares), k + len(kinds)), dtype=np.float32)
    table[:, :k] = shares
    for place, kind in enumerate(kinds, start=k):
        table[kind.members] = 0
        table[kind.members, place] = 1
    return table
