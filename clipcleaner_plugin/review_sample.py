"""How good is the list? A random sample is reviewed, and the share of wrong labels measured.

Scores say how likely a label is wrong by the model's own lights. Whether that is so on *this*
dataset only looking can tell: ``start_review`` draws samples at random, of those flagged and of
those not, the ordinary review actions decide about them, and ``review_report`` says what share of
the flagged labels is wrong, what share of the others, each with a 95 % interval, and from which
score on a wanted share is.

The sample belongs to the run: it is renamed and deleted with it, and goes when the run is applied
again. The decisions stay.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Any, NamedTuple

import fiftyone as fo
import numpy as np
from fiftyone.core.collections import SampleCollection

from .decisions import DECISIONS, DROPPED, reviewed_fields
from .layout import select_labels
from .review import os_user
from .review_log import samples_text
from .rules import NoiseRate
from .runs import load_results
from .sampling import draw_strata, precision_threshold, stratified_rate
from .targets import read_items
from .views import review_sample_view, save_views

if TYPE_CHECKING:
    from .results import CLIPCleanerResults

logger = logging.getLogger(__name__)

# The drawn ids are stored with the run's parameters, in one document of at most 16 MB
_MOST = 10_000
_STRATA = 5


@dataclass(frozen=True)
class ReviewMeasurement:
    """What a review of a random sample says of a run; ``print`` it, or take its parts.

    Attributes:
        precision: share of wrong labels among those flagged when the sample was drawn
        missed: share of wrong labels among those not flagged
        flagged: number of labels flagged when the sample was drawn, decided ones aside
        unflagged: number of scored labels not flagged, likewise
        drawn: number of samples drawn
        decided: number of these that were confirmed or relabeled since
        dropped: number of these that were dropped; they say nothing of the labels
        scores: (decided,) float, their clean scores
        wrong: (decided,) bool, whether the label was wrong
        weights: (decided,) float, how many labels each stands for
        unit: what has a label: "sample" or "object"
    """

    precision: NoiseRate
    missed: NoiseRate
    flagged: int
    unflagged: int
    drawn: int
    decided: int
    dropped: int
    scores: np.ndarray
    wrong: np.ndarray
    weights: np.ndarray
    unit: str = "sample"

    @property
    def missed_labels(self) -> tuple[float, float, float]:
        """Number of wrong labels that are not flagged: estimate, low and high end."""
        rate, low, high = (self.unflagged * value for value in self.missed[:3])
        return rate, low, high

    def threshold(self, precision: float = 0.8) -> float | None:
        """Returns the clean score below which at least this share of the labels is wrong.

        It is an estimate from the decisions so far, by isotonic regression on the score; see
        :func:`clipcleaner_plugin.sampling.precision_threshold`. Apply it with
        ``results.reselect(theta_score=...)``.

        Args:
            precision (0.8): the wanted share of wrong labels, in (0, 1]

        Returns:
            the score; None where even the lowest scores do not reach the share

        Raises:
            ValueError: if ``precision`` is not in (0, 1]
        """
        if not 0 < precision <= 1:
            raise ValueError(f"precision must be in (0, 1], found {precision!r}")
        return precision_threshold(self.scores, self.wrong, self.weights, precision)

    def __str__(self) -> str:
        rest = self.drawn - self.decided - self.dropped
        lines = [f"{self.decided} of {samples_text(self.drawn, self.unit)} decided"]
        lines[0] += f", {self.dropped} dropped" if self.dropped else ""
        lines[0] += f", {rest} to go" if rest else ""
        lines.append(f"precision: {_shares(self.precision)} of {self.flagged} flagged are wrong")
        lines.append(f"missed: {_shares(self.missed)} of {self.unflagged} not flagged are wrong")
        if self.missed.count:
            rate, low, high = self.missed_labels
            lines.append(f"  that is about {rate:.0f} labels ({low:.0f} to {high:.0f})")
        return "\n".join(lines)


def start_review(
    samples: SampleCollection,
    key: str = "clipcleaner",
    *,
    n: int = 200,
    seed: int = 51,
    who: str | None = None,
) -> fo.DatasetView:
    """Draws a random sample of a run to review, half of it flagged, and saves it as a view.

    Flagged and other labels are cut into strata by score, and the same share of each stratum is
    drawn, so that low and high scores are represented. The samples come in random order: whoever
    stops half-way has still reviewed a random sample. Labels decided before are not drawn. A
    sample drawn earlier for this run is replaced; what was decided about it stays.

    Args:
        samples: a dataset, or any view of it: the sample is drawn from all of the run
        key ("clipcleaner"): the run
        n (200): number of samples (or objects) to draw, from 2 to 10,000
        seed (51): of the draw
        who (None): who draws it, for the record; None = the user of the operating system

    Returns:
        the view, saved as "<key>: review sample"

    Raises:
        ValueError: if there is no such run, ``n`` does not fit, or nothing is left to review
    """
    if not 2 <= n <= _MOST:
        raise ValueError(f"n must be from 2 to {_MOST}, found {n!r}")
    results = load_results(samples, key)
    dataset, config = results.dataset, results.config
    population = _population(results)
    ids, _, flags = population
    if len(ids) == 0:
        raise ValueError(f"run {key!r} has no scored labels that are not decided yet")
    n, flagged = min(n, len(ids)), int(flags.sum())
    # Half and half, unless there are fewer on one side
    of_flagged = min(flagged, max((n + 1) // 2, n - (len(ids) - flagged)))
    rng = np.random.default_rng(seed)
    strata = _draw(population, True, of_flagged, rng)
    strata += _draw(population, False, n - of_flagged, rng)
    config.review_sample = {
        "at": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "by": who or os_user(),
        "seed": seed,
        "strata": strata,
    }
    results.save_config()
    save_views(dataset, config)
    logger.info("Drew %d samples of run %s for review", n, key)
    return review_sample_view(dataset, config)


def review_report(samples: SampleCollection, key: str = "clipcleaner") -> ReviewMeasurement:
    """Measures a run by the decisions on the sample that ``start_review`` drew.

    A label counts as wrong where the reviewer replaced it, as right where they confirmed it. The
    shares are of the labels as they were flagged when the sample was drawn. See
    :func:`clipcleaner_plugin.sampling.stratified_rate` for the interval.

    Raises:
        ValueError: if there is no such run, or no sample was drawn from it
    """
    results = load_results(samples, key)
    record = results.config.review_sample
    if not record:
        raise ValueError(f"no sample of run {key!r} was drawn for review; start_review draws one")
    strata = record["strata"]
    found = _outcomes(results, [i for stratum in strata for i in stratum["ids"]])
    tables: dict[bool, list[tuple[int, int, int]]] = {True: [], False: []}
    known, weights = [], []
    for stratum in strata:
        here = [found[i] for i in stratum["ids"] if i in found and found[i].wrong is not None]
        tables[stratum["flagged"]].append(
            (sum(bool(outcome.wrong) for outcome in here), len(here), stratum["size"])
        )
        known += here
        weights += [stratum["size"] / len(here) for _ in here]
    return ReviewMeasurement(
        precision=_rate(tables[True]),
        missed=_rate(tables[False]),
        flagged=sum(size for *_, size in tables[True]),
        unflagged=sum(size for *_, size in tables[False]),
        drawn=sum(len(stratum["ids"]) for stratum in strata),
        decided=len(known),
        dropped=sum(outcome.dropped for outcome in found.values()),
        scores=np.array([outcome.score for outcome in known], dtype=float),
        wrong=np.array([outcome.wrong for outcome in known], dtype=bool),
        weights=np.array(weights, dtype=float),
        unit=results.layout.unit,
    )


class _Outcome(NamedTuple):
    score: float
    wrong: bool | None  # None = not known
    dropped: bool


def _population(results: CLIPCleanerResults) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Ids, scores and flags of the scored labels that are not decided."""
    layout = results.layout
    paths = [layout.result("score"), layout.result("verdict")]
    if layout.label_field in reviewed_fields(results.dataset):
        paths.append(layout.review)
    items = read_items(results.dataset, layout, paths)
    ids, scores, verdict = items.ids, *items.columns[:2]
    decided = items.columns[2] if len(paths) > 2 else [None] * len(ids)
    scored = [i for i in range(len(ids)) if scores[i] is not None and decided[i] not in DECISIONS]
    scored.sort(key=lambda i: (scores[i], ids[i]))
    return (
        np.array([ids[i] for i in scored]),
        np.array([scores[i] for i in scored], dtype=float),
        np.array([verdict[i] == "mislabeled" for i in scored], dtype=bool),
    )


