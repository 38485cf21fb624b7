"""What was computed last stays in memory as long as the samples behind it are the same."""

from __future__ import annotations

import threading
from collections.abc import Callable, Hashable
from datetime import datetime, timedelta, timezone
from typing import Generic, NamedTuple, TypeVar

import fiftyone as fo
from bson import ObjectId

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

    def forget(self) -> None:
        """Makes the next one to ask make the value."""
        with self._lock:
            self._kept = None


class ContentState(NamedTuple):
    """What changes with the samples of a dataset.

    Attributes:
        dataset: its id
        changed_at: when a sample was changed last; None where there are none
        samples: how many there are
    """

    dataset: str
    changed_at: datetime | None
    samples: int


def content_state(dataset: fo.Dataset) -> ContentState:
    """Returns a value that changes with the samples of a dataset; found by index, at any size."""
    return ContentState(str(dataset._doc.id), dataset._max("last_modified_at"), len(dataset))


def end_change(dataset: fo.Dataset, sample_id: ObjectId, began: datetime) -> None:
    """Ends a change of many samples that all got one time, so that the state is one of its own.

    Whoever looked at the samples while only some of them had changed saw the same time.

    Args:
        dataset: the dataset
        sample_id: one of the samples
        began: the time that they got
    """
    later = max(datetime.now(timezone.utc), began + timedelta(milliseconds=1))
    dataset._sample_collection.update_one({"_id": sample_id}, {"$set": {"last_modified_at": later}})
