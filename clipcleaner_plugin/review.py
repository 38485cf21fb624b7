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
from dataclasses import replace
from datetime import datetime, timezone

from fiftyone.core.collections import SampleCollection

from .decisions import declare_review
from .review_decision import check_reviewable, check_samples, make_decision
from .review_log import ACCEPT, CONFIRM, DROP, ReviewReport, Undo, find_action
from .review_update import carry_out, preview

logger = logging.getLogger(__name__)


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

    Of a run on objects, it is about the objects that the view shows. A view of patches goes on
    showing them as they were, until its ``reload()``: so FiftyOne has it.

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
    return preview(samples, make_decision(samples, kind, key, label, min_confidence, overwrite))


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
    step = Undo(found, found.layout)
    check_reviewable(samples, step.layout)
    report = preview(samples, step)
    n = carry_out(samples, step, _now(), who or os_user())
    logger.info("Undone on %d %ss: %s", n, found.unit, found)
    return replace(report, action=found.id, count=n)


def preview_undo(samples: SampleCollection, action: str | None = None) -> ReviewReport:
    """Returns what :func:`undo_review` would do; nothing is written.

    Raises:
        ValueError: if there is no such action
    """
    found = find_action(samples, action)
    return preview(samples, Undo(found, found.layout))


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
    report = preview(samples, decision)
    if not report.count:
        return report
    declare_review(samples._root_dataset, decision.layout)
    n = carry_out(samples, decision, _now(), who or os_user())
    unit, action = report.unit, str(decision.action)
    logger.info("%s on %d %ss of run %s: action %s", kind, n, unit, key, action)
    return replace(report, action=action if n else None, count=n)


def _now() -> datetime:
    return datetime.now(timezone.utc)


def os_user() -> str:
    """Returns the name of the operating system's user."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a container's user without a name
        return "unknown"
