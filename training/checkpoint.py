"""Checkpoints that survive a kill, a full disk and damage: written whole or not at all.

``last.pt`` is the state after an epoch, ``previous.pt`` the one before, ``best.pt`` the weights
that did best on the validation split. No generator state is kept: all randomness of an epoch
comes from (seed, epoch, rank), so an epoch that is repeated is the same one.
"""

from __future__ import annotations

import contextlib
import io
import logging
import os
import zipfile
from pathlib import Path
from typing import Any

import torch

logger = logging.getLogger(__name__)

LAST, PREVIOUS, BEST = "last.pt", "previous.pt", "best.pt"


class CheckpointError(ValueError):
    """A checkpoint that cannot be used; the text says what to do."""


def write_bytes(path: Path, data: bytes) -> None:
    """Writes a file so that after any interruption it is the old one or the new one, whole.

    Raises:
        OSError: if it cannot be written, e.g. since the disk is full; the old one stays
    """
    scratch = path.with_name(path.name + ".tmp")
    try:
        with scratch.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(scratch, path)
    except OSError as err:
        with contextlib.suppress(OSError):
            scratch.unlink()
        raise OSError(err.errno, err.strerror, str(path)) from err
    _sync_folder(path.parent)


def _sync_folder(folder: Path) -> None:
    """Makes a rename durable, where the system can."""
    with contextlib.suppress(OSError):
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def to_bytes(state: dict[str, Any]) -> bytes:
    """Serialises tensors, numbers, texts, lists and dicts of these."""
    buffer = io.BytesIO()
    torch.save(state, buffer)
    return buffer.getvalue()


def from_bytes(data: bytes) -> dict[str, Any]:
    """Undoes ``to_bytes``. Runs no code, whatever the bytes hold.

    Raises:
        CheckpointError: if they are truncated, altered or something else
    """
    try:
        # torch reads tensors without looking at their checksums
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            damaged = archive.testzip()
        if damaged is not None:
            raise CheckpointError(f"its part {damaged} is damaged")
        state = torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
    except CheckpointError:
        raise
    except Exception as err:  # damaged archives raise nearly anything
        reason = str(err).splitlines()[0] if str(err) else type(err).__name__
        raise CheckpointError(f"truncated or damaged ({reason})") from None
    if not isinstance(state, dict):
        raise CheckpointError("holds no checkpoint")
    return state


def save_last(folder: Path, state: dict[str, Any]) -> None:
    """Writes ``last.pt``; the one before becomes ``previous.pt``, once the new one is on disk.

    Raises:
        OSError: if it cannot be written; ``last.pt`` is still there
    """
    data = to_bytes(state)
    incoming = folder / "incoming.pt"
    write_bytes(incoming, data)
    # A kill between these two leaves previous.pt alone, which load_last then takes
    if (folder / LAST).exists():
        os.replace(folder / LAST, folder / PREVIOUS)
    os.replace(incoming, folder / LAST)
    _sync_folder(folder)


def load_last(folder: Path, config: dict[str, Any], bundle_digest: str) -> bytes | None:
    """Finds the newest checkpoint that is whole.

    Args:
        folder: output folder of the run
        config: that of the run to resume
        bundle_digest: that of the bundle at hand

    Returns:
        the bytes of the checkpoint, None if there is none

    Raises:
        CheckpointError: if all are damaged, or belong to other settings or another bundle
    """
    problems = []
    for name in (LAST, PREVIOUS):
        path = folder / name
        if not path.exists():
            continue
        data = path.read_bytes()
        try:
            state = from_bytes(data)
        except CheckpointError as err:
            problems.append(f"{path}: {err}")
            continue
        check_belongs(path, state, config, bundle_digest)
        if problems:
            logger.warning("%s; going on from %s", problems[0], path)
        return data
    if problems:
        raise CheckpointError(
            f"{'; '.join(problems)}. No other checkpoint is left: --restart begins anew"
        )
    return None


def load_best(folder: Path, config: dict[str, Any], bundle_digest: str) -> bytes | None:
    """Reads ``best.pt``.

    Returns:
        the bytes of the checkpoint, None if it was removed

    Raises:
        CheckpointError: if it is damaged or of another run
    """
    path = folder / BEST
    if not path.exists():
        return None
    data = path.read_bytes()
    try:
        state = from_bytes(data)
    except CheckpointError as err:
        raise CheckpointError(
            f"{path}: {err}. Remove it, and the same command takes the last weights instead"
        ) from None
    check_belongs(path, state, config, bundle_digest)
    return data


def check_belongs(
    path: Path, state: dict[str, Any], config: dict[str, Any], bundle_digest: str
) -> None:
    """Refuses a checkpoint of another run.

    Raises:
        CheckpointError: naming the options that differ, or that the bundle does
    """
    stored = state.get("config")
    if not isinstance(stored, dict) or "bundle_digest" not in state:
        raise CheckpointError(f"{path} was not written by this program: give another --out")
    names = sorted({*stored, *config})
    changed = [
        f"{name} {stored.get(name)!r} → {config.get(name)!r}"
        for name in names
        if stored.get(name) != config.get(name)
    ]
    if changed:
        raise CheckpointError(
            f"{path} belongs to a run with other settings ({'; '.join(changed)}): give another "
            "--out, the settings from before, or --restart to discard that run"
        )
    if state["bundle_digest"] != bundle_digest:
        raise CheckpointError(
            f"{path} was trained on another content of the bundle (its manifest.jsonl or "
            "bundle.json has changed since): give another --out, or --restart to discard that run"
        )


def discard(folder: Path) -> None:
    """Removes the checkpoints of an earlier run, and the results that say it is finished."""
    for name in (LAST, PREVIOUS, BEST, "results.json", "predictions.jsonl", "confusion.json"):
        (folder / name).unlink(missing_ok=True)


def clean_up(folder: Path) -> None:
    """Removes what an interrupted write left."""
    for path in [*folder.glob("*.tmp"), folder / "incoming.pt"]:
        path.unlink(missing_ok=True)
