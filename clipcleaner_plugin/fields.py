"""What a run writes to a dataset: names, types and indexes of its fields."""

from __future__ import annotations

import io
import zlib
from collections.abc import Iterable, Mapping
from datetime import datetime, timezone
from functools import lru_cache
from itertools import islice
from typing import TYPE_CHECKING, Any

import fiftyone as fo
import numpy as np
from bson import ObjectId
from pymongo import UpdateOne

from .memory import end_change

if TYPE_CHECKING:
    from .layout import Layout

VERDICTS = ("clean", "mislabeled", "uncertain", "unscorable")
EVIDENCES = ("zeroshot_loss", "zeroshot_consistency", "visual_loss", "visual_consistency")

# Rows may hold vectors: smaller chunks keep the driver's buffers small
_ROWS = 10_000
_VALUES = 100_000

_DESCRIPTIONS = {
    "score": "Probability that the given label is right; lower is more suspicious",
    "verdict": "clean | mislabeled | uncertain | unscorable",
    "suggestion": "The label that words and images together support most",
    "reason": "What words and looks hold the image for, where the label is to be reviewed",
    "open_set": "Whether the image seems to belong to none of the classes",
    "zeroshot_loss": "Log-probability of the given label by its name, in [0, 1] within its class",
    "zeroshot_consistency": "Probability of the given label by its name, over the largest",
    "visual_loss": "Log-probability of the given label by its looks, in [0, 1] within its class",
    "visual_consistency": "Probability of the given label by its looks, over the largest",
}
_TYPES = {"verdict": fo.StringField, "reason": fo.StringField, "open_set": fo.BooleanField}


def field_name(prefix: str, name: str) -> str:
    """Returns the dataset field of one result, for example ``"clipcleaner_score"``."""
    return f"{prefix}_{name}"


def result_fields(layout: Layout) -> list[str]:
    """Returns all fields that a run writes, embeddings aside."""
    written = [layout.result(name) for name in _DESCRIPTIONS]
    if layout.objects:
        written += [layout.confidence, layout.lowest_score]
    return written


def declare_fields(dataset: fo.Dataset, layout: Layout) -> None:
    """Adds the result fields to the dataset's schema."""
    for name, description in _DESCRIPTIONS.items():
        field, ftype = layout.result(name), _TYPES.get(name, fo.FloatField)
        if name != "suggestion":
            dataset.add_sample_field(field, ftype, description=description)
        elif layout.objects:
            dataset.add_sample_field(field, fo.StringField, description=description)
        else:
            dataset.add_sample_field(
                field,
                fo.EmbeddedDocumentField,
                embedded_doc_type=fo.Classification,
                description=description,
            )
    if layout.objects:
        text = "Probability of the suggested label"
        dataset.add_sample_field(layout.confidence, fo.FloatField, description=text)
        text = "The lowest score of the sample's objects"
        dataset.add_sample_field(layout.lowest_score, fo.FloatField, description=text)


def create_indexes(dataset: fo.Dataset, layout: Layout) -> None:
    """Indexes score, verdict and the flag of no class, so that views of a million are quick.

    The pairs serve what is looked at most: the samples of one verdict or flag, worst first. To be
    made after the values: an index that is there slows every write down.
    """
    score, verdict = layout.result("score"), layout.result("verdict")
    dataset.create_index(score)
    dataset.create_index(verdict)
    dataset.create_index([(verdict, 1), (score, 1)])
    dataset.create_index([(layout.result("open_set"), 1), (score, 1)])
    if layout.objects:
        dataset.create_index(layout.lowest_score)


def write_values(dataset: fo.Dataset, field: str, values: Mapping[str, Any]) -> None:
    """Writes ``{sample id: value}`` in chunks; ids that no longer exist are passed over."""
    for part in _chunks(values.items(), _VALUES):
        dataset.set_values(field, dict(part), key_field="id", progress=False)


def write_rows(dataset: fo.Dataset, rows: Iterable[tuple[str, Mapping[str, Any]]]) -> None:
    """Writes several fields of each sample in one update: five times as fast as field by field.

    Memory holds one chunk of rows.

    Args:
        dataset: the dataset; the fields are declared
        rows: pairs (sample id, ``{field: value}``); values are plain, vectors, or what
            :func:`classification` makes. Ids that no longer exist are passed over
    """
    _write(dataset, ((i, {"_id": ObjectId(i)}, row) for i, row in rows))


