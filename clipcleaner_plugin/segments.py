"""The file format of the embedding store: one segment is a pair of append-only files.

``<number>-<random>.vectors`` holds rows of little-endian float32, nothing else. ``<same>.index``
holds one line for each batch: the CRC-32 of the rest in 8 hex digits, a space, and a JSON object

    {"row": first row in .vectors, "dim": d, "crc": CRC-32 of the batch's vector bytes,
     "ids": [...], "sizes": [...], "mtimes": [...]}

A batch exists once its line is whole. The vectors reach the disk before the line does, so whatever
moment a process or machine dies at, every whole line speaks of whole vectors, and the rest is a
torn tail that readers skip. Nobody ever appends to a segment that somebody else began: two
processes can write at once, and nothing follows a torn tail.
"""

from __future__ import annotations

import json
import logging
import os
import re
import secrets
import zlib
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np

logger = logging.getLogger(__name__)

VECTORS_SUFFIX = ".vectors"
INDEX_SUFFIX = ".index"
DTYPE = np.dtype("<f4")
SEGMENT_NAME = re.compile(r"(\d{6,})-[0-9a-f]{8}")


@dataclass(frozen=True)
class Batch:
    """What one index line says: ``ids[i]`` has its vector in row ``row + i``."""

    row: int
    dim: int
    crc: int
    ids: list[str]
    sizes: list[int]
    mtimes: list[int]

    def encode(self) -> bytes:
        """Returns the index line, newline included."""
        body = json.dumps(vars(self), separators=(",", ":")).encode("ascii")
        return b"%08x %s\n" % (zlib.crc32(body), body)

    @classmethod
    def decode(cls, line: bytes) -> Batch:
        """Reads an index line.

        Raises:
            ValueError: if the line is not what was written
        """
        checksum, _, body = line.rstrip(b"\n").partition(b" ")
        if checksum != b"%08x" % zlib.crc32(body):
            raise ValueError("checksum of the index line does not fit")
        return cls(**json.loads(body))


def list_segments(folder: Path) -> list[str]:
    """Returns the names of a folder's segments, oldest first."""
    try:
        names = [entry.stem for entry in folder.iterdir() if entry.suffix == INDEX_SUFFIX]
    except FileNotFoundError:
        return []
    return sorted((n for n in names if SEGMENT_NAME.fullmatch(n)), key=segment_order)


def segment_order(name: str) -> tuple[int, str]:
    """Returns the sort key of a segment name: a later segment overrides an earlier one."""
    number, _, suffix = name.partition("-")
    return int(number), suffix


def read_batches(folder: Path, name: str, dim: int, offset: int) -> tuple[list[Batch], int]:
    """Reads the sound batches of a segment from a position in its index on.

    Args:
        folder: the store's folder
        name: the segment
        dim: length of a vector
        offset: position in bytes, 0 or what an earlier call returned

    Returns:
        the batches whose line and vectors are what was written, and the position to go on from: a
        line that is not whole yet is left for the next call
    """
    with (folder / (name + INDEX_SUFFIX)).open("rb") as file:
        file.seek(offset)
        text = file.read()
    whole = text[: text.rfind(b"\n") + 1]
    if not whole:
        return [], offset
    vectors = map_vectors(folder, name, dim)
    lines = whole[:-1].split(b"\n")
    batches = list(_sound_batches(lines, vectors, dim, f"{folder / name}"))
    return batches, offset + len(whole)


def read_ids(folder: Path, name: str) -> Iterator[str]:
    """Yields the sample ids of a segment's whole index lines; their vectors are not looked at."""
    with (folder / (name + INDEX_SUFFIX)).open("rb") as file:
        for line in file:
            with suppress(ValueError, TypeError):  # torn or damaged
                yield from Batch.decode(line).ids


