"""Kinds of a class: images under one label that do not look like the others, and still belong."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from .gaussians import GaussianFitter
from .noise_model import NoiseModel

_LEAST_MEMBERS = 5
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
    features: np.ndarray,
    language: np.ndarray | None,
    labels: np.ndarray,
    fold_of: np.ndarray,
    weights: np.ndarray,
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
        features: (n, d) float32
        language: (n, K) float32 logits of language, or None
        labels: (n,) int in [0, K)
        fold_of: (n,) int, -1 where no model may judge the row
        weights: (n,) float32 > 0, how many samples each row stands for
        shares: (n, K) float32, the probability of each true label
        model: says how far each opinion is trusted
        known: kinds that have been found before

    Returns:
        further ones
    """
    rows, k = np.arange(len(labels)), shares.shape[1]
    others = shares.copy()
    others[rows, labels] = -1
    other = others.argmax(axis=1)
    doubted = (shares[rows, labels] < 0.5) & (fold_of >= 0)
    for kind in known:
        doubted[kind.members] = False
    pairs, place, counts = np.unique(
        labels[doubted] * k + other[doubted], return_inverse=True, return_counts=True
    )
    members = np.split(np.flatnonzero(doubted)[np.argsort(place, kind="stable")], counts.cumsum())
    sizes = np.bincount(labels, weights, minlength=k)
    groups = [
        (Kind(pair // k, rows_of), pair % k)
        for pair, rows_of in zip(pairs.tolist(), members, strict=False)
        if len(rows_of) >= _LEAST_MEMBERS and weights[rows_of].sum() <= sizes[pair % k]
    ]
    if not groups:
        return []
    tried = [*known, *(kind for kind, _ in groups)]
    gaussians = fitter.fit(split(shares, tried), [kind.of for kind in tried], bias=_BIAS)
    apart = []
    for place_of, (kind, taken_for) in enumerate(groups, start=k + len(known)):
        table = gaussians.of_kinds(features[kind.members], fold_of[kind.members])
        odds = model.images_scale * (table[:, place_of] - table[:, :k].max(axis=1))
        if language is not None:
            by_name = language[kind.members, kind.of] - language[kind.members, taken_for]
            odds = odds + model.language_scale * by_name
        if odds.mean() > _LEAST_ODDS:
            apart.append(kind)
    if not apart:
        return []
    tried = [*known, *apart]
    gaussians = fitter.fit(split(shares, tried), [kind.of for kind in tried], bias=_BIAS)
    table = gaussians.of_kinds(features, fold_of)
    nearest = np.where(fold_of >= 0, table.argmax(axis=1), -1)
    found = []
    for place_of, kind in enumerate(apart, start=k + len(known)):
        near = nearest == place_of
        counts = np.bincount(labels[near], weights[near], minlength=k)
        own, counts[kind.of] = counts[kind.of], 0
        if own > _LEAD * counts.max():
            found.append(kind)
    return found


def split(shares: np.ndarray, kinds: Sequence[Kind]) -> np.ndarray:
    """Gives kinds a column each, (n, K + E) float32, and their members to these."""
    k = shares.shape[1]
    table = np.zeros((len(shares), k + len(kinds)), dtype=np.float32)
    table[:, :k] = shares
    for place, kind in enumerate(kinds, start=k):
        table[kind.members] = 0
        table[kind.members, place] = 1
    return table
