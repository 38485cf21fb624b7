"""What a run is given: embeddings, options, collections that are not what they should be."""

from __future__ import annotations

import logging
from typing import Any

import fiftyone as fo
import numpy as np
import pytest
from fiftyone import ViewField as F
from noisy_features import CLASSES, DIM, Maker, Noisy, add_vectors, snapshot

import clipcleaner_plugin as cc
from clipcleaner_plugin.embeddings import IDENTITY
from clipcleaner_plugin.given import given_embeddings
from clipcleaner_plugin.layout import Layout


@pytest.fixture
def noisy(dataset: Maker) -> Noisy:
    return Noisy(dataset)


# ---- where embeddings come from


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
    found = given_embeddings(noisy.dataset, ids, "emb", None, Layout("ground_truth"))
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
        (
            {"label_field": "nope"},
            "no field 'nope'; Classification or Detections fields here: ground_truth",
        ),
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


def test_videos_groups_and_patches_are_refused(dataset: Maker) -> None:
    box = fo.Detections(detections=[fo.Detection(label="cat", bounding_box=[0, 0, 1, 1])])
    boxes = dataset([fo.Sample(filepath="/nowhere/a.jpg", objects=box)])
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


@pytest.mark.parametrize("stage", ["map_labels", "set_field"])
def test_views_with_labels_of_their_own_are_refused(noisy: Noisy, stage: str) -> None:
    animals = {"cat": "pet", "dog": "pet"}
    if stage == "map_labels":
        view = noisy.dataset.map_labels("ground_truth", animals)
    else:
        view = noisy.dataset.set_field("ground_truth.label", F("label").map_values(animals))
    said = (
        r"changes the labels of 'ground_truth'.*clone_sample_field\('ground_truth', \"new_field\"\)"
    )
    with pytest.raises(ValueError, match=said):
        noisy.apply(view)
    noisy.apply(noisy.dataset.map_labels("trusted", animals))  # no matter of this run
    with pytest.raises(ValueError, match=said):
        cc.confirm_labels(view)
    view.clone_sample_field("ground_truth", "animals")
    results = noisy.apply(label_field="animals", text_features=None, model=None)
    assert set(results.noise_rates()) == {"owl", "pet"}
    assert {pair[:2] for pair in results.confusions()} <= {("owl", "pet"), ("pet", "owl")}
