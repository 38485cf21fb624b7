"""export_cleaned on real datasets: what each format holds, and what is refused."""

from __future__ import annotations

import csv
import json
import os
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import fiftyone as fo
import pytest
from exports import N, by_id
from hypothesis import given
from hypothesis import strategies as st
from noisy_digits import make_samples
from training_bundles import read_rows

import clipcleaner_plugin as cc
from clipcleaner_plugin.export_formats import folder_names
from training.bundle import BundleError, read_bundle

pytestmark = pytest.mark.usefixtures("quiet")

Maker = Callable[..., fo.Dataset]


# --- the bundle


def test_the_trainer_reads_what_the_dataset_holds(untouched: fo.Dataset, tmp_path: Path) -> None:
    report = cc.export_cleaned(untouched, "clipcleaner", tmp_path / "b", trusted_field="trusted")
    bundle = read_bundle(tmp_path / "b")
    columns = untouched.values(
        ["id", "ground_truth.label", "trusted.label", "clipcleaner_score", "clipcleaner_verdict"]
    )
    names = list(bundle.classes)
    labels, trusted = by_id(bundle, bundle.labels), by_id(bundle, bundle.trusted)
    scores, selected = by_id(bundle, bundle.clean_score), by_id(bundle, bundle.selected)
    paths = by_id(bundle, bundle.paths)
    sources = dict(zip(*untouched.values(["id", "filepath"]), strict=True))
    for i, label, right, score, verdict in zip(*columns, strict=True):
        assert (names[labels[i]], names[trusted[i]]) == (label, right)
        assert scores[i] == score and selected[i] == (verdict == "clean")
        assert Path(paths[i]).read_bytes() == Path(sources[i]).read_bytes()
    suggested = {row["id"]: row["suggested"] for row in read_rows(tmp_path / "b")}
    assert suggested == dict(
        zip(*untouched.values(["id", "clipcleaner_suggestion.label"]), strict=True)
    )
    assert {name: len(of) for name, of in bundle.splits.items()} == report.splits
    assert report.samples == N and report.selected == bundle.selected.sum()
    header = json.loads((tmp_path / "b" / "bundle.json").read_text())
    assert header["run_key"] == "clipcleaner" and header["dataset"] == untouched.name
    assert header["parameters"]["run"]["label_field"] == "ground_truth"
    assert not (tmp_path / "b.partial").exists()


def test_links_and_references(untouched: fo.Dataset, tmp_path: Path) -> None:
    results = cc.load_results(untouched)
    results.export(tmp_path / "linked", export_media="symlink")
    linked = read_bundle(tmp_path / "linked")
    sources = dict(zip(*untouched.values(["id", "filepath"]), strict=True))
    for i, path in by_id(linked, linked.paths).items():
        assert os.readlink(path) == sources[i]
    results.export(tmp_path / "referenced", export_media=False)
    assert not (tmp_path / "referenced" / "images").exists()
    with pytest.raises(BundleError, match="--referenced"):
        read_bundle(tmp_path / "referenced")
    referenced = read_bundle(tmp_path / "referenced", referenced=True)
    assert by_id(referenced, referenced.paths) == sources


def test_a_view_is_exported_alone(untouched: fo.Dataset, tmp_path: Path) -> None:
    view = untouched.skip(10).limit(40)
    cc.export_cleaned(view, "clipcleaner", tmp_path / "b")
    assert set(read_bundle(tmp_path / "b").ids) == set(view.values("id"))


def test_samples_without_label_or_image_are_left_out(digits: fo.Dataset, tmp_path: Path) -> None:
    ids, paths = digits.values(["id", "filepath"])
    digits.select(ids[0]).clear_sample_field("ground_truth")
    digits.select(ids[1]).set_values("ground_truth.label", ["unicorn"])
    os.unlink(paths[2])
    Path(paths[3]).write_bytes(b"")
    report = cc.export_cleaned(digits, "clipcleaner", tmp_path / "b")
    assert set(read_bundle(tmp_path / "b").ids) == set(ids[4:])
    reasons = [report.left_out[i] for i in ids[:4]]
    assert reasons[0] == "no label" and "'unicorn' is not in the class list" in reasons[1]
    assert "no such file" in reasons[2] and "empty" in reasons[3]
    assert "4 left out" in str(report)


