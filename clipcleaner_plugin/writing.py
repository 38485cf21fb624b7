"""What a run writes to the samples that it has scored."""

from __future__ import annotations

import logging
import math
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import fiftyone as fo
import numpy as np

from .brain import CLIPCleanerConfig
from .fields import (
    EVIDENCES,
    classification,
    create_indexes,
    declare_fields,
    write_object_rows,
    write_rows,
)
from .layout import Layout, layout_of
from .reasons import reasons
from .targets import Targets
from .views import TO_REVIEW, save_views

if TYPE_CHECKING:
    from .scoring import LabelScores

logger = logging.getLogger(__name__)


def write_results(
    dataset: fo.Dataset, config: CLIPCleanerConfig, targets: Targets, scores: LabelScores
) -> None:
    """Writes the fields of a run, their indexes and the saved views.

    Args:
        dataset: the dataset; fields of these names that it has are written over
        config: the run
        targets: its N samples or objects
        scores: what was found
    """
    logger.info("Writing fields")
    layout = layout_of(config)
    declare_fields(dataset, layout)
    rows = _rows(layout, targets, scores)
    if layout.objects:
        items = zip(targets.sample_ids, targets.ids, rows, strict=True)
        write_object_rows(dataset, layout.array, items)
        write_rows(dataset, _lowest_scores(layout, targets, scores))
    else:
        write_rows(dataset, zip(targets.ids, rows, strict=True))
    create_indexes(dataset, layout)
    save_views(dataset, config)


def _rows(layout: Layout, targets: Targets, scores: LabelScores) -> Iterator[dict[str, Any]]:
    floats = {layout.result(name): scores.evidence[name] for name in EVIDENCES}
    floats[layout.result("score")] = scores.clean_score
    verdict, suggestion = layout.result("verdict"), layout.result("suggestion")
    reason, open_set = layout.result("reason"), layout.result("open_set")
    why = reasons(
        np.isin(scores.verdict, TO_REVIEW),
        targets.labels,
        targets.classes,
        scores.language_label,
        scores.language_confidence,
        scores.visual_label,
        scores.visual_confidence,
        scores.given_confidence,
        scores.open_set,
    )
    for i in range(len(targets.ids)):
        # A missing value stays None: NaN sorts below everything and breaks MongoDB's bounds
        row: dict[str, Any] = {f: float(v[i]) for f, v in floats.items() if not np.isnan(v[i])}
        row[verdict] = str(scores.verdict[i])
        k = scores.suggested_label[i]
        if k >= 0:
            label, confidence = targets.classes[k], float(scores.suggested_confidence[i])
            if layout.objects:
                row |= {suggestion: label, layout.confidence: confidence}
            else:
                row[suggestion] = classification(label, confidence)
            row[open_set] = bool(scores.open_set[i])
        if why[i] is not None:
            row[reason] = why[i]
        yield row


def _lowest_scores(
    layout: Layout, targets: Targets, scores: LabelScores
) -> Iterator[tuple[str, dict[str, Any]]]:
    lowest: dict[str, float] = {}
    for sample_id, score in zip(targets.sample_ids, scores.clean_score.tolist(), strict=True):
        if score < lowest.get(sample_id, math.inf):  # NaN is not
            lowest[sample_id] = score
    yield from ((sample_id, {layout.lowest_score: score}) for sample_id, score in lowest.items())
