"""Reproduced rows: from raw data to a report, also in several goes."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import fiftyone as fo
import numpy as np
import pytest
from original_layouts import write_cifar10
from PIL import Image

import clipcleaner_plugin as cc
from benchmarks import reproduce, small
from benchmarks.rows import RECIPES, ROWS
from clipcleaner_plugin.datasets.classes import CIFAR10
from clipcleaner_plugin.trainer import TrainerOptions
from training.presets import PRESETS

SMALL = (
    *("--network", "small-cnn", "--image-size", "8", "--resize", "8", "--padding", "1"),
    *("--augmentation", "flip", "--batch-size", "16", "--device", "cpu", "--workers", "0"),
)


def mean_colours(filepaths: list[str]) -> np.ndarray:
    """Four numbers an image: a stand-in for embeddings."""
    images = np.stack([np.asarray(Image.open(path)) for path in filepaths]).astype(np.float32)
    return np.concatenate([images.mean(axis=(1, 2)), images.std(axis=(1, 2, 3))[:, None]], axis=1)


@pytest.fixture
def tiny(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """The arguments that run ``cifar10-sym50`` on 144 images with a network that learns nothing."""
    write_cifar10(tmp_path, a_batch=24)
    made = replace(
        ROWS["cifar10-sym50"], trainer=SMALL, epochs=2, model=None, features=mean_colours,
        recipes=("ce",), val=0.1, theta_cons=0.9,
    )  # fmt: skip
    monkeypatch.setitem(ROWS, "tiny", made)
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    folders = ("--work", str(tmp_path / "work"), "--results", str(tmp_path / "results"))
    yield ["--row", "tiny", "--root", str(tmp_path), *folders]
    for name in fo.list_datasets("reproduce-tiny-*"):
        fo.delete_dataset(name)


def test_a_row_from_raw_data_to_its_report(tiny: list[str], tmp_path: Path) -> None:
    assert reproduce.main(tiny) == 0
    work = tmp_path / "work" / "tiny" / "seed-3047"
    dataset = fo.load_dataset("reproduce-tiny-3047")
    # The run has not seen a label of a test image; the bundle holds the right ones
    test = dataset.match_tags("test")
    assert set(test.values("clipcleaner_verdict")) == {"unscorable"}
    lines = [json.loads(line) for line in (work / "bundle" / "manifest.jsonl").open()]
    rows = {
        split: [row for row in lines if row["split"] == split] for split in ("train", "val", "test")
    }
    assert {split: len(found) for split, found in rows.items()} == {
        "train": 108,
        "val": 12,
        "test": 24,
    }
    assert all(row["label"] == row["trusted"] and not row["selected"] for row in rows["test"])
    noisy = [row["label"] != row["trusted"] for row in rows["train"] + rows["val"]]
    assert 36 <= sum(noisy) <= 60  # half are drawn anew, a tenth of these hits
    thetas = cc.load_results(dataset).thetas
    assert thetas.theta_cons == ROWS["tiny"].theta_cons != ROWS["cifar10-sym50"].theta_cons
    record = dataset.info["clipcleaner_noise"]["noisy_label"]
    assert (record["rate"], record["seed"], record["samples"]) == (0.5, 3047, 120)

    report = json.loads((tmp_path / "results" / "reproduce-tiny.json").read_text())
    selection, *trained = report["records"]
    selected = [row for row in rows["train"] if row["selected"]]
    assert selection["selected"] == len(selected)
    assert selection["selected_right"] == sum(r["label"] == r["trusted"] for r in selected)
    assert [row["recipe"] for row in trained] == ["ce"]
    assert all(row["epochs"] == 2 and row["set"]["set_known"] == 108 for row in trained)
    text = (tmp_path / "results" / "reproduce-tiny.md").read_text()
    assert f"| ce | {trained[0]['last']['test_accuracy']:.1%} |" in text and "2 epochs" in text
    assert re.search(r" cores(, .+)?; Python ", text)


def test_a_row_goes_on_where_it_was(tiny: list[str], tmp_path: Path) -> None:
    class Killed(BaseException):
        pass

    work = tmp_path / "work" / "tiny" / "seed-3047"

    def dies(*args: object, **options: object) -> None:
        raise Killed

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(reproduce, "train", dies)
        with pytest.raises(Killed):
            reproduce.main(tiny)
    assert sorted(path.name for path in work.glob("*.json")) == ["selection.json"]
    before = {path: path.stat().st_mtime_ns for path in work.rglob("*") if path.is_file()}
    created = fo.load_dataset("reproduce-tiny-3047").created_at
    assert reproduce.main(tiny) == 0
    assert {path: path.stat().st_mtime_ns for path in before} == before
    assert fo.load_dataset("reproduce-tiny-3047").created_at == created
    assert (work / "ce.json").is_file()


def test_a_dataset_that_was_not_finished_is_made_anew(tiny: list[str]) -> None:
    half = fo.Dataset("reproduce-tiny-3047", persistent=True)
    half.add_samples([fo.Sample(filepath="/nowhere.jpg")], progress=False)
    job = reproduce.Job(
        "tiny", ROWS["tiny"], 3047, Path(tiny[3]), Path(tiny[5]) / "s", None, "", ()
    )
    dataset = job.dataset()
    assert len(dataset) == 144
    assert dataset.count_sample_tags() == {"train": 108, "val": 12, "test": 24}


def test_every_row_names_what_there_is(capsys: pytest.CaptureFixture[str]) -> None:
    assert reproduce.main(["--list"]) == 0
    listed = capsys.readouterr().out
    for name, row in ROWS.items():
        assert f"\n{name} " in f"\n{listed}"
        assert row.preset == "auto" or row.preset in PRESETS
        assert set(row.recipes) <= set(RECIPES)
        TrainerOptions("mixfix", row.preset)
        if row.make is None:
            data, variant = row.data
            assert variant is None or variant in cc.datasets.DATASETS[data].variants
            assert Path(cc.datasets.prompts(data)).is_file()


def test_the_papers_rows_are_there_with_its_settings() -> None:
    expected: dict[str, tuple[str, str | None, str | None, float]] = {}
    for data in ("cifar10", "cifar100"):
        for p in (20, 50, 80, 90):
            expected[f"{data}-sym{p}"] = (data, None, "symmetric", p / 100)
    expected["cifar10-asym40"] = ("cifar10", None, "asymmetric", 0.4)
    for p in (10, 20, 30, 40):
        expected[f"cifar10-idn{p}"] = ("cifar10-idn", str(p / 100), None, 0)
    for p in (20, 40, 60, 80):
        expected[f"red-mini-imagenet-{p}"] = ("red-mini-imagenet", str(p / 100), None, 0)
    for data in ("animal10n", "webvision", "webvision-ilsvrc12", "clothing1m"):
        expected[data] = (data, None, None, 0)
    for name, values in expected.items():
        row = ROWS[name]
        assert (*row.data, row.kind, row.rate) == values, name
        assert row.preset == row.data[0].removesuffix("-ilsvrc12") and "mixfix" in row.recipes
        assert (row.model, row.prompts, row.epochs, row.trainer) == ("ViT-B-32", True, None, ())
        assert row.theta_cons == (1.0 if name.startswith("webvision") else 0.8)
    flips = ROWS["cifar10-asym40"].pairs(list(CIFAR10))
    assert set(flips or ()) == {
        *(("truck", "automobile"), ("bird", "airplane"), ("deer", "horse")),
        *(("cat", "dog"), ("dog", "cat")),
    }


def test_rows_without_data_say_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folders = ["--root", str(tmp_path), "--work", str(tmp_path / "w"), "--results", str(tmp_path)]
    assert reproduce.main(["--row", "clothing1m", *folders]) == 2
    assert "No data for clothing1m: " in capsys.readouterr().err
    assert not fo.dataset_exists("reproduce-clothing1m-3047")
    with pytest.raises(SystemExit):
        reproduce.main([])


def test_patch_features_repeat(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    paths = []
    for i in range(50):
        paths.append(str(tmp_path / f"{i}.png"))
        colours = rng.integers(0, 255, (4, 4, 3), dtype=np.uint8)
        Image.fromarray(colours).resize((32, 32)).save(paths[-1])
    features = small.patch_features(paths)
    assert features.shape == (50, small._COMPONENTS) and np.isfinite(features).all()
    assert np.array_equal(features, small.patch_features(paths))
    assert np.allclose(features.mean(axis=0), 0, atol=1e-2)
