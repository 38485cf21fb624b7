"""Review: accept suggestions, confirm labels, drop samples, and take it back.

Every action decides about samples of a run on one label field, in the database and in bulk, and
records what it did: see :mod:`clipcleaner_plugin.review_log`. Decisions are kept by later runs,
which use confirmed and replaced labels as trusted ones; see :mod:`clipcleaner_plugin.decisions`.
Deleting a run leaves decisions and labels as they are, and they can still be undone. A clone of
the dataset has them and their history too; a deleted dataset takes them along.
"""

from __future__ import annotations

import getpass
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from typing import Any

import fiftyone as fo
from bson import ObjectId
from fiftyone.core.collections import SampleCollection
from fiftyone.core.sample import Sample

from .decisions import (
    CONFIRMED,
    DECISIONS,
    DROPPED,
    RELABELED,
    declare_review,
    log_field,
    review_field,
)
from .fields import field_name
from .review_log import (
    ACCEPT,
    CONFIRM,
    DROP,
    KINDS,
    ReviewReport,
    find_action,
    undo_labels,
    undo_state,
    undo_update,
)
from .runs import load_results

logger = logging.getLogger(__name__)

# Ids of a command; MongoDB refuses commands over 16 MB, and an id takes about 20 bytes
_CHUNK = 50_000

_Branches = list[tuple[dict[str, Any], str]]  # (expression, what it means where it is true)


def accept_suggestions(
    samples: SampleCollection,
    key: str = "clipcleaner",
    *,
    label: str | None = None,
    min_confidence: float | None = None,
    overwrite: bool = False,
    who: str | None = None,
) -> ReviewReport:
    """Replaces labels by those that a run suggests, or by one that you choose.

    The new label keeps the tags and other attributes of the old one, its confidence and logits
    aside. Samples that have the suggested label already are left as they are; those that have the
    ``label`` that you chose are confirmed.

    Args:
        samples: a dataset or view; ``dataset.select(ids)`` for single samples
        key ("clipcleaner"): the run
        label (None): the new label, of the run's class list; None = the suggested one
        min_confidence (None): that a suggestion must have at least, in [0, 1]
        overwrite (False): whether to decide again where there is a decision already
        who (None): the reviewer, for the audit log; None = the user of the operating system

    Returns:
        what was done; its ``action`` is for :func:`undo_review`

    Raises:
        ValueError: if there is no such run, or an option does not fit
    """
    return _act(samples, ACCEPT, key, label, min_confidence, overwrite, who)


def confirm_labels(
    samples: SampleCollection,
    key: str = "clipcleaner",
    *,
    overwrite: bool = False,
    who: str | None = None,
) -> ReviewReport:
    """Records that the labels are right: no later run flags them again.

    Samples without a label are left as they are.

    Args:
        samples: a dataset or view; ``dataset.select(ids)`` for single samples
        key ("clipcleaner"): the run
        overwrite (False): whether to decide again where there is a decision already
        who (None): the reviewer, for the audit log; None = the user of the operating system

    Returns:
        what was done; its ``action`` is for :func:`undo_review`

    Raises:
        ValueError: if there is no such run
    """
    return _act(samples, CONFIRM, key, None, None, overwrite, who)


def drop(
    samples: SampleCollection,
    key: str = "clipcleaner",
    *,
    overwrite: bool = False,
    who: str | None = None,
) -> ReviewReport:
    """Marks samples for exclusion: later runs and exports leave them out. Nothing is deleted.

    Args:
        samples: a dataset or view; ``dataset.select(ids)`` for single samples
        key ("clipcleaner"): the run
        overwrite (False): whether to decide again where there is a decision already
        who (None): the reviewer, for the audit log; None = the user of the operating system

    Returns:
        what was done; its ``action`` is for :func:`undo_review`

    Raises:
        ValueError: if there is no such run
    """
    return _act(samples, DROP, key, None, None, overwrite, who)


def preview_review(
    samples: SampleCollection,
    kind: str,
    key: str = "clipcleaner",
    *,
    label: str | None = None,
    min_confidence: float | None = None,
    overwrite: bool = False,
) -> ReviewReport:
    """Returns what an action would do: counted in the database, nothing is written.

    Args:
        samples: a dataset or view
        kind: "accept_suggestions", "confirm_labels" or "drop"
        key, label, min_confidence, overwrite: as in :func:`accept_suggestions`

    Raises:
        ValueError: if there is no such run, or an option does not fit
    """
    decision = _decision(samples, kind, key, label, min_confidence, overwrite)
    return _preview(samples, kind, decision.left_because(), decision.labels())


