"""One trainer at a time for an output folder: two would write over each other's checkpoints."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import time
from collections.abc import Iterator
from pathlib import Path

LOCK = "trainer.lock"


class FolderIsBusy(ValueError):
    """Another trainer works in the folder; the text names it."""


@contextlib.contextmanager
def hold(folder: Path) -> Iterator[None]:
    """Holds an output folder against other trainers, where the system can lock files.

    The system lets go of the lock when this process ends, however it ends. Processes that it has
    started (loaders of images) do not hold it on: a trainer that was killed is never in the way.
    With several processes the main one holds the folder for all.

    Args:
        folder: the output folder, which is made if it is not there

    Raises:
        FolderIsBusy: if another trainer holds it
    """
    folder.mkdir(parents=True, exist_ok=True)
    try:
        import fcntl
    except ImportError:  # Windows
        yield
        return
    with (folder / LOCK).open("a+", encoding="utf-8") as file:
        try:
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except (BlockingIOError, PermissionError):
            file.seek(0)
            raise FolderIsBusy(
                f"{_holder(file.read())} trains into {folder} now: wait until it has finished, "
                "stop it, or give another --out"
            ) from None
        except OSError:  # a file system without locks
            pass
        else:
            file.truncate(0)
            about = {"pid": os.getpid(), "host": socket.gethostname(), "since": time.time()}
            file.write(json.dumps(about) + "\n")
            file.flush()
        yield


def _holder(text: str) -> str:
    """Says who wrote the lock file, which may not be written yet."""
    try:
        about = json.loads(text)
        since = time.strftime("%Y-%m-%d %H:%M", time.gmtime(about["since"]))
        return f"Process {about['pid']} on {about['host']}, started {since} UTC,"
    except (ValueError, KeyError, TypeError):
        return "Another process"
