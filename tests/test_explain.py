"""What a run says beside its verdicts: reasons, images of no class, names that mean little."""

from __future__ import annotations

import fiftyone as fo
import numpy as np
import pytest
from feature_clusters import flip
from noisy_features import CLASSES, Maker, Noisy

import clipcleaner_plugin as cc
from clipcleaner_plugin.reasons import reasons

N, FOREIGN, K = 600, 90, 10


@pytest.fixture(scope="module")
def with_foreign() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Features of ten classes and, last, of images of none; given labels; texts."""
    rng = np.random.default_rng(3)
    centres = np.linalg.qr(rng.normal(size=(24, 24)))[0].astype(np.float32)
    truth = np.arange(N) % K
    images = np.concatenate([centres[truth], centres[rng.integers(K, 24, FOREIGN)]])
    images += 0.13 * rng.standard_normal(images.shape).astype(np.float32)
    given = np.concatenate([flip(truth, K, 0.1), rng.integers(K, size=FOREIGN)])
    # As CLIP's: images are not much closer to the text of their class than to others
    return images / np.linalg.norm(images, axis=1, keepdims=True), given, centres[:K] + 3


def test_images_of_no_class_are_told_with_and_without_names(
    with_foreign: tuple[np.ndarray, np.ndarray, np.ndarray],
) -> None:
    images, given, texts = with_foreign
    foreign = np.arange(N + FOREIGN) >= N
    for names in (texts, None):
        found = cc.score_labels(images, given, names, num_classes=K).open_set
        assert found.dtype == bool and found.shape == foreign.shape
        assert np.mean(foreign[found]) > 0.8 and np.mean(found[foreign]) > 0.6
        alone = cc.score_labels(images[:N], given[:N], names, num_classes=K)
        assert np.mean(alone.open_set) < 0.01
    trusted = np.zeros(N + FOREIGN, dtype=bool)
    trusted[np.flatnonzero(found)[:3]] = True
    again = cc.score_labels(images, given, num_classes=K, trusted=trusted)
    np.testing.assert_array_equal(again.open_set, found & ~trusted)


def test_the_flag_is_a_field_a_view_and_a_count(
    with_foreign: tuple[np.ndarray, np.ndarray, np.ndarray], dataset: Maker
) -> None:
    images, given, _ = with_foreign
    names = [f"class {k}" for k in range(K)]
    made = dataset(
        [
            fo.Sample(f"/nowhere/{i}.jpg", ground_truth=fo.Classification(label=names[k]))
            for i, k in enumerate(given)
        ]
    )
    images = images.copy()
    images[0] = np.nan
    options = {"embeddings": images, "classes": names, "model": None}
    results = cc.apply_clipcleaner(made, key="run", **options)
    expected = cc.score_labels(images, given, num_classes=K).open_set
    assert expected.sum() > 10
    flags = made.values("run_open_set")
    assert flags[0] is None and flags[1:] == expected[1:].tolist()
    assert set(results.view("open_set").values("id")) == set(
        np.array(made.values("id"))[expected].tolist()
    )
    counted = results.open_set_count(), results.summary().open_set, results.statistics().open_set
    assert counted == (expected.sum(),) * 3
    assert f"{expected.sum()} seem to belong to none of the classes" in str(results.summary())
    assert cc.get_run_info(made, "run")["record"]["open_set"] == expected.sum()

    cc.rename_run(made, "run", "later")
    assert made.values("later_open_set") == flags and results.open_set_count() == expected.sum()
    indexes = set(made.get_index_information())
    assert "later_open_set_1_later_score_1" in indexes
    cc.delete_run(made, "later")
    left = set(made.get_field_schema()) | set(made.get_index_information())
    assert not any("later" in name or "run" in name for name in left)


def test_every_label_to_review_has_its_reason(dataset: Maker) -> None:
    noisy = Noisy(dataset)
    results = noisy.apply()
    given = np.array([CLASSES.index(name) for name in noisy.dataset.values("ground_truth.label")])
    scores = cc.score_labels(noisy.features, given, noisy.text)
    asked = np.isin(scores.verdict, ("mislabeled", "uncertain"))
    expected = reasons(
        asked,
        given,
        CLASSES,
        scores.language_label,
        scores.language_confidence,
        scores.visual_label,
        scores.visual_confidence,
        scores.given_confidence,
        scores.open_set,
    )
    assert noisy.dataset.values("clipcleaner_reason") == expected
    worst = results.mislabeled_view().first()
    suggestion, label = worst.clipcleaner_suggestion.label, worst.ground_truth.label
    assert f"looks: {suggestion} " in worst.clipcleaner_reason
    assert worst.clipcleaner_reason.endswith(f"given: {label} <.01")

    noisy.apply(text_features=None, model=None)
    said = results.mislabeled_view().values("clipcleaner_reason")
    assert said and all(text.startswith("looks: ") for text in said)


def test_a_name_that_means_little_is_named_wherever_a_run_is_described(dataset: Maker) -> None:
    noisy = Noisy(dataset)
    sound = noisy.apply()
    assert sound.record["warnings"] == []
    report = sound.class_report()
    assert list(report) == CLASSES and not any(found.rewrite for found in report.values())
    assert all(found.beats_chance and found.words > 0.9 for found in report.values())
    labels = noisy.dataset.count_values("ground_truth.label")
    assert {name: found.count for name, found in report.items()} == labels

    noisy.text[1] = -noisy.text[1]  # "dog"
    results = noisy.apply()
    assert [name for name, found in results.class_report().items() if found.rewrite] == ["dog"]
    loaded = cc.load_results(noisy.dataset)
    assert loaded.class_report() == results.class_report()
    sentence = "Class names that mean little to the model: 'dog'. "
    for texts in (
        loaded.summary().warnings,
        cc.get_run_info(noisy.dataset)["record"]["warnings"],
        [str(loaded.summary()).partition("warning: ")[2]],
    ):
        assert any(text.startswith(sentence) for text in texts)


def test_a_run_of_an_earlier_version_has_neither(dataset: Maker) -> None:
    results = Noisy(dataset).apply()
    del results.record["class_report"], results.record["open_set"]
    results.dataset.delete_sample_fields(["clipcleaner_open_set", "clipcleaner_reason"])
    assert results.class_report() == {}
    assert results.summary().open_set == 0
    cc.rename_run(results.dataset, "clipcleaner", "later")
    assert results.counts()["mislabeled"] == 40
    cc.delete_run(results.dataset, "later")
