"""A run in numbers: counts by verdict, score, class and pair of labels, made in the database.

Two aggregations at any size, whatever the number of samples; nothing here reads samples.
"""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from .decisions import DECISIONS, DROPPED
from .fields import VERDICTS
from .memory import Last, content_state
from .rules import NoiseRate, noise_rate_of
from .views import OPEN_SET, REVIEWED, TO_REVIEW

if TYPE_CHECKING:
    from .results import CLIPCleanerResults

BINS = 32  # a power of two, so that the borders of the bins are exact

# Counting more samples takes longer than the App should wait after every change
LARGE = 200_000

# MongoDB refuses an answer over 16 MB; a class needs at most four rows of some 200 bytes
_MAX_CLASS_ROWS = 40_000


@dataclass(frozen=True)
class ClassStatistics:
    """The samples of a run that have one given label.

    Attributes:
        count: all of them
        mislabeled: those that are mislabeled and not reviewed
        noise: the estimated share of wrong labels, with a 95 % interval
        words: share of the scored ones whose given label is the first choice of the class names;
            NaN without class names. Little for a name that means nothing to the model
        looks: the same for the classifier that knows their looks
    """

    count: int
    mislabeled: int
    noise: NoiseRate
    words: float
    looks: float


@dataclass(frozen=True)
class RunStatistics:
    """A run at the moment.

    Attributes:
        counts: samples by verdict; those that its view leaves out, because a reviewer has decided
            about them, under "reviewed" instead
        noise: the estimated share of wrong labels, with a 95 % interval
        histogram: the same keys → :data:`BINS` counts of the clean score from 0 to 1
        confusions: (given label, suggested label, count) of the mislabeled, most frequent first
        classes: given label → its statistics, in alphabetical order
        open_set: those that seem to belong to none of the classes, whatever their verdict
    """

    counts: dict[str, int]
    noise: NoiseRate
    histogram: dict[str, list[int]]
    confusions: list[tuple[str, str, int]]
    classes: dict[str, ClassStatistics]
    open_set: int


def run_statistics(results: CLIPCleanerResults) -> RunStatistics:
    """Counts the samples of a run in the database.

    Args:
        results: the run

    Returns:
        the statistics; beyond 10,000 classes those with the most samples
    """
    answer = _ask(results, _overview(results))[0]
    totals, histogram = Counter[str](), {state: [0] * BINS for state in (*VERDICTS, REVIEWED)}
    for row in answer["scores"]:
        totals[row["_id"]["state"]] += row["n"]
        if row["_id"]["bin"] is not None:  # 1 itself belongs to the last bin
            place = min(int(row["_id"]["bin"]), BINS - 1)
            histogram[row["_id"]["state"]][place] += row["n"]
    return RunStatistics(
        counts={state: totals[state] for state in histogram},
        noise=_noise(answer["scores"]),
        histogram=histogram,
        confusions=_confusions(results),
        classes=_classes(answer["classes"], results.record["classes"]),
        open_set=_sum(answer["open_set"], "n"),
    )


# With the run that they belong to
_last: Last[tuple[tuple[str, ...], RunStatistics]] = Last()


def recent_statistics(results: CLIPCleanerResults, at_once: bool = False) -> RunStatistics:
    """Returns :func:`run_statistics`, made again only if samples have changed.

    Args:
        results: the run
        at_once (False): of a large run, rather take those of before the change than wait
    """
    run = str(results.dataset._doc.id), results.key, results.config.prefix
    kept = _last.peek()
    if at_once and kept is not None and kept[0] == run and sum(kept[1].counts.values()) > LARGE:
        return kept[1]
    state = run, content_state(results.dataset)
    return _last.get(state, lambda: (run, run_statistics(results)))[1]


def view_counts(results: CLIPCleanerResults) -> dict[str, int]:
    """Counts the samples that the view of each verdict shows, and the reviewed ones."""
    counts = Counter(results.counts())
    verdict, review = results.layout.result("verdict"), results.layout.review
    decided = {verdict: {"$in": list(VERDICTS)}, review: {"$in": list(DECISIONS)}}
    pair = {"verdict": f"${verdict}", "review": f"${review}"}
    for row in _ask(results, [{"$match": decided}, {"$group": {"_id": pair, "n": {"$sum": 1}}}]):
        of = row["_id"]
        counts[REVIEWED] += row["n"]
        if of["verdict"] in TO_REVIEW or of["review"] == DROPPED:
            counts[of["verdict"]] -= row["n"]
    return {state: counts[state] for state in (*VERDICTS, REVIEWED)}


