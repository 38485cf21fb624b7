"""The durable cache of embeddings on disk: sample id → vector, for one dataset and one model."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import re
import secrets
from array import array
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np

from .segments import (
    INDEX_SUFFIX,
    SEGMENT_NAME,
    VECTORS_SUFFIX,
    Batch,
    SegmentWriter,
    list_segments,
    map_vectors,
    read_batches,
    read_ids,
    segment_order,
    sync_folder,
)

logger = logging.getLogger(__name__)

FORMAT_VERSION = 1
_META = "meta.json"
# Rows gathered from a memory map at a time, so that a read holds little beside its result
_READ_ROWS = 16_384


def store_root() -> Path:
    """Returns the folder of all stores: $CLIPCLEANER_STORE_DIR, else one beside FiftyOne's data."""
    own = os.environ.get("CLIPCLEANER_STORE_DIR")
    if own:
        return Path(own).expanduser().absolute()
    return Path.home() / ".fiftyone" / "clipcleaner" / "embeddings"


class EmbeddingStore:
    """Vectors of one dataset's samples under one model, kept in append-only segments.

    Every batch that a writer appended survives a kill at any moment, is guarded by checksums, and
    is seen by every process at its next call. Several processes may write at once. A batch that
    is found damaged is logged and treated as if it had never been written. Where an id was written
    more than once, the last batch of the latest segment counts.

    Args:
        dataset_id: names the dataset; any string
        identity: names the model with all that changes its vectors; any string
        root (None): the folder of all stores, default :func:`store_root`

    Raises:
        ValueError: if the folder holds vectors of another model, or a newer format
    """

    def __init__(
        self, dataset_id: str, identity: str, root: str | os.PathLike[str] | None = None
    ) -> None:
        for name, value in (("dataset_id", dataset_id), ("identity", identity)):
            if not isinstance(value, str) or not value:
                raise TypeError(f"{name} must be a non-empty string, found {value!r}")
        self.dataset_id = dataset_id
        self.identity = identity
        digest = hashlib.sha256(_bytes(identity)).hexdigest()[:12]
        base = Path(root).absolute() if root is not None else store_root()
        self.folder = base / _folder_name(dataset_id) / digest
        self._forget()
        self._read_meta()

    def _forget(self) -> None:
        self._dim: int | None = None
        self._offsets: dict[str, int] = {}  # segment name -> bytes of its index read so far
        self._names: list[str] = []
        self._entry: dict[str, int] = {}  # sample id -> position in the four columns
        self._segment, self._row = array("q"), array("q")
        self._size, self._mtime = array("q"), array("q")

    @property
    def dim(self) -> int | None:
        """Length of the vectors; None while the store is empty."""
        if self._dim is None:
            self._read_meta()
        return self._dim

    def __len__(self) -> int:
        self._refresh()
        return len(self._entry)

    def stamps(self) -> dict[str, tuple[int, int]]:
        """Returns sample id → (size, mtime_ns) of the image file that its vector was made from."""
        self._refresh()
        return {id_: (self._size[i], self._mtime[i]) for id_, i in self._entry.items()}

    def rows(self) -> int:
        """Returns how many vectors were written, by the sizes of files: at once at any size.

        More than ``len()`` where some were written anew.
        """
        if self.dim is None:
            return 0
        return sum(len(map_vectors(self.folder, n, self.dim)) for n in list_segments(self.folder))

    def listed_ids(self) -> set[str]:
        """Returns the ids that :meth:`stamps` has, without checking the vectors: a third of the
        time."""
        names = list_segments(self.folder)
        return {id_ for name in names for id_ in read_ids(self.folder, name)}

    def read(self, ids: Sequence[str]) -> np.ndarray:
        """Returns the vectors of samples.

        Args:
            ids: N sample ids, in any order, also repeated

        Returns:
            (N, d) float32; rows of NaN for ids that the store lacks; d = 0 while it is empty
        """
        self._refresh()
        out = np.full((len(ids), self._dim or 0), np.nan, dtype=np.float32)
        entries = np.fromiter((self._entry.get(i, -1) for i in ids), np.int64, count=len(ids))
        wanted = np.flatnonzero(entries >= 0)
        if wanted.size == 0:
            return out
        segments = np.frombuffer(self._segment, np.int64)[entries[wanted]]
        rows = np.frombuffer(self._row, np.int64)[entries[wanted]]
        for segment in np.unique(segments):
            mine = segments == segment
            self._gather(self._names[segment], rows[mine], wanted[mine], out)
        return out

    def written_after(self, segment: int) -> tuple[list[str], int]:
        """Returns the ids whose vectors are newer than a segment, and the latest segment's number.

        Args:
            segment: a number that an earlier call returned; 0 = before everything
        """
        self._refresh()
        numbers = [segment_order(name)[0] for name in self._names]
        newer = [i for i, at in self._entry.items() if numbers[self._segment[at]] > segment]
        return newer, max(numbers, default=0)

    def _gather(self, name: str, rows: np.ndarray, targets: np.ndarray, out: np.ndarray) -> None:
        vectors = map_vectors(self.folder, name, out.shape[1])
        if rows.max() >= len(vectors):
            raise OSError(f"{self.folder / name}: the vector file shrank while it was in use")
        order = np.argsort(rows, kind="stable")  # the disk is read in one direction
        for start in range(0, len(order), _READ_ROWS):
            part = order[start : start + _READ_ROWS]
            out[targets[part]] = vectors[rows[part]]

    def create(self, dim: int) -> None:
        """Makes an empty store for vectors of length ``dim``, so that other processes see it."""
        self._refresh()
        if self._dim is None:
            self._write_meta(dim)

    @contextmanager
    def writer(self) -> Iterator[StoreWriter]:
        """Opens a writer; its segment is made at the first batch: an unused one leaves nothing."""
        writer = StoreWriter(self)
        try:
            yield writer
        finally:
            writer.close()

    def delete(self) -> None:
        """Removes this store's files, and its folder; everything else under the root stays."""
        for path in list(self.folder.iterdir()) if self.folder.is_dir() else []:
            if path.name.startswith(_META) or (
                path.suffix in (INDEX_SUFFIX, VECTORS_SUFFIX) and SEGMENT_NAME.fullmatch(path.stem)
            ):
                path.unlink(missing_ok=True)
        for folder in (self.folder, self.folder.parent):
            with suppress(OSError):  # not empty: another model's store, or files that are not ours
                folder.rmdir()
        self._forget()

    def _refresh(self) -> None:
        """Takes in what was appended since the last call, by whichever process."""
        names = list_segments(self.folder)
        if not names or not self._offsets.keys() <= set(names):  # deleted, perhaps made anew
            self._forget()
        if self.dim is None:
            return
        try:
            self._read_new(names, self.dim)
        except FileNotFoundError:  # deleted just now
            self._forget()

    def _read_new(self, names: list[str], dim: int) -> None:
        for name in names:
            if name not in self._offsets:
                self._offsets[name] = 0
                self._names.append(name)
            offset = self._offsets[name]
            if (self.folder / (name + INDEX_SUFFIX)).stat().st_size == offset:
                continue
            batches, self._offsets[name] = read_batches(self.folder, name, dim, offset)
            segment = self._names.index(name)
            for batch in batches:
                self._take(segment, batch)

    def _take(self, segment: int, batch: Batch) -> None:
        first = len(self._row)
        count = len(batch.ids)
        self._segment.extend([segment] * count)
        self._row.extend(range(batch.row, batch.row + count))
        self._size.extend(batch.sizes)
        self._mtime.extend(batch.mtimes)
        rank = segment_order(self._names[segment])
        for position, id_ in enumerate(batch.ids, first):
            old = self._entry.get(id_)
            if old is None or segment_order(self._names[self._segment[old]]) <= rank:
                self._entry[id_] = position

    def _read_meta(self) -> None:
        path = self.folder / _META
        try:
            meta: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
            version, dim = meta["format"], meta["dim"]
        except FileNotFoundError:
            return
        except (ValueError, KeyError, TypeError) as err:
            raise ValueError(
                f"{path} is damaged ({err}); delete the folder to compute its embeddings again"
            ) from err
        if version != FORMAT_VERSION:
            raise ValueError(
                f"{self.folder} has store format {version}, this version reads {FORMAT_VERSION}; "
                "upgrade clipcleaner, or delete the folder to compute its embeddings again"
            )
        for name in ("identity", "dataset_id"):
            if meta.get(name) != getattr(self, name):
                raise ValueError(
                    f"{self.folder} belongs to {name} {meta.get(name)!r}, not to "
                    f"{getattr(self, name)!r}; delete the folder or choose another root"
                )
        if not isinstance(dim, int) or dim < 1:
            raise ValueError(f"{path} is damaged (dim {dim!r}); delete the folder")
        self._dim = dim

    def _write_meta(self, dim: int) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        meta = {
            "format": FORMAT_VERSION,
            "dataset_id": self.dataset_id,
            "identity": self.identity,
            "dim": dim,
        }
        path = self.folder / _META
        draft = self.folder / f"{_META}.{secrets.token_hex(4)}"
        with draft.open("w", encoding="utf-8") as file:
            json.dump(meta, file, indent=2)
            file.flush()
            os.fsync(file.fileno())
        os.replace(draft, path)  # a writer that was first wrote the same
        for folder in (self.folder, self.folder.parent, self.folder.parent.parent):
            sync_folder(folder)
        self._read_meta()


