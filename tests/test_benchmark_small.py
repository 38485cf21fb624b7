"""Data of the scaled-down rows: what is drawn, and that it is what the archives hold."""

from __future__ import annotations

import csv
import io
import zipfile
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import fiftyone as fo
import numpy as np
import pytest
from PIL import Image

from benchmarks import small
from benchmarks.data import DataMissingError
from clipcleaner_plugin.datasets.classes import CIFAR10
from clipcleaner_plugin.demo_data import read_images

TRAIN, TEST = 20, 8
NAME = "test-benchmark-small"


@pytest.fixture(autouse=True)
def nothing_left(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(fo.config, "show_progress_bars", False)
    monkeypatch.setattr(small, "TRAIN", TRAIN)
    monkeypatch.setattr(small, "TEST", TEST)
    yield
    if fo.dataset_exists(NAME):
        fo.delete_dataset(NAME)


def rows_of(count: int, prefix: str, rng: np.random.Generator) -> list[dict[str, str]]:
    """One label of each kind that differs from the others, so that none is taken for another."""
    kinds = ["clean", "worse", "aggre", "random1", "random2", "random3"]
    rows = []
    for i in range(count):
        labels = {kind: CIFAR10[k] for kind, k in zip(kinds, rng.permutation(10), strict=False)}
        rows.append({"file": f"{prefix}{i:03}.png", "label": labels["clean"], **labels})
    return rows


@pytest.fixture
def archives(tmp_path: Path) -> tuple[Path, dict[str, dict[str, str]], dict[str, np.ndarray]]:
    """A folder as CIFAR-10N is at hand; its rows and its pixels by file."""
    folder, rng = tmp_path / "raw" / "cifar10", np.random.default_rng(0)
    folder.mkdir(parents=True)
    rows, pixels = {}, {}
    for split, count, names in (
        ("train", 32, ("images_train_1", "images_train_2")),
        ("test", 12, ("images_test",)),
    ):
        table = rows_of(count, f"{split}-", rng)
        with (folder / f"{split}_files_and_labels.csv").open("w", newline="") as file:
            writer = csv.DictWriter(file, list(table[0]))
            writer.writeheader()
            writer.writerows(table)
        for part, name in zip(np.array_split(table, len(names)), names, strict=True):
            with zipfile.ZipFile(folder / f"{name}.zip", "w") as archive:
                for row in part:
                    picture = rng.integers(0, 256, (32, 32, 3), dtype=np.uint8)
                    content = io.BytesIO()
                    Image.fromarray(picture).save(content, "PNG")
                    archive.writestr(row["file"], content.getvalue())
                    rows[row["file"]], pixels[row["file"]] = row, picture
    return tmp_path / "raw", rows, pixels


def content(dataset: fo.Dataset) -> list[tuple[Any, ...]]:
    """(pixels, tags, given label, right label) of each sample."""
    paths, *columns = dataset.values(
        ["filepath", "tags", "ground_truth.label", "trusted_label.label"]
    )
    pixels = [np.asarray(Image.open(path)).tobytes() for path in paths]
    return list(zip(pixels, *columns, strict=True))


def test_a_part_of_cifar10n_has_its_pixels_and_labels(
    archives: tuple[Path, dict[str, dict[str, str]], dict[str, np.ndarray]], tmp_path: Path
) -> None:
    root, rows, pixels = archives
    dataset = small.cifar10n(root, tmp_path / "work", NAME)
    assert dataset.persistent and dataset.default_classes == list(CIFAR10)
    assert dataset.count_sample_tags() == {"train": TRAIN, "test": TEST}
    file_of = {picture.tobytes(): file for file, picture in pixels.items()}
    found = content(dataset)
    files = [file_of[picture] for picture, *_ in found]
    assert len(set(files)) == TRAIN + TEST
    for file, (_, tags, given, right) in zip(files, found, strict=True):
        split = file.split("-")[0]
        assert tags == [split] and right == rows[file]["clean"]
        assert given == rows[file]["worse" if split == "train" else "label"]
    # Drawn from the whole, and not those that come first
    assert {file for file in files if file.startswith("train")} != set(list(rows)[:TRAIN])


def test_a_part_is_drawn_once_and_always_the_same(
    archives: tuple[Path, Any, Any], tmp_path: Path
) -> None:
    first = content(small.cifar10n(archives[0], tmp_path / "a", NAME))
    fo.delete_dataset(NAME)
    assert content(small.cifar10n(archives[0], tmp_path / "b", NAME)) == first
    fo.delete_dataset(NAME)
    # The last file is written last: without it the part is unfinished, and made anew
    batches = tmp_path / "b" / "cifar10n-part" / "cifar-10-batches-py"
    (batches / "test_batch").unlink()
    assert content(small.cifar10n(archives[0], tmp_path / "b", NAME)) == first
    fo.delete_dataset(NAME)
    for archive in (archives[0] / "cifar10").glob("*.zip"):
        archive.unlink()
    assert content(small.cifar10n(archives[0], tmp_path / "b", NAME)) == first


def test_a_folder_that_is_not_there_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(small, "DEFAULT_FOLDER", tmp_path / "absent")
    with pytest.raises(DataMissingError, match=r"absent/cifar10 is not there: .*--root"):
        small.cifar10n(tmp_path, tmp_path / "work", NAME)
    assert not fo.dataset_exists(NAME)


def test_the_digits_have_right_labels_and_splits_class_by_class(tmp_path: Path) -> None:
    make: Callable[[], fo.Dataset] = lambda: small.digits(tmp_path, tmp_path, NAME)  # noqa: E731
    dataset, images = make(), read_images()
    columns = dataset.values(["filepath", "tags", "ground_truth.label", "trusted_label.label"])
    paths, tags, given, right = columns
    assert paths == [str(path) for path in images.filepaths]
    assert given == right == [images.classes[k] for k in images.labels]
    assert dataset.persistent and dataset.default_classes == list(images.classes)
    splits = [of_one[0] for of_one in tags]
    assert all(len(of_one) == 1 for of_one in tags)
    for name, share in (("train", 0.7), ("val", 0.1), ("test", 0.2)):
        assert abs(splits.count(name) - share * len(paths)) <= 2
        of_class = Counter(k for k, split in zip(given, splits, strict=True) if split == name)
        for k, n in Counter(given).items():
            assert abs(of_class[k] - share * n) <= 2, (name, k)
    fo.delete_dataset(NAME)
    assert make().values(["filepath", "tags"]) == columns[:2]
