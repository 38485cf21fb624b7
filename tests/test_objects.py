"""Runs on the objects of a Detections field: features, results, views, and what is refused."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import fiftyone as fo
import fiftyone.brain as fob
import numpy as np
import pytest
from boxed import FIELD, MODEL, Boxed, canvases
from fiftyone import ViewField as F
from fiftyone.utils.patches import extract_patch
from PIL import Image

import clipcleaner_plugin as cc
import clipcleaner_plugin.__main__ as cli
from clipcleaner_plugin.crops import MediaReader, make_crop
from clipcleaner_plugin.images import ImageReadError

Maker = Callable[..., fo.Dataset]
ROOT = f"{FIELD}.{FIELD}."
RESULTS = ("score", "verdict", "zeroshot_loss", "visual_loss", "visual_consistency")

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


def of_objects(dataset: fo.Dataset, *names: str) -> list[list[Any]]:
    """Values of all objects, one list a name."""
    return dataset.values([ROOT + name for name in names], unwind=True)


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
    names = [f"clipcleaner_{name}" for name in RESULTS]
    expected = reference.values([*names, "clipcleaner_suggestion.label", "clipcleaner_reason"])
    names += ["clipcleaner_suggestion", "clipcleaner_reason"]
    assert of_objects(run_on_digits.dataset, *names) == expected


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


# --- images of objects


@pytest.mark.parametrize("alpha", [None, 0.25, -0.4])
def test_crops_are_those_of_fiftyone(tmp_path: Path, alpha: float | None) -> None:
    rng = np.random.default_rng(0)
    pixels = rng.integers(256, size=(83, 131, 3), dtype=np.uint8)
    path = tmp_path / "noise.png"
    Image.fromarray(pixels).save(path)
    read = MediaReader()
    for _ in range(50):
        corner = rng.random(2) * 0.5
        box = [*corner.tolist(), *(0.2 + rng.random(2) * (0.8 - corner)).tolist()]
        ours = np.asarray(read(make_crop(str(path), box, alpha)))
        detection = fo.Detection(bounding_box=box)
        np.testing.assert_array_equal(ours, extract_patch(pixels, detection, alpha=alpha))


@pytest.mark.parametrize(
    ("box", "left"),
    [([-0.5, 0.5, 1.0, 1.0], (0, 50, 50, 100)), ([0.9, -1, 5, 3], (90, 0, 100, 100))],
)
def test_boxes_that_leave_the_image_are_cut_off(tmp_path: Path, box: Any, left: Any) -> None:
    pixels = np.random.default_rng(0).integers(256, size=(100, 100, 3), dtype=np.uint8)
    path = tmp_path / "noise.png"
    Image.fromarray(pixels).save(path)
    found = np.asarray(MediaReader()(make_crop(str(path), box)))
    x0, y0, x1, y1 = left
    np.testing.assert_array_equal(found, pixels[y0:y1, x0:x1])


def test_a_box_in_a_turned_photo_is_in_what_one_sees(tmp_path: Path) -> None:
    image = Image.new("RGB", (40, 20), "black")
    image.paste("white", (0, 0, 20, 20))
    exif = Image.Exif()
    exif[0x0112] = 6  # shown turned by a quarter: the white half is above
    image.save(tmp_path / "turned.png", exif=exif)
    above = MediaReader()(make_crop(str(tmp_path / "turned.png"), [0, 0, 1, 0.5]))
    assert above.size == (20, 20) and above.getextrema() == ((255, 255),) * 3


BAD = {
    "has no area": [0.2, 0.2, 0.0, 0.3],
    "outside of the image": [1.5, 0.2, 0.3, 0.3],
    "not four finite numbers": [0.1, float("nan"), 0.5, 0.5],
    "fewer than 4 a side": [0.2, 0.2, 0.01, 0.5],
}


def test_a_bad_box_costs_one_object_and_is_reported(dataset: Maker, tmp_path: Path) -> None:
    samples = canvases(tmp_path / "canvases", 60)
    bad = [fo.Detection(label="one", bounding_box=box) for box in BAD.values()]
    samples[3][FIELD].detections[1:1] = bad
    made = dataset(samples)
    results = made.apply_clipcleaner(FIELD, progress=False, **MODEL)
    failures = results.record["failures"]
    assert set(failures) == {found.id for found in bad}
    for words, found in zip(BAD, bad, strict=True):
        assert words in failures[found.id]
    assert results.counts()["unscorable"] == len(bad)
    assert results.summary().unscorable == {"unreadable image or box": len(bad)}
    with pytest.raises(ImageReadError, match="has no area"):
        made.apply_clipcleaner(FIELD, skip_failures=False, progress=False, **MODEL)


def test_only_what_changed_is_embedded_again(dataset: Maker, tmp_path: Path) -> None:
    made = dataset(canvases(tmp_path / "canvases", 30))
    first, second = made.limit(2)

    def computed(**options: Any) -> tuple[str, ...]:
        return cc.compute_embeddings(
            made, patches_field=FIELD, progress=False, **MODEL, **options
        ).computed_ids

    ids = made.values(f"{ROOT}id", unwind=True)
    assert computed() == tuple(ids)
    before = cc.load_embeddings(made, cc.TINY_CLIP, None, patches_field=FIELD)
    assert list(before) == ids
    assert computed() == ()
    moved = second[FIELD].detections[0]
    moved.bounding_box[0] += 0.05
    second.save()
    assert computed() == (moved.id,)
    with Image.open(first.filepath) as image:
        image.transpose(Image.Transpose.FLIP_LEFT_RIGHT).save(first.filepath)
    assert computed() == tuple(found.id for found in first[FIELD].detections)
    assert computed(alpha=0.3) == tuple(ids)
    assert computed() == tuple(ids)
    after = cc.load_embeddings(made, cc.TINY_CLIP, None, patches_field=FIELD)
    same = [i for i in ids if np.allclose(before[i], after[i], atol=1e-5)]
    assert len(same) == len(ids) - 1 - len(first[FIELD].detections)


def test_from_a_shell(dataset: Maker, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    made = dataset(canvases(tmp_path / "canvases", 40))
    tiny = ["--model", cc.TINY_CLIP, "--num-workers", "0", "--alpha", "0.2"]
    assert cli.main(["embed", made.name, "--patches-field", FIELD, *tiny]) == 0
    assert "40 computed, 0 reused, 0 unreadable" in capsys.readouterr().out
    assert cli.main(["score", made.name, "--label-field", FIELD, *tiny]) == 0
    assert "40 objects" in capsys.readouterr().out
    assert cc.compute_embeddings(made, patches_field=FIELD, alpha=0.2, **MODEL).reused == 40


_APPLY = """
import sys
import fiftyone as fo
import clipcleaner_plugin as cc

