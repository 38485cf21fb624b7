"""apply_clipcleaner on real datasets with given embeddings: what it writes and refuses."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import fiftyone as fo
import numpy as np
import pytest
from noisy_features import CLASSES, Maker, Noisy, add_vectors, snapshot

import clipcleaner_plugin as cc


@pytest.fixture
def noisy(dataset: Maker) -> Noisy:
    return Noisy(dataset)


def test_the_planted_errors_are_found_and_the_right_labels_suggested(noisy: Noisy) -> None:
    results = noisy.dataset.apply_clipcleaner(
        embeddings=noisy.features, text_features=noisy.text, label_field="ground_truth"
    )
    view = results.mislabeled_view()
    assert set(view.values("id")) == noisy.wrong
    assert view.values("clipcleaner_suggestion.label") == view.values("trusted.label")
    assert view.values("clipcleaner_score") == sorted(view.values("clipcleaner_score"))
    evaluation = results.evaluate("trusted")
    assert (evaluation["found"], evaluation["missed"], evaluation["falsely_flagged"]) == (40, 0, 0)
    assert evaluation["auroc"] == 1 and evaluation["suggestions_right"] == 1
    assert evaluation["noise_rate"] == pytest.approx(40 / 240)


def test_the_fields_are_what_score_labels_says(noisy: Noisy) -> None:
    noisy.apply()
    labels = np.array([CLASSES.index(name) for name in noisy.dataset.values("ground_truth.label")])
    scores = cc.score_labels(noisy.features, labels, noisy.text)
    for name in ("zeroshot_loss", "zeroshot_consistency", "visual_loss", "visual_consistency"):
        stored = np.array(noisy.dataset.values(f"clipcleaner_{name}"), dtype=np.float32)
        np.testing.assert_array_equal(stored, scores.evidence[name])
    stored = np.array(noisy.dataset.values("clipcleaner_score"), dtype=np.float32)
    np.testing.assert_array_equal(stored, scores.clean_score)
    assert noisy.dataset.values("clipcleaner_verdict") == list(scores.verdict)
    suggested = [CLASSES[k] for k in scores.suggested_label]
    assert noisy.dataset.values("clipcleaner_suggestion.label") == suggested


def test_two_runs_give_the_same_bits(noisy: Noisy) -> None:
    noisy.apply()
    first = snapshot(noisy.dataset)
    noisy.apply()
    assert snapshot(noisy.dataset) == first


def test_score_and_verdict_are_indexed_and_views_are_rules(noisy: Noisy) -> None:
    noisy.apply()
    indexes = noisy.dataset.get_index_information()
    assert {"clipcleaner_score", "clipcleaner_verdict"} <= set(indexes)
    view = noisy.dataset.load_saved_view("clipcleaner: mislabeled")
    assert set(view.values("id")) == noisy.wrong
    assert len(str(view._serialize())) < 1000  # a rule, not a list of ids
    # A rule follows later changes of the verdicts
    sample = view.first()
    sample["clipcleaner_verdict"] = "clean"
    sample.save()
    assert len(noisy.dataset.load_saved_view("clipcleaner: mislabeled")) == 39


def test_a_view_is_scored_alone(noisy: Noisy) -> None:
    view = noisy.dataset.select(noisy.ids[:150])
    results = noisy.apply(view, embeddings=noisy.features[:150])
    assert noisy.dataset.count("clipcleaner_verdict") == 150
    assert set(results.mislabeled_view().values("id")) == noisy.wrong
    assert set(noisy.dataset.load_brain_view("clipcleaner").values("id")) == set(noisy.ids[:150])


def test_applying_again_replaces_the_run_on_all_samples(noisy: Noisy) -> None:
    noisy.apply()
    results = noisy.apply(noisy.dataset.limit(100), embeddings=noisy.features[:100], theta_cons=0.5)
    assert noisy.dataset.count("clipcleaner_verdict") == 100
    assert cc.list_runs(noisy.dataset) == ["clipcleaner"]
    assert sum(results.counts().values()) == 100
    assert cc.get_run_info(noisy.dataset)["parameters"]["theta_cons"] == 0.5


def test_two_keys_live_side_by_side_and_die_alone(noisy: Noisy) -> None:
    noisy.apply(key="words")
    noisy.apply(key="looks", model=None, text_features=None)
    assert cc.list_runs(noisy.dataset) == ["looks", "words"]
    assert noisy.dataset.count("looks_zeroshot_loss") == 0
    before = snapshot(noisy.dataset, "words")
    cc.delete_run(noisy.dataset, "looks")
    assert snapshot(noisy.dataset, "words") == before
    assert not [f for f in noisy.dataset.get_field_schema() if f.startswith("looks")]
    assert noisy.dataset.list_saved_views() == [
        f"words: {verdict}" for verdict in ("mislabeled", "clean", "uncertain")
    ]


def test_delete_leaves_nothing(noisy: Noisy) -> None:
    schema, indexes = set(noisy.dataset.get_field_schema()), set(noisy.dataset.list_indexes())
    noisy.apply()
    cc.delete_run(noisy.dataset, "clipcleaner")
    assert set(noisy.dataset.get_field_schema()) == schema
    assert set(noisy.dataset.list_indexes()) == indexes
    assert noisy.dataset.list_saved_views() == []
    assert noisy.dataset.list_brain_runs() == []
    with pytest.raises(ValueError, match="no CLIPCleaner run 'clipcleaner'; runs here: none"):
        cc.load_results(noisy.dataset)


def test_fiftyones_own_delete_and_rename_work_too(noisy: Noisy) -> None:
    noisy.apply()
    noisy.dataset.rename_brain_run("clipcleaner", "second")
    assert cc.load_results(noisy.dataset, "second").counts()["mislabeled"] == 40
    noisy.dataset.delete_brain_run("second")
    assert not [f for f in noisy.dataset.get_field_schema() if "clipcleaner" in f or "second" in f]


def test_rename_moves_fields_indexes_views_and_results(noisy: Noisy) -> None:
    noisy.apply()
    before = snapshot(noisy.dataset)
    cc.rename_run(noisy.dataset, "clipcleaner", "renamed")
    assert snapshot(noisy.dataset, "renamed") == before
    assert not [f for f in noisy.dataset.get_field_schema() if f.startswith("clipcleaner")]
    assert {"renamed_score", "renamed_verdict"} <= set(noisy.dataset.list_indexes())
    assert set(noisy.dataset.load_saved_view("renamed: mislabeled").values("id")) == noisy.wrong
    assert len(noisy.dataset.list_saved_views()) == 3
    noisy.dataset.reload()
    assert set(cc.load_results(noisy.dataset, "renamed").mislabeled_view().values("id")) == (
        noisy.wrong
    )
    # The old name is free again
    noisy.apply()
    assert cc.list_runs(noisy.dataset) == ["clipcleaner", "renamed"]


@pytest.mark.parametrize("new_key", ["not a name", "other", "taken"])
def test_a_bad_new_name_changes_nothing(noisy: Noisy, new_key: str) -> None:
    noisy.apply()
    noisy.apply(key="other")
    noisy.dataset.add_sample_field("taken_score", fo.FloatField)
    before = snapshot(noisy.dataset)
    with pytest.raises(ValueError, match=new_key):
        cc.rename_run(noisy.dataset, "clipcleaner", new_key)
    assert snapshot(noisy.dataset) == before
    assert cc.list_runs(noisy.dataset) == ["clipcleaner", "other"]


def test_results_load_from_the_database_alone(noisy: Noisy) -> None:
    made = noisy.apply()
    noisy.dataset.clear_cache()
    noisy.dataset._brain_cache.clear()
    loaded = cc.load_results(noisy.dataset)
    assert loaded is not made
    assert loaded.record == made.record
    assert str(loaded.summary()) == str(made.summary())
    assert loaded.confusions() == made.confusions()
    info = cc.get_run_info(noisy.dataset)
    assert info["finished"] and info["record"]["classes"] == CLASSES
    assert info["parameters"]["versions"]["fiftyone"] == fo.__version__


def test_summary_says_counts_noise_and_classes(noisy: Noisy) -> None:
    results = noisy.apply()
    summary = results.summary()
    assert summary.counts["mislabeled"] == 40 and sum(summary.counts.values()) == 240
    assert summary.noise.low <= 40 / 240 <= summary.noise.high
    assert set(summary.by_class) == set(CLASSES)
    assert sum(rate.count for rate in summary.by_class.values()) == 240
    assert "40 of 240 labels look wrong" in repr(results)
    assert "estimated noise rate" in str(summary)


def test_confusions_count_the_pairs(noisy: Noisy) -> None:
    confusions = noisy.apply().confusions()
    flagged = noisy.dataset.select(list(noisy.wrong))
    pairs = list(zip(*flagged.values(["ground_truth.label", "trusted.label"]), strict=True))
    assert confusions == sorted(
        {(g, s, pairs.count((g, s))) for g, s in pairs}, key=lambda c: (-c[2], c[0], c[1])
    )


def test_reselect_equals_a_new_run_and_is_kept(noisy: Noisy) -> None:
    noisy.apply(theta_gmm=1.0, theta_cons=0.9)
    strict = noisy.dataset.values("clipcleaner_verdict")
    results = noisy.apply()
    default = noisy.dataset.values("clipcleaner_verdict")
    assert strict != default
    counts = results.reselect(theta_gmm=1.0, theta_cons=0.9)
    assert noisy.dataset.values("clipcleaner_verdict") == strict
    assert counts == results.counts()
    assert cc.get_run_info(noisy.dataset)["parameters"]["theta_cons"] == 0.9
    with pytest.raises(ValueError, match="theta_cons must be in"):
        results.reselect(theta_cons=1.5)


def test_a_refused_reselect_changes_nothing(noisy: Noisy) -> None:
    results = noisy.apply()
    with pytest.raises(ValueError, match="theta_cons"):
        results.reselect(theta_gmm=0.9, theta_cons=3)
    assert results.config.theta_gmm == 0.5


def test_results_outlive_labels_and_samples(noisy: Noisy) -> None:
    results = noisy.apply()
    wrong = results.mislabeled_view().values("id")
    noisy.dataset.set_values("ground_truth", dict.fromkeys(wrong[:20]), key_field="id")
    assert sum(n for _, _, n in results.confusions()) == 20
    assert all(None not in (given, suggested) for given, suggested, _ in results.confusions())
    noisy.dataset.delete_samples(noisy.ids)
    assert str(results.summary()).startswith("0 samples")


REPLACE = """
import sys
import fiftyone as fo
import clipcleaner_plugin as cc

