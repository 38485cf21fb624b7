"""What decisions do to later runs and exports: kept, trusted, left out."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path

import fiftyone as fo
import numpy as np
import pytest
from exports import by_id
from feature_clusters import flip, make_clusters
from noisy_digits import make_samples
from noisy_features import Noisy

import clipcleaner_plugin as cc
from clipcleaner_plugin.decisions import decisions
from training.bundle import read_bundle

Maker = Callable[..., fo.Dataset]


def test_decisions_are_read_in_the_order_of_the_samples(noisy: Noisy) -> None:
    worst = cc.load_results(noisy.dataset).mislabeled_view().values("id")
    assert not decisions(noisy.dataset, "ground_truth").trusted.any(), "before any review"
    results = cc.load_results(noisy.dataset)
    results.accept_suggestions(worst[:3])
    results.confirm_labels(worst[3:5])
    results.drop(worst[5:9])
    backwards = noisy.dataset.select(worst[::-1], ordered=True)
    trusted, dropped = decisions(backwards, "ground_truth")
    assert trusted[::-1].tolist() == [True] * 5 + [False] * 35
    assert dropped[::-1].tolist() == [False] * 5 + [True] * 4 + [False] * 31


def test_a_later_run_keeps_decisions_and_leaves_dropped_samples_out(noisy: Noisy) -> None:
    results = cc.load_results(noisy.dataset)
    worst = results.mislabeled_view().values("id")
    results.confirm_labels(worst[:3])
    results.drop(worst[3:5])
    fields = ["ground_truth_review", "ground_truth_review_log", "ground_truth.label"]
    before = noisy.dataset.values(fields)
    again = noisy.apply()
    assert noisy.dataset.values(fields) == before
    dropped = noisy.dataset.select(worst[3:5])
    assert dropped.values("clipcleaner_verdict") == ["unscorable"] * 2
    assert dropped.values("clipcleaner_score") == [None] * 2
    assert again.summary().unscorable == {"dropped in a review": 2}
    assert len(again.view("unscorable")) == 0, "there is nothing to look at"
    # Undone, they take part again
    cc.undo_review(noisy.dataset)
    assert noisy.apply().summary().unscorable == {}


def test_a_later_run_never_flags_what_a_reviewer_vouched_for(noisy: Noisy) -> None:
    results = cc.load_results(noisy.dataset)
    worst = results.mislabeled_view().values("id")
    results.confirm_labels(worst[:3])
    results.accept_suggestions(worst[3:6], label="owl")
    for key in ("clipcleaner", "another"):
        again = noisy.apply(key=key)
        decided = noisy.dataset.select(worst[:6], ordered=True)
        assert decided.values(again.field("verdict")) == ["clean"] * 6
        assert decided.values(again.field("score")) == [1.0] * 6
        suggested = decided.values(f"{again.field('suggestion')}.label")
        assert suggested == decided.values("ground_truth.label")
        assert again.counts()["mislabeled"] == 34
        again.reselect(theta_score=0.9)
        assert "mislabeled" not in decided.values(again.field("verdict"))


def test_trusted_labels_on_arrays() -> None:
    clusters = make_clusters()
    labels = flip(clusters.truth, 4, 0.2)
    labels[:2] = -1
    plain = cc.score_labels(clusters.images, labels, clusters.texts)
    trusted = np.zeros(200, dtype=bool)
    trusted[np.flatnonzero(plain.verdict == "mislabeled")[:5]] = True
    trusted[:1] = True  # nobody can vouch for no label
    scores = cc.score_labels(clusters.images, labels, clusters.texts, trusted=trusted)
    sure = trusted & (labels >= 0)
    assert sure.sum() == 5
    assert np.all(scores.verdict[sure] == "clean") and np.all(scores.clean_score[sure] == 1)
    assert np.all(scores.suggested_label[sure] == labels[sure]) and np.all(scores.selected[sure])
    assert scores.verdict[0] == "unscorable" and np.isnan(scores.clean_score[0])
    for name in ("clean_score", "verdict", "suggested_label", "suggested_confidence", "selected"):
        before, after = getattr(plain, name), getattr(scores, name)
        assert before.dtype == after.dtype
        np.testing.assert_array_equal(before[~sure], after[~sure])
    with pytest.raises(ValueError, match=r"trusted must have the shape \(200,\)"):
        cc.score_labels(clusters.images, labels, clusters.texts, trusted=trusted[:9])
    with pytest.raises(TypeError, match="trusted must be a bool array"):
        cc.score_labels(clusters.images, labels, clusters.texts, trusted=labels)


def test_only_new_samples_are_embedded(
    dataset: Maker, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    samples = make_samples(tmp_path, 130)
    for sample in samples:
        sample.clear_field("pixels")
    digits = dataset(samples[:100])
    options = {"model": cc.TINY_CLIP, "pretrained": None}
    with caplog.at_level(logging.INFO, "clipcleaner_plugin"):
        results = digits.apply_clipcleaner("ground_truth", **options)
        assert "Computing 100 of 100 embeddings" in caplog.text
        worst = results.mislabeled_view().values("id")
        results.confirm_labels(worst[:4])
        results.accept_suggestions(worst[4:8])
        decided = digits.values("ground_truth_review")
        digits.add_samples(samples[100:], progress=False)
        caplog.clear()
        results = digits.apply_clipcleaner("ground_truth", **options)
    assert "Computing 30 of 130 embeddings" in caplog.text
    assert digits.values("ground_truth_review") == decided + [None] * 30
    assert digits.count("clipcleaner_verdict") == digits.count("clipcleaner_embedding") == 130
    assert digits.select(worst[:8]).distinct("clipcleaner_verdict") == ["clean"]


def test_dropped_samples_are_not_said_to_have_no_label(noisy: Noisy) -> None:
    cc.drop(noisy.dataset.select(noisy.ids[:3]))

    def said() -> list[str]:
        warnings = noisy.apply(progress=False).record["warnings"]
        return [text for text in warnings if "no label" in text]

    assert said() == []
    noisy.dataset.select(noisy.ids[5:7]).set_values("ground_truth", [None, None])
    assert said() == ["2 of 240 samples have no label and are unscorable"]


def test_an_export_follows_the_decisions(digits: fo.Dataset, tmp_path: Path) -> None:
    results = cc.load_results(digits)
    worst = results.mislabeled_view().values("id")
    results.accept_suggestions(worst[:2])
    results.confirm_labels(worst[2:4])
    results.drop([worst[4], results.clean_view().first().id])
    results.start_review(n=4)
    report = results.export(tmp_path / "b")
    bundle = read_bundle(tmp_path / "b")
    selected, scores = by_id(bundle, bundle.selected), by_id(bundle, bundle.clean_score)
    assert all(selected[i] and scores[i] == 1 for i in worst[:4])
    assert not selected[worst[5]]
    assert worst[4] not in selected and len(selected) == 98
    assert set(report.left_out.values()) == {"dropped in a review"}
    labels = dict(zip(*digits.values(["id", "ground_truth.label"]), strict=True))
    names = list(bundle.classes)
    assert {i: names[k] for i, k in by_id(bundle, bundle.labels).items()} == {
        i: labels[i] for i in bundle.ids
    }
    assert worst[0] not in (tmp_path / "b" / "bundle.json").read_text(), "no ids of the sample"


def test_only_decided_and_clean_samples_are_exported_as_cleaned(
    digits: fo.Dataset, tmp_path: Path
) -> None:
    results = cc.load_results(digits)
    worst = results.mislabeled_view().values("id")
    clean = set(results.clean_view().values("id"))
    results.accept_suggestions(worst[:2])
    results.confirm_labels(worst[2:4])
    results.drop(worst[4:])
    results.export(format="dataset", dataset_name="reviewed-export")
    exported = fo.load_dataset("reviewed-export")
    try:
        assert set(exported.values("filepath")) == set(
            digits.select([*clean, *worst[:4]]).values("filepath")
        )
    finally:
        exported.delete()
