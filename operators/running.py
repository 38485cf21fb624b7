"""Runs a long library call for an operator: progress out, cancellation in, failures in words.

Immediate runs are generators. The library works in a thread of its own and the generator looks at
its progress a few times a second, so that the App's server always has a message to send soon after
the browser went away; the closed generator then stops the work at its next progress report.
Delegated runs call the library in the worker's thread, and stop when the operation is marked as
failed.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

import fiftyone.operators as foo

logger = logging.getLogger(__name__)

T = TypeVar("T")
# Takes a ``fiftyone.core.utils.ProgressBar``; what the library calls a progress callable
Report = Callable[[Any], None]
Work = Callable[[Report], T]

LIBRARY_LOGGER = "clipcleaner_plugin"

# Seconds between two looks at the work, and the longest silence towards the App: the server notices
# that the browser has gone only while it sends
_POLL = 0.2
_HEARTBEAT = 2.0

# Every report of a delegated run is a write to the database
_DELEGATED_INTERVAL = 2.0


class Cancelled(BaseException):
    """Stops the library from its progress callback, past every ``except Exception`` like Ctrl-C."""


class Progress:
    """What the work last said about itself; written by its thread, read by the operator's.

    Args:
        cancelled: called at every report; True stops the work
    """

    def __init__(self, cancelled: Callable[[], bool]) -> None:
        self._cancelled = cancelled
        self._stage = "Starting"
        self._count = ""
        self.fraction = 0.0

    @property
    def label(self) -> str:
        """The stage and, where it counts something, how much is done."""
        return f"{self._stage}{self._count}"

    def report(self, bar: Any) -> None:
        """Takes a report of the library's progress bar.

        Args:
            bar: a ``fiftyone.core.utils.ProgressBar``

        Raises:
            Cancelled: where nobody waits for the work any more
        """
        if self._cancelled():
            raise Cancelled
        self.fraction = min(1.0, max(0.0, float(bar.progress or 0.0)))
        note = getattr(bar, "note", "")  # bars of epochs have one
        self._count = f" – {bar.iteration:,} done" + (f", {note}" if note else "")

    def enter_stage(self, name: str) -> None:
        """Begins a stage: a line of the library's log."""
        self._stage, self._count, self.fraction = name, "", 0.0


class _StageHandler(logging.Handler):
    """Turns the INFO lines of one thread into stages; other threads may run other jobs."""

    def __init__(self, progress: Progress, changed: Callable[[], None]) -> None:
        super().__init__(logging.INFO)
        self._thread = threading.get_ident()
        self._progress = progress
        self._changed = changed

    def emit(self, record: logging.LogRecord) -> None:
        if record.thread == self._thread and record.levelno == logging.INFO:
            self._progress.enter_stage(record.getMessage())
            self._changed()


class _Audible:
    """Lets the library's INFO lines through while any run listens, and then no longer."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._listeners = 0
        self._level = logging.NOTSET

    def add(self, handler: logging.Handler) -> None:
        library = logging.getLogger(LIBRARY_LOGGER)
        with self._lock:
            if self._listeners == 0:
                self._level = library.level
                if library.getEffectiveLevel() > logging.INFO:
                    library.setLevel(logging.INFO)
            self._listeners += 1
            library.addHandler(handler)

    def remove(self, handler: logging.Handler) -> None:
        library = logging.getLogger(LIBRARY_LOGGER)
        with self._lock:
            library.removeHandler(handler)
            self._listeners -= 1
            if self._listeners == 0:
                library.setLevel(self._level)


_audible = _Audible()


@contextmanager
def _stages(progress: Progress, changed: Callable[[], None] = lambda: None) -> Iterator[None]:
    handler = _StageHandler(progress, changed)
    _audible.add(handler)
    try:
        yield
    finally:
        _audible.remove(handler)


def stream(ctx: foo.executor.ExecutionContext, work: Work[T]) -> Generator[Any, None, T]:
    """Runs the work in a thread and yields its progress to the App; for immediate runs.

    Args:
        ctx: the operator's execution context
        work: called with the progress callback to hand to the library

    Yields:
        progress messages for the App

    Returns:
        the work's value (``value = yield from stream(ctx, work)``)

    Raises:
        Exception: whatever the work raised
    """
    closed = threading.Event()
    progress = Progress(closed.is_set)
    outcome: dict[str, Any] = {}

    def run() -> None:
        try:
            with _stages(progress):
                outcome["value"] = work(progress.report)
        except Cancelled:
            logger.info("Cancelled; what was computed so far is kept")
        except BaseException as error:
            outcome["error"] = error

    thread = threading.Thread(target=run, name="clipcleaner", daemon=True)
    thread.start()
    try:
        shown, shown_at = ("", -1.0), 0.0
        while thread.is_alive():
            now, seen = time.monotonic(), (progress.label, progress.fraction)
            if seen != shown or now - shown_at >= _HEARTBEAT:
                shown, shown_at = seen, now
                yield ctx.ops.set_progress(label=seen[0], progress=seen[1])
            thread.join(_POLL)
    finally:
        closed.set()
    if "error" in outcome:
        raise outcome["error"]
    return outcome["value"]


def run_delegated(ctx: foo.executor.ExecutionContext, work: Work[T]) -> T:
    """Runs the work in this thread and records its progress with the delegated operation.

    Args:
        ctx: the operator's execution context
        work: called with the progress callback to hand to the library

    Returns:
        the work's value

    Raises:
        RuntimeError: if the operation was marked as failed meanwhile, which is how one cancels it
    """
    operation = ctx.request_params.get("run_doc")
    sent_at = time.monotonic()

    def send() -> None:
        nonlocal sent_at
        sent_at = time.monotonic()
        ctx.set_progress(progress=progress.fraction, label=progress.label)

    def report(bar: Any) -> None:
        if time.monotonic() - sent_at >= _DELEGATED_INTERVAL or bar.progress == 1:
            progress.report(bar)
            send()

    progress = Progress(lambda: _was_failed(operation))
    try:
        with _stages(progress, send):
            return work(report)
    except Cancelled:
        raise RuntimeError("Cancelled; what was computed so far is kept") from None


def _was_failed(operation: Any) -> bool:
    from fiftyone.operators.delegated import DelegatedOperationService
    from fiftyone.operators.executor import ExecutionRunState

    if operation is None:
        return False
    return DelegatedOperationService().get(operation).run_state == ExecutionRunState.FAILED


def guarded(ctx: foo.executor.ExecutionContext, name: str, steps: Iterator[Any]) -> Iterator[Any]:
    """Passes the steps of an immediate run on and says in the App why it failed, if it does.

    The App shows nothing of an exception inside a generator. It is raised again after the message,
    for the server's log and for callers from Python.

    Args:
        ctx: the operator's execution context
        name: what failed, for the message
        steps: messages for the App

    Yields:
        the steps, and two more in case of a failure
    """
    try:
        yield from steps
    except Exception as error:
        reason = f"{name} failed: {error}"
        yield ctx.ops.set_progress(label=reason, progress=1)
        yield ctx.ops.notify(reason, variant="error")
        raise
