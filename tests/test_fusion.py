"""Both opinions together: who is trusted, what is said of each, how good probabilities are."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from feature_clusters import Clusters, flip, make_clusters
from noisy_features import gaussian_classes

from benchmarks.data import DEFAULT_FOLDER, DataMissingError, FeatureSet, load_sets
from benchmarks.noise import lookalike_noise
from benchmarks.settings import make_task
from clipcleaner_plugin import fusion
from clipcleaner_plugin.noise import draw_noise
from clipcleaner_plugin.noise_fit import Fit, fit_noise_model
from clipcleaner_plugin.scoring import LabelScores, score_labels


@pytest.fixture(scope="module")
def clusters() -> Clusters:
    return make_clusters(400, 4, spread=0.3)


def calibration_error(scores: LabelScores, wrong: np.ndarray) -> float:
    """Expected calibration error of the clean score in ten bins."""
    bins = np.minimum((scores.clean_score * 10).astype(int), 9)
    right = ~wrong
    gaps = [
        abs(right[bins == b].mean() - scores.clean_score[bins == b].mean()) * np.mean(bins == b)
        for b in np.unique(bins)
    ]
    return float(np.sum(gaps))


@pytest.mark.parametrize("share", [0.0, 0.05, 0.2, 0.4])
def test_scores_are_probabilities(clusters: Clusters, share: float) -> None:
    labels = flip(clusters.truth, 4, share)
    scores = score_labels(clusters.images, labels, clusters.texts)
    wrong = labels != clusters.truth
    assert calibration_error(scores, wrong) < 0.05
    assert np.mean(1 - scores.clean_score) == pytest.approx(share, abs=0.02)


def test_a_name_that_misleads_is_not_heard() -> None:
    """With the wrong name, labels drawn at random explain as much as names that are believed."""
    features, truth, names = gaussian_classes(240)
    labels = truth.copy()
    labels[:40] = (truth[:40] + 1) % 3
    names[1] = -names[1]
    found = score_labels(features, labels, names)
    assert np.array_equal(found.suggested_label, truth)
    assert np.array_equal(found.clean_score < 0.5, labels != truth)


def test_names_that_mean_nothing_lose_their_voice(clusters: Clusters) -> None:
    labels = flip(clusters.truth, 4, 0.2)
    random = np.random.default_rng(1).standard_normal(clusters.texts.shape)
    good = score_labels(clusters.images, labels, clusters.texts)
    bad = score_labels(clusters.images, labels, random)
    assert bad.language_weight < 0.1 < good.language_weight
    wrong = labels != clusters.truth
    assert np.mean((bad.verdict == "mislabeled") == wrong) > 0.97


def test_each_opinion_is_told_with_its_probability(clusters: Clusters) -> None:
    labels = flip(clusters.truth, 4, 0.2)
    scores = score_labels(clusters.images, labels, clusters.texts)
    for name in ("language", "visual"):
        first, confidence = getattr(scores, f"{name}_label"), getattr(scores, f"{name}_confidence")
        assert np.mean(first == clusters.truth) > 0.95
        assert np.mean(confidence) == pytest.approx(np.mean(first == clusters.truth), abs=0.05)
    wrong = labels != clusters.truth
    assert np.median(scores.given_confidence[wrong]) < 0.1 < 0.9
    assert np.median(scores.given_confidence[~wrong]) > 0.9
    without = score_labels(clusters.images, labels)
    assert np.all(without.language_label == -1) and np.isnan(without.language_confidence).all()


def test_the_margin_is_the_log_odds_of_the_score(clusters: Clusters) -> None:
    scores = score_labels(clusters.images, flip(clusters.truth, 4, 0.2), clusters.texts)
    odds = 1 / (1 + np.exp(-scores.evidence["margin"].astype(np.float64)))
    assert np.allclose(scores.clean_score, odds, atol=1e-6)
    assert np.array_equal(
        scores.clean_score < 0.5, scores.suggested_label != flip(clusters.truth, 4, 0.2)
    )


@pytest.fixture(scope="module")
def sets() -> dict[str, FeatureSet]:
    try:
        return {data.name: data for data in load_sets(DEFAULT_FOLDER)}
    except DataMissingError as error:
        pytest.skip(str(error))


def f1(scores: LabelScores, wrong: np.ndarray) -> float:
    flagged = scores.verdict == "mislabeled"
    return float(2 * np.sum(flagged & wrong) / (np.sum(flagged) + np.sum(wrong)))


@pytest.mark.parametrize(("name", "least"), [("caltech101", 0.98), ("dtd", 0.88)])
def test_pair_flips_on_real_features(sets: dict[str, FeatureSet], name: str, least: float) -> None:
    """The rule before reached .98 and .72, equal weights .97 and .58."""
    data = sets[name]
    noisy = draw_noise(data.labels, len(data.texts), "asymmetric", 0.3, 0)
    scores = score_labels(data.features, noisy, data.texts)
    wrong = noisy != data.labels
    assert f1(scores, wrong) > least
    assert np.mean(1 - scores.clean_score) == pytest.approx(np.mean(wrong), abs=0.02)
    assert calibration_error(scores, wrong) < 0.05


def test_few_samples_are_fitted_for_as_long_as_they_need(
    sets: dict[str, FeatureSet], monkeypatch: pytest.MonkeyPatch
) -> None:
    gained: list[float] = []

    def watch(*args: Any, fine: bool = False, **options: Any) -> Fit:
        found = fit_noise_model(*args, fine=fine, **options)
        if fine:
            gained.append(fit_noise_model(*args, **options).cost - found.cost)
        return found

    monkeypatch.setattr(fusion, "fit_noise_model", watch)
    for seed in (1, 3, 5):
        task = make_task(sets["dtd"], "300 samples", "pair flips 30 %", seed)
        score_labels(task.features, task.given, task.texts)
    assert np.mean(gained) > 2, "nats"


@pytest.mark.parametrize(("name", "least"), [("caltech101", 0.95), ("dtd", 0.72)])
def test_ambiguous_images_taken_for_lookalikes_are_found(
    sets: dict[str, FeatureSet], name: str, least: float
) -> None:
    """Noise that the features explain: without carelessness .92 and .39; cleanlab .86 and .71."""
    data = sets[name]
    noisy = lookalike_noise(data.features, data.labels, len(data.texts), 0.3, 0)
    scores = score_labels(data.features, noisy, data.texts)
    assert f1(scores, noisy != data.labels) > least


def test_right_labels_are_not_taken_for_careless_where_the_samples_say_enough() -> None:
    """Its regression is as sure as right: many samples for so few features. A fifth was flagged."""
    random = np.random.default_rng(0)
    centers = random.standard_normal((10, 64)) * 0.35 / 8
    labels = random.integers(0, 10, 500)
    spread = random.standard_normal((500, 64)) / 8 * np.exp(0.5 * random.standard_normal((500, 1)))
    scores = score_labels(centers[labels] + spread, labels)
    assert np.mean(scores.visual_label == labels) < 0.8, "the classes overlap"
    assert np.mean(scores.verdict == "mislabeled") < 0.01


def test_clean_labels_of_overlapping_classes_are_left_alone(sets: dict[str, FeatureSet]) -> None:
    """A quarter was flagged by the rule before."""
    data = sets["dtd"]
    scores = score_labels(data.features, data.labels, data.texts)
    assert np.mean(scores.verdict == "mislabeled") < 0.01
