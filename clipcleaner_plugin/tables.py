"""Tables of samples and classes, worked on by all cores and a block of rows at a time."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TypeVar

import numpy as np

from .fitting import in_order

T = TypeVar("T")
S = TypeVar("S")

_BLOCK = 2**18  # numbers; to hand over a smaller one takes as long as the work


def by_rows(work: Callable[[slice], T], count: int, columns: int) -> list[T]:
    """Applies a function to blocks of rows; call it within :func:`.fitting.one_blas_thread`.

    Args:
        work: what it does to a row does not depend on the others
        count: number of rows
        columns: numbers that a row's table takes

    Returns:
        what it returns, in the order of the rows
    """
    size = max(_BLOCK // columns, 1)
    return on_all_cores(work, [slice(start, start + size) for start in range(0, count, size)])


@dataclass(frozen=True)
class ByLabel:
    """Rows, grouped by their given labels.

    Attributes:
        labels: (n,) int in [0, K)
        num_classes: K
    """

    labels: np.ndarray
    num_classes: int

    @cached_property
    def order(self) -> np.ndarray:
        """(n,) int, rows by their labels."""
        return np.argsort(self.labels, kind="stable")

    @cached_property
    def sizes(self) -> np.ndarray:
        """(K,) int, rows of each label."""
        return np.bincount(self.labels, minlength=self.num_classes)

    def segments(self, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """The rows of some labels one after the other, where each label's begin, and how many."""
        lengths = self.sizes[labels]
        begins = np.cumsum(lengths) - lengths
        starts = np.cumsum(self.sizes) - self.sizes
        places = np.arange(lengths.sum()) + np.repeat(starts[labels] - begins, lengths)
        return self.order[places], begins, lengths

    def sum(self, table: Callable[[np.ndarray], np.ndarray]) -> np.ndarray:
        """Sums a table's rows of each label, (K, K) float64, without the whole table at hand.

        Call it within :func:`.fitting.one_blas_thread`.

        Args:
            table: takes some rows, (m,) int, and gives what the table holds of them, (m, K)
        """
        sums, sizes = np.zeros((self.num_classes, self.num_classes)), self.sizes

        def add(block: tuple[np.ndarray, np.ndarray]) -> None:
            labels, rows = block
            parts = np.split(table(rows), np.cumsum(sizes[labels])[:-1])
            for label, part in zip(labels, parts, strict=True):
                np.sum(part, axis=0, dtype=np.float64, out=sums[label])

        on_all_cores(add, self._blocks())
        return sums

    def _blocks(self) -> list[tuple[np.ndarray, np.ndarray]]:
        """Labels and their rows: beside those of its first label, a block has fewer than fit."""
        present = np.flatnonzero(self.sizes)
        if not len(present):
            return []
        ends = np.cumsum(self.sizes[present])
        block = (ends - 1) // max(_BLOCK // self.num_classes, 1)
        cuts = np.flatnonzero(np.diff(block)) + 1
        parts = np.split(present, cuts), np.split(self.order, ends[cuts - 1])
        return list(zip(*parts, strict=True))


def on_all_cores(work: Callable[[S], T], blocks: Sequence[S]) -> list[T]:
    """Applies a function to blocks, as :func:`.fitting.in_order` does, unless there is only one."""
    # That is done before another thread has been told of it
    return list(in_order(work, blocks) if len(blocks) > 1 else map(work, blocks))
