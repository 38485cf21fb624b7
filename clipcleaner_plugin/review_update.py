"""Carries a step of a review out, or says what it would do: in the database, and in bulk.

A step is a decision or its undoing. It changes the labels of samples or of objects; each sample is
changed as a whole or not at all.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from typing import Any, Protocol

import fiftyone as fo
from bson import ObjectId
from fiftyone.core.collections import SampleCollection
from fiftyone.core.sample import Sample

from .kept_statistics import following
from .layout import Layout
from .memory import end_change
from .review_log import ReviewReport

# Ids of a command; MongoDB refuses commands over 16 MB, and an id takes about 20 bytes
_CHUNK = 50_000
# Samples of a command about objects: their ids are compared one by one
_OBJECT_CHUNK = 200
_ITEM = "$item."


class Step(Protocol):
    """What is to be done to labels, as expressions of the database."""

    @property
    def kind(self) -> str:
        """As in :class:`clipcleaner_plugin.review_log.ReviewReport`."""

    @property
    def layout(self) -> Layout:
        """Where the labels are seen from."""

    def at(self, layout: Layout) -> Step:
        """The same, with the labels seen from elsewhere."""

    def scope(self) -> dict[str, Any]:
        """The query for the labels that it may be about."""

    def done(self, at: datetime) -> dict[str, Any]:
        """The query for the labels that were changed at this time."""

    def left_because(self) -> dict[str, Any]:
        """The expression "why this label is left as it is"; None = it is not."""

    def labels(self) -> tuple[Any, Any]:
        """The names of the label before and after."""

    def values(self, at: datetime, by: str) -> dict[str, Any]:
        """What is written, as ``{path: expression}``."""

    def removed(self) -> dict[str, Any]:
        """What is changed after that, in samples alone."""


def preview(samples: SampleCollection, step: Step) -> ReviewReport:
    """Counts labels by the reason why they are left, and the others by old and new name."""
    step, before = _seen_in(samples, step)
    why_left = step.left_because()
    old, new = ({"$cond": [{"$eq": [why_left, None]}, label, None]} for label in step.labels())
    group = {"_id": {"left": why_left, "old": old, "new": new}, "n": {"$sum": 1}}
    changes, left = [], {}
    for found in samples._aggregate(post_pipeline=[*before, {"$group": group}]):
        of, n = found["_id"], found["n"]
        if of["left"] is None:
            changes.append((of["old"], of["new"], n))
        else:
            left[of["left"]] = n
    changes.sort(key=lambda change: (-change[2], str(change[0]), str(change[1])))
    count = sum(n for *_, n in changes)
    return ReviewReport(step.kind, None, count, tuple(changes), left, step.layout.unit)


def carry_out(samples: SampleCollection, step: Step, at: datetime, by: str) -> int:
    """Changes those of the labels where it is possible, and returns how many."""
    n = 0
    dataset: fo.Dataset = samples._root_dataset
    if step.layout.objects:
        objects = _possible_objects(samples, step)
        found, written = list(objects), _write_objects(dataset, step, objects, at, by)
    else:
        found = [ObjectId(i) for i in samples.match(_possible(step)).values("id")]
        written = _write_samples(dataset, step, found, at, by)
    if not found:
        return 0
    with following(dataset, found):
        for ids, count in written:
            n += count
            # Whoever holds a sample in this process must see its new label, and not save the old
            Sample._reload_docs(dataset._sample_collection_name, sample_ids=[str(i) for i in ids])
        end_change(dataset, found[-1], at)
    return n


def _seen_in(samples: SampleCollection, step: Step) -> tuple[Step, list[dict[str, Any]]]:
    """The step as it is seen in a collection, and the stages that give its labels one by one."""
    if samples._is_generated:
        step = step.at(step.layout.in_patches)
        return step, [{"$match": step.scope()}]
    scope = {"$match": step.scope()}
    return step, [scope, *step.layout.unwind, *([scope] if step.layout.objects else [])]


def _possible(step: Step) -> dict[str, Any]:
    return {**step.scope(), "$expr": {"$eq": [step.left_because(), None]}}


def _write_samples(
    dataset: fo.Dataset, step: Step, found: list[ObjectId], at: datetime, by: str
) -> Iterator[tuple[list[ObjectId], int]]:
    update = [{"$set": {**step.values(at, by), "last_modified_at": at}}]
    if step.removed():
        update.append({"$set": step.removed()})
    for start in range(0, len(found), _CHUNK):
        ids = found[start : start + _CHUNK]
        # Asked again: another reviewer may have been quicker
        query = {"_id": {"$in": ids}, **_possible(step)}
        yield ids, dataset._sample_collection.update_many(query, update).modified_count


def _write_objects(
    dataset: fo.Dataset,
    step: Step,
    objects: dict[ObjectId, list[ObjectId]],
    at: datetime,
    by: str,
) -> Iterator[tuple[list[ObjectId], int]]:
    collection, layout = dataset._sample_collection, step.layout
    found = list(objects)
    for start in range(0, len(found), _OBJECT_CHUNK):
        ids = found[start : start + _OBJECT_CHUNK]
        chosen = [object_id for sample_id in ids for object_id in objects[sample_id]]
        here = {"$match": {"_id": {"$in": ids}}}
        collection.update_many(here["$match"], _objects_update(step, chosen, at, by))
        done = [{"$match": step.done(at)}, {"$match": {layout.id: {"$in": chosen}}}]
        counted = list(collection.aggregate([here, *layout.unwind, *done, {"$count": "n"}]))
        yield ids, counted[0]["n"] if counted else 0


def _possible_objects(samples: SampleCollection, step: Step) -> dict[ObjectId, list[ObjectId]]:
    """Sample id → ids of its objects where the step is possible."""
    step, before = _seen_in(samples, step)
    sample = "$_sample_id" if samples._is_generated else "$_id"
    pipeline = [
        *before,
        {"$match": {"$expr": {"$eq": [step.left_because(), None]}}},
        {"$project": {"_id": f"${step.layout.id}", "sample": sample}},
    ]
    found: dict[ObjectId, list[ObjectId]] = {}
    for row in samples._aggregate(post_pipeline=pipeline):
        found.setdefault(row["sample"], []).append(row["_id"])
    return found


def _objects_update(
    step: Step, chosen: list[ObjectId], at: datetime, by: str
) -> list[dict[str, Any]]:
    """Changes some objects of samples, asking again whether that is still possible."""
    array = step.layout.array
    step = step.at(step.layout.at(_ITEM))
    values = {path.removeprefix(_ITEM): value for path, value in step.values(at, by).items()}
    possible = {"$eq": [step.left_because(), None]}
    changed = {
        "$cond": [
            {"$and": [{"$in": ["$$item._id", chosen]}, possible]},
            {"$mergeObjects": ["$$item", values]},
            "$$item",
        ]
    }
    objects = {"$map": {"input": f"${array}", "as": "item", "in": changed}}
    return [{"$set": {array: objects, "last_modified_at": at}}]