def _ask(results: CLIPCleanerResults, pipeline: list[dict[str, Any]]) -> list[dict[str, Any]]:
    collection = results.dataset._sample_collection
    return list(collection.aggregate([*results.layout.unwind, *pipeline], allowDiskUse=True))


def _overview(results: CLIPCleanerResults) -> list[dict[str, Any]]:
    layout = results.layout
    field, review = layout.result, f"${layout.review}"
    verdict, score = f"${field('verdict')}", f"${field('score')}"

    def first_choice(name: str) -> dict[str, Any]:
        return {"$sum": {"$cond": [{"$gte": [f"${field(name)}_consistency", 1]}, 1, 0]}}

    def judged(name: str) -> dict[str, Any]:
        return {"$sum": {"$cond": [{"$gte": [f"${field(name)}_consistency", 0]}, 1, 0]}}

    sums = {
        "n": {"$sum": 1},
        "scored": {"$sum": {"$cond": [{"$gte": [score, 0]}, 1, 0]}},
        "score": {"$sum": score},
    }
    settled = {"$and": [{"$in": [verdict, list(TO_REVIEW)]}, {"$in": [review, list(DECISIONS)]}]}
    left_out = {"$or": [settled, {"$eq": [review, DROPPED]}]}
    state = {"$cond": [left_out, REVIEWED, verdict]}
    by_score = {"state": "$state", "bin": {"$floor": {"$multiply": [score, BINS]}}}
    by_class = {"given": f"${layout.given}", "state": "$state"}
    agreements = {
        "words": first_choice("zeroshot"),
        "worded": judged("zeroshot"),
        "looks": first_choice("visual"),
        "looked": judged("visual"),
    }
    open_set = field(OPEN_SET)
    read = [field(name) for name in ("score", "zeroshot_consistency", "visual_consistency")]
    return [
        {"$match": {field("verdict"): {"$in": list(VERDICTS)}}},
        {"$project": {"state": state, layout.given: 1, **dict.fromkeys([*read, open_set], 1)}},
        {
            "$facet": {
                "scores": [{"$group": {"_id": by_score, **sums}}],
                "classes": [
                    {"$group": {"_id": by_class, **sums, **agreements}},
                    {"$sort": {"n": -1}},
                    {"$limit": _MAX_CLASS_ROWS},
                ],
                "open_set": [{"$match": {open_set: True}}, {"$count": "n"}],
            }
        },
    ]


def _confusions(results: CLIPCleanerResults) -> list[tuple[str, str, int]]:
    layout = results.layout
    to_review = {layout.result("verdict"): "mislabeled", layout.review: {"$nin": list(DECISIONS)}}
    pair = {"given": f"${layout.given}", "suggested": f"${layout.suggested}"}
    rows = _ask(results, [{"$match": to_review}, {"$group": {"_id": pair, "n": {"$sum": 1}}}])
    found = [(row["_id"].get("given"), row["_id"].get("suggested"), row["n"]) for row in rows]
    pairs = [pair for pair in found if None not in pair]  # labels may be gone since
    return sorted(pairs, key=lambda pair: (-pair[2], pair[0], pair[1]))


def _classes(rows: list[dict[str, Any]], names: list[str]) -> dict[str, ClassStatistics]:
    by_class: dict[Any, list[dict[str, Any]]] = {}
    for row in rows:
        by_class.setdefault(row["_id"].get("given"), []).append(row)
    return {
        name: ClassStatistics(
            count=_sum(by_class[name], "n"),
            mislabeled=sum(
                row["n"] for row in by_class[name] if row["_id"]["state"] == "mislabeled"
            ),
            noise=_noise(by_class[name]),
            words=_share(by_class[name], "words", "worded"),
            looks=_share(by_class[name], "looks", "looked"),
        )
        for name in sorted(names)
        if name in by_class
    }


def _noise(rows: list[dict[str, Any]]) -> NoiseRate:
    scored = _sum(rows, "scored")
    return noise_rate_of(1 - _sum(rows, "score") / scored if scored else math.nan, scored)


def _share(rows: list[dict[str, Any]], part: str, whole: str) -> float:
    n = _sum(rows, whole)
    return _sum(rows, part) / n if n else math.nan


def _sum(rows: list[dict[str, Any]], name: str) -> Any:
    return sum(row[name] for row in rows)