def test_an_image_that_cannot_be_opened_costs_one_sample(
    digits: fo.Dataset, tmp_path: Path
) -> None:
    """One that vanishes while others are copied: only the copy finds out."""
    ids, paths = digits.values(["id", "filepath"])
    victim = max(range(N), key=lambda i: ids[i])

    def vanish(bar: Any) -> None:
        Path(paths[victim]).unlink(missing_ok=True)

    report = cc.export_cleaned(digits, "clipcleaner", tmp_path / "b", progress=vanish)
    assert list(report.left_out) == [ids[victim]]
    assert report.samples == N - 1
    assert set(read_bundle(tmp_path / "b").ids) == set(ids) - {ids[victim]}
    assert len(list((tmp_path / "b" / "images").iterdir())) == N - 1


def test_names_of_files_never_collide(dataset: Maker, tmp_path: Path) -> None:
    samples = make_samples(tmp_path, 40)
    for i, sample in enumerate(samples):
        folder = tmp_path / f"ordner-{i}-é 写真"
        folder.mkdir()
        odd = folder / ("same.png" if i % 2 else "bild?größe=1.%s.PNG")
        os.rename(sample.filepath, odd)
        sample.filepath = str(odd)
    made = dataset(samples)
    made.apply_clipcleaner("ground_truth", embeddings="pixels", model=None)
    for form in ("bundle", "image_tree", "csv"):
        report = cc.export_cleaned(made, "clipcleaner", tmp_path / form, format=form)
        images = [p for p in (tmp_path / form).rglob("*") if p.parent != tmp_path / form]
        assert sum(p.is_file() for p in images) == report.samples
    assert len(read_bundle(tmp_path / "bundle")) == 40


# --- splits


def test_tags_decide_the_split_and_the_rest_is_drawn(digits: fo.Dataset, tmp_path: Path) -> None:
    ids = digits.values("id")
    digits.select(ids[:20]).tag_samples("test")
    digits.select(ids[20:30]).tag_samples("validation")
    cc.export_cleaned(digits, "clipcleaner", tmp_path / "b")
    bundle = read_bundle(tmp_path / "b")
    of = {bundle.ids[i]: name for name, members in bundle.splits.items() for i in members}
    assert {of[i] for i in ids[:20]} == {"test"} and {of[i] for i in ids[20:30]} == {"val"}
    drawn = Counter(of[i] for i in ids[30:])
    assert drawn["train"] == 56 and drawn["val"] == drawn["test"] == 7
    cc.export_cleaned(digits, "clipcleaner", tmp_path / "r", split="random")
    sizes = {name: len(of) for name, of in read_bundle(tmp_path / "r").splits.items()}
    assert sizes == {"train": 80, "val": 10, "test": 10}
    cc.export_cleaned(digits, "clipcleaner", tmp_path / "n", split="none")
    assert len(read_bundle(tmp_path / "n").splits["train"]) == N


def test_held_out_samples_that_were_not_examined_are_in_the_bundle(
    digits: fo.Dataset, tmp_path: Path
) -> None:
    ids = digits.values("id")
    (tmp_path / "more").mkdir()
    new = make_samples(tmp_path / "more", 10)
    for sample, tag in zip(new, ["test"] * 4 + ["val"] * 3 + ["train"] * 3, strict=True):
        sample.tags = [tag]
    new[0]["ground_truth"].label = "unicorn"
    later = digits.add_samples(new, progress=False)
    digits.select(ids[:5]).tag_samples("test")
    report = cc.export_cleaned(digits, "clipcleaner", tmp_path / "b", trusted_field="trusted")
    rows = {row["id"]: row for row in read_rows(tmp_path / "b")}
    assert set(rows) == {*ids, *later[1:7]} and list(report.left_out) == [later[0]]
    for i in later[1:7]:
        sample, row = digits[i], rows[i]
        assert row["label"] == sample.ground_truth.label and row["split"] == sample.tags[0]
        assert row["trusted"] == sample.trusted.label
        assert (row["selected"], row["clean_score"], row["suggested"]) == (False, None, None)
    assert rows[ids[0]]["split"] == "test" and rows[ids[0]]["clean_score"] is not None
    # Not where splits are drawn, and not among what is clean
    for name, options in (("random", {"split": "random"}), ("table", {"format": "csv"})):
        report = cc.export_cleaned(digits, "clipcleaner", tmp_path / name, **options)
        assert not report.left_out
    assert set(read_bundle(tmp_path / "random").ids) == set(ids)
    with (tmp_path / "table" / "labels.csv").open(newline="") as file:
        assert not set(later) & {row["source_id"] for row in csv.DictReader(file)}


