"""Tables of samples and classes, a block at a time: the same as all at once."""

from __future__ import annotations

import threading

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from clipcleaner_plugin import tables
from clipcleaner_plugin.fitting import one_blas_thread
from clipcleaner_plugin.tables import ByLabel, by_rows


@given(
    labels=st.lists(st.integers(0, 6), max_size=60),
    block=st.sampled_from([1, 40, 100, 10**6]),
    seed=st.integers(0, 9),
)
def test_sums_by_label_are_those_of_a_slow_loop(labels: list[int], block: int, seed: int) -> None:
    given_labels = np.array(labels, dtype=np.int64)
    numbers = np.random.default_rng(seed).normal(0, 12, (len(labels), 7))
    table = np.exp(numbers).astype(np.float32)  # so far apart that another order rounds otherwise
    expected = np.zeros((7, 7))
    for label, row in zip(labels, table, strict=True):
        expected[label] += row
    with pytest.MonkeyPatch.context() as patched, one_blas_thread():
        patched.setattr(tables, "_BLOCK", block)
        found = ByLabel(given_labels, 7).sum(lambda rows: table[rows])
    np.testing.assert_array_equal(found, expected)


@given(sizes=st.lists(st.integers(0, 120), min_size=1, max_size=12))
def test_a_block_is_of_bounded_size(sizes: list[int]) -> None:
    """Fewer rows than a block has, beside those of one label."""
    labels = np.repeat(np.arange(len(sizes)), sizes)
    seen: list[np.ndarray] = []

    def table(rows: np.ndarray) -> np.ndarray:
        seen.append(rows)
        return np.zeros((len(rows), len(sizes)))

    with pytest.MonkeyPatch.context() as patched, one_blas_thread():
        patched.setattr(tables, "_BLOCK", 50 * len(sizes))
        ByLabel(labels, len(sizes)).sum(table)
    assert sorted(np.concatenate(seen or [labels])) == list(range(sum(sizes)))
    for rows in seen:
        assert len(rows) - sizes[labels[rows[0]]] < 50
    assert len(seen) <= sum(sizes) / 50 + 1


def test_segments_name_the_rows_of_each_label() -> None:
    rows, begins, lengths = ByLabel(np.array([2, 0, 2, 3]), 5).segments(np.array([2, 4, 0]))
    assert rows.tolist() == [0, 2, 1]
    assert begins.tolist() == [0, 2, 2] and lengths.tolist() == [2, 0, 1]


def test_blocks_of_rows_come_in_order_and_from_several_threads(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("clipcleaner_plugin.fitting._cores", lambda: 2)
    monkeypatch.setattr(tables, "_BLOCK", 100)
    both = threading.Barrier(2, timeout=60)

    def work(block: slice) -> list[int]:
        if block.start < 20:  # the first two wait for each other
            both.wait()
        return list(range(35))[block]

    with one_blas_thread():
        found = by_rows(work, 35, 10)
    assert [len(part) for part in found] == [10, 10, 10, 5]
    assert [row for part in found for row in part] == list(range(35))


def test_no_rows_are_no_work() -> None:
    def work(part: object) -> np.ndarray:
        raise AssertionError

    with one_blas_thread():
        assert by_rows(work, 0, 3) == []
        assert not ByLabel(np.zeros(0, dtype=np.int64), 3).sum(work).any()
