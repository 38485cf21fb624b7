"""Synthetic label noise: drawn with a seed, so that a run can be repeated and its result
checked."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import numpy as np

from .inputs import check_seed

Pairs = Iterable[tuple[int, int]]


def draw_noise(
    labels: np.ndarray,
    num_classes: int,
    kind: str = "symmetric",
    rate: float = 0.3,
    seed: int = 51,
    pairs: Pairs | None = None,
) -> np.ndarray:
    """Replaces a fraction of the labels by wrong ones.

    "symmetric": exactly ``round(rate * n)`` of the n labelled samples get a label drawn uniformly
    from *all* classes, so that a share of ``rate * (1 - 1 / num_classes)`` ends up wrong (Feng et
    al. 2024, as in DivideMix).
    "asymmetric": exactly ``round(rate * n_c)`` of the samples of every class c that ``pairs`` names
    get the label of its pair; all of these are wrong.

    Args:
        labels: (N,) int in [0, num_classes), or -1 for a sample without a label, which stays
            without
        num_classes: K
        kind ("symmetric"): "symmetric" or "asymmetric"
        rate (0.3): fraction in [0, 1]
        seed (51): fixes the draw; the same arguments give the same labels everywhere
        pairs (None): for "asymmetric", directed (from, to) class indices; None is the cycle k to k
            + 1

    Returns:
        (N,) int64 labels; ``labels`` is not changed

    Raises:
        TypeError: if ``labels`` or ``seed`` are not integers
        ValueError: if an argument is out of range
    """
    clean = _check_labels(labels, num_classes)
    if kind not in _KINDS:
        raise ValueError(f"kind={kind!r}: choose one of {', '.join(_KINDS)}")
    if not 0 <= rate <= 1:
        raise ValueError(f"rate={rate!r}: expected a fraction from 0 to 1")
    if pairs is not None and kind != "asymmetric":
        raise ValueError(f"pairs: only for kind='asymmetric', not {kind!r}")
    # RandomState, because its stream is frozen: a seed means the same noise with every numpy.
    random = np.random.RandomState(check_seed(seed))
    if kind == "symmetric":
        return _symmetric(clean, num_classes, rate, random)
    return _asymmetric(clean, rate, random, _check_pairs(pairs, num_classes))


def _symmetric(
    clean: np.ndarray, num_classes: int, rate: float, random: np.random.RandomState
) -> np.ndarray:
    noisy = clean.copy()
    hit = _draw(np.flatnonzero(clean >= 0), rate, random)
    noisy[hit] = random.randint(num_classes, size=len(hit))
    return noisy


def _asymmetric(
    clean: np.ndarray, rate: float, random: np.random.RandomState, pairs: dict[int, int]
) -> np.ndarray:
    noisy = clean.copy()
    for source in sorted(pairs):
        noisy[_draw(np.flatnonzero(clean == source), rate, random)] = pairs[source]
    return noisy


_KINDS: dict[str, Callable[..., np.ndarray]] = {"symmetric": _symmetric, "asymmetric": _asymmetric}


def _draw(members: np.ndarray, rate: float, random: np.random.RandomState) -> np.ndarray:
    return random.permutation(members)[: round(rate * len(members))]


def _check_labels(labels: np.ndarray, num_classes: int) -> np.ndarray:
    given = np.asarray(labels)
    if num_classes < 1:
        raise ValueError(f"num_classes={num_classes!r}: expected 1 or more")
    if given.ndim != 1:
        raise ValueError(f"labels: expected shape (N,), got {given.shape}")
    if given.size and not np.issubdtype(given.dtype, np.integer):
        raise TypeError(f"labels: expected integers, got {given.dtype}")
    for i in np.flatnonzero((given < -1) | (given >= num_classes))[:1]:
        raise ValueError(f"labels[{i}] is {given[i]}; expected -1 (no label) to {num_classes - 1}")
    return given.astype(np.int64)


def _check_pairs(pairs: Pairs | None, num_classes: int) -> dict[int, int]:
    if pairs is None:
        if num_classes < 2:
            raise ValueError("asymmetric noise needs at least two classes")
        return {k: (k + 1) % num_classes for k in range(num_classes)}
    checked: dict[int, int] = {}
    for source, target in pairs:
        for k in (source, target):
            if not 0 <= k < num_classes:
                raise ValueError(
                    f"pairs: {(source, target)} holds class {k}; expected 0 to {num_classes - 1}"
                )
        if source == target:
            raise ValueError(f"pairs: {(source, target)} leads to itself; that is no noise")
        if source in checked:
            raise ValueError(
                f"pairs: class {source} has two targets, {checked[source]} and {target}"
            )
        checked[source] = target
    return checked