def test_two_split_tags_are_refused(digits: fo.Dataset, tmp_path: Path) -> None:
    first = digits.first()
    digits.select(first.id).tag_samples(["train", "test"])
    with pytest.raises(ValueError, match=f"sample {first.id} is tagged test and train"):
        cc.export_cleaned(digits, "clipcleaner", tmp_path / "b")


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"split": "tag"}, "split must be one of"),
        ({"fractions": {"train": 0.5, "dev": 0.5}}, "'dev' is none of"),
        ({"fractions": {"train": 0.5}}, "sum to 1"),
        ({"fractions": {"val": 1.0}, "split": "random"}, "fractions that have a share for train"),
        ({"seed": -1}, "seed must lie in"),
        ({"fractions": {"train": 1.5, "val": -0.5}}, "at least 0"),
        ({"format": "zip"}, "format must be one of"),
        ({"export_media": "move"}, "export_media must be one of"),
        ({"format": "image_tree", "export_media": False}, "consists of its images"),
        ({"labels": "suggested"}, "a bundle holds the given labels"),
        ({"format": "csv", "labels": "suggested", "min_confidence": 2}, "min_confidence"),
        ({"key": "other"}, "no CLIPCleaner run 'other'"),
        ({"trusted_field": "nowhere"}, "no field 'nowhere'"),
        ({"dataset_name": "x"}, "dataset_name goes with"),
        ({"export_dir": None}, "needs export_dir"),
        ({"format": "dataset"}, "leave export_dir out"),
        ({"format": "dataset", "export_dir": None}, "needs dataset_name"),
    ],
)
def test_options_that_do_not_fit_write_nothing(
    untouched: fo.Dataset, tmp_path: Path, options: dict[str, Any], words: str
) -> None:
    call = {"key": "clipcleaner", "export_dir": tmp_path / "b", **options}
    with pytest.raises(ValueError, match=words):
        cc.export_cleaned(untouched, call.pop("key"), call.pop("export_dir"), **call)
    assert not (tmp_path / "b").exists() and not (tmp_path / "b.partial").exists()


# --- other formats


def test_an_image_tree_is_read_by_fiftyone(untouched: fo.Dataset, tmp_path: Path) -> None:
    report = cc.export_cleaned(untouched, "clipcleaner", tmp_path / "t", format="image_tree")
    clean = cc.load_results(untouched).clean_view()
    assert report.samples == len(clean) == report.selected
    found: Counter[str] = Counter()
    for split, n in report.splits.items():
        read = fo.Dataset.from_dir(
            str(tmp_path / "t" / split), dataset_type=fo.types.ImageClassificationDirectoryTree
        )
        assert len(read) == n
        found.update(read.values("ground_truth.label"))
        for path, label in zip(*read.values(["filepath", "ground_truth.label"]), strict=True):
            assert untouched[Path(path).stem]["ground_truth"].label == label
    assert found == Counter(clean.values("ground_truth.label"))


def test_a_table_is_read_by_fiftyone(digits: fo.Dataset, tmp_path: Path) -> None:
    sample = cc.load_results(digits).clean_view().first()
    sample.ground_truth.label = odd = 'Größe, "写真"\nzwei'
    sample.save()
    digits.apply_clipcleaner("ground_truth", embeddings="pixels", model=None)
    # The only one of its class is unscorable; somebody has looked at it
    digits.select(sample.id).set_values("clipcleaner_verdict", ["clean"])
    clean = cc.load_results(digits).clean_view()
    for media in (True, "symlink", False):
        folder = tmp_path / f"c-{media}"
        cc.export_cleaned(digits, "clipcleaner", folder, format="csv", export_media=media)
        read = fo.Dataset.from_dir(str(folder), dataset_type=fo.types.CSVDataset)
        assert dict(zip(*read.values(["source_id", "label"]), strict=True)) == dict(
            zip(*clean.values(["id", "ground_truth.label"]), strict=True)
        )
        assert odd in read.values("label")
        assert all(Path(path).is_file() for path in read.values("filepath"))
    assert set(read.values("filepath")) == set(clean.values("filepath"))


