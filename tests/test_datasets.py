"""Data sets of the paper from trees in the layout of the originals."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import fiftyone as fo
import numpy as np
import pytest
from original_layouts import write_cifar10, write_cifar100, write_human, write_image, write_list
from PIL import Image

import clipcleaner_plugin as cc
from clipcleaner_plugin.datasets import DATASETS, LayoutError, classes
from clipcleaner_plugin.prompts import class_prompts, duplicate_names

CLASSES = {
    "cifar10.json": classes.CIFAR10,
    "cifar100.json": classes.CIFAR100,
    "animal10n.json": classes.ANIMAL10N,
    "mini-imagenet.json": classes.MINI_IMAGENET,
    "webvision.json": classes.WEBVISION50,
    "clothing1m.json": classes.CLOTHING1M,
}


@pytest.fixture
def load() -> Iterator[Callable[..., fo.Dataset]]:
    """``cc.datasets.load``, whose datasets go after the test."""
    made: list[fo.Dataset] = []

    def loaded(name: str, root: Path, variant: str | None = None, **options: Any) -> fo.Dataset:
        options.setdefault("dataset_name", f"test-{uuid.uuid4().hex[:12]}")
        made.append(cc.datasets.load(name, root, variant, progress=False, **options))
        return made[-1]

    yield loaded
    for dataset in made:
        dataset.delete()


def rows(dataset: fo.Dataset) -> list[tuple[str, ...]]:
    """Given label, trusted label and split of every sample."""
    fields = ["ground_truth.label", "trusted_label.label", "tags"]
    return [(a, b, *tags) for a, b, tags in zip(*dataset.values(fields), strict=True)]


def names(labels: np.ndarray, of: tuple[str, ...] = classes.CIFAR10) -> list[str]:
    return [of[k] for k in labels]


@pytest.mark.parametrize("inner", [False, True], ids=["folder above", "folder itself"])
def test_cifar10(tmp_path: Path, load: Callable[..., fo.Dataset], inner: bool) -> None:
    pixels, labels = write_cifar10(tmp_path)
    dataset = load("cifar10", tmp_path / "cifar-10-batches-py" if inner else tmp_path)
    found = names(labels)
    splits = ["train"] * 20 + ["test"] * 4
    assert rows(dataset) == list(zip(found, found, splits, strict=True))
    assert dataset.default_classes == list(classes.CIFAR10)
    for path, image in zip(dataset.values("filepath"), pixels, strict=True):
        assert Path(path).is_relative_to(tmp_path / "cifar-10-batches-py-png")
        assert np.array_equal(np.asarray(Image.open(path)), image)


def test_cifar100(tmp_path: Path, load: Callable[..., fo.Dataset]) -> None:
    _, labels = write_cifar100(tmp_path)
    dataset = load("cifar100", tmp_path)
    assert dataset.values("trusted_label.label") == names(labels, classes.CIFAR100)
    assert dataset.values("tags") == [["train"]] * 4 + [["test"]] * 4


def test_images_are_written_once(tmp_path: Path, load: Callable[..., fo.Dataset]) -> None:
    write_cifar10(tmp_path)
    paths = [Path(path) for path in load("cifar10", tmp_path).values("filepath")]
    times = [path.stat().st_mtime_ns for path in paths]
    paths[3].unlink()
    paths[5].write_bytes(b"half a file")
    again = [Path(path) for path in load("cifar10", tmp_path).values("filepath")]
    assert again == paths
    changed = [i for i, path in enumerate(paths) if path.stat().st_mtime_ns != times[i]]
    assert changed == [3, 5] and Image.open(paths[5]).size == (32, 32)
    # Other batches in the same place: no image of the former ones stays
    for path in (tmp_path / "cifar-10-batches-py").iterdir():
        path.unlink()
    (tmp_path / "cifar-10-batches-py").rmdir()
    pixels, _ = write_cifar10(tmp_path, seed=5)
    path = load("cifar10", tmp_path).values("filepath")[0]
    assert np.array_equal(np.asarray(Image.open(path)), pixels[0])


def test_a_kill_leaves_whole_images(tmp_path: Path) -> None:
    write_cifar10(tmp_path, a_batch=200)
    code = (
        "import time; from pathlib import Path; from clipcleaner_plugin.datasets import cifar\n"
        "write, written = cifar.write_png, []\n"
        "def write_and_wait(*arguments):\n"
        "    write(*arguments)\n"
        "    written.append(arguments)\n"
        "    while len(written) >= 150:\n"  # however late the kill comes
        "        time.sleep(1)\n"
        "cifar.write_png = write_and_wait\n"
        f"cifar.cifar10(Path({str(tmp_path)!r}), None, False)"
    )
    process = subprocess.Popen([sys.executable, "-c", code])
    folder = tmp_path / "cifar-10-batches-py-png" / "data_batch_1"
    while not (folder.is_dir() and len(os.listdir(folder)) > 20):
        assert process.poll() is None
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    written = list(folder.glob("*.png"))
    assert 20 <= len(written) < 200
    for path in written:
        Image.open(path).load()


@pytest.mark.parametrize("variant", [None, "aggre", "random3"])
def test_cifar10n(tmp_path: Path, load: Callable[..., fo.Dataset], variant: str | None) -> None:
    _, labels = write_cifar10(tmp_path)
    other = (labels[:20] + 3) % 10
    key = {None: "worse_label", "aggre": "aggre_label", "random3": "random_label3"}[variant]
    write_human(tmp_path / "CIFAR-10_human.pt", labels[:20], **{key: other})
    dataset = load("cifar10n", tmp_path, variant)
    assert dataset.values("trusted_label.label") == names(labels)
    assert dataset.values("ground_truth.label") == names(other) + names(labels[20:])


def test_cifar100n(tmp_path: Path, load: Callable[..., fo.Dataset]) -> None:
    _, labels = write_cifar100(tmp_path, a_batch=30)
    noisy = write_human(tmp_path / "CIFAR-100_human.pt", labels[:30])
    dataset = load("cifar100n", tmp_path)
    given = dataset.match_tags("train").values("ground_truth.label")
    assert given == names(noisy, classes.CIFAR100) and (noisy != labels[:30]).any()


def test_human_labels_in_another_order_are_refused(tmp_path: Path) -> None:
    _, labels = write_cifar10(tmp_path)
    write_human(tmp_path / "CIFAR-10_human.pt", np.roll(labels[:20], 1))
    with pytest.raises(LayoutError, match="in another order"):
        cc.datasets.load("cifar10n", tmp_path, progress=False)
    write_human(tmp_path / "CIFAR-10_human.pt", labels[:19])
    with pytest.raises(LayoutError, match="19 labels for 20 training images"):
        cc.datasets.load("cifar10n", tmp_path, progress=False)
    assert not fo.dataset_exists("cifar10n-worse")


@pytest.mark.parametrize("start", ["dependent", "ind_dependent"])
def test_instance_dependent_noise(
    tmp_path: Path, load: Callable[..., fo.Dataset], start: str
) -> None:
    _, labels = write_cifar10(tmp_path)
    noisy = (labels[:20] + np.arange(20) % 2) % 10
    lines = [f"{a},{b}" for a, b in zip(labels, noisy, strict=False)]
    write_list(tmp_path / f"{start}0.4.csv", "label,label_noisy", *lines)
    dataset = load("cifar10-idn", tmp_path)
    assert dataset.values("ground_truth.label") == names(noisy) + names(labels[20:])
    write_list(tmp_path / f"{start}0.4.csv", "label,label_noisy", *lines[::-1])
    with pytest.raises(ValueError, match=r"line .*another order"):
        load("cifar10-idn", tmp_path)


def test_animal10n(tmp_path: Path, load: Callable[..., fo.Dataset]) -> None:
    for name in ("training/0_11.jpg", "training/9_3.jpg", "testing/5_1.jpg"):
        write_image(tmp_path / name)
    dataset = load("animal10n", tmp_path)
    assert rows(dataset) == [
        ("cat", None, "train"),
        ("guinea pig", None, "train"),
        ("jaguar", "jaguar", "test"),
    ]
    write_image(tmp_path / "training" / "10_1.jpg")
    with pytest.raises(LayoutError, match=r"10_1\.jpg: class '10', expected 0 to 9"):
        load("animal10n", tmp_path)


@pytest.mark.parametrize("validation", ["validation/99", "all_validation"])
def test_red_mini_imagenet(
    tmp_path: Path, load: Callable[..., fo.Dataset], validation: str
) -> None:
    root = tmp_path / "mini-imagenet"
    web, own, val = "5922767e5677aef4.jpg", "n0153282900000005.jpg", "ILSVRC2012_val_00000262.jpg"
    write_list(root / "split" / "red_noise_nl_0.8", f"{own} 49", f"{web} 0")
    write_list(root / "split" / "clean_validation", f"{val} 99")
    for path in (f"all_images/{own}", f"all_images/{web}", f"{validation}/{val}"):
        write_image(root / path)
    dataset = load("red-mini-imagenet", tmp_path, "0.8")
    assert rows(dataset) == [
        ("house finch", "house finch", "train"),
        ("triceratops", None, "train"),
        ("dishrag", "dishrag", "test"),
    ]
    assert all(Path(path).is_file() for path in dataset.values("filepath"))


def test_webvision_has_the_first_50_classes(
    tmp_path: Path, load: Callable[..., fo.Dataset]
) -> None:
    info = tmp_path / "info"
    write_list(
        info / "train_filelist_google.txt",
        *("google/q0001/a.jpg 0", "google/q0051/b.jpg 49", "google/q0052/c.jpg 50"),
    )
    write_list(info / "val_filelist.txt", "val000001.jpg 1", "val000002.jpg 999")
    dataset = load("webvision", tmp_path)
    assert rows(dataset) == [
        ("tench", None, "train"),
        ("African crocodile", None, "train"),
        ("goldfish", "goldfish", "test"),
    ]
    assert dataset.values("filepath") == [
        str(tmp_path / path)
        for path in ("google/q0001/a.jpg", "google/q0051/b.jpg", "val_images_256/val000001.jpg")
    ]


def test_webvision_tested_on_ilsvrc12(tmp_path: Path, load: Callable[..., fo.Dataset]) -> None:
    write_list(tmp_path / "info" / "train_filelist_google.txt", "google/q0001/a.jpg 49")
    write_list(tmp_path / "info" / "val_filelist.txt", "val000001.jpg 1")
    for synset in classes.WEBVISION50_SYNSETS:
        (tmp_path / "imagenet_val" / synset).mkdir(parents=True)
    images = ["n01443537/ILSVRC2012_val_00000262.JPEG", "n01697457/ILSVRC2012_val_00000001.JPEG"]
    for image in [*images, "n01698640/ILSVRC2012_val_00000002.JPEG"]:  # the last of class 50
        write_image(tmp_path / "imagenet_val" / image)
    dataset = load("webvision-ilsvrc12", tmp_path)
    assert rows(dataset) == [
        ("African crocodile", None, "train"),
        ("goldfish", "goldfish", "test"),
        ("African crocodile", "African crocodile", "test"),
    ]
    tested = dataset.match_tags("test").values("filepath")
    assert tested == [str(tmp_path / "imagenet_val" / image) for image in images]
    (tmp_path / "imagenet_val" / "n01440764").rmdir()
    with pytest.raises(LayoutError, match=r"n01440764 is not there: .* images of tench"):
        load("webvision-ilsvrc12", tmp_path)


def test_imagenets_folders_are_in_the_order_of_the_classes() -> None:
    """Against the lists that timm comes with."""
    info = pytest.importorskip("timm.data").ImageNetInfo()
    found = [info.index_to_label_name(k) for k in range(50)]
    assert found == list(classes.WEBVISION50_SYNSETS)
    described = [info.index_to_description(k) for k in range(50)]
    for name, text in zip(classes.WEBVISION50, described, strict=True):
        assert name.split()[-1].lower() in text.lower(), (name, text)


@pytest.mark.parametrize("folder", [".", "annotations"])
def test_clothing1m(tmp_path: Path, load: Callable[..., fo.Dataset], folder: str) -> None:
    lists = tmp_path / folder
    keys = [f"images/{i}/{i}.jpg" for i in range(4)]
    write_list(lists / "noisy_label_kv.txt", f"{keys[0]} 0", f"{keys[1]} 13", f"{keys[2]} 5")
    write_list(lists / "clean_label_kv.txt", f"{keys[2]} 8", f"{keys[3]} 2")
    write_list(lists / "noisy_train_key_list.txt", keys[0], keys[1])
    write_list(lists / "clean_val_key_list.txt", keys[2])
    write_list(lists / "clean_test_key_list.txt", keys[3])
    dataset = load("clothing1m", tmp_path)
    assert rows(dataset) == [
        ("T-Shirt", None, "train"),
        ("Underwear", None, "train"),
        ("Down Coat", "Down Coat", "val"),
        ("Knitwear", "Knitwear", "test"),
    ]
    write_list(lists / "noisy_train_key_list.txt", keys[3])
    with pytest.raises(LayoutError, match=r"3\.jpg has no label in noisy_label_kv\.txt"):
        load("clothing1m", tmp_path)


def test_paths_that_leave_the_root_are_refused(tmp_path: Path) -> None:
    write_list(tmp_path / "info" / "val_filelist.txt")
    for path in ("../secret.jpg", "/etc/passwd"):
        write_list(tmp_path / "info" / "train_filelist_google.txt", f"{path} 0")
        with pytest.raises(LayoutError, match=r"line 1: .* leads out of .*: refused"):
            cc.datasets.load("webvision", tmp_path, progress=False)


def test_what_is_missing_is_named(tmp_path: Path) -> None:
    for name in DATASETS:
        with pytest.raises(LayoutError, match=r"is not there|has neither"):
            cc.datasets.load(name, tmp_path, progress=False)
    with pytest.raises(LayoutError, match="is no folder"):
        cc.datasets.load("cifar10", tmp_path / "nowhere")
    with pytest.raises(ValueError, match="no data set 'mnist': choose from cifar10, "):
        cc.datasets.load("mnist", tmp_path)
    with pytest.raises(ValueError, match="cifar10n has no variant 'best'; its variants: 'worse'"):
        cc.datasets.load("cifar10n", tmp_path, "best")


def test_a_dataset_of_that_name_is_left_alone(
    tmp_path: Path, load: Callable[..., fo.Dataset]
) -> None:
    write_cifar10(tmp_path)
    first = load("cifar10", tmp_path, dataset_name="clipcleaner-test-cifar10")
    with pytest.raises(ValueError, match="there is a dataset 'clipcleaner-test-cifar10' already"):
        load("cifar10", tmp_path, dataset_name=first.name)
    assert len(first) == 24


@pytest.mark.parametrize("name", DATASETS)
def test_prompts_describe_every_class_with_as_many_words(name: str) -> None:
    path = cc.datasets.prompts(name)
    found = CLASSES[Path(path).name]
    described = json.loads(Path(path).read_text(encoding="utf-8"))["descriptors"]
    assert list(described) == list(found)
    clauses = [clause for clauses in described.values() for clause in clauses]
    assert {len(set(clauses)) for clauses in described.values()} == {3}
    assert all(re.fullmatch(r"[a-z]+ [^.]*[^. ]", clause) for clause in clauses)
    prompts = class_prompts(found, path)
    assert {len(texts) for texts in prompts} == {3}
    flat = [text for texts in prompts for text in texts]
    assert all(text.startswith("a photo of a") and text.endswith(".") for text in flat)
    assert duplicate_names(found, path) == []
    # No prompt says two classes
    assert len(set(flat)) == 3 * len(found)
