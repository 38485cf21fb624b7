"""What was computed last stays in memory as long as the samples behind it are the same."""

from __future__ import annotations

import threading
from collections.abc import Callable, Hashable
from typing import Generic, TypeVar

import fiftyone as fo

T = TypeVar("T")


class Last(Generic[T]):
    """Keeps one value. Of threads that ask for it at the same time, one makes it."""

    def __init__(self) -> None:
        self._kept: tuple[Hashable, T] | None = None
        self._lock = threading.Lock()

    def get(self, state: Hashable, make: Callable[[], T]) -> T:
        """Returns the value of a state.

        Args:
            state: all that the value depends on
            make: makes the value, if the one that is kept belongs to another state
        """
        with self._lock:
            if self._kept is None or self._kept[0] != state:
                self._kept = state, make()
            return self._kept[1]

    def peek(self) -> T | None:
        """Returns the value that is kept, of whatever state; never waits."""
        kept = self._kept
        return None if kept is None else kept[1]


def content_state(dataset: fo.Dataset) -> Hashable:
    """Returns a value that changes with the samples of a dataset; found by index, at any size."""
    return str(dataset._doc.id), dataset._max("last_modified_at"), len(dataset)
