"""Who trains and who measures: train, val and test by tag, or drawn anew for each class."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from numbers import Real
from typing import Any

import numpy as np

SPLITS = ("train", "val", "test")
FRACTIONS: Mapping[str, float] = {"train": 0.8, "val": 0.1, "test": 0.1}
MODES = ("tags", "random", "none")

# FiftyOne's zoo writes it out
_OF_TAG = {"train": "train", "val": "val", "validation": "val", "test": "test"}


def assign_splits(
    ids: Sequence[str],
    labels: Sequence[str],
    tags: Sequence[Sequence[str]],
    mode: str = "tags",
    fractions: Mapping[str, float] | None = None,
    seed: int = 51,
) -> list[str]:
    """Gives every sample a split.

    Args:
        ids: N sample ids, for messages
        labels: N labels; a draw takes the same share of every one
        tags: the tags of N samples
        mode ("tags"): "tags" = the split that a sample is tagged with (``train``, ``val`` or
            ``validation``, ``test``), a drawn one for the samples that have none; "random" = a
            drawn one for all; "none" = all are ``train``
        fractions (None): share of each split in a draw; None = 0.8, 0.1 and 0.1
        seed (51): of the draw

    Returns:
        N times "train", "val" or "test"

    Raises:
        TypeError, ValueError: if the options make no sense, or a sample is tagged with two splits
    """
    if mode not in MODES:
        raise ValueError(f"split must be one of {', '.join(MODES)}, found {mode!r}")
    shares = checked_fractions(fractions)
    if mode == "none":
        return ["train"] * len(ids)
    found: list[str | None] = [None] * len(ids)
    if mode == "tags":
        found = [split_of_tags(i, of_one) for i, of_one in zip(ids, tags, strict=True)]
    open_ = [i for i, split in enumerate(found) if split is None]
    drawn = stratified([labels[i] for i in open_], shares, seed)
    for i, split in zip(open_, drawn, strict=True):
        found[i] = split
    return [split or "train" for split in found]


def checked_fractions(fractions: Mapping[str, float] | None) -> dict[str, float]:
    """Returns the share of every split, in the order of ``SPLITS``.

    Raises:
        TypeError: if it is no mapping of numbers
        ValueError: if a name is unknown, a share negative, or they do not sum to 1
    """
    given: Mapping[str, Any] = FRACTIONS if fractions is None else fractions
    if not isinstance(given, Mapping):
        raise TypeError(f"fractions must be a dict such as {dict(FRACTIONS)}, found {given!r}")
    unknown = sorted(set(given) - set(SPLITS))
    if unknown:
        raise ValueError(f"fractions: {unknown[0]!r} is none of {', '.join(SPLITS)}")
    for name, share in given.items():
        if isinstance(share, bool) or not isinstance(share, Real) or not math.isfinite(share):
            raise TypeError(f"fractions: {name!r} must be a number, found {share!r}")
    shares = {name: float(given.get(name, 0)) for name in SPLITS}
    if min(shares.values()) < 0 or abs(sum(shares.values()) - 1) > 1e-6:
        raise ValueError(f"fractions must be at least 0 and sum to 1, found {dict(given)!r}")
    return shares


def split_of_tags(sample_id: str, tags: Sequence[str]) -> str | None:
    """Returns the split that a sample is tagged with; None = none.

    Raises:
        ValueError: if it is tagged with two
    """
    found = sorted({_OF_TAG[tag] for tag in tags if tag in _OF_TAG})
    if len(found) > 1:
        raise ValueError(
            f"sample {sample_id} is tagged {' and '.join(found)}: remove one of the tags, or use "
            "split='random'"
        )
    return found[0] if found else None


def stratified(labels: Sequence[str], shares: Mapping[str, float], seed: int) -> list[str]:
    """Draws splits so that every label is spread over them as ``shares`` says.

    Samples are shuffled within their label, laid end to end, and dealt one by one to the split that
    is furthest behind its share. So the whole and each label are within a few samples of the
    shares, also where labels are too rare for a share of their own. Every label keeps at least one
    sample for ``train``, if that has a share.

    Args:
        labels: N labels
        shares: split → share in [0, 1]; they sum to 1
        seed: of the shuffling

    Returns:
        N splits
    """
    names = list(shares)
    targets = np.array([shares[name] for name in names])
    dealt = np.zeros(len(names))
    result = [""] * len(labels)
    places: dict[str, list[int]] = {}
    for i, label in enumerate(labels):
        places.setdefault(label, []).append(i)
    rng = np.random.default_rng(seed)
    total = 0
    for label in sorted(places):
        order = rng.permutation(places[label])
        for i in order:
            total += 1
            behind = targets * total - dealt
            # In a share of 0 rounding may leave a trace
            chosen = int(np.argmax(np.where(targets > 0, behind, -np.inf)))
            dealt[chosen] += 1
            result[i] = names[chosen]
        if targets[0] > 0 and all(result[i] != names[0] for i in order):
            dealt[names.index(result[order[0]])] -= 1
            dealt[0] += 1
            result[order[0]] = names[0]
    return result
