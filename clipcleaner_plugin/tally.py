"""What the database counts of a run. Counts of parts of a run can be added and taken away.

Three aggregations at any size, whatever the number of samples; nothing here reads samples.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, fields
from operator import add
from typing import TYPE_CHECKING, Any

from bson import ObjectId

from .decisions import DECISIONS
from .fields import VERDICTS
from .views import OPEN_SET

if TYPE_CHECKING:
    from .results import CLIPCleanerResults

BINS = 32  # a power of two, so that the borders of the bins are exact

# MongoDB refuses an answer over 16 MB; a class needs a row of some 200 bytes
_MAX_CLASSES = 40_000

Rows = dict[tuple[Any, ...], tuple[float, ...]]


@dataclass(frozen=True)
class Tally:
    """Counts and sums of the labels of a run, or of some of its samples.

    Attributes:
        scores: (verdict, decision of a reviewer or None, bin of the clean score or None) →
            labels, scored ones, sum of their scores, and of the squares of these; a score of 1
            begins a bin of its own
        classes: (given label,) → the same four; mislabeled ones that wait for review; those whose
            label is the first choice of the class names, and those the names can judge; the same
            two of the classifier that knows their looks
        confusions: (given label, suggested label) → mislabeled ones that wait for review
        open_set: () → those that seem to belong to none of the classes
    """

    scores: Rows
    classes: Rows
    confusions: Rows
    open_set: Rows

    def plus(self, other: Tally, sign: int = 1) -> Tally:
        """Returns the sum, or with ``sign=-1`` the difference."""
        return Tally(
            *(_sum(getattr(self, f.name), getattr(other, f.name), sign) for f in fields(Tally))
        )

    def to_json(self) -> str:
        """Returns it as text."""
        rows = {f.name: list(getattr(self, f.name).items()) for f in fields(Tally)}
        return json.dumps(rows, separators=(",", ":"))

    @classmethod
    def from_json(cls, text: str) -> Tally:
        """Reads what :meth:`to_json` wrote."""
        rows = json.loads(text)
        return cls(**{name: {tuple(k): tuple(v) for k, v in found} for name, found in rows.items()})


def _sum(rows: Rows, others: Rows, sign: int) -> Rows:
    total = dict(rows)
    for key, values in others.items():
        before = total.get(key, (0,) * len(values))
        total[key] = tuple(a + sign * b for a, b in zip(before, values, strict=True))
    return {key: values for key, values in total.items() if values[0]}


def count_labels(
    results: CLIPCleanerResults, sample_ids: Sequence[ObjectId] | None = None
) -> Tally:
    """Counts the labels of a run in the database.

    Args:
        results: the run
        sample_ids (None): of these samples alone; None = of all
    """
    chosen = [] if sample_ids is None else [{"$match": {"_id": {"$in": list(sample_ids)}}}]
    answer = _ask(results, [*chosen, *results.layout.unwind, *_overview(results)])[0]
    sums = ("n", "scored", "score", "squares")
    agreements = ("waiting", "words", "worded", "looks", "looked")
    pairs = _ask(results, [*chosen, *results.layout.unwind, *_pairs(results)])
    return Tally(
        scores=_rows(answer["scores"], ("verdict", "decision", "bin"), sums),
        classes=_rows(answer["classes"], ("given",), (*sums, *agreements)),
        confusions=_rows(pairs, ("given", "suggested"), ("n",)),
        open_set=_rows(answer["open_set"], (), ("n",)),
    )


def _ask(results: CLIPCleanerResults, pipeline: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return list(results.dataset._sample_collection.aggregate(pipeline, allowDiskUse=True))


def _rows(found: list[dict[str, Any]], key: Sequence[str], values: Sequence[str]) -> Rows:
    rows: Rows = {}
    for row in found:  # a field that is null and one that is missing are two groups, and one here
        of, new = tuple(row["_id"].get(k) for k in key), tuple(row[v] for v in values)
        rows[of] = tuple(map(add, rows[of], new)) if of in rows else new
    return rows


def _overview(results: CLIPCleanerResults) -> list[dict[str, Any]]:
    layout = results.layout
    field = layout.result
    verdict, score = f"${field('verdict')}", f"${field('score')}"
    review = f"${layout.review}"  # null where the field does not exist
    decision = {"$cond": [{"$in": [review, list(DECISIONS)]}, review, None]}

    def number(condition: dict[str, Any]) -> dict[str, Any]:
        return {"$sum": {"$cond": [condition, 1, 0]}}

    def reaches(name: str, least: int) -> dict[str, Any]:
        return number({"$gte": [f"${field(name)}_consistency", least]})

    sums = {
        "n": {"$sum": 1},
        "scored": number({"$gte": [score, 0]}),
        "score": {"$sum": score},
        "squares": {"$sum": {"$multiply": [score, score]}},
    }
    waiting = [{"$eq": ["$verdict", "mislabeled"]}, {"$eq": ["$decision", None]}]
    agreements = {
        "waiting": number({"$and": waiting}),
        "words": reaches("zeroshot", 1),
        "worded": reaches("zeroshot", 0),
        "looks": reaches("visual", 1),
        "looked": reaches("visual", 0),
    }
    read = [field(n) for n in ("score", "zeroshot_consistency", "visual_consistency", OPEN_SET)]
    by_score = {
        "verdict": "$verdict",
        "decision": "$decision",
        "bin": {"$floor": {"$multiply": [score, BINS]}},
    }
    return [
        {"$match": {field("verdict"): {"$in": list(VERDICTS)}}},
        {
            "$project": {
                "verdict": verdict,
                "decision": decision,
                "given": f"${layout.given}",
                **dict.fromkeys(read, 1),
            }
        },
        {
            "$facet": {
                "scores": [{"$group": {"_id": by_score, **sums}}],
                "classes": [
                    {"$group": {"_id": {"given": "$given"}, **sums, **agreements}},
                    {"$sort": {"n": -1}},
                    {"$limit": _MAX_CLASSES},
                ],
                "open_set": [
                    {"$match": {field(OPEN_SET): True}},
                    {"$group": {"_id": {}, "n": {"$sum": 1}}},
                ],
            }
        },
    ]


def _pairs(results: CLIPCleanerResults) -> list[dict[str, Any]]:
    layout = results.layout
    waiting = {layout.result("verdict"): "mislabeled", layout.review: {"$nin": list(DECISIONS)}}
    pair = {"given": f"${layout.given}", "suggested": f"${layout.suggested}"}
    return [{"$match": waiting}, {"$group": {"_id": pair, "n": {"$sum": 1}}}]