def _draw(
    population: tuple[np.ndarray, np.ndarray, np.ndarray],
    flagged: bool,
    n: int,
    rng: np.random.Generator,
) -> list[dict[str, Any]]:
    """Draws of the flagged or of the other labels; as JSON values."""
    ids, scores, flags = population
    ids, scores = ids[flags == flagged], scores[flags == flagged]
    if n == 0 or len(ids) == 0:
        return []
    return [
        {
            "flagged": flagged,
            "low": stratum.low,
            "high": stratum.high,
            "size": stratum.size,
            "ids": ids[stratum.drawn].tolist(),
        }
        for stratum in draw_strata(scores, n, _STRATA, rng)
    ]


def _outcomes(results: CLIPCleanerResults, ids: list[str]) -> dict[str, _Outcome]:
    """What was decided about these labels, none of which was decided when they were drawn."""
    dataset, layout = results.dataset, results.layout
    if layout.label_field not in reviewed_fields(dataset):
        return {}
    paths = [layout.result("score"), layout.review, layout.given, layout.log]
    items = read_items(select_labels(dataset, layout, ids), layout, paths)
    outcomes = {}
    for i, score, decision, label, log in zip(items.ids, *items.columns, strict=True):
        if decision not in DECISIONS:
            continue
        in_force = [entry for entry in log if not entry["undone"]]
        first = in_force[0]["from"] if in_force else None
        wrong = None if decision == DROPPED else (first or {}).get("label") != label
        outcomes[i] = _Outcome(score, wrong, decision == DROPPED)
    return outcomes


def _rate(table: list[tuple[int, int, int]]) -> NoiseRate:
    hits, checked, sizes = zip(*table, strict=True) if table else ((), (), ())
    return stratified_rate(hits, checked, sizes)


def _shares(rate: NoiseRate) -> str:
    if not rate.count:
        return "not known yet, share"
    return f"{rate.rate:.1%} ({rate.low:.1%} to {rate.high:.1%})"