def write_object_rows(
    dataset: fo.Dataset, array: str, rows: Iterable[tuple[str, str, Mapping[str, Any]]]
) -> None:
    """Writes several attributes of each object in one update.

    Args:
        dataset: the dataset; the attributes are declared
        array: the list of objects, for example ``"detections.detections"``
        rows: (sample id, object id, ``{path of the attribute: value}``). Objects that no longer
            exist are passed over
    """
    _write(
        dataset,
        (
            (
                sample_id,
                {"_id": ObjectId(sample_id), f"{array}._id": ObjectId(object_id)},
                {path.replace(f"{array}.", f"{array}.$.", 1): v for path, v in row.items()},
            )
            for sample_id, object_id, row in rows
        ),
    )


def _write(
    dataset: fo.Dataset, rows: Iterable[tuple[str, dict[str, Any], Mapping[str, Any]]]
) -> None:
    """Takes (sample id, what to update, ``{path: value}``)."""
    part: list[Any] = []
    for part in _chunks(rows, _ROWS):
        now = datetime.now(timezone.utc)
        updates = [
            UpdateOne(
                query,
                {"$set": {**{f: _plain(v) for f, v in row.items()}, "last_modified_at": now}},
            )
            for _, query, row in part
        ]
        # What set_values() calls, for which there is no public way to several fields at once
        dataset._bulk_write(updates, ids=[sample_id for sample_id, *_ in part], progress=False)
    if part:
        end_change(dataset, ObjectId(part[-1][0]), now)


def classification(label: str, confidence: float) -> dict[str, Any]:
    """Makes a Classification as the database keeps it, in a tenth of the time of an object."""
    return {**_classification(), "_id": ObjectId(), "label": label, "confidence": confidence}


@lru_cache(maxsize=1)
def _classification() -> dict[str, Any]:
    return dict(fo.Classification(label="", confidence=0.0).to_dict())


def _plain(value: Any) -> Any:
    return _packed(value) if isinstance(value, np.ndarray) else value


def _packed(vector: np.ndarray) -> bytes:
    """A vector as FiftyOne keeps arrays, the zlib of ``np.save``, but without compression: of
    mantissas it saves 8 % of the bytes, and takes 95 % of the time to make them."""
    return zlib.compress(_header(vector.dtype.str, vector.shape) + vector.tobytes(), level=0)


@lru_cache(maxsize=8)
def _header(dtype: str, shape: tuple[int, ...]) -> bytes:
    file = io.BytesIO()
    empty = np.zeros(shape, dtype=dtype)
    np.save(file, empty, allow_pickle=False)
    return file.getvalue()[: -empty.nbytes]


def delete_fields(dataset: fo.Dataset, fields: Iterable[str]) -> None:
    """Deletes those of the fields that exist, with their indexes."""
    existing = [field for field in fields if dataset.has_sample_field(field)]
    if existing:
        dataset.delete_sample_fields(existing)


def rename_fields(dataset: fo.Dataset, layout: Layout, new_layout: Layout) -> None:
    """Renames the result fields of one run to those of another; their indexes move with them."""
    if layout.objects:
        _rename_attributes(dataset, layout, new_layout)
        return
    mapping = {
        old: new
        for old, new in zip(result_fields(layout), result_fields(new_layout), strict=True)
        if dataset.has_sample_field(old)
    }
    dataset.rename_sample_fields(mapping)


def _rename_attributes(dataset: fo.Dataset, layout: Layout, new_layout: Layout) -> None:
    """Copies and deletes: FiftyOne's renaming damages samples that have no objects."""
    declare_fields(dataset, new_layout)
    item, new_item = layout.at(""), new_layout.at("")
    names = zip(result_fields(item), result_fields(new_item), strict=True)
    copies = {new: f"$$item.{old}" for old, new in names}
    copied = {"$mergeObjects": ["$$item", copies]}
    objects = {"$map": {"input": f"${layout.array}", "as": "item", "in": copied}}
    lowest = {new_layout.lowest_score: f"${layout.lowest_score}"}
    dataset._sample_collection.update_many(
        {layout.array: {"$type": "array"}}, [{"$set": {layout.array: objects, **lowest}}]
    )
    create_indexes(dataset, new_layout)
    delete_fields(dataset, result_fields(layout))


def _chunks(items: Iterable[Any], size: int) -> Iterable[list[Any]]:
    iterator = iter(items)
    while part := list(islice(iterator, size)):
        yield part
