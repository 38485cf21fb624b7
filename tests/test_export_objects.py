"""Exports of runs on objects: crops, tables and datasets of them, and training on crops."""

from __future__ import annotations

import csv
import json
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import fiftyone as fo
import numpy as np
import pytest
from boxed import FIELD, MODEL, canvases
from exports import by_id, tree
from fiftyone.utils.patches import extract_patch
from operators_at_work import form, uri
from PIL import Image
from training_bundles import read_rows

import clipcleaner_plugin as cc
from clipcleaner_plugin import __main__ as cli
from training.bundle import read_bundle

pytestmark = pytest.mark.usefixtures("quiet")

N = 100
ROOT = f"{FIELD}.{FIELD}."
ALPHA = 0.2

Maker = Callable[..., fo.Dataset]


@pytest.fixture(scope="module")
def crops(tmp_path_factory: pytest.TempPathFactory) -> Iterator[fo.Dataset]:
    """100 digits on 40 canvases, one to four on each, and a run on their boxes, grown a little."""
    made = fo.Dataset()
    made.add_samples(canvases(tmp_path_factory.mktemp("canvases"), N), progress=False)
    made.add_dynamic_sample_fields()
    made.apply_clipcleaner(FIELD, alpha=ALPHA, progress=False, **MODEL)
    yield made
    fo.delete_dataset(made.name)


@pytest.fixture
def copy(crops: fo.Dataset) -> Iterator[fo.Dataset]:
    """The same, for the test alone."""
    made = crops.clone()
    yield made
    fo.delete_dataset(made.name)


def objects_of(dataset: fo.Dataset) -> dict[str, tuple[fo.Sample, fo.Detection]]:
    return {found.id: (sample, found) for sample in dataset for found in sample[FIELD].detections}


def clean(dataset: fo.Dataset) -> set[str]:
    return set(cc.load_results(dataset).clean_view().values("id"))


# --- folders


def test_a_bundle_holds_what_the_run_has_looked_at(crops: fo.Dataset, tmp_path: Path) -> None:
    report = cc.load_results(crops).export(tmp_path / "b", trusted_field="truth")
    assert report.samples == N and f"{N} objects (train" in str(report)
    bundle = read_bundle(tmp_path / "b")
    names, chosen = list(bundle.classes), clean(crops)
    labels, trusted = by_id(bundle, bundle.labels), by_id(bundle, bundle.trusted)
    scores, selected = by_id(bundle, bundle.clean_score), by_id(bundle, bundle.selected)
    paths = by_id(bundle, bundle.paths)
    for i, (sample, found) in objects_of(crops).items():
        assert (names[labels[i]], names[trusted[i]]) == (found.label, found.truth)
        assert scores[i] == found.clipcleaner_score and selected[i] == (i in chosen)
        canvas = np.asarray(Image.open(sample.filepath))
        expected = extract_patch(canvas, found, alpha=ALPHA)  # FiftyOne's own idea of it
        np.testing.assert_array_equal(np.asarray(Image.open(paths[i])), expected)
    assert report.selected == len(chosen) == bundle.selected.sum()


def test_the_objects_of_an_image_stay_together(crops: fo.Dataset, tmp_path: Path) -> None:
    cc.export_cleaned(crops, "clipcleaner", tmp_path / "b", split="random")
    rows = read_rows(tmp_path / "b")
    samples = {i: sample.id for i, (sample, _) in objects_of(crops).items()}
    assert {row["id"]: row["sample"] for row in rows} == samples
    split_of = {row["sample"]: row["split"] for row in rows}
    assert all(split_of[row["sample"]] == row["split"] for row in rows)
    assert Counter(split_of.values()) == {"train": 32, "val": 4, "test": 4}