class StoreWriter:
    """Appends batches to a store; made by :meth:`EmbeddingStore.writer`."""

    def __init__(self, store: EmbeddingStore) -> None:
        self._store = store
        self._segment: SegmentWriter | None = None

    def append(
        self, ids: Sequence[str], stamps: Sequence[tuple[int, int]], vectors: np.ndarray
    ) -> None:
        """Writes one batch; it is on disk when the call returns.

        Args:
            ids: B sample ids
            stamps: B pairs (size, mtime_ns) of the image files
            vectors: (B, d) finite floats; stored as float32

        Raises:
            ValueError: if lengths differ, a vector is not finite, or d is not the store's
            OSError: if the disk is full or fails; earlier batches stay
        """
        with np.errstate(over="ignore"):  # too large for float32 becomes infinite, and is refused
            vectors = np.asarray(vectors, dtype=np.float32)
        if vectors.ndim != 2 or not len(ids) == len(stamps) == len(vectors):
            raise ValueError(
                f"{len(ids)} ids and {len(stamps)} stamps need vectors of shape ({len(ids)}, d), "
                f"found {vectors.shape}"
            )
        if len(ids) == 0:
            return
        bad = np.flatnonzero(~np.isfinite(vectors).all(axis=1))
        if bad.size:
            raise ValueError(f"the vector of sample {ids[bad[0]]} holds NaN or infinite values")
        segment = self._segment or self._open(vectors.shape[1])
        if vectors.shape[1] != self._store.dim:
            raise ValueError(
                f"{self._store.folder} holds vectors of length {self._store.dim}, found "
                f"{vectors.shape[1]}: not the same model"
            )
        segment.append(ids, stamps, vectors)

    def _open(self, dim: int) -> SegmentWriter:
        self._store.create(dim)
        self._segment = SegmentWriter(self._store.folder, self._store.dim or dim)
        return self._segment

    def close(self) -> None:
        """Closes the segment."""
        if self._segment is not None:
            self._segment.close()
            self._segment = None


def _folder_name(dataset_id: str) -> str:
    """A file name for any id: itself where harmless, else made so and told apart by a digest."""
    if re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9_-]{0,63}", dataset_id):
        return dataset_id
    readable = re.sub(r"[^A-Za-z0-9_-]+", "_", dataset_id)[:40]
    return f"_{readable}-{hashlib.sha256(_bytes(dataset_id)).hexdigest()[:12]}"


def _bytes(text: str) -> bytes:
    return text.encode("utf-8", "surrogatepass")