def undo_review(
    samples: SampleCollection, action: str | None = None, *, who: str | None = None
) -> ReviewReport:
    """Takes a review action back: labels and decisions are as they were before it.

    An earlier action is undone only where nothing was decided since, and a label only where nobody
    has edited it since; the report says how many samples were left for that reason. Undo the
    later action first to reach them. The audit log keeps the action, and that it was undone.

    Args:
        samples: a dataset, or a view, to undo it on these samples only
        action (None): as :func:`clipcleaner_plugin.review_history` lists it; None = the last one
            that is in force
        who (None): the reviewer, for the audit log; None = the user of the operating system

    Returns:
        what was done

    Raises:
        ValueError: if there is no such action
    """
    _check_samples(samples)
    found = find_action(samples, action)
    state = undo_state(found)
    scope = {f"{log_field(found.label_field)}.action": ObjectId(found.id)}
    preview = _preview(samples, "undo_review", state, undo_labels(found), scope)
    possible = {**scope, "$expr": {"$eq": [state, None]}}
    n = _update(samples, possible, undo_update(found, _now(), who or os_user()))
    logger.info("Undone on %d samples: %s", n, found)
    return ReviewReport("undo_review", found.id, n, preview.changes, preview.left)


def preview_undo(samples: SampleCollection, action: str | None = None) -> ReviewReport:
    """Returns what :func:`undo_review` would do; nothing is written.

    Raises:
        ValueError: if there is no such action
    """
    found = find_action(samples, action)
    scope = {f"{log_field(found.label_field)}.action": ObjectId(found.id)}
    return _preview(samples, "undo_review", undo_state(found), undo_labels(found), scope)


@dataclass(frozen=True)
class _Decision:
    """A decision to take, as expressions on the fields of a sample."""

    kind: str
    key: str
    label_field: str
    label: str | None
    min_confidence: float | None
    overwrite: bool

    @property
    def new_label(self) -> dict[str, Any]:
        if self.kind != ACCEPT:
            return self._given
        if self.label is not None:
            return {"$literal": self.label}
        return _or_none(f"{self._run('suggestion')}.label")

    def labels(self) -> tuple[Any, Any]:
        return self._given, self.new_label

    def outcome(self) -> Any:
        """The decision as it is written to the review field."""
        if self.kind == ACCEPT:
            return {"$cond": [{"$eq": [self.new_label, self._given]}, CONFIRMED, RELABELED]}
        return CONFIRMED if self.kind == CONFIRM else DROPPED

    def left_because(self) -> dict[str, Any]:
        """Why a sample is left as it is; None = it is not."""
        before = self._before
        same = {"$and": [{"$eq": [before, self.outcome()]}, {"$eq": self.labels()}]}
        branches: _Branches = [({"$in": [before, list(DECISIONS)]}, "decided already")]
        if self.overwrite:
            branches = [(same, "decided so already")]
        if self.kind == ACCEPT and self.label is None:
            branches += self._unfit_suggestions()
        if self.kind == CONFIRM:
            branches.append(({"$eq": [self._given, None]}, "without a label"))
        cases = [{"case": case, "then": why} for case, why in branches]
        return {"$switch": {"branches": cases, "default": None}}

    def update(self, action: ObjectId, at: datetime, by: str) -> list[dict[str, Any]]:
        """The update that decides on a sample and records it."""
        log, field = log_field(self.label_field), self.label_field
        entry = {
            **{"action": action, "kind": self.kind, "at": at},
            **{"by": {"$literal": by}, "key": {"$literal": self.key}},
            **{name: _or_none(self._run(name)) for name in ("score", "verdict")},
            **{"from": _or_none(f"${field}"), "to": self.new_label},
            **{"decision_before": self._before, "decision": self.outcome(), "undone": None},
        }
        written = {
            log: {"$concatArrays": [{"$ifNull": [f"${log}", []]}, [entry]]},
            review_field(field): self.outcome(),
            "last_modified_at": at,
        }
        if self.kind != ACCEPT:
            return [{"$set": written}]
        # A sample without a label gets one; its id need only be unique among labels
        empty = {"_id": "$_id", "_cls": "Classification", "tags": []}
        label = {"$ifNull": [f"${field}", empty]}
        written[field] = {"$mergeObjects": [label, {"label": self.new_label}]}
        relabeled = {"$eq": [f"${review_field(field)}", RELABELED]}
        gone = {
            f"{field}.{name}": {"$cond": [relabeled, "$$REMOVE", f"${field}.{name}"]}
            for name in ("confidence", "logits")
        }
        return [{"$set": written}, {"$set": gone}]

    @property
    def _given(self) -> dict[str, Any]:
        return _or_none(f"${self.label_field}.label")

    @property
    def _before(self) -> dict[str, Any]:
        return _or_none(f"${review_field(self.label_field)}")

    def _run(self, name: str) -> str:
        return f"${field_name(self.key, name)}"

    def _unfit_suggestions(self) -> _Branches:
        found: _Branches = [({"$eq": [self.new_label, None]}, "without a suggestion")]
        if self.min_confidence is not None:
            confidence = f"{self._run('suggestion')}.confidence"
            unsure = {"$lt": [confidence, self.min_confidence]}
            found.append((unsure, f"with a suggestion less sure than {self.min_confidence:g}"))
        found.append(({"$eq": self.labels()}, "with the suggested label already"))
        return found


