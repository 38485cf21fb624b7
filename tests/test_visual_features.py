"""Features of a second model for the visual opinion, beside those that names are compared with."""

from __future__ import annotations

from collections.abc import Callable

import fiftyone as fo
import numpy as np
import pytest
from feature_clusters import Clusters, flip, make_clusters

import clipcleaner_plugin as cc


@pytest.fixture(scope="module")
def clusters() -> Clusters:
    return make_clusters(300, 5, spread=0.3)


@pytest.fixture(scope="module")
def labels(clusters: Clusters) -> np.ndarray:
    return flip(clusters.truth, 5, 0.2)


@pytest.fixture(scope="module")
def blurred(clusters: Clusters) -> np.ndarray:
    """What a poor model sees of the images."""
    noise = np.random.default_rng(1).standard_normal(clusters.images.shape)
    return (clusters.images + 0.6 * noise).astype(np.float32)


def same(a: cc.LabelScores, b: cc.LabelScores) -> bool:
    return all(
        np.array_equal(getattr(a, name), getattr(b, name), equal_nan=True)
        for name in ("clean_score", "suggested_label", "visual_confidence", "language_confidence")
    ) and np.array_equal(a.verdict, b.verdict)


def test_the_same_features_twice_change_nothing(clusters: Clusters, labels: np.ndarray) -> None:
    once = cc.score_labels(clusters.images, labels, clusters.texts)
    twice = cc.score_labels(
        clusters.images, labels, clusters.texts, visual_features=clusters.images.copy()
    )
    assert same(once, twice)


def test_each_opinion_has_its_own_features(
    clusters: Clusters, labels: np.ndarray, blurred: np.ndarray
) -> None:
    # Of another width, so that it would not go unnoticed were the names compared with them
    wide = np.concatenate([clusters.images, clusters.images], axis=1)
    both = cc.score_labels(blurred, labels, clusters.texts, visual_features=wide)
    images_alone = cc.score_labels(wide, labels)
    words = cc.score_labels(blurred, labels, clusters.texts)
    assert np.array_equal(both.language_label, words.language_label)
    agreement = np.mean(both.visual_label == images_alone.visual_label)
    assert agreement > 0.97, "cleaned with the help of the names, it may differ a little"
    wrong = labels != clusters.truth
    found = [np.mean((s.verdict == "mislabeled") == wrong) for s in (both, words)]
    assert found[0] > 0.97 > found[1]


def test_samples_in_another_order_get_the_same_scores(
    clusters: Clusters, labels: np.ndarray, blurred: np.ndarray
) -> None:
    order = np.random.default_rng(2).permutation(len(labels))
    a = cc.score_labels(blurred, labels, clusters.texts, visual_features=clusters.images)
    b = cc.score_labels(
        blurred[order], labels[order], clusters.texts, visual_features=clusters.images[order]
    )
    assert np.array_equal(a.clean_score[order], b.clean_score)


def test_a_sample_without_them_is_unscorable(clusters: Clusters, labels: np.ndarray) -> None:
    visual = clusters.images.copy()
    visual[3] = np.nan
    scores = cc.score_labels(clusters.images, labels, clusters.texts, visual_features=visual)
    assert np.flatnonzero(scores.verdict == "unscorable").tolist() == [3]


@pytest.mark.parametrize("shape", [(299, 16), (300,), (300, 0)])
def test_a_shape_that_does_not_fit_is_named(
    clusters: Clusters, labels: np.ndarray, shape: tuple[int, ...]
) -> None:
    with pytest.raises(ValueError, match=r"visual_features .*(299|\(300,|one row)"):
        cc.score_labels(clusters.images, labels, clusters.texts, visual_features=np.ones(shape))


def test_a_run_takes_them_from_a_field_and_says_so(
    dataset: Callable[..., fo.Dataset],
    clusters: Clusters,
    labels: np.ndarray,
    blurred: np.ndarray,
) -> None:
    made = dataset(
        [
            fo.Sample(filepath=f"/none/{i}.png", ground_truth=fo.Classification(label=str(k)))
            for i, k in enumerate(labels)
        ]
    )
    made.add_sample_field("dino", fo.VectorField)
    made.set_values("dino", list(clusters.images))
    texts = {str(k): text for k, text in enumerate(clusters.texts)}
    cc.apply_clipcleaner(
        made, embeddings=blurred, text_features=texts, visual_embeddings="dino", progress=False
    )
    expected = cc.score_labels(blurred, labels, clusters.texts, visual_features=clusters.images)
    assert np.allclose(made.values("clipcleaner_score"), expected.clean_score)
    assert cc.get_run_info(made, "clipcleaner")["parameters"]["visual_source"] == "dino"
    with pytest.raises(ValueError, match="visual_embeddings='nothing' is neither a field"):
        cc.apply_clipcleaner(
            made, embeddings=blurred, text_features=texts, visual_embeddings="nothing"
        )
