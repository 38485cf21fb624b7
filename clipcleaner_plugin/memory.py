"""What was computed last stays in memory as long as the samples behind it are the same."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from typing import Generic, TypeVar

import fiftyone as fo

T = TypeVar("T")


class Last(Generic[T]):
    """Keeps one value. Threads may share it: at worst they compute a value twice."""

    def __init__(self) -> None:
        self._kept: tuple[Hashable, T] | None = None

    def get(self, state: Hashable, make: Callable[[], T]) -> T:
        """Returns the value of a state.

        Args:
            state: all that the value depends on
            make: makes the value, if the one that is kept belongs to another state
        """
        kept = self._kept
        if kept is None or kept[0] != state:
            self._kept = kept = state, make()
        return kept[1]


def content_state(dataset: fo.Dataset) -> Hashable:
    """Returns a value that changes with the samples of a dataset; found by index, at any size."""
    return str(dataset._doc.id), dataset._max("last_modified_at"), len(dataset)
