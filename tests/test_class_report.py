"""Which class names mean little to the model."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from scipy.stats import binomtest

from benchmarks.data import load_caltech
from clipcleaner_plugin.class_report import ClassReport, class_report
from clipcleaner_plugin.noise import draw_noise
from clipcleaner_plugin.zeroshot import normalize_rows

WORSE = ("random", "exchanged", "same")


def report(
    labels: np.ndarray, language: np.ndarray, k: int, **changed: object
) -> list[ClassReport]:
    arrays = {
        "suggested": labels,
        "wrong": np.zeros(len(labels), dtype=bool),
        "language_label": language,
        "visual_label": labels,
    }
    return class_report(labels, num_classes=k, **(arrays | changed))


def rewritten(reports: list[ClassReport]) -> list[int]:
    return [k for k, found in enumerate(reports) if found.rewrite]


def test_worked_by_hand() -> None:
    labels = np.array([0] * 10 + [1] * 10 + [-1])
    suggested = np.array([0] * 9 + [1] * 11 + [-1])
    language = np.array([0] * 8 + [1] * 12 + [0])
    looks = np.array([0] * 10 + [1] * 10 + [1])
    wrong = suggested != labels
    found = class_report(labels, suggested, wrong, language, looks, 2)
    assert found[0] == ClassReport(
        count=10,
        mislabeled=0.1,
        judged=9,
        words=8 / 9,
        chance=0.5,
        agreement=8 / 9,
        beats_chance=False,  # eight of nine heads: .02
        rewrite=True,
    )
    second = found[1]
    assert (second.count, second.mislabeled, second.judged, second.words) == (10, 0, 11, 1)
    assert second.agreement == 10 / 11 and second.beats_chance and not second.rewrite


@pytest.mark.parametrize("kind", WORSE)
def test_exactly_the_spoilt_names_of_real_classes_are_named(kind: str, shared_data: Path) -> None:
    caltech = load_caltech(shared_data)
    k, texts = len(caltech.texts), normalize_rows(caltech.texts)
    for seed in range(3):
        rng = np.random.default_rng(seed)
        spoilt = np.sort(rng.choice(k, 6, replace=False))
        changed = texts.copy()
        changed[spoilt] = {
            "random": normalize_rows(rng.standard_normal((6, texts.shape[1]))),
            "exchanged": texts[np.roll(spoilt, 1)],
            "same": np.tile(normalize_rows(texts.mean(axis=0, keepdims=True)), (6, 1)),
        }[kind]
        given = draw_noise(caltech.labels, k, "symmetric", 0.3, seed)
        cleaned = draw_noise(caltech.labels, k, "symmetric", 0.03, seed)
        found = report(
            given,
            (caltech.features @ changed.T).round(5).argmax(axis=1),  # equal names tie
            k,
            suggested=cleaned,
            visual_label=cleaned,
        )
        assert rewritten(found) == spoilt.tolist()


def test_the_test_is_the_binomial_one() -> None:
    rng = np.random.default_rng(0)
    labels, language = rng.integers(5, size=400), rng.integers(5, size=400)
    for k, found in enumerate(report(labels, language, 5)):
        own = labels == k
        assert found.chance == pytest.approx(max(np.mean(language[~own] == k), 0.2))
        hits = int(np.sum(language[own] == k))
        p = binomtest(hits, int(own.sum()), found.chance, alternative="greater").pvalue
        assert found.beats_chance == (p < 0.01)


def test_a_name_that_is_said_of_everything_is_no_better_than_chance() -> None:
    labels = np.arange(300) % 3
    found = report(labels, np.zeros(300, dtype=int), 3)
    assert found[0].words == 1 and found[0].chance == 1
    assert rewritten(found) == [1, 2]  # of the first nothing can be told: no test could show it
    assert found[0].beats_chance is None


def test_too_few_samples_and_no_words_name_nothing() -> None:
    few = report(np.array([0, 1, 2, 2]), np.array([1, 0, 0, 0]), 4)
    assert rewritten(few) == [] and [r.beats_chance for r in few] == [None] * 4
    assert few[3] == ClassReport(0, 0, 0, None, None, None, None, False)
    silent = report(np.arange(300) % 3, np.full(300, -1), 3)
    assert rewritten(silent) == []
    assert (silent[0].words, silent[0].agreement, silent[0].chance) == (None, None, None)
