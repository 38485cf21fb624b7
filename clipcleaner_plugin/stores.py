"""The embedding stores on this disk: what they hold, who uses them, and removing those nobody does.

Deleting a run takes its store along. A store stays behind when its dataset is deleted, or when a
run is applied again with another model: vectors cost hours, and are kept until somebody says so.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import fiftyone as fo
import fiftyone.core.odm as foo

from .embeddings import IDENTITY
from .store import EmbeddingStore, store_root

Use = Literal["used", "unused", "orphan"]


@dataclass(frozen=True)
class StoreInfo:
    """One store.

    Attributes:
        dataset: the name of its dataset; None where this database has none of that id
        use: "used" by a run or vector field of its dataset; "unused": by none of them, as after
            a run was applied again with another model, or before the first one; "orphan": its
            dataset is not in this database
        size: bytes on disk
        store: the store itself
    """

    dataset: str | None
    use: Use
    size: int
    store: EmbeddingStore

    def __str__(self) -> str:
        name = repr(self.dataset) if self.dataset else f"id {self.store.dataset_id}"
        size = f"{self.size / 1e6:10,.1f} MB"
        return f"{self.use:<6}  {size}  dataset {name}, {self.store.identity}"


def list_stores(root: str | os.PathLike[str] | None = None) -> list[StoreInfo]:
    """Returns the stores under a root, of this database's datasets or not.

    Args:
        root (None): the folder of all stores; None = :func:`clipcleaner_plugin.store.store_root`
    """
    base = Path(root) if root is not None else store_root()
    stores = [s for path in sorted(base.glob("*/*/meta.json")) if (s := _open(path, base))]
    names = {str(doc["_id"]): doc["name"] for doc in foo.get_db_conn().datasets.find({}, ["name"])}
    identities = {
        id_: _identities_in_use(names[id_]) for id_ in {s.dataset_id for s in stores} & set(names)
    }
    return [_info(store, names, identities) for store in stores]


def prune(stores: Iterable[StoreInfo], uses: Iterable[Use] = ("orphan",)) -> list[StoreInfo]:
    """Deletes stores, and nothing else in their folders.

    Args:
        stores: what :func:`list_stores` returned
        uses ("orphan"): which of them; where several databases share a root, the stores of the
            others' datasets are orphans here

    Returns:
        those that were deleted
    """
    chosen = [info for info in stores if info.use in set(uses) - {"used"}]
    for info in chosen:
        info.store.delete()
    return chosen


def _open(path: Path, base: Path) -> EmbeddingStore | None:
    try:
        meta = json.loads(path.read_text(encoding="utf-8"))
        store = EmbeddingStore(meta["dataset_id"], meta["identity"], base)
    except (OSError, ValueError, KeyError, TypeError):  # not ours, or damaged: not ours to judge
        return None
    return store if store.folder == path.parent.absolute() else None


def _identities_in_use(name: str) -> set[str | None]:
    dataset = fo.load_dataset(name)
    runs = dataset.list_brain_runs(method="clipcleaner")
    fields = dataset.get_field_schema(ftype=fo.VectorField).values()
    return {
        *(dataset.get_brain_info(key).config.model_identity for key in runs),
        *((field.info or {}).get(IDENTITY) for field in fields),
    }


def _info(
    store: EmbeddingStore, names: dict[str, str], identities: dict[str, set[str | None]]
) -> StoreInfo:
    size = sum(path.stat().st_size for path in store.folder.iterdir() if path.is_file())
    name = names.get(store.dataset_id)
    if name is None:
        return StoreInfo(None, "orphan", size, store)
    used = store.identity in identities[store.dataset_id]
    return StoreInfo(name, "used" if used else "unused", size, store)
