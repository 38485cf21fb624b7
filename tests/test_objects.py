"""Runs on the objects of a Detections field: scores, views, and the life of a run."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import fiftyone as fo
import fiftyone.brain as fob
import numpy as np
import pytest
from boxed import FIELD, MODEL, Boxed, canvases, of_objects
from fiftyone import ViewField as F
from fiftyone.utils.patches import extract_patch
from PIL import Image

import clipcleaner_plugin as cc

Maker = Callable[..., fo.Dataset]
ROOT = f"{FIELD}.{FIELD}."
RESULTS = ("score", "zeroshot_loss", "visual_loss", "visual_consistency")

pytestmark = pytest.mark.usefixtures("quiet")


@pytest.fixture(scope="module")
def run_on_digits(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """A run on 200 digits on canvases, a fifth of them with a wrong label."""
    dataset = fo.Dataset()
    dataset.add_samples(canvases(tmp_path_factory.mktemp("canvases"), 200), progress=False)
    dataset.add_dynamic_sample_fields()
    yield dataset.apply_clipcleaner(FIELD, progress=False, **MODEL)
    dataset.delete()


@pytest.fixture
def boxed(dataset: Maker) -> Boxed:
    return Boxed(dataset)


# --- scores


def test_objects_are_scored_as_their_crops_would_be(
    run_on_digits: Any, dataset: Maker, tmp_path: Path
) -> None:
    crops = []
    for sample in run_on_digits.dataset:
        canvas = np.asarray(Image.open(sample.filepath))
        for found in sample[FIELD].detections:
            path = tmp_path / f"{found.id}.png"
            Image.fromarray(extract_patch(canvas, found)).save(path)  # FiftyOne's own idea of it
            label = fo.Classification(label=found.label)
            crops.append(fo.Sample(str(path), ground_truth=label))
    reference = dataset(crops)
    cc.apply_clipcleaner(reference, **MODEL, progress=False)
    numbers = [f"clipcleaner_{name}" for name in RESULTS]
    for ours, theirs in zip(
        of_objects(run_on_digits.dataset, *numbers), reference.values(numbers), strict=True
    ):  # the last bit of a vector may depend on what was in its batch
        np.testing.assert_allclose(ours, theirs, atol=1e-3)
    words = ["clipcleaner_verdict", "clipcleaner_suggestion"]
    expected = reference.values([words[0], f"{words[1]}.label"])
    assert of_objects(run_on_digits.dataset, *words) == expected


def test_the_planted_errors_are_found(run_on_digits: Any) -> None:
    found = run_on_digits.evaluate("truth")
    assert found["samples"] == 200
    assert found["f1"] > 0.9 and found["suggestions_right"] > 0.9
    assert str(run_on_digits.summary()).startswith("200 objects")
    assert sum(n for *_, n in run_on_digits.confusions()) == run_on_digits.counts()["mislabeled"]
    assert set(run_on_digits.noise_rates()) == set(run_on_digits.class_report())


def test_a_sample_has_the_lowest_score_of_its_objects(run_on_digits: Any) -> None:
    paths = ["clipcleaner_score", f"{ROOT}clipcleaner_score"]
    for lowest, scores in zip(*run_on_digits.dataset.values(paths), strict=True):
        assert lowest == min(scores)


def test_the_attributes_are_in_the_schema_and_plain(run_on_digits: Any) -> None:
    schema = run_on_digits.dataset.get_field_schema(flat=True)
    types = {name: type(schema[f"{ROOT}clipcleaner_{name}"]) for name in ("score", "suggestion")}
    assert types == {"score": fo.FloatField, "suggestion": fo.StringField}
    first = run_on_digits.mislabeled_view().first()[FIELD]
    assert first.clipcleaner_verdict == "mislabeled"
    assert first.clipcleaner_suggestion == first.truth
    assert 0.5 < first.clipcleaner_confidence <= 1
    assert first.clipcleaner_reason.startswith("words: ")


def test_label_field_and_patches_field_mean_the_same(boxed: Boxed) -> None:
    first = boxed.apply()
    again = boxed.dataset.apply_clipcleaner(
        FIELD, key="again", embeddings=boxed.features, text_features=boxed.text
    )
    assert again.config.patches_field == first.config.patches_field == FIELD
    names = [f"{key}_score" for key in ("clipcleaner", "again")]
    ours, theirs = of_objects(boxed.dataset, *names)
    assert ours == theirs
    with pytest.raises(ValueError, match=r"'other' and patches_field 'detections' differ"):
        boxed.apply(label_field="other")


def test_samples_without_objects_are_left_alone(boxed: Boxed) -> None:
    results = boxed.apply()
    assert set(results.mislabeled_view().values("id")) == boxed.wrong
    assert results.record["samples"] == 240
    first, last = boxed.dataset.first(), boxed.dataset.last()
    assert first[FIELD] is None and last[FIELD].detections == []
    assert first.clipcleaner_score is None and last.clipcleaner_score is None


def test_a_view_of_some_objects_is_a_run_on_those(boxed: Boxed) -> None:
    some = boxed.dataset.filter_labels(FIELD, F("label") != "owl")
    chosen = some.values(f"{ROOT}id", unwind=True)
    rows = [boxed.ids.index(i) for i in chosen]
    results = boxed.apply(some, embeddings=boxed.features[rows], text_features=boxed.text[:2])
    assert results.record["samples"] == len(chosen) < 240
    ids, scores = of_objects(boxed.dataset, "id", "clipcleaner_score")
    assert {i for i, score in zip(ids, scores, strict=True) if score is not None} == set(chosen)


def test_embeddings_that_are_there_already(boxed: Boxed) -> None:
    expected = of_objects(boxed.apply().dataset, "clipcleaner_score")
    vectors = dict(zip(boxed.ids, boxed.features, strict=True))
    nested = boxed.dataset.values(f"{ROOT}id")
    boxed.dataset.add_sample_field(f"{ROOT}vector", fo.VectorField)
    values = [ids and [vectors[i] for i in ids] for ids in nested]
    boxed.dataset.set_values(f"{ROOT}vector", values)
    boxed.apply(embeddings="vector", key="field")
    similar = boxed.dataset.exists(FIELD).match(F(f"{FIELD}.detections").length() > 0)
    fob.compute_similarity(
        similar, patches_field=FIELD, embeddings="vector", brain_key="similar", backend="sklearn"
    )
    boxed.apply(embeddings="similar", key="index")
    for key in ("field", "index"):
        np.testing.assert_allclose(of_objects(boxed.dataset, f"{key}_score"), expected, atol=1e-5)


# --- views


def test_the_mislabeled_patches_come_worst_first(boxed: Boxed) -> None:
    results = boxed.apply()
    view = results.mislabeled_view()
    assert isinstance(view, fo.core.patches.PatchesView) and view.patches_field == FIELD
    scores = view.values(f"{FIELD}.clipcleaner_score")
    assert len(scores) == 40 and scores == sorted(scores)
    assert results.clean_view().distinct(f"{FIELD}.clipcleaner_verdict") == ["clean"]
    assert len(results.view()) == 240
    given, suggested, n = results.confusions()[0]
    pair = results.view("mislabeled", given=given, suggested=suggested)
    assert len(pair) == n
    assert set(pair.values(f"{FIELD}.label")) == {given}
    assert len(results.view(scores=(0, 0.5))) == 40


@pytest.mark.parametrize("kind", ["disagreement", "near_threshold", "least_certain", "open_set"])
def test_every_kind_of_view_shows_objects(boxed: Boxed, kind: str) -> None:
    noise = np.random.default_rng(1).normal(size=boxed.features.shape) * 0.3
    results = boxed.apply(embeddings=boxed.features + noise, label_field=FIELD)
    assert results.view(kind).patches_field == FIELD
    counts = {name: len(results.view(name)) for name in ("mislabeled", "uncertain", "clean")}
    assert counts == {name: n for name, n in results.counts().items() if name in counts}


def test_saved_views_show_the_samples_and_follow_every_change(boxed: Boxed) -> None:
    results = boxed.apply()
    name = "clipcleaner: mislabeled"
    saved = boxed.dataset.load_saved_view(name)
    assert set(saved.values(f"{ROOT}id", unwind=True)) == boxed.wrong
    lowest = saved.values("clipcleaner_score")
    assert lowest == sorted(lowest)
    results.confirm_labels(list(boxed.wrong)[:30])
    assert boxed.dataset.load_saved_view(name).count(f"{FIELD}.detections") == 10


def test_reselection(boxed: Boxed) -> None:
    results = boxed.apply()
    before = of_objects(boxed.dataset, "clipcleaner_verdict")
    counts = results.reselect(theta_score=0.0)
    assert counts["mislabeled"] == 0 and sum(counts.values()) == 240
    results.reselect(*results.former_thetas)
    assert of_objects(boxed.dataset, "clipcleaner_verdict") == before


# --- the life of a run


def test_renaming_and_deleting_take_everything_along(boxed: Boxed) -> None:
    schema, indexes = set(boxed.dataset.get_field_schema(flat=True)), boxed.dataset.list_indexes()
    documents = boxed.documents()
    results = boxed.apply()
    scores = of_objects(boxed.dataset, "clipcleaner_score")
    cc.rename_run(boxed.dataset, "clipcleaner", "other")
    assert of_objects(boxed.dataset, "other_score") == scores
    assert results.headline() == cc.load_results(boxed.dataset, "other").headline()
    assert len(boxed.dataset.load_saved_view("other: mislabeled")) > 0
    boxed.apply(key="other")
    assert of_objects(boxed.dataset, "other_score") == scores
    cc.delete_run(boxed.dataset, "other")
    assert set(boxed.dataset.get_field_schema(flat=True)) == schema
    assert boxed.dataset.list_indexes() == indexes
    assert not boxed.dataset.list_saved_views()
    assert boxed.documents() == documents
    assert boxed.dataset.first()[FIELD] is None


def test_objects_and_samples_may_take_turns_under_one_key(boxed: Boxed) -> None:
    boxed.apply()
    n = len(boxed.dataset)
    label = [fo.Classification(label="ab"[i % 2]) for i in range(n)]
    boxed.dataset.set_values("ground_truth", label)
    boxed.dataset.apply_clipcleaner(embeddings=boxed.features[:n], model=None)
    assert not boxed.dataset.has_sample_field(f"{ROOT}clipcleaner_score")
    assert len(cc.load_results(boxed.dataset).view()) == n
    boxed.apply()
    assert not boxed.dataset.has_sample_field("clipcleaner_verdict")