def _or_none(path: str) -> dict[str, Any]:
    return {"$ifNull": [path, None]}


def _decision(
    samples: SampleCollection,
    kind: str,
    key: str,
    label: str | None,
    min_confidence: float | None,
    overwrite: bool,
) -> _Decision:
    """Checks the options of an action."""
    if kind not in KINDS:
        raise ValueError(f"unknown action {kind!r}; choose one of {', '.join(KINDS)}")
    _check_samples(samples)
    results = load_results(samples, key)
    if label is not None:
        if min_confidence is not None:
            raise ValueError("min_confidence is about suggestions; leave it out with a label")
        _check_label(label, results.record["classes"])
    if min_confidence is not None and not 0 <= min_confidence <= 1:
        raise ValueError(f"min_confidence must be in [0, 1], found {min_confidence!r}")
    field = results.config.label_field
    return _Decision(kind, results.config.prefix, field, label, min_confidence, overwrite)


def _check_samples(samples: SampleCollection) -> None:
    if not isinstance(samples, SampleCollection):
        raise TypeError(
            f"samples must be a FiftyOne dataset or view, found {type(samples).__name__}; for "
            "sample ids use dataset.select(ids)"
        )
    if samples._is_generated:
        raise ValueError(
            "views of patches, clips or frames cannot be reviewed; pass samples of the dataset"
        )


def _check_label(label: str, classes: Sequence[str]) -> None:
    if label not in classes:
        raise ValueError(
            f"label {label!r} is not in the class list of the run: {', '.join(classes[:20])}"
            + (f" and {len(classes) - 20} more" if len(classes) > 20 else "")
        )


def _act(
    samples: SampleCollection,
    kind: str,
    key: str,
    label: str | None,
    min_confidence: float | None,
    overwrite: bool,
    who: str | None,
) -> ReviewReport:
    decision = _decision(samples, kind, key, label, min_confidence, overwrite)
    preview = _preview(samples, kind, decision.left_because(), decision.labels())
    if not preview.count:
        return preview
    declare_review(samples._root_dataset, decision.label_field)
    action = ObjectId()
    possible = {"$expr": {"$eq": [decision.left_because(), None]}}
    n = _update(samples, possible, decision.update(action, _now(), who or os_user()))
    logger.info("%s on %d samples of run %s: action %s", kind, n, key, action)
    return ReviewReport(kind, str(action) if n else None, n, preview.changes, preview.left)


def _preview(
    samples: SampleCollection,
    kind: str,
    why_left: dict[str, Any],
    labels: tuple[Any, Any],
    scope: dict[str, Any] | None = None,
) -> ReviewReport:
    """Counts samples by the reason why they are left, and the others by old and new label."""
    old, new = ({"$cond": [{"$eq": [why_left, None]}, label, None]} for label in labels)
    pipeline = [
        {"$match": scope or {}},
        {"$group": {"_id": {"left": why_left, "old": old, "new": new}, "n": {"$sum": 1}}},
    ]
    changes, left = [], {}
    for group in samples._aggregate(post_pipeline=pipeline):
        found, n = group["_id"], group["n"]
        if found["left"] is None:
            changes.append((found["old"], found["new"], n))
        else:
            left[found["left"]] = n
    changes.sort(key=lambda change: (-change[2], str(change[0]), str(change[1])))
    return ReviewReport(kind, None, sum(n for *_, n in changes), tuple(changes), left)


def _update(
    samples: SampleCollection, possible: dict[str, Any], update: list[dict[str, Any]]
) -> int:
    """Applies an update in the database to those of the samples where it is possible."""
    dataset: fo.Dataset = samples._root_dataset
    found, n = samples.match(possible).values("id"), 0
    for start in range(0, len(found), _CHUNK):
        ids = found[start : start + _CHUNK]
        # Asked again: another reviewer may have been quicker
        query = {"_id": {"$in": [ObjectId(i) for i in ids]}, **possible}
        n += dataset._sample_collection.update_many(query, update).modified_count
        # Whoever holds a sample in this process must see its new label, and not save the old one
        Sample._reload_docs(dataset._sample_collection_name, sample_ids=ids)
    return n


def _now() -> datetime:
    return datetime.now(timezone.utc)


def os_user() -> str:
    """Returns the name of the operating system's user."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a container's user without a name
        return "unknown"
