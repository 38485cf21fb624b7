"""What a run writes to the samples that it has scored."""

from __future__ import annotations

import logging
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
    field_name,
    write_rows,
)
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
        targets: its N samples
        scores: what was found
    """
    logger.info("Writing fields")
    prefix = config.prefix
    declare_fields(dataset, prefix)
    write_rows(dataset, _rows(prefix, targets, scores))
    create_indexes(dataset, prefix)
    save_views(dataset, config)


def _rows(
    prefix: str, targets: Targets, scores: LabelScores
) -> Iterator[tuple[str, dict[str, Any]]]:
    floats = {field_name(prefix, name): scores.evidence[name] for name in EVIDENCES}
    floats[field_name(prefix, "score")] = scores.clean_score
    verdict, suggestion = field_name(prefix, "verdict"), field_name(prefix, "suggestion")
    reason, open_set = field_name(prefix, "reason"), field_name(prefix, "open_set")
    why = reasons(
        np.isin(scores.verdict, TO_REVIEW),
        targets.labels,
        targets.classes,
        scores.language_label,
        scores.language_confidence,
        scores.visual_label,
        scores.visual_confidence,
        scores.given_confidence,
    )
    for i, sample_id in enumerate(targets.ids):
        # A missing value stays None: NaN sorts below everything and breaks MongoDB's bounds
        row: dict[str, Any] = {f: float(v[i]) for f, v in floats.items() if not np.isnan(v[i])}
        row[verdict] = str(scores.verdict[i])
        k = scores.suggested_label[i]
        if k >= 0:
            confidence = float(scores.suggested_confidence[i])
            row[suggestion] = classification(targets.classes[k], confidence)
            row[open_set] = bool(scores.open_set[i])
        if why[i] is not None:
            row[reason] = why[i]
        yield sample_id, row
