"""score_labels as a whole: against a plain reference, its invariances, its corner cases."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from feature_clusters import Clusters, flip, make_clusters
from hypothesis import given, settings
from hypothesis import strategies as st
from paper_reference import select_by_the_book

from benchmarks.data import DEFAULT_FOLDER, DataMissingError, load_caltech
from clipcleaner_plugin import opinions
from clipcleaner_plugin.noise import draw_noise
from clipcleaner_plugin.rules import select_paper, verdicts
from clipcleaner_plugin.scoring import EVIDENCE, LabelScores, score_labels

CLASSES = 4


@pytest.fixture(scope="module")
def clusters() -> Clusters:
    return make_clusters(200, CLASSES)


@pytest.fixture(scope="module")
def noisy(clusters: Clusters) -> np.ndarray:
    return flip(clusters.truth, CLASSES, 0.2)


@pytest.fixture(scope="module")
def scores(clusters: Clusters, noisy: np.ndarray) -> LabelScores:
    return score_labels(clusters.images, noisy, clusters.texts)


def same(a: LabelScores, b: LabelScores, take: Any = slice(None)) -> bool:
    """All of ``a`` equals the part ``take`` of ``b``, to the bit."""
    return all(
        np.array_equal(x, y[take], equal_nan=x.dtype.kind == "f")
        for x, y in zip(columns(a), columns(b), strict=True)
    )


def columns(scores: LabelScores) -> list[np.ndarray]:
    return [
        scores.clean_score,
        scores.verdict,
        scores.suggested_label,
        scores.suggested_confidence,
        scores.selected,
        *(scores.evidence[name] for name in EVIDENCE),
    ]


# What comes out


def test_shapes_types_and_ranges(scores: LabelScores) -> None:
    n = 200
    assert all(len(column) == n for column in columns(scores))
    assert set(scores.evidence) == set(EVIDENCE)
    for values in (scores.clean_score, scores.suggested_confidence, *scores.evidence.values()):
        assert values.dtype == np.float32
    for name in EVIDENCE[:4]:
        assert 0 <= scores.evidence[name].min() <= scores.evidence[name].max() == 1
    assert scores.selected.dtype == bool
    assert scores.suggested_label.dtype.kind == "i"
    assert 0 <= scores.clean_score.min() < 0.5 < scores.clean_score.max() <= 1
    assert 0 < scores.language_weight < 1
    assert scores.warnings == ()


def test_planted_errors_are_found_and_their_true_labels_suggested(
    clusters: Clusters, noisy: np.ndarray, scores: LabelScores
) -> None:
    wrong = noisy != clusters.truth
    flagged = scores.verdict == "mislabeled"
    assert np.sum(flagged & wrong) >= 0.95 * wrong.sum()
    assert np.sum(flagged & wrong) >= 0.95 * flagged.sum()
    assert np.mean(scores.suggested_label[wrong] == clusters.truth[wrong]) >= 0.95
    assert np.mean(1 - scores.clean_score) == pytest.approx(wrong.mean(), abs=0.02)


def test_parts_belong_together(noisy: np.ndarray, scores: LabelScores) -> None:
    assert np.array_equal(
        scores.verdict,
        verdicts(
            scores.evidence, noisy, scores.suggested_label, scores.clean_score, scores.selected
        ),
    )
    agrees = scores.suggested_label == noisy
    assert np.array_equal(scores.evidence["margin"] > 0, agrees)
    assert np.all(scores.clean_score[agrees] >= 0.5)
    assert np.all(scores.suggested_confidence >= 1 / CLASSES)
    by_margin = np.argsort(scores.evidence["margin"])
    assert np.all(np.diff(scores.clean_score[by_margin]) >= 0)


@pytest.mark.parametrize("theta", [0.3, 0.5, 0.9])
def test_the_selection_can_be_made_again_from_the_evidence(
    clusters: Clusters, noisy: np.ndarray, theta: float
) -> None:
    found = score_labels(clusters.images, noisy, clusters.texts, theta_gmm=theta, theta_cons=theta)
    again = select_paper(found.evidence, noisy, CLASSES, theta, theta)
    assert np.array_equal(again, found.selected)


# The paper's rule, sample by sample


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize(
    ("prompts", "options"),
    [
        ((1, 1, 1, 1), {}),
        ((2, 5, 1, 8), {}),
        ((2, 5, 1, 8), {"prompt_reduce": "sum"}),
        ((1, 1, 1, 1), {"theta_gmm": 0.8, "theta_cons": 0.5, "temperature": 0.3, "seed": 7}),
    ],
)
def test_the_papers_rule_by_the_book(
    seed: int, prompts: tuple[int, ...], options: dict[str, Any]
) -> None:
    data = make_clusters(300, CLASSES, spread=0.35, seed=seed)
    labels = flip(data.truth, CLASSES, 0.3, seed)
    rng = np.random.default_rng(seed)
    texts = [
        text + 0.1 * rng.standard_normal((m, len(text)))
        for m, text in zip(prompts, data.texts, strict=True)
    ]
    found = score_labels(data.images, labels, texts, **options).selected
    by_the_book = dict(options)
    by_the_book["average_prompts"] = by_the_book.pop("prompt_reduce", "mean") == "mean"
    assert np.array_equal(found, select_by_the_book(data.images, labels, texts, **by_the_book))
    assert 20 < found.sum() < 280


@pytest.mark.parametrize(("kind", "rate"), [("symmetric", 0.2), ("asymmetric", 0.3)])
def test_the_papers_rule_by_the_book_on_real_features(kind: str, rate: float) -> None:
    try:
        data = load_caltech(DEFAULT_FOLDER)
    except DataMissingError as error:
        pytest.skip(str(error))
    labels = draw_noise(data.labels, 62, kind, rate, seed=1)
    found = score_labels(data.features, labels, data.texts)
    expected = select_by_the_book(data.features, labels, list(data.texts))
    assert np.array_equal(found.selected, expected)
    wrong, flagged = labels != data.labels, found.verdict == "mislabeled"
    assert np.sum(flagged & wrong) / flagged.sum() > 0.95
    assert np.sum(flagged & wrong) / wrong.sum() > 0.97


# Repeatable


def test_repetition_gives_the_same_bits(
    clusters: Clusters, noisy: np.ndarray, scores: LabelScores
) -> None:
    np.random.seed(3)
    assert same(score_labels(clusters.images, noisy, clusters.texts), scores)


@settings(max_examples=3)
@given(st.randoms(use_true_random=False))
def test_a_permutation_permutes_the_result_to_the_bit(random: np.random.RandomState) -> None:
    data = make_clusters(300, 3, dim=32, spread=0.4)
    data.images[7] = data.images[1]  # copies, in one class and in two
    data.images[8] = data.images[0]
    labels = flip(data.truth, 3, 0.3)
    labels[[3, 9]] = -1
    order = np.array(random.sample(range(300), 300))
    whole = score_labels(data.images, labels, data.texts)
    assert same(score_labels(data.images[order], labels[order], data.texts), whole, order)


def test_the_number_of_threads_changes_no_bit() -> None:
    program = (
        "import hashlib, numpy as np, sys; sys.path.insert(0, 'tests')\n"
        "from feature_clusters import *; from clipcleaner_plugin.scoring import *\n"
        "data = make_clusters(2000, 20, 128, 0.5); labels = flip(data.truth, 20, 0.3)\n"
        "s = score_labels(data.images, labels, data.texts)\n"
        "parts = [s.clean_score, s.suggested_confidence, *s.evidence.values()]\n"
        "print(hashlib.sha256(b''.join(p.tobytes() for p in parts)).hexdigest())\n"
    )
    root = Path(__file__).resolve().parent.parent
    digests = set()
    for threads in ("1", "3"):
        environment = {**os.environ, "OMP_NUM_THREADS": threads, "OPENBLAS_NUM_THREADS": threads}
        result = subprocess.run(
            [sys.executable, "-c", program],
            cwd=root,
            env=environment,
            capture_output=True,
            text=True,
            check=True,
        )
        digests.add(result.stdout.strip())
    assert len(digests) == 1 and len(digests.pop()) == 64


def test_blocks_do_not_show(
    monkeypatch: pytest.MonkeyPatch, clusters: Clusters, noisy: np.ndarray, scores: LabelScores
) -> None:
    monkeypatch.setattr(opinions, "_ROWS_OF_BLOCK", (7, 7))
    found = score_labels(clusters.images, noisy, clusters.texts)
    assert found.clean_score == pytest.approx(scores.clean_score, abs=1e-4)
    for name in EVIDENCE:
        assert found.evidence[name] == pytest.approx(scores.evidence[name], abs=1e-4)
    assert np.array_equal(found.suggested_label, scores.suggested_label)


@pytest.mark.parametrize("scale", [2.0**-20, 2.0**30])
def test_the_scale_of_features_plays_no_part(
    clusters: Clusters, noisy: np.ndarray, scores: LabelScores, scale: float
) -> None:
    assert same(score_labels(clusters.images * scale, noisy, clusters.texts * scale), scores)


def test_inputs_are_left_as_they_were(clusters: Clusters, noisy: np.ndarray) -> None:
    images, labels, texts = clusters.images * 3, noisy.copy(), clusters.texts * 3
    before = [array.copy() for array in (images, labels, texts)]
    score_labels(images, labels, texts)
    for array, copy in zip((images, labels, texts), before, strict=True):
        assert np.array_equal(array, copy)


def test_another_seed_deals_other_folds(
    clusters: Clusters, noisy: np.ndarray, scores: LabelScores
) -> None:
    other = score_labels(clusters.images, noisy, clusters.texts, seed=52)
    assert not np.array_equal(other.evidence["margin"], scores.evidence["margin"])
    in_sample = other.evidence["visual_loss"]
    assert in_sample == pytest.approx(scores.evidence["visual_loss"], abs=1e-3)


def test_options_of_the_papers_rule_leave_the_clean_score_alone(
    clusters: Clusters, noisy: np.ndarray, scores: LabelScores
) -> None:
    other = score_labels(
        clusters.images, noisy, clusters.texts, theta_gmm=0.9, theta_cons=0.99, temperature=0.5
    )
    assert np.array_equal(other.clean_score, scores.clean_score)
    assert not np.array_equal(other.selected, scores.selected)


# Rows that say nothing


def test_rows_without_image_or_label_cost_only_themselves(
    clusters: Clusters, noisy: np.ndarray, scores: LabelScores
) -> None:
    d = clusters.images.shape[1]
    holes = np.full((4, d), np.nan, dtype=np.float32)
    holes[1] = 0
    holes[2, 3] = np.inf
    holes[3] = clusters.images[0]
    images = np.concatenate([holes, clusters.images])
    labels = np.concatenate([[0, 1, 2, -1], noisy])
    found = score_labels(images, labels, clusters.texts)
    assert same(scores, found, slice(4, None))
    assert found.verdict[:4].tolist() == ["unscorable"] * 4
    assert found.suggested_label[:4].tolist() == [-1] * 4
    assert not found.selected[:4].any()
    for values in (found.clean_score, found.suggested_confidence, *found.evidence.values()):
        assert np.isnan(values[:4]).all()
    assert [text.split(" samples")[0] for text in found.warnings] == ["3 of 204", "1 of 204"]


def test_gaps_in_the_class_ids(clusters: Clusters, noisy: np.ndarray, scores: LabelScores) -> None:
    """Classes 1, 4, 5, 9 of a list of 12, whose other classes have names but no samples."""
    places = np.array([1, 4, 5, 9])
    far = np.random.default_rng(9).standard_normal((12, clusters.texts.shape[1]))
    texts = far - (far @ np.linalg.pinv(clusters.texts)) @ clusters.texts
    texts[places] = clusters.texts
    found = score_labels(clusters.images, places[noisy], texts)
    # But for rounding: the folds, by which rows are summed, depend on the ids
    expected = scores.evidence["visual_loss"]
    assert found.evidence["visual_loss"] == pytest.approx(expected, abs=1e-5)
    assert np.mean(found.verdict == scores.verdict) > 0.95
    assert np.mean(found.suggested_label == places[scores.suggested_label]) > 0.97
    assert found.warnings == ()
    visual = score_labels(clusters.images, places[noisy], num_classes=12)
    assert np.all(np.isin(visual.suggested_label, places))


@pytest.mark.parametrize("texts", [None, np.eye(3, 5), []])
def test_no_samples(texts: Any) -> None:
    found = score_labels(np.zeros((0, 5)), np.zeros(0, dtype=int), texts)
    assert all(len(column) == 0 for column in columns(found))
    holes = score_labels(np.full((3, 5), np.nan), np.array([-1, -1, -1]), texts)
    assert holes.verdict.tolist() == ["unscorable"] * 3


def test_without_language_the_visual_evidence_decides(
    clusters: Clusters, noisy: np.ndarray
) -> None:
    found = score_labels(clusters.images, noisy)
    assert found.language_weight == 0
    assert np.isnan(found.evidence["zeroshot_loss"]).all()
    assert np.isnan(found.evidence["zeroshot_consistency"]).all()
    wrong = noisy != clusters.truth
    assert np.mean((found.verdict == "mislabeled") == wrong) > 0.9
    assert found.selected.any()
    assert np.mean(wrong[found.selected]) < 0.1
