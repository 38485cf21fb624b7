"""The statistics of a run, kept with the dataset: the App shows them at once, at any size.

They are counted when a run is written or gets new thresholds. A review brings them up to date by
counting again the samples that it changed. What is kept says for which state of the samples it
holds, so that numbers of before a change are known as such.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime
from typing import TYPE_CHECKING, Any, NamedTuple

import fiftyone as fo
from bson import ObjectId

from .memory import ContentState, Last, content_state
from .statistics import RunStatistics, statistics_of
from .tally import Tally, count_labels

if TYPE_CHECKING:
    from .results import CLIPCleanerResults

# Counting more labels takes longer than the App should wait after every change
LARGE = 100_000
# Beyond it, counting all of a run takes hardly longer
_MOST_FOLLOWED = 20_000
# MongoDB refuses documents over 16 MB
_MOST_CHARACTERS = 12_000_000
_FORM = 2  # of what is kept: that of another version is counted again


class Recent(NamedTuple):
    """Statistics of a run, and whether they are those of the samples as they are now."""

    statistics: RunStatistics
    current: bool


_last: Last[Recent] = Last()


def recent_statistics(results: CLIPCleanerResults) -> Recent:
    """Returns the statistics of a run; of a large one, rather those of before a change than wait.

    Args:
        results: the run
    """
    state = content_state(results.dataset)
    run = results.key, results.config.prefix
    return _last.get((run, state), lambda: _find(results, state))


def current_statistics(results: CLIPCleanerResults) -> RunStatistics:
    """Returns the statistics of a run, counted again where samples have changed since."""
    recent = recent_statistics(results)
    return recent.statistics if recent.current else count_again(results)


def count_again(results: CLIPCleanerResults) -> RunStatistics:
    """Counts the labels of a run, keeps that with the dataset, and returns the statistics."""
    found = _count(results, content_state(results.dataset))
    _last.forget()
    return found.statistics


@contextmanager
def following(dataset: fo.Dataset, sample_ids: Sequence[ObjectId]) -> Iterator[None]:
    """Keeps the statistics of all runs up to date while samples are changed.

    Statistics of before an earlier change are left as they are, and likewise where someone else
    changes samples at the same time, or these are too many.

    Args:
        dataset: the dataset
        sample_ids: of the samples that are going to be changed
    """
    before = content_state(dataset)
    followed = [] if len(sample_ids) > _MOST_FOLLOWED else _kept_runs(dataset, before)
    rests = [
        (results, tally.plus(count_labels(results, sample_ids), sign=-1))
        for results, tally in followed
    ]
    undisturbed = content_state(dataset) == before
    yield
    after = content_state(dataset)
    if not undisturbed or _others_changed(dataset, before, after, sample_ids):
        return
    sums = [(results, rest.plus(count_labels(results, sample_ids))) for results, rest in rests]
    if content_state(dataset) == after:
        for results, tally in sums:
            _keep(results, after, tally)


def delete_kept(dataset: fo.Dataset, key: str) -> None:
    """Deletes what is kept of a run that is deleted or renamed, which changes all samples."""
    _store(dataset).delete(key)


def _find(results: CLIPCleanerResults, state: ContentState) -> Recent:
    kept = _load(results)
    if kept is not None:
        of, tally = kept
        found = Recent(statistics_of(tally, results.record["classes"]), of == state)
        if found.current or sum(found.statistics.verdicts.values()) > LARGE:
            return found
    return _count(results, state)


def _count(results: CLIPCleanerResults, state: ContentState) -> Recent:
    tally = count_labels(results)
    _keep(results, state, tally)
    return Recent(statistics_of(tally, results.record["classes"]), True)


def _kept_runs(dataset: fo.Dataset, state: ContentState) -> list[tuple[CLIPCleanerResults, Tally]]:
    """The runs whose statistics are of this state."""
    from .runs import list_runs, load_results

    found = []
    for key in list_runs(dataset):
        try:
            results = load_results(dataset, key)
        except ValueError:
            continue  # it did not finish
        kept = _load(results)
        if kept is not None and kept[0] == state:
            found.append((results, kept[1]))
    return found


def _others_changed(
    dataset: fo.Dataset, before: ContentState, after: ContentState, sample_ids: Sequence[ObjectId]
) -> bool:
    """Whether samples beside these were changed, added or deleted."""
    if before.samples != after.samples:
        return True
    others = {"last_modified_at": {"$gt": before.changed_at}, "_id": {"$nin": list(sample_ids)}}
    return dataset._sample_collection.find_one(others, ["_id"]) is not None


def _keep(results: CLIPCleanerResults, state: ContentState, tally: Tally) -> None:
    text, at = tally.to_json(), state.changed_at
    if len(text) > _MOST_CHARACTERS:
        _store(results.dataset).delete(results.key)  # to be counted whenever it is asked for
        return
    of = [state.dataset, at and at.isoformat(), state.samples]
    _store(results.dataset).set(results.key, {"state": of, "tally": text, "form": _FORM})


def _load(results: CLIPCleanerResults) -> tuple[ContentState, Tally] | None:
    kept = _store(results.dataset).get(results.key)
    if kept is None or kept.get("form") != _FORM:
        return None
    dataset, at, samples = kept["state"]
    state = ContentState(dataset, at and datetime.fromisoformat(at), samples)
    return state, Tally.from_json(kept["tally"])


def _store(dataset: fo.Dataset) -> Any:
    """FiftyOne's store of values that belong to a dataset, and are deleted with it."""
    import fiftyone.operators as foo

    return foo.ExecutionStore.create("clipcleaner", dataset_id=dataset._doc.id)
