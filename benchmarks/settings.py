"""What detection is measured on: kinds of noise, and sets that are made harder."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from benchmarks.data import FeatureSet
from benchmarks.noise import lookalike_noise, lost_noise, partner_noise, projected_noise
from clipcleaner_plugin.noise import draw_noise
from clipcleaner_plugin.zeroshot import normalize_rows

PLAIN, NO_TEXT, NO_NOISE = "as it is", "no class names", "none"
HARD = ("symmetric 20 %", "pair flips 30 %")  # the noise of sets that are made harder
QUICK = (*HARD, NO_NOISE)  # the noise of a quick run

Draw = Callable[[FeatureSet, int], np.ndarray]
Change = Callable[[FeatureSet, np.random.RandomState], FeatureSet]


@dataclass(frozen=True)
class Task:
    """Labels to check, as a method sees them, and the truth.

    Attributes:
        features: (N, d) float32 unit rows
        given: (N,) int64 in [0, K)
        texts: (K, d) float array, or None
        num_classes: K
        wrong: (N,) bool
    """

    features: np.ndarray
    given: np.ndarray
    texts: np.ndarray | None
    num_classes: int
    wrong: np.ndarray


def _injected(kind: str, rate: float) -> Draw:
    return lambda data, seed: draw_noise(data.labels, len(data.texts), kind, rate, seed)


def _partners(rate: float) -> Draw:
    return lambda data, seed: partner_noise(data.labels, len(data.texts), rate, seed)


def _projected(rate: float) -> Draw:
    return lambda data, seed: projected_noise(
        data.features, data.labels, len(data.texts), rate, seed
    )


def _lookalike(rate: float) -> Draw:
    return lambda data, seed: lookalike_noise(
        data.features, data.labels, len(data.texts), rate, seed
    )


def _lost(rate: float, absorbed: bool) -> Draw:
    return lambda data, seed: lost_noise(data.labels, len(data.texts), rate, seed, absorbed)


NOISE: dict[str, Draw] = {
    **{f"symmetric {r} %": _injected("symmetric", r / 100) for r in (5, 20, 40)},
    **{f"pair flips {r} %": _injected("asymmetric", r / 100) for r in (5, 20, 30, 40)},
    **{f"three partners {r} %": _partners(r / 100) for r in (20, 40)},
    **{f"instance-dependent {r} %": _projected(r / 100) for r in (5, 20, 40)},
    "look-alike 30 %": _lookalike(0.3),
    "scattered classes 80 %": _lost(0.8, absorbed=False),
    **{f"absorbed classes {r} %": _lost(r / 100, absorbed=True) for r in (40, 80)},
    NO_NOISE: _injected("symmetric", 0.0),
}


def imbalanced(data: FeatureSet, random: np.random.RandomState) -> FeatureSet:
    """Sizes of the classes fall from the largest to a fiftieth of it, in a random order."""
    k = len(data.texts)
    sizes = np.bincount(data.labels, minlength=k).max() * 50.0 ** -np.linspace(0, 1, k)
    rows = [
        random.permutation(np.flatnonzero(data.labels == label))[: max(2, round(size))]
        for label, size in zip(random.permutation(k), sizes.tolist(), strict=True)
    ]
    return _rows(data, np.sort(np.concatenate(rows)))


def catch_all(data: FeatureSet, random: np.random.RandomState) -> FeatureSet:
    """A quarter of the classes are one, whose name lies in the middle of theirs."""
    k = len(data.texts)
    merged = np.zeros(k, dtype=bool)
    merged[random.permutation(k)[: k // 4]] = True
    place = np.where(merged, np.sum(~merged), np.cumsum(~merged) - 1)
    middle = normalize_rows(data.texts).mean(axis=0, where=merged[:, None], keepdims=True)
    return replace(
        data, labels=place[data.labels], texts=np.concatenate([data.texts[~merged], middle])
    )


def few_classes(count: int) -> Change:
    """Some of the classes only."""

    def change(data: FeatureSet, random: np.random.RandomState) -> FeatureSet:
        return _classes(data, np.sort(random.permutation(len(data.texts))[:count]))

    return change


def few_samples(count: int) -> Change:
    """Some of the samples only, and the classes that they leave."""

    def change(data: FeatureSet, random: np.random.RandomState) -> FeatureSet:
        part = _rows(data, np.sort(random.permutation(len(data.labels))[:count]))
        return _classes(part, np.unique(part.labels))

    return change


def random_names(share: float) -> Change:
    """Some classes have names that say nothing: mean and covariance of names, at random."""

    def change(data: FeatureSet, random: np.random.RandomState) -> FeatureSet:
        names, k = normalize_rows(data.texts), len(data.texts)
        hit = random.permutation(k)[: round(share * k)]
        mean = names.mean(axis=0)
        drawn = mean + random.standard_normal((len(hit), k)) @ (names - mean) / np.sqrt(k)
        texts = names.copy()
        texts[hit] = normalize_rows(drawn)
        return replace(data, texts=texts)

    return change


VARIANTS: dict[str, Change] = {
    PLAIN: lambda data, random: data,
    "imbalance 1:50": imbalanced,
    "catch-all class": catch_all,
    "3 classes": few_classes(3),
    "10 classes": few_classes(10),
    "300 samples": few_samples(300),
    "half of the names random": random_names(0.5),
    "all names random": random_names(1.0),
    NO_TEXT: lambda data, random: data,
}
# A draw of few samples has some 30 wrong labels: a handful of them decides its figures
DRAWS = {"3 classes": 10, "300 samples": 10}


def make_task(data: FeatureSet, variant: str, noise: str, seed: int) -> Task:
    """Makes a set harder and draws noise on it.

    Args:
        data: features with true labels
        variant: a key of ``VARIANTS``
        noise: a key of ``NOISE``
        seed: of both draws

    Returns:
        the task
    """
    changed = VARIANTS[variant](data, np.random.RandomState(seed))
    given = NOISE[noise](changed, seed)
    return Task(
        changed.features,
        given,
        None if variant == NO_TEXT else changed.texts,
        len(changed.texts),
        given != changed.labels,
    )


def _rows(data: FeatureSet, rows: np.ndarray) -> FeatureSet:
    return replace(data, features=data.features[rows], labels=data.labels[rows])


def _classes(data: FeatureSet, classes: np.ndarray) -> FeatureSet:
    part = _rows(data, np.flatnonzero(np.isin(data.labels, classes)))
    return replace(part, labels=np.searchsorted(classes, part.labels), texts=data.texts[classes])
