"""What a run writes to a dataset: names, types and indexes of its fields, and its saved views."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from itertools import islice
from typing import Any

import fiftyone as fo
from fiftyone import ViewField as F

VERDICTS = ("clean", "mislabeled", "uncertain", "unscorable")
EVIDENCES = ("zeroshot_loss", "zeroshot_consistency", "visual_loss", "visual_consistency")

# Vectors are large: smaller chunks keep the driver's buffers small
_CHUNK = {fo.VectorField: 10_000}
_DEFAULT_CHUNK = 100_000

_DESCRIPTIONS = {
    "score": "Probability that the given label is right; lower is more suspicious",
    "verdict": "clean | mislabeled | uncertain | unscorable",
    "suggestion": "The label that words and images together support most",
    "zeroshot_loss": "Log-probability of the given label by its name, in [0, 1] within its class",
    "zeroshot_consistency": "Probability of the given label by its name, over the largest",
    "visual_loss": "Log-probability of the given label by its looks, in [0, 1] within its class",
    "visual_consistency": "Probability of the given label by its looks, over the largest",
}


def field_name(prefix: str, name: str) -> str:
    """Returns the dataset field of one result, for example ``"clipcleaner_score"``."""
    return f"{prefix}_{name}"


def result_fields(prefix: str) -> list[str]:
    """Returns all fields that a run with this prefix writes, embeddings aside."""
    return [field_name(prefix, name) for name in _DESCRIPTIONS]


def declare_fields(dataset: fo.Dataset, prefix: str) -> None:
    """Adds the result fields and their indexes to the dataset's schema."""
    for name, description in _DESCRIPTIONS.items():
        field = field_name(prefix, name)
        if name == "suggestion":
            dataset.add_sample_field(
                field,
                fo.EmbeddedDocumentField,
                embedded_doc_type=fo.Classification,
                description=description,
            )
        else:
            ftype = fo.StringField if name == "verdict" else fo.FloatField
            dataset.add_sample_field(field, ftype, description=description)
    create_indexes(dataset, prefix)


def create_indexes(dataset: fo.Dataset, prefix: str) -> None:
    """Indexes score and verdict, so that sorting and filtering a million samples is quick."""
    for name in ("score", "verdict"):
        dataset.create_index(field_name(prefix, name))


def write_values(dataset: fo.Dataset, field: str, values: Mapping[str, Any]) -> None:
    """Writes ``{sample id: value}`` in chunks; ids that no longer exist are passed over."""
    chunk = _CHUNK.get(type(dataset.get_field(field)), _DEFAULT_CHUNK)
    for part in _chunks(values.items(), chunk):
        dataset.set_values(field, dict(part), key_field="id", progress=False)


def delete_fields(dataset: fo.Dataset, fields: Iterable[str]) -> None:
    """Deletes those of the fields that exist, with their indexes."""
    existing = [field for field in fields if dataset.has_sample_field(field)]
    if existing:
        dataset.delete_sample_fields(existing)


def rename_fields(dataset: fo.Dataset, prefix: str, new_prefix: str) -> None:
    """Renames the result fields of one prefix to another; their indexes move with them."""
    mapping = {
        old: new
        for old, new in zip(result_fields(prefix), result_fields(new_prefix), strict=True)
        if dataset.has_sample_field(old)
    }
    dataset.rename_sample_fields(mapping)


def verdict_view(dataset: fo.Dataset, prefix: str, verdict: str | None = None) -> fo.DatasetView:
    """Returns the samples with this verdict, most suspicious first; None = all that have one.

    The view is a rule on indexed fields, not a list of ids, so it holds at any size and follows
    every later change.
    """
    field, score = field_name(prefix, "verdict"), field_name(prefix, "score")
    if verdict is None:
        return dataset.match(F(field).is_in(list(VERDICTS))).sort_by(score)
    if verdict not in VERDICTS:
        raise ValueError(f"unknown verdict {verdict!r}; choose one of {', '.join(VERDICTS)}")
    return dataset.match(F(field) == verdict).sort_by(score)


_SAVED = {
    "mislabeled": "Labels that are probably wrong, worst first",
    "clean": "Labels that both opinions support: safe to train on",
    "uncertain": "Labels that are neither clearly right nor clearly wrong",
}


def saved_view_names(prefix: str) -> list[str]:
    """Returns the names of the saved views that a run keeps."""
    return [f"{prefix}: {verdict}" for verdict in _SAVED]


def save_views(dataset: fo.Dataset, prefix: str) -> None:
    """Saves one rule-based view per verdict, replacing older ones of the same names."""
    for (verdict, description), name in zip(_SAVED.items(), saved_view_names(prefix), strict=True):
        view = verdict_view(dataset, prefix, verdict)
        dataset.save_view(name, view, description=description, overwrite=True)


def delete_views(dataset: fo.Dataset, prefix: str) -> None:
    """Deletes the run's saved views, where they still exist."""
    for name in saved_view_names(prefix):
        if dataset.has_saved_view(name):
            dataset.delete_saved_view(name)


def _chunks(items: Iterable[Any], size: int) -> Iterable[list[Any]]:
    iterator = iter(items)
    while part := list(islice(iterator, size)):
        yield part