def _sound_batches(
    lines: Sequence[bytes], vectors: np.ndarray, dim: int, where: str
) -> Iterator[Batch]:
    for line in lines:
        try:
            batch = Batch.decode(line)
            _check_vectors(batch, vectors, dim)
        except (ValueError, TypeError, KeyError) as err:
            logger.warning(
                "Embedding store %s: a damaged batch is ignored, its samples count as missing (%s)",
                where, err,
            )  # fmt: skip
        else:
            yield batch


def _check_vectors(batch: Batch, vectors: np.ndarray, dim: int) -> None:
    if batch.dim != dim:
        raise ValueError(f"vectors of length {batch.dim}, not {dim}")
    rows = vectors[batch.row : batch.row + len(batch.ids)]
    if len(rows) != len(batch.ids):
        raise ValueError("the vector file is too short")
    if zlib.crc32(_as_bytes(rows)) != batch.crc:
        raise ValueError("checksum of the vectors does not fit")


def map_vectors(folder: Path, name: str, dim: int) -> np.ndarray:
    """Returns a segment's whole rows, (rows, dim) float32, memory-mapped read-only."""
    path = folder / (name + VECTORS_SUFFIX)
    size = path.stat().st_size if path.exists() else 0
    rows = size // (DTYPE.itemsize * dim)
    if rows == 0:  # an empty file cannot be mapped
        return np.empty((0, dim), dtype=DTYPE)
    return np.memmap(path, dtype=DTYPE, mode="r", shape=(rows, dim))


class SegmentWriter:
    """Appends batches to a new segment; each is durable when :meth:`append` returns."""

    def __init__(self, folder: Path, dim: int) -> None:
        self._folder = folder
        self._dim = dim
        self._rows = 0
        self._failed = False
        names = list_segments(folder)
        number = segment_order(names[-1])[0] + 1 if names else 1
        name = f"{number:06d}-{secrets.token_hex(4)}"
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0)
        self._vectors = os.open(folder / (name + VECTORS_SUFFIX), flags, 0o666)
        try:
            self._index = os.open(folder / (name + INDEX_SUFFIX), flags, 0o666)
        except OSError:
            os.close(self._vectors)
            raise
        sync_folder(folder)

    def append(
        self, ids: Sequence[str], stamps: Sequence[tuple[int, int]], vectors: np.ndarray
    ) -> None:
        """Writes one batch of B ids, B stamps and (B, dim) float32 vectors.

        Raises:
            OSError: if the disk is full or fails; earlier batches stay, the writer is done for
        """
        if self._failed:
            raise OSError(f"writing to {self._folder} failed before; open a new writer")
        data = _as_bytes(np.ascontiguousarray(vectors, dtype=DTYPE))
        batch = Batch(
            row=self._rows,
            dim=self._dim,
            crc=zlib.crc32(data),
            ids=list(ids),
            sizes=[int(size) for size, _ in stamps],
            mtimes=[int(mtime) for _, mtime in stamps],
        )
        # Stays set where anything below is interrupted: rows and file length may then disagree
        self._failed = True
        try:
            _write_all(self._vectors, data)
            _write_all(self._index, memoryview(batch.encode()))
        except OSError as err:
            raise OSError(
                err.errno,
                f"could not write embeddings to {self._folder}: {err.strerror}; earlier batches "
                "are safe: make room and call again to go on",
            ) from err
        self._rows += len(batch.ids)
        self._failed = False

    def close(self) -> None:
        """Closes the files; what was appended is on disk already."""
        os.close(self._vectors)
        os.close(self._index)


def _as_bytes(rows: np.ndarray) -> memoryview:
    return rows.view(np.uint8).reshape(-1).data


def _write_all(descriptor: int, data: memoryview) -> None:
    while data:
        data = data[os.write(descriptor, data) :]
    os.fsync(descriptor)


def sync_folder(folder: Path) -> None:
    """Makes new names in a folder durable, where the system can."""
    with suppress(OSError):  # Windows cannot open folders
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