fo.load_dataset(sys.argv[1]).apply_clipcleaner(
    "detections", model=cc.TINY_CLIP, pretrained=None, num_workers=0, batch_size=4,
    progress=lambda bar: print(bar.iteration, flush=True),
)
"""


def test_a_run_that_was_killed_goes_on_where_it_was(dataset: Maker, tmp_path: Path) -> None:
    made = dataset(canvases(tmp_path / "canvases", 100), persistent=True)
    command = [sys.executable, "-c", _APPLY, made.name]
    process = subprocess.Popen(command, env=os.environ, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    for line in process.stdout:
        if line.strip().isdecimal() and int(line) >= 24:
            break
    process.kill()  # -9
    process.wait()
    report = cc.compute_embeddings(made, patches_field=FIELD, progress=False, **MODEL)
    assert 24 <= report.reused < 100 and report.reused + report.computed == 100
    whole = made.clone()
    for one in (made, whole):
        one.apply_clipcleaner(FIELD, progress=False, **MODEL)
    expected, found = (of_objects(d, "clipcleaner_score") for d in (whole, made))
    whole.delete()
    np.testing.assert_allclose(found, expected, atol=1e-4)


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


def test_fiftyone_exports_the_crops(run_on_digits: Any, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="FiftyOne exports their crops") as refused:
        run_on_digits.export(tmp_path / "bundle")
    assert f"label_field={FIELD!r}" in str(refused.value)
    tree = fo.types.ImageClassificationDirectoryTree
    run_on_digits.clean_view().export(
        str(tmp_path / "crops"), dataset_type=tree, label_field=FIELD, progress=False
    )
    files = list((tmp_path / "crops").glob("*/*"))
    assert len(files) == run_on_digits.counts()["clean"]


# --- refusals


@pytest.mark.parametrize(
    ("label", "words"),
    [
        (fo.Classifications(classifications=[fo.Classification(label="a")]), "several labels"),
        (fo.Polylines(polylines=[fo.Polyline(label="a")]), r"polyline\.to_detection\(\)"),
        (fo.Keypoints(keypoints=[fo.Keypoint(label="a")]), "put a box around each"),
        (fo.Detection(label="a"), "put each into a Detections field"),
        (fo.Segmentation(), r"segmentation\.to_detections\(\)"),
        (fo.Regression(value=1.0), "is a Regression, but"),
    ],
)
def test_other_labels_are_refused_in_words(dataset: Maker, label: Any, words: str) -> None:
    made = dataset([fo.Sample("/x/1.jpg", labels=label)])
    with pytest.raises(ValueError, match=words) as refused:
        made.apply_clipcleaner("labels")
    assert "Classification or Detections fields here: none" in str(refused.value)


def test_video_frames_and_patches_are_refused_in_words(boxed: Boxed, dataset: Maker) -> None:
    with pytest.raises(ValueError, match="views of patches, clips or frames are not supported"):
        boxed.dataset.to_patches(FIELD).apply_clipcleaner(FIELD)
    video = fo.Sample("/x/1.mp4")
    video.frames[1] = fo.Frame(detections=fo.Detections(detections=[fo.Detection(label="a")]))
    with pytest.raises(ValueError, match="holds video samples; only images are supported"):
        dataset([video]).apply_clipcleaner("frames.detections")


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"alpha": -1}, "alpha must be a number above -1, found -1"),
        ({"embeddings_field": "vectors"}, "kept in the durable store only"),
        ({"embeddings": np.zeros((3, 4))}, "one row an object"),
        ({"classes": ["unicorn"]}, "."),
    ],
)
def test_options_that_do_not_fit_objects(boxed: Boxed, options: Any, words: str) -> None:
    if "classes" in options:
        results = boxed.apply(**options, text_features=boxed.text[:1])
        assert results.counts()["unscorable"] == 240
        return
    with pytest.raises(ValueError, match=words):
        boxed.apply(**options)


def test_alpha_and_patches_field_need_boxes(boxed: Boxed, dataset: Maker) -> None:
    made = dataset([fo.Sample("/x/1.jpg", ground_truth=fo.Classification(label="a"))])
    with pytest.raises(ValueError, match="alpha is about the boxes of objects"):
        made.apply_clipcleaner(alpha=0.1)
    with pytest.raises(ValueError, match="patches_field must hold Detections labels"):
        made.apply_clipcleaner(patches_field="ground_truth")
    with pytest.raises(ValueError, match="have no attribute 'rigth'"):
        boxed.apply().evaluate("rigth")


def test_copies_of_an_object_are_refused(dataset: Maker) -> None:
    copied = fo.Detection(label="a", bounding_box=[0, 0, 1, 1])
    groups = [fo.Detections(detections=[copied]) for _ in range(2)]
    made = dataset([fo.Sample(f"/x/{i}.jpg", detections=d) for i, d in enumerate(groups)])
    with pytest.raises(ValueError, match=f"have the id {copied.id}, as copies do"):
        made.apply_clipcleaner(FIELD, embeddings=np.eye(2), model=None)
