"""The audit log of reviews: what it holds, who did what, the labels as they were, and undoing.

The log of a sample is part of the sample. The database changes a sample as a whole or not at all,
so that a decision and its record can never be found one without the other, wherever a process
was killed: what was not reached is as it was, what was reached is recorded and can be undone.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timezone
from typing import Any

import fiftyone as fo
from bson import ObjectId
from fiftyone.core.collections import SampleCollection

from .decisions import RELABELED, log_field, review_field, reviewed_fields

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
        count: number of samples decided (or restored)
        changes: (label before, label after, samples), most frequent first
        left: samples left as they are, by reason
    """

    kind: str
    action: str | None
    count: int
    changes: tuple[tuple[str | None, str | None, int], ...]
    left: dict[str, int]

    def __str__(self) -> str:
        would, done = _DONE[self.kind]
        lines = [f"{samples_text(self.count)} {done if self.action else would}"]
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
        count: number of samples decided
        undone: of these, those where the action has been undone
    """

    id: str
    kind: str
    at: datetime
    by: str
    key: str
    label_field: str
    count: int
    undone: int

    def __str__(self) -> str:
        text = f"{self.at:%Y-%m-%d %H:%M} UTC, {self.by}: {self.kind}, {samples_text(self.count)}"
        if self.undone == self.count:
            return text + ", undone"
        return text + (f", undone on {self.undone}" if self.undone else "")


def samples_text(n: int) -> str:
    """Returns "1 sample" or "1,200 samples"."""
    return "1 sample" if n == 1 else f"{n:,} samples"


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
    log = f"${log_field(label_field)}"
    wanted = {"$exists": True} if action is None else action
    pipeline: list[dict[str, Any]] = [
        {"$match": {f"{log_field(label_field)}.action": wanted}},
        {"$project": {"entry": log}},
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
        yield ReviewAction(str(found.pop("_id")), label_field=label_field, **found)


def original_labels(
    samples: SampleCollection, label_field: str
) -> dict[str, fo.Classification | None]:
    """Returns the labels as they were before the first review, with all their attributes.

    Args:
        samples: a dataset or view
        label_field: a Classification field

    Returns:
        ``{sample id: label}`` of the samples whose label a review has replaced, however often, and
        whether or not it was undone
    """
    if label_field not in reviewed_fields(samples):
        return {}
    log = log_field(label_field)
    touched = samples.match({f"{log}.decision": RELABELED})
    return {
        sample_id: entries[0]["from"] and fo.Classification.from_dict(entries[0]["from"])
        for sample_id, entries in zip(*touched.values(["id", log]), strict=True)
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


def undo_state(action: ReviewAction) -> dict[str, Any]:
    """Returns the expression "why this action is not undone on a sample"; None = it can be.

    An action is undone only where it is the last one in force, and the label is still the one that
    it left: what was decided or edited later is newer knowledge.
    """
    latest = _latest(action.label_field)
    label = {"$ifNull": [f"${action.label_field}.label", None]}
    edited = {"$and": [{"$eq": ["$$last.decision", RELABELED]}, {"$ne": ["$$last.to", label]}]}
    branches = [
        (_is_undone(_entry_of(action)), "where it has been undone before"),
        ({"$ne": ["$$last.action", ObjectId(action.id)]}, "decided again since"),
        (edited, "edited since"),
    ]
    return {
        "$let": {
            "vars": {"last": latest},
            "in": {
                "$switch": {
                    "branches": [{"case": case, "then": why} for case, why in branches],
                    "default": None,
                }
            },
        }
    }


def undo_update(action: ReviewAction, at: datetime, by: str) -> list[dict[str, Any]]:
    """Returns the update that takes an action back on a sample and records that."""
    log = log_field(action.label_field)
    undone = {"$mergeObjects": ["$$entry", {"undone": {"at": at, "by": {"$literal": by}}}]}
    is_it = {"$eq": ["$$entry.action", ObjectId(action.id)]}
    entries = {
        "$map": {
            "input": f"${log}",
            "as": "entry",
            "in": {"$cond": [is_it, undone, "$$entry"]},
        }
    }
    entry = _entry_of(action)
    field = f"${action.label_field}"
    restored = {"$cond": [{"$eq": ["$$entry.decision", RELABELED]}, "$$entry.from", field]}
    return [
        {
            "$set": {
                log: entries,
                review_field(action.label_field): _let(entry, "$$entry.decision_before"),
                action.label_field: _let(entry, restored),
                "last_modified_at": at,
            }
        }
    ]


def undo_labels(action: ReviewAction) -> tuple[dict[str, Any], dict[str, Any]]:
    """Returns the expressions "label that the action left" and "label that it found"."""
    entry = _entry_of(action)
    before = {"$ifNull": ["$$entry.from.label", None]}
    return _let(entry, "$$entry.to"), _let(entry, before)


def _let(entry: Any, expression: Any) -> dict[str, Any]:
    return {"$let": {"vars": {"entry": entry}, "in": expression}}


def _is_undone(entry: Any) -> dict[str, Any]:
    path = f"{entry}.undone" if isinstance(entry, str) else _let(entry, "$$entry.undone")
    return {"$ne": [{"$ifNull": [path, None]}, None]}


def _entry_of(action: ReviewAction) -> dict[str, Any]:
    is_it = {"$eq": ["$$this.action", ObjectId(action.id)]}
    found = {"$filter": {"input": f"${log_field(action.label_field)}", "as": "this", "cond": is_it}}
    return {"$arrayElemAt": [found, 0]}


def _latest(label_field: str) -> dict[str, Any]:
    in_force = {"$not": [_is_undone("$$this")]}
    found = {"$filter": {"input": f"${log_field(label_field)}", "as": "this", "cond": in_force}}
    return {"$arrayElemAt": [found, -1]}


def _utc(at: datetime) -> datetime:
    return at.replace(tzinfo=timezone.utc) if at.tzinfo is None else at.astimezone(timezone.utc)
