"""An export appears whole or not at all: it grows beside its place and moves there at the end.

``NAME.partial`` grows beside ``NAME``. Its header file is written last, then the folder is renamed.
A killed export leaves ``NAME.partial``, without a header, from which the next one goes on.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Any

BUNDLE_HEADER, EXPORT_HEADER = "bundle.json", "export.json"
BUNDLE_FORMAT, EXPORT_FORMAT = "clipcleaner-bundle", "clipcleaner-export"
# Training runs lie in the bundle that they were trained on and outlive its replacement
RUNS = "runs"

_UNFINISHED = "UNFINISHED.txt"
_NOTE = (
    "An export that was interrupted. The same export goes on from here; or delete this folder.\n"
)


def export_folder(export_dir: str | os.PathLike[str]) -> Path:
    """Returns the absolute path of an export."""
    return Path(os.path.realpath(os.path.expanduser(export_dir)))


def partial_folder(target: Path) -> Path:
    """Returns where an export grows."""
    return target.with_name(f"{target.name}.partial")


def check_target(target: Path, overwrite: bool) -> None:
    """Raises FileExistsError unless an export may be put there.

    Args:
        target: where to
        overwrite: whether an earlier export may be replaced; nothing else ever is
    """
    if not os.path.lexists(target) or _is_empty_folder(target):
        return
    if not target.is_dir():
        raise FileExistsError(f"{target} is a file: name a folder to export to")
    foreign = foreign_entries(target)
    if foreign is None:
        raise FileExistsError(
            f"{target} is not empty and no earlier export: it is left alone; name another folder"
        )
    if not overwrite:
        raise FileExistsError(
            f"{target} holds an earlier export; overwrite=True replaces it (training runs in it "
            "are kept), or name another folder"
        )
    if foreign:
        raise FileExistsError(
            f"{target} holds an earlier export, and beside it {foreign[0]!r}, which no export "
            "wrote: move that away, or name another folder"
        )


def foreign_entries(folder: Path) -> list[str] | None:
    """Returns what no export has put into the folder; None if it holds no export."""
    for name, form in ((BUNDLE_HEADER, BUNDLE_FORMAT), (EXPORT_HEADER, EXPORT_FORMAT)):
        header = _read_json(folder / name)
        if header is not None and header.get("format") == form:
            listed = header.get("entries", ["manifest.jsonl", "images"])
            ours = [name, RUNS, *(listed if isinstance(listed, list) else [])]
            return sorted(entry.name for entry in folder.iterdir() if entry.name not in ours)
    return None


def same_texts(folder: Path, texts: Mapping[str, bytes]) -> bool:
    """Returns whether the folder has exactly these text files."""
    try:
        return all((folder / name).read_bytes() == data for name, data in texts.items())
    except OSError:
        return False


@contextlib.contextmanager
def growing(target: Path) -> Iterator[Path]:
    """Makes the folder in which an export grows, or takes the one that was interrupted.

    Args:
        target: where the export goes in the end

    Yields:
        the folder, held by a lock that ends with this process

    Raises:
        FileExistsError: if something else has its name, or another process exports there now
    """
    folder = partial_folder(target)
    known = (_UNFINISHED, BUNDLE_HEADER, EXPORT_HEADER)
    ours = any((folder / name).is_file() for name in known)
    if os.path.lexists(folder) and not ours and not _is_empty_folder(folder):
        raise FileExistsError(f"{folder} is in the way: move it away")
    folder.mkdir(parents=True, exist_ok=True)
    with held(folder, "is exporting to"):
        _recover(target)
        (folder / _UNFINISHED).write_text(_NOTE, encoding="utf-8")
        for name in (BUNDLE_HEADER, EXPORT_HEADER):
            (folder / name).unlink(missing_ok=True)
        yield folder


def finish(folder: Path, texts: Mapping[str, bytes], wanted: Collection[str]) -> None:
    """Writes the text files, the last of them last, and removes what an earlier attempt left.

    Args:
        folder: the growing folder
        texts: relative path → content
        wanted: relative paths of the media files
    """
    keep = {*wanted, *texts, _UNFINISHED}
    for root, folders, files in os.walk(folder, topdown=False):
        for name in files:
            path = os.path.join(root, name)
            if os.path.relpath(path, folder).replace(os.sep, "/") not in keep:
                os.unlink(path)
        for name in folders:
            with contextlib.suppress(OSError):  # not empty
                os.rmdir(os.path.join(root, name))
    for name, data in texts.items():
        with (folder / name).open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())


def publish(folder: Path, target: Path) -> None:
    """Moves a finished export to its place; an earlier one there goes, its training runs stay."""
    (folder / _UNFINISHED).unlink()
    if target.is_dir():
        if any(target.iterdir()):
            os.rename(target, _replaced(target))
        else:
            target.rmdir()
    os.rename(folder, target)
    _recover(target)


def _is_empty_folder(path: Path) -> bool:
    return path.is_dir() and not any(path.iterdir())


def _replaced(target: Path) -> Path:
    return target.with_name(f".{target.name}.clipcleaner-replaced")


def _recover(target: Path) -> None:
    """Ends a replacement, also one that a kill has interrupted."""
    old = _replaced(target)
    if not old.is_dir():
        return
    if not target.exists():
        os.rename(old, target)
        return
    _keep_runs(old / RUNS, target / RUNS)
    shutil.rmtree(old)


def _keep_runs(old: Path, new: Path) -> None:
    """Moves training runs along; beside others, if a kill came in between and training after it."""
    if not old.exists():
        return
    if not new.exists():
        os.rename(old, new)
        return
    for run in old.iterdir():
        if not (new / run.name).exists():
            os.rename(run, new / run.name)


def _read_json(path: Path) -> dict[str, Any] | None:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return content if isinstance(content, dict) else None


@contextlib.contextmanager
def held(folder: Path, doing: str) -> Iterator[None]:
    """Holds a folder against other processes, where the system can lock folders.

    Args:
        folder: an existing folder
        doing: what the holder does with it, for the message to another one

    Raises:
        FileExistsError: if another process holds it
    """
    try:
        import fcntl
    except ImportError:  # Windows
        yield
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise FileExistsError(
                f"another process {doing} {folder} now: wait for it, or name another folder"
            ) from None
        except OSError:  # a file system without locks
            pass
        yield
    finally:
        os.close(handle)
