"""What the class names are worth: per class, whether language knows it better than by chance."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

SIGNIFICANCE = 0.01


@dataclass(frozen=True)
class ClassReport:
    """One class of a run, as it was when the run ended.

    Attributes:
        count: samples that have this label
        mislabeled: share of them, of those that can be scored, whose label is probably wrong
        judged: samples that probably belong to the class, whatever their label
        words: share of these that language takes for the class; None without class names
        chance: how often language takes a sample for the class that is none of it, at least 1 / K;
            None without class names
        agreement: share of the judged samples on which language and looks make the same first
            choice; None where one of them has none
        beats_chance: whether language says the class more often of its own samples than by chance
            (one-sided binomial test, at .01); None where no result of the test could show that,
            because the samples are too few
        rewrite: whether the name means little to the model, so that its prompts should be rewritten
    """

    count: int
    mislabeled: float
    judged: int
    words: float | None
    chance: float | None
    agreement: float | None
    beats_chance: bool | None
    rewrite: bool


def class_report(
    labels: np.ndarray,
    suggested: np.ndarray,
    wrong: np.ndarray,
    language_label: np.ndarray,
    visual_label: np.ndarray,
    num_classes: int,
) -> list[ClassReport]:
    """Reports on every class.

    The name of a class is tested on the samples that most probably belong to it, since given
    labels may be wrong. A class name that means nothing to the model is as good as another text:
    it is chosen as often for the samples of other classes, or never.

    Args:
        labels: (N,) int in [0, K), the given labels; -1 = none
        suggested: (N,) int, the most probable labels by all evidence; -1 = unscorable
        wrong: (N,) bool, labels that are probably wrong
        language_label: (N,) int, first choice of the class names; -1 = none
        visual_label: (N,) int, first choice of the classifier of looks; -1 = none
        num_classes: K

    Returns:
        K reports
    """
    from scipy.stats import binom

    scored, heard = suggested >= 0, (suggested >= 0) & (language_label >= 0)
    both = heard & (visual_label >= 0)

    def count(values: np.ndarray, where: np.ndarray) -> np.ndarray:
        return np.bincount(values[where], minlength=num_classes)

    same = language_label == visual_label
    judged = count(suggested, scored)
    asked, hits = count(suggested, heard), count(suggested, heard & (language_label == suggested))
    others = heard.sum() - asked
    false_hits = count(language_label, heard) - hits
    chance = np.maximum(false_hits / np.maximum(others, 1), 1 / num_classes)
    beats = binom.sf(hits - 1, asked, chance) < SIGNIFICANCE
    tellable = chance**asked < SIGNIFICANCE  # the test's answer if language is always right
    compared, agree = count(suggested, both), count(suggested, both & same)
    given, flagged = count(labels, labels >= 0), count(labels, wrong & (labels >= 0))
    known = count(labels, scored & (labels >= 0))
    return [
        ClassReport(
            count=int(given[k]),
            mislabeled=float(flagged[k] / max(known[k], 1)),
            judged=int(judged[k]),
            words=float(hits[k] / asked[k]) if asked[k] else None,
            chance=float(chance[k]) if asked[k] else None,
            agreement=float(agree[k] / compared[k]) if compared[k] else None,
            beats_chance=bool(beats[k]) if tellable[k] else None,
            rewrite=bool(tellable[k] and not beats[k]),
        )
        for k in range(num_classes)
    ]
