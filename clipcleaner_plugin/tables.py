"""Tables of samples and classes, worked on by all cores and a block of rows at a time."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import TypeVar

import numpy as np

from .fitting import in_order

T = TypeVar("T")

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
    return _on_all_cores(work, [slice(start, start + size) for start in range(0, count, size)])


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
        sums = np.zeros((self.num_classes, self.num_classes))

        def add(labels: np.ndarray) -> None:
            rows, begins, lengths = self.segments(labels)
            part = table(rows)
            for label, begin, length in zip(labels, begins, lengths, strict=True):
                np.sum(part[begin : begin + length], axis=0, dtype=np.float64, out=sums[label])

        _on_all_cores(add, self._blocks())
        return sums

    def _blocks(self) -> list[np.ndarray]:
        """Labels that there are, so many together as have a block of rows."""
        present = np.flatnonzero(self.sizes)
        ends = np.cumsum(self.sizes[present])
        block = (ends - 1) // max(_BLOCK // self.num_classes, 1)
        return np.split(present, np.flatnonzero(np.diff(block)) + 1)


def _on_all_cores(work: Callable[..., T], blocks: list[slice] | list[np.ndarray]) -> list[T]:
    # One block is done before another thread has been told of it
    apply = in_order if len(blocks) > 1 else map
    return list(apply(work, blocks))
