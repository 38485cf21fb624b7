"""Which samples of a run to look at: every view is a rule on indexed fields, not a list of ids.

So it holds at any size, and follows every later change of verdicts, labels and decisions.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import reduce
from operator import and_
from typing import TYPE_CHECKING, Any

import fiftyone as fo
import numpy as np
from fiftyone import ViewField as F

from .decisions import DECISIONS, DROPPED, is_decided
from .fields import VERDICTS
from .layout import Layout, layout_of, select_labels

if TYPE_CHECKING:
    from .brain import CLIPCleanerConfig

DISAGREEMENT, LEAST_CERTAIN, NEAR_THRESHOLD, OPEN_SET, REVIEWED = (
    "disagreement", "least_certain", "near_threshold", "open_set", "reviewed",
)  # fmt: skip
# What the views of the verdicts leave out; the statistics count it, and no list offers it
SETTLED = "settled"
TO_REVIEW = ("mislabeled", "uncertain")
_NEAR = 0.1
_LITTLE = 0.5


@dataclass(frozen=True)
class Kind:
    """What a view shows, in words.

    Attributes:
        label: a few words
        description: one sentence
    """

    label: str
    description: str


KINDS = {
    "mislabeled": Kind("Mislabeled", "Labels that are probably wrong, worst first"),
    "uncertain": Kind("Uncertain", "Labels that are neither clearly right nor clearly wrong"),
    "clean": Kind("Clean", "Labels that both opinions support: safe to train on"),
    "unscorable": Kind("Unscorable", "No label, no readable image, or nothing to compare with"),
    DISAGREEMENT: Kind(
        "Words and looks disagree",
        "One opinion holds the given label the best one, the other doubts it; widest gap first",
    ),
    NEAR_THRESHOLD: Kind(
        "Near the threshold",
        f"Clean score within {_NEAR} of where a label begins to look wrong; closest first",
    ),
    LEAST_CERTAIN: Kind(
        "Least certain",
        "No label reaches half of the probability, of no class aside; least certain first",
    ),
    OPEN_SET: Kind("Of no class", "Images that seem to belong to none of the classes"),
    REVIEWED: Kind("Reviewed", "Labels that a reviewer has decided about"),
}


def kinds_of(dataset: fo.Dataset, config: CLIPCleanerConfig) -> dict[str, Kind]:
    """Returns the kinds of view that a run has the evidence for."""
    kinds, layout = dict(KINDS), layout_of(config)
    if config.text_source == "none":
        del kinds[DISAGREEMENT]
    if not dataset.has_sample_field(layout.result(OPEN_SET)):
        del kinds[OPEN_SET]
    if not dataset.has_sample_field(layout.review):
        del kinds[REVIEWED]
    return kinds


def run_view(
    dataset: fo.Dataset,
    config: CLIPCleanerConfig,
    kind: str | None = None,
    given: str | None = None,
    suggested: str | None = None,
    scores: tuple[float, float] | None = None,
) -> fo.DatasetView:
    """Returns samples of a run, most suspicious first; every argument narrows the choice.

    Of a run on objects, it is a view of their patches. Mislabeled and uncertain ones that a
    reviewer has decided about are left out, and clean and unscorable ones that
    were dropped.

    Args:
        dataset: the dataset
        config: the run
        kind (None): one of :data:`KINDS`, or "settled", what the views of the verdicts leave out;
            None = all samples of the run
        given (None): the given label
        suggested (None): the suggested label
        scores (None): (low, high) of the clean score, low <= score < high; 1 includes 1

    Raises:
        ValueError: if the kind is unknown, or the run has no evidence for it
    """
    layout = layout_of(config)
    chosen = _chosen(dataset, config, kind, given, suggested, scores)
    if layout.objects:
        chosen = chosen.to_patches(layout.label_field)
    return chosen.sort_by(_rule(dataset, config, layout.in_patches, kind)[1])


def _chosen(
    dataset: fo.Dataset,
    config: CLIPCleanerConfig,
    kind: str | None,
    given: str | None = None,
    suggested: str | None = None,
    scores: tuple[float, float] | None = None,
) -> fo.DatasetView:
    """The samples in no order; of a run on objects, with those objects alone that are meant."""
    layout = layout_of(config).at("")
    conditions, _ = _rule(dataset, config, layout, kind)
    if given is not None:
        conditions.append(F(layout.given) == given)
    if suggested is not None:
        conditions.append(F(layout.suggested) == suggested)
    if scores is not None:
        score, (low, high) = F(layout.result("score")), scores
        conditions += [score >= low, score <= high if high >= 1 else score < high]
    if layout.objects:
        return dataset.filter_labels(layout.label_field, reduce(and_, conditions))
    return dataset.match(reduce(and_, conditions))


def _rule(
    dataset: fo.Dataset, config: CLIPCleanerConfig, layout: Layout, kind: str | None
) -> tuple[list[Any], Any]:
    """Conditions that all hold, and what to sort by, ascending."""
    verdict = F(layout.result("verdict"))
    score_field = layout.result("score")
    if kind is None:
        return [verdict.is_in(list(VERDICTS))], score_field
    if kind in VERDICTS:
        left_out = DECISIONS if kind in TO_REVIEW else (DROPPED,)
        return [verdict == kind, ~is_decided(layout, left_out)], score_field
    if kind == SETTLED:
        listed = verdict.is_in(list(TO_REVIEW)) & is_decided(layout)
        dropped = verdict.is_in(list(VERDICTS)) & is_decided(layout, (DROPPED,))
        return [listed | dropped], score_field
    offered = kinds_of(dataset, config)
    if kind not in offered:
        raise ValueError(f"this run has no view {kind!r}; choose one of {', '.join(offered)}")
    if kind == REVIEWED:
        return [verdict.is_in(list(VERDICTS)), is_decided(layout)], score_field
    foreign = F(layout.result(OPEN_SET)) == True  # noqa: E712
    if kind == OPEN_SET:
        return [foreign], score_field
    if kind == LEAST_CERTAIN:
        confidence = layout.confidence
        return [F(confidence) >= 0, F(confidence) < _LITTLE, ~foreign], confidence
    if kind == NEAR_THRESHOLD:
        score, theta = F(score_field), config.theta_score
        return [score >= theta - _NEAR, score <= theta + _NEAR], (score - theta).abs()
    return _disagreement(layout, config.theta_cons)


def _disagreement(layout: Layout, theta_cons: float) -> tuple[list[Any], Any]:
    words = F(layout.result("zeroshot_consistency"))
    looks = F(layout.result("visual_consistency"))
    # None is less than any number: what one opinion has not judged is no disagreement
    first = (words >= 1) & (looks >= 0) & (looks < theta_cons)
    second = (looks >= 1) & (words >= 0) & (words < theta_cons)
    return [first | second], (words - looks).abs() * -1


_SAVED = ("mislabeled", "clean", "uncertain")
_REVIEW_SAMPLE = "review sample"


def saved_view_names(prefix: str) -> list[str]:
    """Returns the names of the saved views that a run may have."""
    return [f"{prefix}: {name}" for name in (*_SAVED, _REVIEW_SAMPLE)]


def save_views(dataset: fo.Dataset, config: CLIPCleanerConfig) -> None:
    """Saves one view per verdict and one of the review sample, replacing older ones.

    Of a run on objects they show the samples with these objects: FiftyOne keeps a saved view of
    patches as it was, while these follow every change.
    """
    order = layout_of(config).lowest_score
    for kind in _SAVED:
        view, text = _chosen(dataset, config, kind).sort_by(order), KINDS[kind].description
        dataset.save_view(f"{config.prefix}: {kind}", view, description=text, overwrite=True)
    if config.review_sample:
        view, text = _review_sample(dataset, config), "Drawn at random, to measure the run"
        name = f"{config.prefix}: {_REVIEW_SAMPLE}"
        dataset.save_view(name, view, description=text, overwrite=True)


def review_sample_view(dataset: fo.Dataset, config: CLIPCleanerConfig) -> fo.DatasetView:
    """Returns what ``start_review`` drew, in random order; it is little."""
    layout = layout_of(config)
    view = _review_sample(dataset, config)
    if not layout.objects:
        return view
    return view.to_patches(layout.label_field).select(_drawn(config), ordered=True)


def _review_sample(dataset: fo.Dataset, config: CLIPCleanerConfig) -> fo.DatasetView:
    """The samples that were drawn, in random order, or those of which objects were drawn."""
    layout = layout_of(config)
    if layout.objects:
        return select_labels(dataset, layout, _drawn(config))
    return dataset.select(_drawn(config), ordered=True)


def _drawn(config: CLIPCleanerConfig) -> list[str]:
    assert config.review_sample is not None
    ids = [i for stratum in config.review_sample["strata"] for i in stratum["ids"]]
    order = np.random.default_rng(config.review_sample["seed"]).permutation(len(ids))
    return [ids[i] for i in order]


def delete_views(dataset: fo.Dataset, prefix: str) -> None:
    """Deletes the run's saved views, where they still exist."""
    for name in saved_view_names(prefix):
        if dataset.has_saved_view(name):
            dataset.delete_saved_view(name)
