"""apply_clipcleaner on real datasets with given embeddings: what it writes and refuses."""

from __future__ import annotations

import logging
import subprocess
import sys
from pathlib import Path
from typing import Any

import fiftyone as fo
import numpy as np
import pytest
from noisy_features import CLASSES, DIM, Maker, Noisy

import clipcleaner_plugin as cc
from clipcleaner_plugin.embeddings import IDENTITY, given_embeddings
from clipcleaner_plugin.fields import result_fields


@pytest.fixture
def noisy(dataset: Maker) -> Noisy:
    return Noisy(dataset)


def snapshot(dataset: fo.Dataset, key: str = "clipcleaner") -> list[Any]:
    fields = [f for f in result_fields(key) if not f.endswith("_suggestion")]
    suggestion = f"{key}_suggestion"
    return dataset.values(["id", *fields, f"{suggestion}.label", f"{suggestion}.confidence"])


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
cc.apply_clipcleaner(dataset, **options)
"""


def test_results_are_those_of_the_process_that_wrote_last(noisy: Noisy, repo_root: Path) -> None:
    dataset = noisy.dataset
    add_vectors(noisy, "emb")
    dataset.persistent = True  # else the other process would delete it at its end

    def replace() -> None:
        command = [sys.executable, "-c", REPLACE, dataset.name]
        subprocess.run(command, check=True, cwd=repo_root)

    replace()
    with pytest.raises(ValueError, match=r"dataset\.reload\(\)"):
        cc.load_results(dataset)
    dataset.reload()
    noisy.apply()
    held = cc.load_results(dataset)
    dataset.info["not saved"] = 1
    replace()
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


# ---- where embeddings come from


def add_vectors(noisy: Noisy, field: str, **info: Any) -> None:
    noisy.dataset.add_sample_field(field, fo.VectorField, info=info)
    noisy.dataset.set_values(field, list(noisy.features))


def test_vector_field_and_similarity_index_equal_the_array(noisy: Noisy) -> None:
    import fiftyone.brain as fob

    noisy.apply()
    expected = snapshot(noisy.dataset)
    add_vectors(noisy, "emb")
    noisy.apply(embeddings="emb")
    assert snapshot(noisy.dataset) == expected
    assert cc.get_run_info(noisy.dataset)["parameters"]["embeddings_source"] == "emb"
    fob.compute_similarity(noisy.dataset, embeddings="emb", brain_key="sim", backend="sklearn")
    noisy.apply(embeddings="sim")
    assert snapshot(noisy.dataset) == expected
    cc.delete_run(noisy.dataset, "clipcleaner")
    assert noisy.dataset.count("emb") == 240  # the user's own field stays


def test_vectors_of_another_model_are_refused(noisy: Noisy) -> None:
    add_vectors(noisy, "emb", **{IDENTITY: "Some-Model [0123456789ab]"})
    with pytest.raises(ValueError, match=r"'emb' holds vectors of Some-Model \[0123456789ab\]"):
        noisy.apply(embeddings="emb", text_features=None, model=cc.TINY_CLIP, pretrained=None)
    # without a text tower there is nothing that could disagree
    noisy.apply(embeddings="emb", text_features=None, model=None)


def test_vectors_of_a_field_go_to_the_samples_that_were_asked_for(noisy: Noisy) -> None:
    add_vectors(noisy, "emb")
    noisy.dataset.delete_samples(noisy.ids[:1])  # meanwhile
    ids = noisy.ids[::-1]
    found = given_embeddings(noisy.dataset, ids, "emb", None)
    np.testing.assert_array_equal(found[:-1], noisy.features[:0:-1])
    assert np.isnan(found[-1]).all()


def test_a_number_is_no_vector_and_a_view_must_hold_the_field(noisy: Noisy) -> None:
    noisy.dataset.add_sample_field("number", fo.FloatField)
    noisy.dataset.set_values("number", [0.5] * 240)
    with pytest.raises(ValueError, match="'number' holds no vectors: found the shape"):
        noisy.apply(embeddings="number")
    add_vectors(noisy, "emb")
    with pytest.raises(ValueError, match="this view leaves out the embeddings field 'emb'"):
        noisy.apply(noisy.dataset.select_fields("ground_truth"), embeddings="emb")


def test_classes_may_be_an_array(noisy: Noisy) -> None:
    assert noisy.apply(classes=np.array(CLASSES)).record["classes"] == CLASSES


def test_missing_and_broken_vectors_cost_their_samples_only(noisy: Noisy) -> None:
    features = noisy.features.copy()
    features[5] = np.nan
    features[7, 3] = np.nan
    results = noisy.apply(embeddings=features)
    unscorable = noisy.dataset.match({"clipcleaner_verdict": "unscorable"})
    assert set(unscorable.values("id")) == {noisy.ids[5], noisy.ids[7]}
    assert unscorable.values("clipcleaner_score") == [None, None]
    assert results.summary().unscorable == {"no embedding": 2}
    assert set(results.mislabeled_view().values("id")) == noisy.wrong - {noisy.ids[5], noisy.ids[7]}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"embeddings": np.zeros((3, 4))}, r"shape \(240, d\).*found shape \(3, 4\)"),
        ({"embeddings": "nothing"}, "neither a field nor a similarity key"),
        ({"embeddings": None}, "text_features are given without embeddings"),
        ({"embeddings": None, "text_features": None, "model": None}, "embeddings must be given"),
        ({"text_features": np.zeros((3, 4))}, "text_features"),
        ({"text_features": {"cat": np.ones(DIM)}}, "lacks classes: dog, owl"),
        ({"key": "not a key"}, "'not a key' is not a valid name"),
        ({"key": "_hidden"}, "'_hidden' is not a valid name"),
        ({"embeddings": "ground_truth"}, "'ground_truth' holds no vectors: found a Classification"),
        ({"embeddings": "filepath"}, "'filepath' holds no vectors: found a str"),
        ({"embeddings": "created_at"}, "'created_at' holds no vectors: found a datetime"),
        ({"label_field": "nope"}, "no field 'nope'; Classification fields here: ground_truth"),
        ({"label_field": "filepath"}, "'filepath' is a StringField"),
        ({"label_field": "tags"}, "'tags' is a ListField"),
        ({"classes": []}, "classes is empty"),
        ({"classes": ["cat", "cat"]}, "'cat' more than once"),
        ({"classes": "cat"}, "list of non-empty strings"),
        ({"theta_gmm": 2}, "theta_gmm"),
        ({"theta_cons": -1}, "theta_cons"),
        ({"temperature": 0}, "temperature"),
        ({"folds": 1}, "folds"),
    ],
)
def test_bad_options_are_refused_in_words_and_write_nothing(
    noisy: Noisy, options: dict[str, Any], message: str
) -> None:
    schema = set(noisy.dataset.get_field_schema())
    with pytest.raises(ValueError, match=message):
        noisy.apply(**options)
    assert set(noisy.dataset.get_field_schema()) == schema
    assert noisy.dataset.list_brain_runs() == []


def test_a_key_that_is_taken_is_refused(noisy: Noisy) -> None:
    import fiftyone.brain as fob

    noisy.dataset.add_sample_field("mine_score", fo.FloatField)
    with pytest.raises(ValueError, match=r"would overwrite fields .* mine_score"):
        noisy.apply(key="mine")
    fob.compute_uniqueness(noisy.dataset, embeddings=noisy.features, uniqueness_field="unique")
    with pytest.raises(ValueError, match="'unique' is taken by a brain run of type 'uniqueness'"):
        noisy.apply(key="unique")
    noisy.apply()
    with pytest.raises(ValueError, match="this run would overwrite"):
        noisy.apply(label_field="clipcleaner_suggestion")


def test_a_failed_second_run_keeps_the_first(noisy: Noisy) -> None:
    noisy.apply()
    before = snapshot(noisy.dataset)
    with pytest.raises(ValueError):
        noisy.apply(temperature=-1)
    assert snapshot(noisy.dataset) == before
    assert cc.load_results(noisy.dataset).counts()["mislabeled"] == 40


# ---- collections that are not what they should be


def test_empty_dataset_and_view(dataset: Maker, noisy: Noisy) -> None:
    with pytest.raises(ValueError, match=r"the dataset of .* has no samples"):
        cc.apply_clipcleaner(dataset())
    with pytest.raises(ValueError, match=r"the view of .* has no samples"):
        noisy.apply(noisy.dataset.match({"ground_truth.label": "unicorn"}))


def test_not_a_collection() -> None:
    with pytest.raises(TypeError, match="must be a FiftyOne dataset or view, found list"):
        cc.apply_clipcleaner([])  # type: ignore[arg-type]


def test_detections_videos_groups_and_patches_are_refused(dataset: Maker) -> None:
    box = fo.Detections(detections=[fo.Detection(label="cat", bounding_box=[0, 0, 1, 1])])
    boxes = dataset([fo.Sample(filepath="/nowhere/a.jpg", objects=box)])
    with pytest.raises(ValueError, match="'objects' is a Detections"):
        cc.apply_clipcleaner(boxes, "objects")
    with pytest.raises(ValueError, match="views of patches, clips or frames"):
        cc.apply_clipcleaner(boxes.to_patches("objects"), "objects")
    with pytest.raises(ValueError, match="holds video samples"):
        cc.apply_clipcleaner(dataset([fo.Sample(filepath="/nowhere/a.mp4")]))
    group = fo.Group()
    grouped = dataset()
    grouped.add_group_field("group", default="left")
    grouped.add_samples(
        [fo.Sample(filepath="/nowhere/l.jpg", group=group.element("left"))], progress=False
    )
    with pytest.raises(ValueError, match="is a grouped dataset"):
        cc.apply_clipcleaner(grouped)


def test_samples_without_label_or_with_an_unknown_one(noisy: Noisy) -> None:
    first, second, third = noisy.dataset[noisy.ids[50]], noisy.dataset[noisy.ids[51]], None
    first["ground_truth"] = None
    first.save()
    second["ground_truth"].label = "zebra"
    second.save()
    third = noisy.dataset[noisy.ids[52]]
    third["ground_truth"].label = None
    third.save()
    results = noisy.apply(classes=CLASSES)
    summary = results.summary()
    assert summary.counts["unscorable"] == 3
    assert summary.unscorable == {"no label": 2, "label 'zebra' is not in the class list": 1}
    assert set(results.mislabeled_view().values("id")) == noisy.wrong


def test_no_sample_has_a_label(dataset: Maker) -> None:
    empty = dataset([fo.Sample(filepath="/nowhere/a.jpg")])
    empty.add_sample_field("gt", fo.EmbeddedDocumentField, embedded_doc_type=fo.Classification)
    with pytest.raises(ValueError, match="no sample has a label in field 'gt'"):
        cc.apply_clipcleaner(empty, "gt")


def test_a_class_of_the_list_without_samples_and_a_class_with_one(noisy: Noisy) -> None:
    lonely = noisy.dataset[noisy.ids[100]]
    lonely["ground_truth"].label = "owlet"
    lonely.save()
    text = {name: vector for name, vector in zip(CLASSES, noisy.text, strict=True)}
    text["owlet"] = np.roll(noisy.text[2], 1)
    text["yak"] = np.roll(noisy.text[1], 1)
    results = noisy.apply(classes=[*CLASSES, "owlet", "yak"], text_features=text)
    assert noisy.wrong <= set(results.mislabeled_view().values("id"))
    assert sum(results.counts().values()) == 240
    assert "yak" not in results.noise_rates()
    # without words nothing can be said of a class with one sample
    results = noisy.apply(key="looks", model=None, text_features=None)
    assert noisy.dataset[lonely.id]["looks_verdict"] == "unscorable"
    assert results.summary().unscorable == {"nothing to compare with": 1}


def test_only_one_class(noisy: Noisy) -> None:
    for sample in noisy.dataset.iter_samples(autosave=True):
        sample["ground_truth"].label = "cat"
    results = noisy.apply(text_features=noisy.text[:1])
    assert results.counts()["unscorable"] == 240
    assert results.record["warnings"]
    assert "unknown" in str(results.summary())
    assert cc.get_run_info(noisy.dataset)["record"]["noise_rate"][0] is None
    # one class in use, but a list of three with words: the words can still object
    results = noisy.apply(classes=CLASSES)
    true = np.array(noisy.dataset.values("trusted.label"))
    flagged = np.array(noisy.dataset.values("clipcleaner_verdict")) == "mislabeled"
    assert (flagged == (true != "cat")).mean() > 0.95


def test_names_that_become_equal_are_reported(
    noisy: Noisy, caplog: pytest.LogCaptureFixture
) -> None:
    for sample in noisy.dataset.iter_samples(autosave=True):
        if sample["ground_truth"].label == "dog":
            sample["ground_truth"].label = "Cat"
    with caplog.at_level(logging.WARNING, "clipcleaner_plugin"):
        results = noisy.apply()
    assert sum(results.counts().values()) == 240
    # given text features stand for the names, so only prompts of our own can collide
    from clipcleaner_plugin.features import make_prompts

    with caplog.at_level(logging.WARNING, "clipcleaner_plugin"):
        make_prompts(["t_shirt", "TShirt", "owl"], None)
    assert "'t_shirt', 'TShirt' have the same prompts" in caplog.text


def test_non_ascii_class_names(noisy: Noisy) -> None:
    names = {"cat": "ねこ", "dog": "chien à poils", "owl": "Žaba"}
    for sample in noisy.dataset.iter_samples(autosave=True):
        sample["ground_truth"].label = names[sample["ground_truth"].label]
    results = noisy.apply(classes=list(names.values()))
    assert set(results.mislabeled_view().values("id")) == noisy.wrong
    assert set(results.noise_rates()) == set(names.values())


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