def test_folders_and_tables(crops: fo.Dataset, tmp_path: Path) -> None:
    given = {i: found for i, (_, found) in objects_of(crops).items()}
    cc.export_cleaned(crops, "clipcleaner", tmp_path / "t", format="image_tree", split="none")
    read = fo.Dataset.from_dir(
        str(tmp_path / "t" / "train"), dataset_type=fo.types.ImageClassificationDirectoryTree
    )
    found = dict(zip(*read.values(["filepath", "ground_truth.label"]), strict=True))
    assert {Path(path).stem: label for path, label in found.items()} == {
        i: given[i].label for i in clean(crops)
    }
    report = cc.export_cleaned(
        crops, "clipcleaner", tmp_path / "c", format="csv", labels="suggested", min_confidence=0.0
    )
    with (tmp_path / "c" / "labels.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert report.relabelled == len(cc.load_results(crops).mislabeled_view()) > 0
    assert len(rows) == report.selected + report.relabelled
    for row in rows:
        original = given[row["source_id"]]
        assert json.loads(row["bounding_box"]) == original.bounding_box
        assert original.id in {o.id for o in crops[row["source_sample"]][FIELD].detections}
        kept = original.label if original.id in clean(crops) else original.clipcleaner_suggestion
        assert (row["label"], row["given_label"]) == (kept, original.label)
        assert (tmp_path / "c" / "data" / row["filepath"]).is_file()


@pytest.mark.parametrize("media", ["symlink", False])
def test_crops_cannot_be_linked(crops: fo.Dataset, tmp_path: Path, media: Any) -> None:
    with pytest.raises(ValueError, match="crops are no files that could be linked or referred to"):
        cc.export_cleaned(crops, "clipcleaner", tmp_path / "b", export_media=media)
    assert not list(tmp_path.iterdir())


def test_a_bad_box_costs_one_object(copy: fo.Dataset, tmp_path: Path) -> None:
    reasons = {
        "has no area": [0.2, 0.2, 0.0, 0.3],
        "outside of the image": [1.5, 0.2, 0.3, 0.3],
        "not four finite numbers": [0.1, float("nan"), 0.5, 0.5],
        "fewer than 4 a side": [0.2, 0.2, 0.01, 0.5],  # known when it is cut out
    }
    ids = copy.values(f"{ROOT}id", unwind=True)
    boxes = dict(zip(ids[10:], reasons.values(), strict=False))
    for sample in copy:
        for found in sample[FIELD].detections:
            found.bounding_box = boxes.get(found.id, found.bounding_box)
        sample.save()
    report = cc.export_cleaned(copy, "clipcleaner", tmp_path / "b")
    assert list(report.left_out) == list(boxes)
    for words, reason in zip(reasons, report.left_out.values(), strict=True):
        assert words in reason
    assert set(read_bundle(tmp_path / "b").ids) == set(ids) - set(boxes)
    assert len(list((tmp_path / "b" / "images").iterdir())) == N - 4


class _Stop(Exception):
    pass


def test_an_interrupted_export_goes_on(copy: fo.Dataset, tmp_path: Path) -> None:
    def stop(bar: Any) -> None:
        if bar.iteration == 60:
            raise _Stop

    out, partial = tmp_path / "b", tmp_path / "b.partial" / "images"
    with pytest.raises(_Stop):
        cc.export_cleaned(copy, "clipcleaner", out, progress=stop)
    before = {path.name: path.stat().st_ino for path in partial.iterdir()}
    assert len(before) >= 59 and not out.exists()
    first = copy.first()
    (moved,) = first[FIELD].detections
    moved.bounding_box[0] += 0.05
    first.save()
    torn = partial / f"{copy.skip(1).first()[FIELD].detections[0].id}.png"
    torn.write_bytes(torn.read_bytes()[:-7])
    cc.export_cleaned(copy, "clipcleaner", out)
    after = {path.name: path.stat().st_ino for path in (out / "images").iterdir()}
    assert {name for name in before if before[name] != after[name]} <= {
        f"{moved.id}.png",
        torn.name,
    }
    assert cc.export_cleaned(copy, "clipcleaner", out).reused
    cc.export_cleaned(copy, "clipcleaner", tmp_path / "fresh")
    assert tree(out) == tree(tmp_path / "fresh")


# --- a dataset


def test_a_new_dataset_holds_the_clean_objects(copy: fo.Dataset) -> None:
    name, before = f"{copy.name}-cleaned", copy.values(f"{ROOT}label")
    bare = copy.last()  # all of its objects are dropped
    cc.drop(copy.select(bare.id), "clipcleaner")
    copy.reload()
    try:
        report = cc.export_cleaned(
            copy, format="dataset", dataset_name=name, labels="suggested", min_confidence=0.0
        )
        made = fo.load_dataset(name)
        originals = {i: found for i, (_, found) in objects_of(copy).items()}
        dropped = {found.id for found in bare[FIELD].detections}
        expected = {i: originals[i].label for i in clean(copy)}
        wrong = cc.load_results(copy).mislabeled_view().values("id")
        expected |= {i: originals[i].clipcleaner_suggestion for i in wrong}
        found = {i: kept.label for i, (_, kept) in objects_of(made).items()}
        assert found == expected and not dropped & set(found)
        assert report.samples == len(found) and report.relabelled == len(wrong) > 0
        assert bare.id not in made.values("id")
        assert all(len({"train", "val", "test"} & set(tags)) == 1 for tags in made.values("tags"))
        assert copy.values(f"{ROOT}label") == before
    finally:
        if fo.dataset_exists(name):
            fo.delete_dataset(name)


# --- training


SMALL = ["--network", "small-cnn", "--image-size", "8", "--resize", "8", "--padding", "1",
         "--augmentation", "crop", "--device", "cpu", "--workers", "0", "--lr", "0.05"]  # fmt: skip


def test_what_was_trained_on_crops_is_compared_by_fiftyone(
    copy: fo.Dataset, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    report = cc.train_on_cleaned(
        copy, "clipcleaner", tmp_path / "b", epochs=1, batch_size=16, trainer_args=SMALL
    )
    assert str(report).startswith(f"Trained on {N} objects") and report.predictions.loaded == N
    rows = [json.loads(line) for line in (Path(report.run_dir) / "predictions.jsonl").open()]
    predicted = {row["id"]: (row["label"], row["confidence"]) for row in rows}
    for sample in copy:
        theirs = sample["clipcleaner_prediction"].detections
        for given, found in zip(sample[FIELD].detections, theirs, strict=True):
            assert (found.label, found.confidence) == predicted[given.id]
            assert found.bounding_box == given.bounding_box
    evaluation = copy.evaluate_detections(
        "clipcleaner_prediction", gt_field=FIELD, eval_key="eval", classwise=False, progress=False
    )
    matrix = evaluation.confusion_matrix()
    labels = copy.values(f"{ROOT}label", unwind=True)
    right = sum(predicted[i][0] == label for i, label in zip(
        copy.values(f"{ROOT}id", unwind=True), labels, strict=True))  # fmt: skip
    assert np.trace(matrix) == right and matrix.sum() == N

    copy.persistent = True
    command = ["predictions", copy.name, report.run_dir, "--field", "guess"]
    assert cli.main(command) == 1
    assert "for objects, patches_field= one of" in capsys.readouterr().err
    assert cli.main([*command, "--patches-field", FIELD]) == 0
    copy.reload()
    assert copy.count("guess.detections") == N


def test_a_field_may_turn_from_samples_to_objects(copy: fo.Dataset, tmp_path: Path) -> None:
    def run(name: str, ids: list[str]) -> Path:
        (tmp_path / name).mkdir()
        lines = [json.dumps({"id": i, "label": "one", "confidence": 1}) + "\n" for i in ids]
        (tmp_path / name / "predictions.jsonl").write_text("".join(lines))
        return tmp_path / name

    cc.load_predictions(copy, run("samples", copy.values("id")))
    of_objects = run("objects", copy.values(f"{ROOT}id", unwind=True)[:5])
    cc.load_predictions(copy, of_objects, patches_field=FIELD)
    assert copy.count("clipcleaner_prediction.detections.label") == 5
    cc.load_predictions(copy, tmp_path / "samples")
    assert copy.count("clipcleaner_prediction.label") == len(copy)


# --- the App


@pytest.mark.usefixtures("plugin")
def test_the_forms_fit_objects(crops: fo.Dataset, tmp_path: Path) -> None:
    for name in ("export_cleaned", "train_on_cleaned"):
        inputs = form(name, crops)
        assert "media" not in inputs and "blocked" not in inputs
        assert inputs["trusted_field"]["type"]["values"] == ["truth"]
    shown = form("train_on_cleaned", crops, media="reference")["commands"]["default"]
    assert "--media copy" in shown and f"--patches-field {FIELD}" in shown
    assert "--referenced" not in shown


@pytest.mark.usefixtures("plugin")
def test_the_app_exports_crops(crops: fo.Dataset, tmp_path: Path) -> None:
    """Also where ``media`` was chosen for another run before."""
    import fiftyone.operators as foo

    params = {"key": "clipcleaner", "export_dir": str(tmp_path / "app"), "media": "symlink",
              "trusted_field": "truth"}  # fmt: skip
    foo.execute_operator(uri("export_cleaned"), {"dataset": crops}, params=params)
    cc.export_cleaned(crops, "clipcleaner", tmp_path / "lib", trusted_field="truth")
    assert tree(tmp_path / "app") == tree(tmp_path / "lib")
