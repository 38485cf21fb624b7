"""Takes the time of the steps of a benchmark."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")


class Clock:
    """Calls functions, says on stderr how long each took, and keeps it.

    Attributes:
        seconds: name of a step → how long it took
    """

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}

    def __call__(self, name: str, work: Callable[[], T]) -> T:
        """Returns what ``work()`` returns."""
        began = time.perf_counter()
        result = work()
        self.seconds[name] = time.perf_counter() - began
        print(f"{name}: {self.seconds[name]:.2f} s", file=sys.stderr, flush=True)
        return result
