"""A decision about samples as expressions and updates of the database: no sample is loaded."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any

from bson import ObjectId
from fiftyone.core.collections import SampleCollection

from .decisions import CONFIRMED, DECISIONS, DROPPED, RELABELED
from .layout import Layout
from .review_log import ACCEPT, CONFIRM, KINDS
from .runs import load_results
from .targets import check_stored_labels

_Branches = list[tuple[dict[str, Any], str]]  # (expression, what it means where it is true)


@dataclass(frozen=True)
class Decision:
    """A decision to take, as expressions on a sample, or on an object.

    A step as :mod:`clipcleaner_plugin.review_update` carries it out.
    """

    kind: str
    layout: Layout
    label: str | None
    min_confidence: float | None
    overwrite: bool
    action: ObjectId = field(default_factory=ObjectId)

    def at(self, layout: Layout) -> Decision:
        """The same, with the labels seen from elsewhere."""
        return replace(self, layout=layout)

    def scope(self) -> dict[str, Any]:
        """The query for the labels that it may be about: all."""
        return {}

    def done(self, at: datetime) -> dict[str, Any]:
        """The query for the labels that it has decided."""
        return {f"{self.layout.log}.action": self.action}

    @property
    def new_label(self) -> dict[str, Any]:
        if self.kind != ACCEPT:
            return self._given
        if self.label is not None:
            return {"$literal": self.label}
        return _or_none(self.layout.suggested)

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

    def values(self, at: datetime, by: str) -> dict[str, Any]:
        """What decides on a label and records it, as ``{path: expression}``."""
        layout = self.layout
        entry = {
            **{"action": self.action, "kind": self.kind, "at": at},
            **{"by": {"$literal": by}, "key": {"$literal": layout.prefix}},
            **{name: _or_none(layout.result(name)) for name in ("score", "verdict")},
            **{"from": self._label(), "to": self.new_label},
            **{"decision_before": self._before, "decision": self.outcome(), "undone": None},
        }
        values = {
            layout.log: {"$concatArrays": [{"$ifNull": [f"${layout.log}", []]}, [entry]]},
            layout.review: self.outcome(),
        }
        if self.kind == ACCEPT:
            values |= self._relabeled()
        return values

    def removed(self) -> dict[str, Any]:
        """What a new label of a sample has no more, likewise, once the values are there."""
        if self.kind != ACCEPT or self.layout.objects:
            return {}
        own, relabeled = self.layout.label_field, {"$eq": [f"${self.layout.review}", RELABELED]}
        return {
            f"{own}.{name}": {"$cond": [relabeled, "$$REMOVE", f"${own}.{name}"]}
            for name in ("confidence", "logits")
        }

    def _label(self) -> dict[str, Any]:
        """The label before; of an object, what a review replaces of it."""
        if self.layout.objects:
            return {"label": self._given, "confidence": _or_none(self._own_confidence)}
        return _or_none(self.layout.label_field)

    def _relabeled(self) -> dict[str, Any]:
        if self.layout.objects:
            kept = {"$cond": [{"$eq": self.labels()}, f"${self._own_confidence}", None]}
            return {self.layout.given: self.new_label, self._own_confidence: kept}
        # A sample without a label gets one; its id need only be unique among labels
        empty = {"_id": "$_id", "_cls": "Classification", "tags": []}
        label = {"$ifNull": [f"${self.layout.label_field}", empty]}
        return {self.layout.label_field: {"$mergeObjects": [label, {"label": self.new_label}]}}

    @property
    def _own_confidence(self) -> str:
        return f"{self.layout.root}confidence"

    @property
    def _given(self) -> dict[str, Any]:
        return _or_none(self.layout.given)

    @property
    def _before(self) -> dict[str, Any]:
        return _or_none(self.layout.review)

    def _unfit_suggestions(self) -> _Branches:
        found: _Branches = [({"$eq": [self.new_label, None]}, "without a suggestion")]
        if self.min_confidence is not None:
            unsure = {"$lt": [f"${self.layout.confidence}", self.min_confidence]}
            found.append((unsure, f"with a suggestion less sure than {self.min_confidence:g}"))
        found.append(({"$eq": self.labels()}, "with the suggested label already"))
        return found


def _or_none(path: str) -> dict[str, Any]:
    return {"$ifNull": [f"${path}", None]}


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
    check_reviewable(samples, results.layout)
    return Decision(kind, results.layout, label, min_confidence, overwrite)


def check_samples(samples: SampleCollection) -> None:
    """Raises TypeError unless ``samples`` is a collection."""
    if not isinstance(samples, SampleCollection):
        raise TypeError(
            f"samples must be a FiftyOne dataset or view, found {type(samples).__name__}; for "
            "sample ids use dataset.select(ids)"
        )


def check_reviewable(samples: SampleCollection, layout: Layout) -> None:
    """Raises ValueError unless ``samples`` shows labels of this kind, as the dataset has them."""
    check_stored_labels(samples, layout)
    if not samples._is_generated:
        return
    if not layout.objects:
        raise ValueError(
            "views of patches, clips or frames cannot be reviewed; pass samples of the dataset"
        )
    field = getattr(samples, "patches_field", None)
    if field != layout.label_field:
        raise ValueError(
            f"this view does not show the objects of {layout.label_field!r}; pass a view of their "
            "patches, or of samples"
        )


def _check_label(label: str, classes: Sequence[str]) -> None:
    if label not in classes:
        raise ValueError(
            f"label {label!r} is not in the class list of the run: {', '.join(classes[:20])}"
            + (f" and {len(classes) - 20} more" if len(classes) > 20 else "")
        )
