"""Label noise that depends on the image, drawn with a seed, for benchmarks on clean features."""

from __future__ import annotations

import numpy as np

from clipcleaner_plugin.zeroshot import log_softmax, normalize_rows


def projected_noise(
    features: np.ndarray, labels: np.ndarray, num_classes: int, rate: float, seed: int
) -> np.ndarray:
    """Instance-dependent noise of Xia et al. ("Part-dependent Label Noise", NeurIPS 2020, alg. 2).

    Every sample has a flip rate of its own, normal around ``rate`` (sd .1, cut to [0, 1]), and its
    wrong label comes from a random linear map of its standardised features, one map a true class:
    what looks alike is mislabeled alike. The files of such noise for CIFAR-10 are made this way.

    Args:
        features: (N, d) float array
        labels: (N,) int array of true labels in [0, K)
        num_classes: K >= 2
        rate: mean flip rate, in (0, 1)
        seed: fixes the draw

    Returns:
        (N,) int64 array of noisy labels
    """
    random = np.random.RandomState(seed)
    x = (features - features.mean(axis=0)) / features.std(axis=0)
    flip_rates = random.normal(rate, 0.1, size=10 * len(labels))
    flip_rates = flip_rates[(flip_rates >= 0) & (flip_rates <= 1)][: len(labels)]
    noisy = labels.astype(np.int64)
    for k in range(num_classes):
        members = np.flatnonzero(labels == k)
        logits = x[members] @ random.standard_normal((x.shape[1], num_classes))
        logits[:, k] = -np.inf
        targets = _draw_labels(np.exp(log_softmax(logits)), random)
        flipped = random.random_sample(len(members)) < flip_rates[members]
        noisy[members[flipped]] = targets[flipped]
    return noisy


def lookalike_noise(
    features: np.ndarray, labels: np.ndarray, num_classes: int, rate: float, seed: int
) -> np.ndarray:
    """Mistakes where people make them: ambiguous images, taken for a class that looks alike.

    A nearest-centroid classifier of the *true* labels (softmax of cosine / 0.05) says how likely
    every class is. Exactly ``round(rate * N)`` samples are flipped, drawn with a chance in
    proportion to the rank of ``1 - P(true label)``; the wrong label is drawn from the classifier's
    probabilities of the other classes.

    Args:
        features: (N, d) float array of unit rows
        labels: (N,) int array of true labels in [0, K), every class present
        num_classes: K >= 2
        rate: share of wrong labels, in [0, 1]
        seed: fixes the draw

    Returns:
        (N,) int64 array of noisy labels
    """
    random = np.random.RandomState(seed)
    centroids = np.stack([features[labels == k].mean(axis=0) for k in range(num_classes)])
    probs = np.exp(log_softmax(features @ normalize_rows(centroids).T / 0.05)).astype(np.float64)
    own = probs[np.arange(len(labels)), labels]
    chance = (np.argsort(np.argsort(-own, kind="stable"), kind="stable") + 0.5) / len(labels)
    probs[np.arange(len(labels)), labels] = 0
    targets = _draw_labels(probs / probs.sum(axis=1, keepdims=True), random)
    flipped = random.choice(
        len(labels), round(rate * len(labels)), replace=False, p=chance / chance.sum()
    )
    noisy = labels.astype(np.int64)
    noisy[flipped] = targets[flipped]
    return noisy


def partner_noise(
    labels: np.ndarray, num_classes: int, rate: float, seed: int, partners: int = 3
) -> np.ndarray:
    """Every class is taken for a few others, its partners, drawn at random.

    Args:
        labels: (N,) int array of true labels in [0, K)
        num_classes: K >= 2
        rate: share of wrong labels, in [0, 1]; ``round(rate * N)`` samples are flipped
        seed: fixes the draw
        partners (3): number of partners of a class, as many as there are others at most

    Returns:
        (N,) int64 array of noisy labels
    """
    random = np.random.RandomState(seed)
    count = min(partners, num_classes - 1)
    steps = [1 + random.permutation(num_classes - 1)[:count] for _ in range(num_classes)]
    noisy = labels.astype(np.int64)
    flipped = random.permutation(len(labels))[: round(rate * len(labels))]
    step = np.array(steps)[noisy[flipped], random.randint(count, size=len(flipped))]
    noisy[flipped] = (noisy[flipped] + step) % num_classes
    return noisy


def lost_noise(
    labels: np.ndarray, num_classes: int, rate: float, seed: int, absorbed: bool
) -> np.ndarray:
    """A tenth of the classes lose most of their labels: to one other each, or to all others.

    So it goes where a class was added after much had been labeled, or was merged by mistake.

    Args:
        labels: (N,) int array of true labels in [0, K)
        num_classes: K >= 2
        rate: share of the labels that each of those classes loses, in [0, 1]
        seed: fixes the draw
        absorbed: whether all go to one other class, which is drawn too

    Returns:
        (N,) int64 array of noisy labels
    """
    random = np.random.RandomState(seed)
    noisy = labels.astype(np.int64)
    for label in random.permutation(num_classes)[: max(1, round(num_classes / 10))].tolist():
        members = random.permutation(np.flatnonzero(labels == label))
        gone = members[: round(rate * len(members))]
        steps = random.randint(1, num_classes, size=len(gone))
        noisy[gone] = (label + (steps[:1] if absorbed else steps)) % num_classes
    return noisy


def _draw_labels(probs: np.ndarray, random: np.random.RandomState) -> np.ndarray:
    """One label a row, by the inverse of the cumulated probabilities."""
    drawn = (np.cumsum(probs, axis=1) < random.random_sample((len(probs), 1))).sum(axis=1)
    return np.minimum(drawn, probs.shape[1] - 1)
