"""New verdicts from the stored evidence of a run: tried out for any thresholds, or for good."""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING, Any, NamedTuple

import fiftyone as fo
import numpy as np

from .decisions import TRUSTED
from .fields import EVIDENCES, VERDICTS, write_object_rows, write_rows
from .memory import Last, content_state
from .rules import Mixtures, loss_mixtures, select_with, verdicts

if TYPE_CHECKING:
    from .layout import Layout
    from .results import CLIPCleanerResults

# A preview of more samples than this looks at about as many, drawn at random
PREVIEW_SAMPLES = 100_000

_BATCH = 20_000
# FiftyOne gives every sample a random number for life, and makes even ones of it like this
_EVEN = {"$mod": [7_368_787, "$_rand"]}


class Thetas(NamedTuple):
    """The three thresholds that turn evidence into verdicts, each in [0, 1].

    Attributes:
        theta_gmm: posterior that the loss scores must reach to be clean
        theta_cons: value that the consistency scores must reach to be clean
        theta_score: clean score that a label must reach not to be mislabeled
    """

    theta_gmm: float = 0.5
    theta_cons: float = 0.8
    theta_score: float = 0.5


class StoredEvidence:
    """What a run knows of its samples or objects, or of a random part of them.

    Args:
        rows: of the database, as :func:`read_evidence` asks for them
        classes: the class list of the run
        seed: of the run
        total: how many samples the run has; more than rows for a part
    """

    def __init__(
        self, rows: list[dict[str, Any]], classes: list[str], seed: int, total: int
    ) -> None:
        index: dict[Any, int] = {name: k for k, name in enumerate(classes)}
        self.ids = [row["_id"] for row in rows]
        self._sample_ids = [row["sample"] for row in rows]
        self.verdict = np.array([row["verdict"] for row in rows], dtype="<U10")
        self.total = total
        self._labels = np.array([index.get(row.get("given"), -1) for row in rows], dtype=int)
        self._suggested = np.array([index.get(row.get("suggested"), -1) for row in rows], dtype=int)
        self._score = _column(rows, "score")
        trusted = np.array([row.get("review") in TRUSTED for row in rows], dtype=bool)
        self._vouched_for = trusted & (self.verdict == "clean")
        self._evidence = {name: _column(rows, name) for name in EVIDENCES}
        self._num_classes, self._seed = len(classes), seed

    @property
    def is_whole(self) -> bool:
        """Whether these are all labels of the run."""
        return len(self.ids) >= self.total

    def verdicts(self, thetas: Thetas) -> np.ndarray:
        """Returns the verdicts under these thresholds, (n,) of str; the fields stay as they are."""
        selected = select_with(
            self._mixtures,
            self._evidence,
            self._labels,
            self._num_classes,
            thetas.theta_gmm,
            thetas.theta_cons,
        )
        found = verdicts(
            self._evidence,
            self._labels,
            self._suggested,
            self._score,
            selected,
            thetas.theta_score,
        )
        found[self._vouched_for] = "clean"  # by a reviewer, whatever the evidence
        return found

    def write(
        self, dataset: fo.Dataset, layout: Layout, verdict: np.ndarray, changed: np.ndarray
    ) -> None:
        """Writes those of the (n,) verdicts that are listed."""
        rows = [{layout.result("verdict"): str(verdict[i])} for i in changed]
        ids = [str(self.ids[i]) for i in changed]
        if layout.objects:
            sample_ids = [str(self._sample_ids[i]) for i in changed]
            write_object_rows(dataset, layout.array, zip(sample_ids, ids, rows, strict=True))
        else:
            write_rows(dataset, zip(ids, rows, strict=True))

    def counts(self, thetas: Thetas) -> dict[str, int]:
        """Counts the samples of the run by verdict under these thresholds; about, for a part."""
        found = self.verdicts(thetas)
        scale = self.total / max(len(found), 1)
        return {verdict: round(scale * int((found == verdict).sum())) for verdict in VERDICTS}

    @cached_property
    def _mixtures(self) -> Mixtures:
        return loss_mixtures(self._evidence, self._labels, self._seed)


def read_evidence(results: CLIPCleanerResults, limit: int | None = None) -> StoredEvidence:
    """Reads the evidence of a run from the database.

    Args:
        results: the run
        limit (None): about as many samples are read, drawn at random and the same each time;
            None = all
    """
    layout, collection = results.layout, results.dataset._sample_collection
    total = sum(results.counts().values())
    match: dict[str, Any] = {layout.result("verdict"): {"$in": list(VERDICTS)}}
    if limit is not None and total > limit:
        match["$expr"] = {"$lt": [_EVEN, limit / total]}
    wanted = {name: f"${layout.result(name)}" for name in ("verdict", "score", *EVIDENCES)}
    wanted |= {
        "_id": f"${layout.id}",
        "sample": "$_id",
        "given": f"${layout.given}",
        "suggested": f"${layout.suggested}",
        "review": f"${layout.review}",
    }
    pipeline = [*layout.unwind, {"$match": match}, {"$project": wanted}]
    rows = list(collection.aggregate(pipeline, batchSize=_BATCH, allowDiskUse=True))
    classes, seed = results.record["classes"], results.config.seed
    return StoredEvidence(rows, classes, seed, total if "$expr" in match else len(rows))


_last: Last[StoredEvidence] = Last()


def preview_evidence(results: CLIPCleanerResults) -> StoredEvidence:
    """Returns evidence to try thresholds on; that of the last run asked for stays in memory."""
    state = content_state(results.dataset), results.key, results.config.seed
    return _last.get(state, lambda: read_evidence(results, PREVIEW_SAMPLES))


def _column(rows: list[dict[str, Any]], name: str) -> np.ndarray:
    return np.array([row.get(name) for row in rows], dtype=np.float32)
