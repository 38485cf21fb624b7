"""A decision about samples as expressions and updates of the database: no sample is loaded."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from bson import ObjectId
from fiftyone.core.collections import SampleCollection

from .decisions import CONFIRMED, DECISIONS, DROPPED, RELABELED, log_field, review_field
from .fields import field_name
from .review_log import ACCEPT, CONFIRM, KINDS
from .runs import load_results

_Branches = list[tuple[dict[str, Any], str]]  # (expression, what it means where it is true)


@dataclass(frozen=True)
class Decision:
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


def make_decision(
    samples: SampleCollection,
    kind: str,
    key: str,
    label: str | None,
    min_confidence: float | None,
    overwrite: bool,
) -> Decision:
    """Makes the decision that an action takes; options as in :mod:`clipcleaner_plugin.review`.

    Raises:
        ValueError: if there is no such run, or an option does not fit
    """
    if kind not in KINDS:
        raise ValueError(f"unknown action {kind!r}; choose one of {', '.join(KINDS)}")
    check_samples(samples)
    results = load_results(samples, key)
    if label is not None:
        if min_confidence is not None:
            raise ValueError("min_confidence is about suggestions; leave it out with a label")
        _check_label(label, results.record["classes"])
    if min_confidence is not None and not 0 <= min_confidence <= 1:
        raise ValueError(f"min_confidence must be in [0, 1], found {min_confidence!r}")
    field = results.config.label_field
    return Decision(kind, results.config.prefix, field, label, min_confidence, overwrite)


def check_samples(samples: SampleCollection) -> None:
    """Raises TypeError or ValueError unless ``samples`` can be reviewed."""
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
