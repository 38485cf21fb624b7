"""Small embedding stores with known content."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import numpy as np

from clipcleaner_plugin.store import EmbeddingStore

DIM = 5


def vectors_of(ids: Iterable[str], version: int = 0, dim: int = DIM) -> np.ndarray:
    """(N, dim) float32 that differ between ids and versions."""
    rows = [
        np.random.default_rng([version, *i.encode("utf-8", "surrogatepass")]).normal(size=dim)
        for i in ids
    ]
    return np.array(rows, dtype=np.float32).reshape(-1, dim)


def stamps_of(ids: Iterable[str], version: int = 0) -> list[tuple[int, int]]:
    """(size, time) of files, as a writer takes them."""
    return [(len(i) + version, 1_700_000_000_000_000_000 + version) for i in ids]


def fill(store: EmbeddingStore, batches: list[list[str]], version: int = 0) -> None:
    """Appends batches of ids with their vectors, in a segment of their own."""
    with store.writer() as writer:
        for ids in batches:
            writer.append(ids, stamps_of(ids, version), vectors_of(ids, version))


def names(count: int, start: int = 0) -> list[str]:
    """Ids of samples."""
    return [f"sample{i}" for i in range(start, start + count)]


def again(store: EmbeddingStore) -> EmbeddingStore:
    """The same store as another process sees it."""
    return EmbeddingStore(store.dataset_id, store.identity, store.folder.parents[1])


BATCHES = [names(3), names(2, 3), names(4, 5)]
ALL_IDS = [i for batch in BATCHES for i in batch]


def files(store: EmbeddingStore, suffix: str) -> list[Path]:
    """The files of a store, the oldest segment first."""
    return sorted(store.folder.glob(f"*{suffix}"))


def check_no_wrong_vector(store: EmbeddingStore, versions: Iterable[int] = (0,)) -> set[str]:
    """Every id has one of its own vectors or none; returns the ids that have one."""
    reader = again(store)
    found = reader.read(ALL_IDS)
    stored = set()
    for id_, vector in zip(ALL_IDS, found, strict=True):
        if found.shape[1] and not np.isnan(vector).any():
            assert any((vector == vectors_of([id_], v)[0]).all() for v in versions)
            stored.add(id_)
    assert stored == reader.stamps().keys()
    return stored
