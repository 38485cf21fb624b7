"""A run in numbers: counts by verdict, score, class and pair of labels."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from .decisions import DROPPED
from .fields import VERDICTS
from .rules import NoiseRate, noise_rate_of
from .tally import BINS, Tally
from .views import OPEN_SET, REVIEWED, SETTLED, TO_REVIEW


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
            about them, under "settled" instead
        verdicts: samples by verdict, whatever a reviewer has decided
        noise: the estimated share of wrong labels, with a 95 % interval
        histogram: the same keys → :data:`BINS` counts of the clean score from 0 to 1
        confusions: (given label, suggested label, count) of the mislabeled, most frequent first
        classes: given label → its statistics, in alphabetical order
        open_set: those that seem to belong to none of the classes, whatever their verdict
        decided: those that a reviewer has decided about, whatever their verdict
    """

    counts: dict[str, int]
    verdicts: dict[str, int]
    noise: NoiseRate
    histogram: dict[str, list[int]]
    confusions: list[tuple[str, str, int]]
    classes: dict[str, ClassStatistics]
    open_set: int
    decided: int

    @property
    def in_views(self) -> dict[str, int]:
        """View → how many samples it shows, of the views that are counted."""
        return {**self.counts, REVIEWED: self.decided, OPEN_SET: self.open_set}


def statistics_of(tally: Tally, names: Sequence[str]) -> RunStatistics:
    """Says what a tally means.

    Args:
        tally: of a run
        names: its classes

    Returns:
        the statistics; beyond 40,000 classes those with the most samples
    """
    states = (*VERDICTS, SETTLED)
    counts, verdicts, decided = Counter[str](), Counter[str](), 0
    histogram = {state: [0] * BINS for state in states}
    for (verdict, decision, place), (n, *_) in tally.scores.items():
        verdicts[verdict] += int(n)
        decided += int(n) if decision else 0
        state = SETTLED if _left_out(verdict, decision) else verdict
        counts[state] += int(n)
        if place is not None:  # 1 itself belongs to the last bin
            histogram[state][min(int(place), BINS - 1)] += int(n)
    return RunStatistics(
        counts={state: counts[state] for state in states},
        verdicts={verdict: verdicts[verdict] for verdict in VERDICTS},
        noise=_noise(list(tally.scores.values())),
        histogram=histogram,
        confusions=_confusions(tally),
        classes={
            name: _of_class(tally.classes[name,])
            for name in sorted(names)
            if (name,) in tally.classes
        },
        open_set=int(sum(n for (n,) in tally.open_set.values())),
        decided=decided,
    )


def _left_out(verdict: str, decision: str | None) -> bool:
    """Whether the view of the verdict leaves such labels out."""
    return decision == DROPPED or (decision is not None and verdict in TO_REVIEW)


def _confusions(tally: Tally) -> list[tuple[str, str, int]]:
    # Labels may be gone since
    pairs = [(*pair, int(n)) for pair, (n,) in tally.confusions.items() if None not in pair]
    return sorted(pairs, key=lambda pair: (-pair[2], pair[0], pair[1]))


def _of_class(row: tuple[float, ...]) -> ClassStatistics:
    n, _, _, _, waiting, words, worded, looks, looked = row
    return ClassStatistics(
        count=int(n),
        mislabeled=int(waiting),
        noise=_noise([row]),
        words=words / worded if worded else math.nan,
        looks=looks / looked if looked else math.nan,
    )


def _noise(rows: Sequence[tuple[float, ...]]) -> NoiseRate:
    scored, score, squares = (sum(row[column] for row in rows) for column in (1, 2, 3))
    return noise_rate_of(int(scored), score, squares)
