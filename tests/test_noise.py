"""Synthetic noise: how much, where to, and the same again."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from clipcleaner_plugin.noise import draw_noise

LABELS = np.repeat(np.arange(10), 1000)


def test_symmetric_noise_is_uniform_over_all_classes() -> None:
    noisy = draw_noise(LABELS, 10, "symmetric", 0.5)
    wrong = noisy != LABELS
    # 5,000 redrawn labels, of which a tenth hits the old class: 4,500 expected, deviation 21
    assert abs(wrong.sum() - 4500) < 5 * 21
    counts = np.bincount(noisy[wrong], minlength=10)
    assert (abs(counts - 450) < 5 * 21).all()


def test_redrawn_labels_may_fall_back_on_their_own_class() -> None:
    noisy = draw_noise(LABELS, 10, "symmetric", 1.0)
    assert abs((noisy == LABELS).sum() - 1000) < 5 * 30


def test_asymmetric_noise_goes_round_by_default() -> None:
    noisy = draw_noise(LABELS, 10, "asymmetric", 0.3)
    for k in range(10):
        mine = noisy[k == LABELS]
        assert (mine == (k + 1) % 10).sum() == 300 and (mine == k).sum() == 700


def test_asymmetric_noise_follows_its_pairs_only() -> None:
    noisy = draw_noise(LABELS, 10, "asymmetric", 0.4, pairs=[(3, 8), (8, 3), (4, 9)])
    moved = {(a, b): n for a, b, n in count_moves(noisy)}
    assert moved == {(3, 8): 400, (8, 3): 400, (4, 9): 400}


def count_moves(noisy: np.ndarray) -> list[tuple[int, int, int]]:
    wrong = noisy != LABELS
    pairs, counts = np.unique(np.stack([LABELS, noisy])[:, wrong], axis=1, return_counts=True)
    return [(int(a), int(b), int(n)) for (a, b), n in zip(pairs.T, counts, strict=True)]


def test_a_worked_example_never_changes() -> None:
    """The draw is part of what a seed means: published figures rest on it."""
    assert draw_noise(np.arange(10), 10, "symmetric", 0.5, seed=51).tolist() == [
        0,
        1,
        5,
        9,
        5,
        5,
        4,
        4,
        8,
        9,
    ]
    noisy = draw_noise(np.repeat(np.arange(3), 4), 3, "asymmetric", 0.5, seed=51)
    assert noisy.tolist() == [1, 0, 0, 1, 1, 1, 2, 2, 2, 2, 0, 0]


@given(
    labels=st.lists(st.integers(-1, 4), max_size=40),
    kind=st.sampled_from(["symmetric", "asymmetric"]),
    rate=st.floats(0, 1),
    seed=st.integers(0, 2**32 - 1),
)
def test_invariants(labels: list[int], kind: str, rate: float, seed: int) -> None:
    clean = np.array(labels, dtype=np.int32)
    before = clean.copy()
    noisy = draw_noise(clean, 5, kind, rate, seed)
    assert np.array_equal(clean, before)
    assert noisy.dtype == np.int64 and noisy.shape == clean.shape
    assert np.array_equal(noisy == -1, clean == -1)
    assert ((noisy >= 0) & (noisy < 5))[clean >= 0].all()
    assert (noisy != clean).sum() <= np.ceil(rate * (clean >= 0).sum()) + 5 * (kind != "symmetric")
    assert np.array_equal(noisy, draw_noise(clean, 5, kind, rate, seed))


def test_rate_zero_and_the_seed() -> None:
    assert np.array_equal(draw_noise(LABELS, 10, rate=0), LABELS)
    first, second = (draw_noise(LABELS, 10, seed=seed) for seed in (1, 2))
    assert not np.array_equal(first, second)


def test_the_draw_depends_on_nothing_else() -> None:
    expected = draw_noise(LABELS, 10)
    np.random.seed(3)
    np.random.random(7)
    assert np.array_equal(draw_noise(LABELS, 10), expected)
    state = np.random.get_state()[1]
    draw_noise(LABELS, 10)
    assert np.array_equal(np.random.get_state()[1], state)


@pytest.mark.parametrize(
    ("changes", "error", "match"),
    [
        ({"labels": [0, 10]}, ValueError, r"labels\[1\] is 10; expected -1 \(no label\) to 9"),
        ({"labels": [0, -2]}, ValueError, r"labels\[1\] is -2"),
        ({"labels": [0.0, 1.0]}, TypeError, "expected integers, got float64"),
        ({"labels": [[0, 1]]}, ValueError, r"expected shape \(N,\)"),
        ({"num_classes": 0}, ValueError, "num_classes=0"),
        ({"kind": "random"}, ValueError, "choose one of symmetric, asymmetric"),
        ({"rate": 1.5}, ValueError, r"rate=1\.5"),
        ({"rate": float("nan")}, ValueError, "rate=nan"),
        ({"seed": -1}, ValueError, "seed must lie in"),
        ({"seed": "a"}, TypeError, "seed must be an int"),
        ({"pairs": [(0, 1)]}, ValueError, "only for kind='asymmetric'"),
        ({"kind": "asymmetric", "pairs": [(0, 10)]}, ValueError, "holds class 10"),
        ({"kind": "asymmetric", "pairs": [(1, 1)]}, ValueError, "leads to itself"),
        ({"kind": "asymmetric", "pairs": [(1, 2), (1, 3)]}, ValueError, "two targets, 2 and 3"),
        ({"kind": "asymmetric", "num_classes": 1, "labels": [0]}, ValueError, "two classes"),
    ],
)
def test_bad_arguments(changes: dict[str, Any], error: type[Exception], match: str) -> None:
    arguments: dict[str, Any] = {"labels": [0, 1], "num_classes": 10, **changes}
    arguments["labels"] = np.array(arguments["labels"])
    with pytest.raises(error, match=match):
        draw_noise(**arguments)
