"""One writer at a time for a run, whatever process, machine or App page it works in.

A lock is a document of FiftyOne's own database that its holder renews. Where the holder dies, it
lapses; on the same machine at once, elsewhere after a minute.
"""

from __future__ import annotations

import contextlib
import functools
import inspect
import logging
import os
import socket
import threading
import uuid
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

import fiftyone as fo
import fiftyone.core.odm as foo
from fiftyone.core.collections import SampleCollection

logger = logging.getLogger(__name__)

_COLLECTION = "clipcleaner_locks"
_LEASE = 60.0  # seconds that a lock outlives the last sign of its holder
_RENEWALS = 4  # signs of life a lease
_TRIES = 3

Function = TypeVar("Function", bound=Callable[..., Any])

# Lock id → token of the locks that this process holds
_held: dict[str, str] = {}


class RunIsBusy(ValueError):
    """Another writer is at work on the run."""


def one_writer(function: Function) -> Function:
    """Decorates a function of ``(samples, ..., key, ...)`` that writes the run ``key``.

    The function raises :class:`RunIsBusy`, with who is at work since when, where another writer
    holds the run.
    """
    signature = inspect.signature(function)

    @functools.wraps(function)
    def locked(*args: Any, **kwargs: Any) -> Any:
        bound = signature.bind(*args, **kwargs)
        bound.apply_defaults()
        samples = next(iter(bound.arguments.values()))
        if not isinstance(samples, SampleCollection):
            return function(*args, **kwargs)  # it says what is wrong
        with run_lock(samples._root_dataset, bound.arguments["key"]):
            return function(*args, **kwargs)

    return locked  # type: ignore[return-value]


@contextlib.contextmanager
def run_lock(dataset: fo.Dataset, key: str) -> Iterator[None]:
    """Holds a run of a dataset for one writer.

    Raises:
        RunIsBusy: if another writer holds it
    """
    lock, token = _lock_id(dataset, key), uuid.uuid4().hex
    _take(lock, token, key)
    _held[lock] = token
    done = threading.Event()
    renewal = threading.Thread(target=_renew, args=(lock, token, done), daemon=True)
    renewal.start()
    try:
        yield
    finally:
        done.set()
        _held.pop(lock, None)
        _locks().delete_one({"_id": lock, "token": token})


def confirm_lock(dataset: fo.Dataset, key: str) -> None:
    """Makes sure that this process still holds the run: it may have been suspended for long.

    Raises:
        RunIsBusy: if another writer has taken it over
    """
    lock = _lock_id(dataset, key)
    if not _extend(lock, _held[lock]):
        raise RunIsBusy(
            f"run {key!r} was taken over by another process while this one did not answer; nothing "
            "was written. Apply it again"
        )


def _lock_id(dataset: fo.Dataset, key: str) -> str:
    return f"{dataset._doc.id}/{key}"


def _locks() -> Any:
    return foo.get_db_conn()[_COLLECTION]


def _until() -> dict[str, Any]:
    # By the clock of the database: those of the machines may differ
    return {"$add": ["$$NOW", 1000 * _LEASE]}


def _take(lock: str, token: str, key: str) -> None:
    from pymongo.errors import DuplicateKeyError

    mine = {
        "_id": lock,
        "token": token,
        "host": {"$literal": socket.gethostname()},
        "pid": os.getpid(),
        "since": "$$NOW",
        "until": _until(),
    }
    # A document that is not there is less than any time: then the lock is free, too
    is_free = {"$lt": ["$until", "$$NOW"]}
    take = [{"$replaceWith": {"$cond": [is_free, mine, "$$ROOT"]}}]
    for _ in range(_TRIES):
        with contextlib.suppress(DuplicateKeyError):  # two made the document at the same time
            _locks().update_one({"_id": lock}, take, upsert=True)
        holder = _locks().find_one({"_id": lock})
        if holder is None:
            continue
        if holder["token"] == token:
            return
        if not _is_dead(holder):
            raise _busy(key, holder)
        _locks().delete_one({"_id": lock, "token": holder["token"]})
    raise RunIsBusy(f"run {key!r} is wanted by several processes at once; try again")


def _busy(key: str, holder: dict[str, Any]) -> RunIsBusy:
    return RunIsBusy(
        f"run {key!r} is being written by process {holder['pid']} on {holder['host']} since "
        f"{holder['since']:%H:%M} UTC: wait until it has finished, or stop it. A run whose page "
        "was closed stops at its next step"
    )


def _is_dead(holder: dict[str, Any]) -> bool:
    import psutil

    return holder["host"] == socket.gethostname() and not psutil.pid_exists(holder["pid"])


def _renew(lock: str, token: str, done: threading.Event) -> None:
    while not done.wait(_LEASE / _RENEWALS):
        try:
            if not _extend(lock, token):
                return
        except Exception as error:  # the database may be away for a moment
            logger.debug("The lock %s was not renewed: %s", lock, error)


def _extend(lock: str, token: str) -> bool:
    held = {"_id": lock, "token": token}
    return bool(_locks().update_one(held, [{"$set": {"until": _until()}}]).matched_count)
