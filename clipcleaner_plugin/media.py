"""Puts image files where an export wants them: copied, or as symbolic links."""

from __future__ import annotations

import errno
import os
import re
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import fiftyone.core.utils as fou

from .images import ImageReadError

_CHUNK = 1 << 20
# Of a suffix as odd as "?size=large" only trouble can come
_SUFFIX = re.compile(r"\.[A-Za-z0-9]{1,10}")
# Room for the text files and for what the file system needs itself
_SPARE_BYTES = 10_000_000


@dataclass(frozen=True)
class MediaFile:
    """One image on its way.

    Attributes:
        id: the sample's id
        source: absolute path of the image
        stamp: its size in bytes and its modification time in nanoseconds
        target: where it goes, relative to the export, with ``/``
    """

    id: str
    source: str
    stamp: tuple[int, int]
    target: str


def file_name(sample_id: str, filepath: str) -> str:
    """Returns a file name that no other sample has: the id, and the suffix where it is one."""
    suffix = os.path.splitext(filepath)[1]
    return sample_id + (suffix if _SUFFIX.fullmatch(suffix) else "")


def place_all(
    files: Sequence[MediaFile],
    folder: Path,
    symlink: bool,
    progress: bool | Callable[..., Any] | None,
) -> dict[str, str]:
    """Copies or links all images; what an earlier attempt has placed is left as it is.

    Args:
        files: the images
        folder: the folder that the targets are relative to
        symlink: whether to link
        progress: as in FiftyOne

    Returns:
        ``{sample id: reason}`` of the images that could not be read

    Raises:
        OSError: if they cannot be written; the text says what to do
    """
    missing = [f for f in files if not is_placed(f, folder, symlink)]
    for parent in sorted({folder / os.path.dirname(f.target) for f in missing}):
        parent.mkdir(parents=True, exist_ok=True)
    if not symlink:
        _check_space(sum(f.stamp[0] for f in missing), folder)
    failures = {}
    with fou.ProgressBar(total=len(files), progress=progress, iters_str="images") as bar:
        bar.update(len(files) - len(missing))
        for file in missing:
            try:
                _place(file, folder / file.target, symlink)
            except ImageReadError as err:
                failures[file.id] = str(err)
            bar.update()
    return failures


def is_placed(file: MediaFile, folder: Path, symlink: bool) -> bool:
    """Returns whether the image is in its place already, whole."""
    path = folder / file.target
    try:
        if symlink:
            return os.readlink(path) == file.source
        info = os.lstat(path)
    except OSError:
        return False
    # The time is set after the last byte: a torn copy has another one
    return not path.is_symlink() and (info.st_size, info.st_mtime_ns) == file.stamp


def _place(file: MediaFile, path: Path, symlink: bool) -> None:
    # Never write into what is there: it may be a link to somebody's image
    path.unlink(missing_ok=True)
    if symlink:
        path.symlink_to(file.source)
        return
    try:
        source = open(file.source, "rb")  # noqa: SIM115  its failure is another one than the copy's
    except OSError as err:
        raise ImageReadError(f"{file.source}: cannot be opened: {err.strerror}") from err
    with source, path.open("wb") as copy:
        while chunk := _read(source, file.source):
            copy.write(chunk)
    os.utime(path, ns=(file.stamp[1], file.stamp[1]))


def _read(source: Any, name: str) -> bytes:
    try:
        data: bytes = source.read(_CHUNK)
        return data
    except OSError as err:
        raise ImageReadError(f"{name}: cannot be read: {err.strerror}") from err


def _check_space(wanted: int, folder: Path) -> None:
    free = shutil.disk_usage(folder).free
    if wanted + _SPARE_BYTES > free:
        raise OSError(
            errno.ENOSPC,
            f"the images need {wanted / 1e9:.2f} GB and {free / 1e9:.2f} GB are free: make room, "
            "choose another disk, or use export_media='symlink'",
            str(folder),
        )