dataset = fo.load_dataset(sys.argv[1])
options = dict(embeddings="emb", model=None, classes=["owl", "dog", "cat"], theta_cons=0.5)
for line in sys.stdin:
    dataset.reload()
    cc.apply_clipcleaner(dataset, **options)
    print("replaced", flush=True)
"""


def test_results_are_those_of_the_process_that_wrote_last(noisy: Noisy, repo_root: Path) -> None:
    dataset = noisy.dataset
    add_vectors(noisy, "emb")
    dataset.persistent = True  # else the other process would delete it at its end

    command = [sys.executable, "-c", REPLACE, dataset.name]
    other = subprocess.Popen(
        command, cwd=repo_root, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )

    def replace() -> None:
        assert other.stdin is not None and other.stdout is not None
        other.stdin.write("again\n")
        other.stdin.flush()
        assert any(line == "replaced\n" for line in other.stdout), "it failed"

    replace()
    with pytest.raises(ValueError, match=r"dataset\.reload\(\)"):
        cc.load_results(dataset)
    dataset.reload()
    noisy.apply()
    held = cc.load_results(dataset)
    dataset.info["not saved"] = 1
    replace()
    other.communicate()
    assert cc.get_run_info(dataset)["record"]["classes"] == ["owl", "dog", "cat"]
    assert cc.get_run_info(dataset)["parameters"]["theta_cons"] == 0.5
    loaded = cc.load_results(dataset)
    assert loaded.record["classes"] == held.record["classes"] == ["owl", "dog", "cat"]
    assert loaded.config.theta_cons == held.config.theta_cons == 0.5
    assert dataset.info["not saved"] == 1
    before = snapshot(dataset)
    loaded.reselect()
    assert snapshot(dataset) == before


def test_figures_hold_the_counts(noisy: Noisy) -> None:
    figures = noisy.apply().plot()
    bars = {trace.name: sum(trace.y) for trace in figures["scores"].data}
    assert bars["mislabeled"] == 40 and sum(bars.values()) == 240
    assert sum(n for row in figures["confusions"].data[0].z for n in row if n) == 40
    assert set(figures["classes"].data[0].y) == set(CLASSES)
    for axis in (figures["confusions"].layout.xaxis, figures["confusions"].layout.yaxis):
        assert axis.dtick == 1, "every class is named"


def test_a_run_that_died_while_writing_can_be_deleted_or_made_again(
    noisy: Noisy, monkeypatch: pytest.MonkeyPatch
) -> None:
    import clipcleaner_plugin.writing as writing

    def fail(*args: Any) -> None:
        raise RuntimeError("the power went out")

    with monkeypatch.context() as broken:
        broken.setattr(writing, "save_views", fail)
        with pytest.raises(RuntimeError):
            noisy.apply()
    with pytest.raises(ValueError, match="did not finish; apply it again"):
        cc.load_results(noisy.dataset)
    assert cc.get_run_info(noisy.dataset)["finished"] is False
    assert noisy.apply().counts()["mislabeled"] == 40
    with monkeypatch.context() as broken:
        broken.setattr(writing, "save_views", fail)
        with pytest.raises(RuntimeError):
            noisy.apply(key="second")
    cc.delete_run(noisy.dataset, "second")
    assert not [f for f in noisy.dataset.get_field_schema() if f.startswith("second")]
