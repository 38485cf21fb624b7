"""What is stored of a run beside its parameters and fields."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from .class_report import ClassReport, class_report
from .fields import VERDICTS
from .rules import noise_rate
from .scoring import no_label_text
from .targets import LEFT_OUT

if TYPE_CHECKING:
    from .scoring import LabelScores
    from .targets import Targets

# A record lists this many unreadable images by name; the count is of all
_MAX_FAILURES = 1000
_MAX_NAMES = 10  # in a sentence


def make_record(
    targets: Targets,
    scores: LabelScores,
    prompts: list[list[str]],
    failures: Mapping[str, str],
    image_features: np.ndarray,
    seconds: float,
) -> dict[str, Any]:
    """Returns what is stored of a run beside its parameters, as JSON values."""
    report = class_report(
        targets.labels,
        scores.suggested_label,
        scores.verdict == "mislabeled",
        scores.language_label,
        scores.visual_label,
        len(targets.classes),
    )
    objects = targets.ids != targets.sample_ids
    no_vector = np.isnan(image_features).any(axis=1)
    reasons: Counter[str] = Counter()
    for i in np.flatnonzero(scores.verdict == "unscorable"):
        sample_id = targets.ids[i]
        if sample_id in targets.unusable:
            reasons[targets.unusable[sample_id]] += 1
        elif sample_id in failures:
            reasons["unreadable image or box" if objects else "unreadable image"] += 1
        else:
            reasons["no embedding" if no_vector[i] else "nothing to compare with"] += 1
    return {
        "samples": len(targets.ids),
        "classes": targets.classes,
        "prompts": prompts,
        "counts": {v: int((scores.verdict == v).sum()) for v in VERDICTS},
        "noise_rate": [None if np.isnan(v) else v for v in noise_rate(scores.clean_score)],
        "language_weight": float(scores.language_weight),
        "unscorable": dict(reasons.most_common()),
        "open_set": int(scores.open_set.sum()),
        "class_report": [vars(row) for row in report],
        "failures": dict(list(failures.items())[:_MAX_FAILURES]),
        "failure_count": len(failures),
        "warnings": [
            *_about_labels(targets, scores, "object" if objects else "sample"),
            *_about_names(targets.classes, report),
        ],
        "seconds": round(seconds, 3),
    }


def _about_labels(targets: Targets, scores: LabelScores, unit: str) -> list[str]:
    """The warnings of the scores, but that what a reviewer dropped does have a label."""
    missing = sum(reason != LEFT_OUT for reason in targets.unusable.values())
    told = [no_label_text(missing, len(targets.ids), unit)] if missing else []
    said = no_label_text(len(targets.unusable), len(targets.ids))
    return [*told, *(text for text in scores.warnings if text != said)]


def _about_names(classes: Sequence[str], report: Sequence[ClassReport]) -> list[str]:
    """A sentence on the names that mean little to the model, if there are any."""
    names = [repr(name) for name, row in zip(classes, report, strict=True) if row.rewrite]
    if not names:
        return []
    shown = ", ".join(names[:_MAX_NAMES])
    more = f" and {len(names) - _MAX_NAMES} more" if len(names) > _MAX_NAMES else ""
    return [
        f"Class names that mean little to the model: {shown}{more}. Describe these classes in "
        "other words with class_prompts; results.class_report() has the numbers"
    ]
