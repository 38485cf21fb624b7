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
from datetime import datetime, timezone
from typing import Any

import fiftyone as fo
from bson import ObjectId
from fiftyone.core.collections import SampleCollection
from fiftyone.core.sample import Sample

from .decisions import declare_review, log_field
from .review_decision import check_samples, make_decision
from .review_log import (
    ACCEPT,
    CONFIRM,
    DROP,
    ReviewReport,
    find_action,
    undo_labels,
    undo_state,
    undo_update,
)

logger = logging.getLogger(__name__)

# Ids of a command; MongoDB refuses commands over 16 MB, and an id takes about 20 bytes
_CHUNK = 50_000


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
        samples, key, overwrite, who: as in :func:`confirm_labels`

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
    decision = make_decision(samples, kind, key, label, min_confidence, overwrite)
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
    check_samples(samples)
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


def _act(
    samples: SampleCollection,
    kind: str,
    key: str,
    label: str | None,
    min_confidence: float | None,
    overwrite: bool,
    who: str | None,
) -> ReviewReport:
    decision = make_decision(samples, kind, key, label, min_confidence, overwrite)
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
