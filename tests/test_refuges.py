"""Classes that images of no class are taken for, by hand and among clusters."""

from __future__ import annotations

import numpy as np
import pytest

from clipcleaner_plugin import cleaning
from clipcleaner_plugin.labeled import Labeled
from clipcleaner_plugin.refuges import find_refuges
from clipcleaner_plugin.scoring import score_labels

K = 3


def refuges(
    kept: int,
    taken: int,
    *,
    of: int = 20,
    moved: int = 0,
    scattered: float = 0.5,
    judged: bool = True,
) -> list[int]:
    """Of 20 images that keep the label 1 and 20 taken for it, so many look like it at first.

    Some more are labeled 1 and do not look like it, and are taken for another.
    """
    labels = np.repeat([1, 0, 1], [of, of, moved])
    looks = np.zeros((len(labels), K), dtype=np.float32)
    looks[:, 2] = 1
    looks[[*range(kept), *range(of, of + taken)], 1] = 2
    return refuges_of(labels, looks, 2 * of, scattered, judged)


def refuges_of(
    labels: np.ndarray,
    looks: np.ndarray,
    of_class: int,
    scattered: float = 0.5,
    judged: bool = True,
) -> list[int]:
    """Where class 1 has scattered labels, and so many of the first images are taken for it."""
    n = len(labels)
    shares = np.tile(np.array([0.8, 0.1, 0.1], np.float32), (n, 1))
    shares[:of_class] = [0.1, 0.8, 0.1]
    fold_of, weights = np.full(n, 0 if judged else -1), np.ones(n, dtype=np.float32)
    rows = Labeled(looks, None, labels, fold_of, weights)
    found = find_refuges(rows, looks, shares, np.array([0.0, scattered, 0.0]))
    return np.flatnonzero(found).tolist()


def test_what_a_class_has_lost_looks_like_it_from_the_first() -> None:
    assert refuges(16, 16) == refuges(16, 20) == []
    assert refuges(18, 17) == refuges(1800, 1700, of=2000) == []
    # 16 and 9 of 20: .5 + (16 - 9) / 20 / 2 = .675 of the pairs, with a deviation of
    # sqrt(41 / (12 * 400)) = .092
    assert refuges(16, 9) == []
    assert refuges(16, 8) == [1]


def test_labels_that_a_class_does_not_keep_tell_nothing_of_what_it_looks_like() -> None:
    assert refuges(16, 8, moved=20) == [1]
    assert refuges(16, 9, moved=200) == []


@pytest.mark.parametrize(("first", "expected"), [(20, []), (15, []), (14, [1])])
def test_what_looks_most_like_a_class_is_its_own_though_less_typical(
    first: int, expected: list[int]
) -> None:
    labels = np.repeat([1, 0], 20)
    looks = np.zeros((40, K), dtype=np.float32)
    looks[:20, 1] = 3
    looks[20 : 20 + first, 1] = 1
    looks[20 + first :, 2] = 1
    assert refuges_of(labels, looks, 40) == expected


def test_few_images_of_a_class_rank_as_the_test_of_mann_and_whitney() -> None:
    from scipy.stats import mannwhitneyu

    for seed in range(20):
        random = np.random.default_rng(seed)
        labels = np.repeat([1, 0], [12, 25])
        looks = random.standard_normal((37, K)).astype(np.float32)
        looks[:12, 1] += 1
        ahead = looks[:, 1] - np.maximum(looks[:, 0], looks[:, 2])
        expected = mannwhitneyu(ahead[:12], ahead[12:], method="asymptotic", use_continuity=False)
        found = refuges_of(labels, looks, 37) == [1]
        # Two standard deviations, of both sides
        assert found == (expected.pvalue < 0.0455 and expected.statistic > 12 * 25 / 2)


def test_where_nothing_is_scattered_or_judged_there_is_no_refuge() -> None:
    assert refuges(16, 0) == [1]
    assert refuges(16, 0, scattered=0.0) == []
    assert refuges(16, 0, judged=False) == []


@pytest.mark.parametrize(("d", "k", "strange", "of_each"), [(32, 10, 6, 20), (128, 20, 40, 5)])
def test_strangers_are_told_from_what_a_class_has_lost(
    d: int, k: int, strange: int, of_each: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Clear classes, and images of others with any label: one class draws nearly all of these."""
    random = np.random.default_rng(1)
    centres = random.standard_normal((k + strange, d))
    truth = np.repeat(np.arange(k + strange), [*[40] * k, *[of_each] * strange])
    features = centres[truth] + 0.5 * random.standard_normal((len(truth), d))
    foreign = truth >= k
    labels = np.where(foreign, random.integers(0, k, len(truth)), truth)

    found = score_labels(features, labels)
    assert np.mean(found.open_set[foreign]) > 0.75
    assert max(np.mean(found.open_set[truth == label]) for label in range(k)) < 0.1
    assert np.mean(found.open_set[~foreign]) < 0.02
    assert found.suggested_confidence[found.open_set].max() < 0.5, "no label is right"
    monkeypatch.setattr(cleaning, "find_refuges", lambda *_: np.zeros(k, dtype=bool))
    assert np.mean(score_labels(features, labels).open_set[foreign]) < 0.1


def test_the_images_of_a_refuge_are_of_it() -> None:
    """A class of a dozen, which two hundred strangers are taken for, keeps its own."""
    random = np.random.default_rng(1)
    centres = random.standard_normal((25, 64))
    truth = np.repeat(np.arange(25), [12] + [60] * 14 + [20] * 10)
    features = centres[truth] + 0.6 * random.standard_normal((len(truth), 64))
    foreign = truth >= 15
    labels = np.where(foreign, random.integers(0, 15, len(truth)), truth)
    found = score_labels(features, labels)
    assert np.mean(found.open_set[foreign]) > 0.75
    assert max(np.mean(found.open_set[truth == label]) for label in range(15)) < 0.1


def test_what_a_class_has_lost_is_not_of_no_class() -> None:
    random = np.random.default_rng(1)
    truth = np.repeat(np.arange(12), [*[250] * 11, 2000])
    features = random.standard_normal((12, 32))[truth]
    features = features + 1.8 * random.standard_normal((len(truth), 32))
    lost = (truth == 11) & (random.random(len(truth)) < 0.6)
    labels = np.where(lost, random.integers(0, 11, len(truth)), truth)
    found = score_labels(features, labels)
    assert np.mean(found.open_set) < 0.01