def test_sure_suggestions_become_labels_where_asked(untouched: fo.Dataset, tmp_path: Path) -> None:
    view = cc.load_results(untouched).mislabeled_view()
    sure = view.values("clipcleaner_suggestion.confidence")
    threshold = sorted(sure)[len(sure) // 2]
    report = cc.export_cleaned(
        untouched, "clipcleaner", tmp_path / "c", format="csv", labels="suggested",
        min_confidence=threshold,
    )  # fmt: skip
    with (tmp_path / "c" / "labels.csv").open(newline="") as file:
        rows = {row["source_id"]: row for row in csv.DictReader(file)}
    expected = {
        i: suggested
        for i, suggested, confidence in zip(
            *view.values(["id", "clipcleaner_suggestion.label"]), sure, strict=True
        )
        if confidence >= threshold
    }
    changed = {i: row["label"] for i, row in rows.items() if row["label"] != row["given_label"]}
    assert changed == expected and report.relabelled == len(expected) > 0
    given_labels = dict(zip(*untouched.values(["id", "ground_truth.label"]), strict=True))
    assert all(row["given_label"] == given_labels[i] for i, row in rows.items())
    assert len(rows) == report.selected + report.relabelled


def test_a_new_dataset_holds_the_clean_samples_with_their_fields(digits: fo.Dataset) -> None:
    name = f"{digits.name}-cleaned"
    digits.tag_samples(["reviewed", "train"])
    before = digits.values(["id", "ground_truth.label", "tags"])
    options: dict[str, Any] = {"format": "dataset", "dataset_name": name}
    try:
        report = cc.export_cleaned(
            digits, labels="suggested", min_confidence=0.0, split="random", **options
        )
        made = fo.load_dataset(name)
        assert made.persistent and len(made) == report.samples
        results = cc.load_results(digits)
        expected = dict(
            zip(*results.clean_view().values(["id", "ground_truth.label"]), strict=True)
        )
        expected |= dict(
            zip(
                *results.mislabeled_view().values(["id", "clipcleaner_suggestion.label"]),
                strict=True,
            )
        )
        assert dict(zip(*made.values(["id", "ground_truth.label"]), strict=True)) == expected
        assert made.has_sample_field("trusted") and made.first().filepath
        tags = Counter(tuple(sorted(tags)) for tags in made.values("tags"))
        assert tags == {tuple(sorted(("reviewed", split))): n for split, n in report.splits.items()}
        assert digits.values(["id", "ground_truth.label", "tags"]) == before

        with pytest.raises(ValueError, match="overwrite=True replaces it"):
            cc.export_cleaned(digits, **options)
        assert cc.export_cleaned(digits, overwrite=True, **options).relabelled == 0
        assert len(fo.load_dataset(name)) == results.counts()["clean"]
        assert [n for n in fo.list_datasets() if "unfinished" in n] == []
    finally:
        if fo.dataset_exists(name):
            fo.delete_dataset(name)


def test_a_dataset_of_the_user_is_never_replaced(untouched: fo.Dataset, dataset: Maker) -> None:
    mine = dataset([fo.Sample(filepath="/nowhere/mine.jpg")])
    with pytest.raises(ValueError, match="no export made"):
        cc.export_cleaned(untouched, format="dataset", dataset_name=mine.name, overwrite=True)
    assert len(fo.load_dataset(mine.name)) == 1


def test_labels_that_cannot_name_folders_stay_in_the_export(dataset: Maker, tmp_path: Path) -> None:
    odd = [
        "../../escape",
        "a/b",
        ".hidden",
        "_unlabeled",
        "x" * 300,
        "Cat",
        "cat",
        "猫",
        "..",
        "é ",
    ]
    samples = make_samples(tmp_path, 60)
    names = sorted({s.trusted.label for s in samples})
    for sample in samples:
        sample["ground_truth"].label = odd[names.index(sample.trusted.label)]
    made = dataset(samples)
    made.apply_clipcleaner("ground_truth", embeddings="pixels", model=None)
    report = cc.export_cleaned(
        made, "clipcleaner", tmp_path / "t", format="image_tree", split="none"
    )
    read = fo.Dataset.from_dir(
        str(tmp_path / "t" / "train"), dataset_type=fo.types.ImageClassificationDirectoryTree
    )
    assert len(read) == report.samples > 40
    header = json.loads((tmp_path / "t" / "export.json").read_text())
    back = {folder: name for name, folder in header["folders"].items()}
    for path, folder in zip(*read.values(["filepath", "ground_truth.label"]), strict=True):
        assert made[Path(path).stem]["ground_truth"].label == back.get(folder, folder)
    assert not (tmp_path / "escape").exists()


@given(st.lists(st.text(st.characters(exclude_categories=["Cs"]), min_size=1), unique=True))
def test_every_class_gets_a_folder_of_its_own(classes: list[str]) -> None:
    folders = folder_names(classes)
    assert list(folders) == classes
    assert len({name.casefold() for name in folders.values()}) == len(classes)
    for folder in folders.values():
        assert 0 < len(folder.encode()) < 255
        assert not set(folder) & set("/\\\0:") and not folder.startswith(".")
        assert folder != "_unlabeled"
