"""The audit log of reviews: what it holds, who did what, the labels as they were, and undoing.

The log of a sample is part of the sample. The database changes a sample as a whole or not at all,
so that a decision and its record can never be found one without the other, wherever a process
was killed: what was not reached is as it was, what was reached is recorded and can be undone.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from datetime import datetime, timezone
from typing import Any

import fiftyone as fo
from bson import ObjectId
from fiftyone.core.collections import SampleCollection

from .decisions import RELABELED, reviewed_fields
from .layout import Layout, field_layout

ACCEPT, CONFIRM, DROP = "accept_suggestions", "confirm_labels", "drop"
KINDS = (ACCEPT, CONFIRM, DROP)
_DONE = {
    ACCEPT: ("would be relabeled", "relabeled"),
    CONFIRM: ("would be confirmed", "confirmed"),
    DROP: ("would be dropped", "dropped"),
    "undo_review": ("would be as before", "as before"),
}
_SHOWN_PAIRS = 10


@dataclass(frozen=True)
class ReviewReport:
    """What a review action did, or in a preview would do.

    Attributes:
        kind: "accept_suggestions", "confirm_labels", "drop" or "undo_review"
        action: the id of the action, for ``undo_review``; None in a preview, or if nothing was done
        count: number of samples (or objects) decided or restored
        changes: (label before, label after, samples), most frequent first
        left: samples left as they are, by reason
        unit: "sample" or "object"
    """

    kind: str
    action: str | None
    count: int
    changes: tuple[tuple[str | None, str | None, int], ...]
    left: dict[str, int]
    unit: str = "sample"

    def __str__(self) -> str:
        would, done = _DONE[self.kind]
        lines = [f"{samples_text(self.count, self.unit)} {done if self.action else would}"]
        if self.kind in (ACCEPT, "undo_review"):
            shown = self.changes[:_SHOWN_PAIRS]
            lines += [f"  {old or 'no label'} -> {new or 'no label'}: {n}" for old, new, n in shown]
            if len(self.changes) > _SHOWN_PAIRS:
                lines.append(f"  ... and {len(self.changes) - _SHOWN_PAIRS} other pairs")
        lines += [f"left as they are: {n} {reason}" for reason, n in self.left.items()]
        return "\n".join(lines)


@dataclass(frozen=True)
class ReviewAction:
    """One action of a reviewer, as the audit log has it.

    Attributes:
        id: for ``undo_review``
        kind: "accept_suggestions", "confirm_labels" or "drop"
        at: when, in UTC
        by: who
        key: the run, under the name that it had
        label_field: the field reviewed
        count: number of samples (or objects) decided
        undone: of these, those where the action has been undone
        unit: "sample" or "object"
    """

    id: str
    kind: str
    at: datetime
    by: str
    key: str
    label_field: str
    count: int
    undone: int
    unit: str = "sample"

    @property
    def layout(self) -> Layout:
        """Where the labels and their reviews stand."""
        return Layout(self.label_field, self.unit == "object")

    def __str__(self) -> str:
        number = samples_text(self.count, self.unit)
        text = f"{self.at:%Y-%m-%d %H:%M} UTC, {self.by}: {number} {_DONE[self.kind][1]}"
        if self.undone == self.count:
            return text + ", undone"
        return text + (f", undone on {self.undone}" if self.undone else "")


def samples_text(n: int, unit: str = "sample") -> str:
    """Returns "1 sample" or "1,200 samples"."""
    return f"1 {unit}" if n == 1 else f"{n:,} {unit}s"


def review_history(samples: SampleCollection, limit: int | None = None) -> list[ReviewAction]:
    """Returns the review actions on a dataset, the last one first.

    Args:
        samples: the dataset, or any view of it
        limit (None): the greatest number of actions to return; None = all
    """
    dataset = samples._root_dataset
    found = [action for field in reviewed_fields(dataset) for action in _actions(dataset, field)]
    return sorted(found, key=lambda action: (action.at, action.id), reverse=True)[:limit]


def _actions(
    dataset: fo.Dataset, label_field: str, action: ObjectId | None = None
) -> Iterable[ReviewAction]:
    layout = field_layout(dataset, label_field)
    wanted = {"$exists": True} if action is None else action
    pipeline: list[dict[str, Any]] = [
        {"$match": {f"{layout.log}.action": wanted}},
        *layout.unwind,
        {"$project": {"entry": f"${layout.log}"}},
        {"$unwind": "$entry"},
        *([] if action is None else [{"$match": {"entry.action": action}}]),
        {
            "$group": {
                "_id": "$entry.action",
                **{name: {"$first": f"$entry.{name}"} for name in ("kind", "at", "by", "key")},
                "count": {"$sum": 1},
                "undone": {"$sum": {"$cond": [_is_undone("$entry"), 1, 0]}},
            }
        },
    ]
    for found in dataset._sample_collection.aggregate(pipeline, allowDiskUse=True):
        found["at"] = _utc(found["at"])
        yield ReviewAction(
            str(found.pop("_id")), label_field=label_field, unit=layout.unit, **found
        )


def original_labels(
    samples: SampleCollection, label_field: str
) -> dict[str, fo.Classification | None]:
    """Returns the labels as they were before the first review, with all their attributes.

    Args:
        samples: a dataset or view
        label_field: a Classification or Detections field

    Returns:
        ``{id: label}`` of the samples, or objects, whose label a review has replaced, however often
        and whether or not it was undone; of objects, name and confidence, which is all that a
        review replaces
    """
    from .targets import read_items

    if label_field not in reviewed_fields(samples):
        return {}
    layout = field_layout(samples, label_field)
    touched = samples.match({f"{layout.log}.decision": RELABELED})
    items = read_items(touched, layout, [layout.log])
    return {
        i: entries[0]["from"] and fo.Classification.from_dict(entries[0]["from"])
        for i, entries in zip(items.ids, items.columns[0], strict=True)
        if any(entry["decision"] == RELABELED for entry in entries or ())
    }


def find_action(samples: SampleCollection, action: str | None) -> ReviewAction:
    """Returns one action; None = the last one that is in force anywhere.

    Raises:
        ValueError: if there is none
    """
    dataset = samples._root_dataset
    if action is None:
        for found in review_history(dataset):
            if found.undone < found.count:
                return found
        raise ValueError(f"dataset {dataset.name!r} has no review action that could be undone")
    if ObjectId.is_valid(action):
        for field in reviewed_fields(dataset):
            for found in _actions(dataset, field, ObjectId(action)):
                return found
    raise ValueError(
        f"dataset {dataset.name!r} has no review action {action!r}; cc.review_history(dataset) "
        "lists them"
    )


@dataclass(frozen=True)
class Undo:
    """Takes an action back: a step as :mod:`clipcleaner_plugin.review_update` carries it out.

    An action is undone only where it is the last one in force, and the label is still the one that
    it left: what was decided or edited later is newer knowledge.

    Attributes:
        action: the action
        layout: where the labels and their log are seen from
    """

    action: ReviewAction
    layout: Layout
    kind: str = "undo_review"

    def at(self, layout: Layout) -> Undo:
        """The same, with the labels seen from elsewhere."""
        return replace(self, layout=layout)

    def scope(self) -> dict[str, Any]:
        """The query for the labels that the action was about."""
        return {f"{self.layout.log}.action": ObjectId(self.action.id)}

    def done(self, at: datetime) -> dict[str, Any]:
        """The query for the labels on which it was undone at this time."""
        entry = {"action": ObjectId(self.action.id), "undone.at": at}
        return {self.layout.log: {"$elemMatch": entry}}

    def left_because(self) -> dict[str, Any]:
        """Why the action is not undone on a label; None = it can be."""
        label = {"$ifNull": [f"${self.layout.given}", None]}
        edited = {"$and": [{"$eq": ["$$last.decision", RELABELED]}, {"$ne": ["$$last.to", label]}]}
        branches = [
            (_is_undone(self._entry), "where it has been undone before"),
            ({"$ne": ["$$last.action", ObjectId(self.action.id)]}, "decided again since"),
            (edited, "edited since"),
        ]
        cases = [{"case": case, "then": why} for case, why in branches]
        reason = {"$switch": {"branches": cases, "default": None}}
        return {"$let": {"vars": {"last": _latest(self.layout)}, "in": reason}}

    def labels(self) -> tuple[Any, Any]:
        """The label that the action left, and the one that it found."""
        before = {"$ifNull": ["$$entry.from.label", None]}
        return _let(self._entry, "$$entry.to"), _let(self._entry, before)

    def values(self, at: datetime, by: str) -> dict[str, Any]:
        """What takes the action back and records that, as ``{path: expression}``."""
        layout = self.layout
        undone = {"$mergeObjects": ["$$entry", {"undone": {"at": at, "by": {"$literal": by}}}]}
        is_it = {"$eq": ["$$entry.action", ObjectId(self.action.id)]}
        entries = {
            "$map": {
                "input": f"${layout.log}",
                "as": "entry",
                "in": {"$cond": [is_it, undone, "$$entry"]},
            }
        }
        values = {layout.log: entries, layout.review: _let(self._entry, "$$entry.decision_before")}
        if layout.objects:  # of an object, only these were replaced: it may have moved since
            replaced = {layout.root + name: f".{name}" for name in ("label", "confidence")}
        else:
            replaced = {layout.label_field: ""}
        was_relabeled = {"$eq": ["$$entry.decision", RELABELED]}
        for path, part in replaced.items():
            before = {"$cond": [was_relabeled, f"$$entry.from{part}", f"${path}"]}
            values[path] = _let(self._entry, before)
        return values

    def removed(self) -> dict[str, Any]:
        """Nothing: see ``Decision.removed``."""
        return {}

    @property
    def _entry(self) -> dict[str, Any]:
        is_it = {"$eq": ["$$this.action", ObjectId(self.action.id)]}
        found = {"$filter": {"input": f"${self.layout.log}", "as": "this", "cond": is_it}}
        return {"$arrayElemAt": [found, 0]}


def _let(entry: Any, expression: Any) -> dict[str, Any]:
    return {"$let": {"vars": {"entry": entry}, "in": expression}}


def _is_undone(entry: Any) -> dict[str, Any]:
    path = f"{entry}.undone" if isinstance(entry, str) else _let(entry, "$$entry.undone")
    return {"$ne": [{"$ifNull": [path, None]}, None]}


def _latest(layout: Layout) -> dict[str, Any]:
    in_force = {"$not": [_is_undone("$$this")]}
    found = {"$filter": {"input": f"${layout.log}", "as": "this", "cond": in_force}}
    return {"$arrayElemAt": [found, -1]}


def _utc(at: datetime) -> datetime:
    return at.replace(tzinfo=timezone.utc) if at.tzinfo is None else at.astimezone(timezone.utc)
