"""Puts images where an export wants them: files copied or linked, crops of objects cut out."""

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

from .crops import Crop, Media, MediaReader
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
        id: the id of the sample or object
        source: absolute path of the image, or the part of one
        stamp: as :func:`clipcleaner_plugin.crops.media_stamp`
        target: where it goes, relative to the export, with ``/``
    """

    id: str
    source: Media
    stamp: tuple[int, int]
    target: str

    @property
    def path(self) -> str:
        """The image file."""
        return self.source.path if isinstance(self.source, Crop) else self.source

    @property
    def time(self) -> int:
        """The modification time that says that it is in its place, in nanoseconds.

        Of a crop, a moment between 2001 and 2017 that changes with file and box.
        """
        number = self.stamp[1]
        return 10**18 + number % (5 * 10**17) if isinstance(self.source, Crop) else number


def file_name(item_id: str, source: Media) -> str:
    """Returns a file name that nothing else has: the id, and the suffix where it is one."""
    if isinstance(source, Crop):
        return f"{item_id}.png"  # what was embedded, to the bit
    suffix = os.path.splitext(source)[1]
    return item_id + (suffix if _SUFFIX.fullmatch(suffix) else "")


def place_all(
    files: Sequence[MediaFile],
    folder: Path,
    symlink: bool,
    progress: bool | Callable[..., Any] | None,
) -> dict[str, str]:
    """Copies, links or cuts out all images; what an earlier attempt has placed is left as it is.

    Args:
        files: the images; crops of one file stand together, or it is decoded for each
        folder: the folder that the targets are relative to
        symlink: whether to link; there are no crops then
        progress: as in FiftyOne

    Returns:
        ``{id: reason}`` of the images that could not be read

    Raises:
        OSError: if they cannot be written; the text says what to do
    """
    missing = [f for f in files if not is_placed(f, folder, symlink)]
    for parent in sorted({folder / os.path.dirname(f.target) for f in missing}):
        parent.mkdir(parents=True, exist_ok=True)
    if not symlink:
        whole_files = (f for f in missing if not isinstance(f.source, Crop))
        _check_space(sum(f.stamp[0] for f in whole_files), folder)
    failures, read_crop = {}, MediaReader()
    with fou.ProgressBar(total=len(files), progress=progress, iters_str="images") as bar:
        bar.update(len(files) - len(missing))
        for file in missing:
            try:
                _place(file, folder / file.target, symlink, read_crop)
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
    same_size = isinstance(file.source, Crop) or info.st_size == file.stamp[0]
    return not path.is_symlink() and same_size and info.st_mtime_ns == file.time


def _place(file: MediaFile, path: Path, symlink: bool, read_crop: MediaReader) -> None:
    # Never write into what is there: it may be a link to somebody's image
    path.unlink(missing_ok=True)
    if symlink:
        path.symlink_to(file.path)
        return
    if isinstance(file.source, Crop):
        read_crop(file.source).save(path, format="PNG")
    else:
        _copy(file.source, path)
    os.utime(path, ns=(file.time, file.time))


def _copy(source: str, path: Path) -> None:
    try:
        original = open(source, "rb")  # noqa: SIM115  its failure is another one than the copy's
    except OSError as err:
        raise ImageReadError(f"{source}: cannot be opened: {err.strerror}") from err
    with original, path.open("wb") as copy:
        while chunk := _read(original, source):
            copy.write(chunk)


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
