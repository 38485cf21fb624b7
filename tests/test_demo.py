"""The demo from its command line: errors planted, found, counted; nothing of the user's touched."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
import urllib.request
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import fiftyone as fo
import fiftyone.zoo as foz
import numpy as np
import pytest
import torch
from PIL import Image
from ports import free_port

from clipcleaner_plugin.__main__ import main
from clipcleaner_plugin.demo import confusion_pairs, run_demo
from clipcleaner_plugin.demo_data import DIGITS, Images, read_images
from clipcleaner_plugin.digits import DIGIT_NAMES, load_half, render
from clipcleaner_plugin.models import TINY_CLIP, load_model
from clipcleaner_plugin.noise import draw_noise
from clipcleaner_plugin.scoring import score_labels
from clipcleaner_plugin.text import class_text_features

EVIDENCE = (
    *("score", "zeroshot_loss", "zeroshot_consistency", "visual_loss", "visual_consistency"),
    *("verdict", "suggestion.label", "suggestion.confidence"),
)


@pytest.fixture
def name() -> Iterator[str]:
    """A name for a demo dataset that goes after the test."""
    unique = f"demo-{uuid.uuid4().hex[:8]}"
    yield unique
    if fo.dataset_exists(unique):
        fo.delete_dataset(unique)


@pytest.fixture
def own_digits(tmp_path: Path) -> Path:
    """A directory of the user's: one folder for each of three digits."""
    images = read_images(DIGITS)
    for path, label in zip(images.filepaths, images.labels, strict=True):
        if label < 3:
            target = tmp_path / "own" / DIGIT_NAMES[label] / Path(path).name
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(Path(path).read_bytes())
    return tmp_path / "own"


def fields(dataset: fo.Dataset) -> dict[str, list[Any]]:
    names = ["filepath", "ground_truth.label", "trusted_label.label"]
    names += [f"clipcleaner_{name}" for name in EVIDENCE]
    values = dict(zip(names, dataset.values(names), strict=True))
    vectors = dataset.values("clipcleaner_embedding")
    values["embedding"] = [np.asarray(v, dtype=np.float32).tobytes() for v in vectors]
    return values


def figures(out: str) -> dict[str, float]:
    """The counts and rates in what the demo prints."""
    found: dict[str, float] = {}
    for line in out.splitlines():
        words = line.split()
        for key in ("precision", "recall"):
            if key in words:
                found[key] = float(words[words.index(key) + 1])
        for key in ("wrong labels", "found", "missed", "falsely flagged", "right suggestions"):
            if line.startswith(f"{key} "):
                found[key] = int(line.removeprefix(key).split()[0])
    return found


def test_finds_the_planted_errors_and_repeats_to_the_bit(
    name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["demo", "--name", name]) == 0
    out = capsys.readouterr().out
    said = figures(out)
    assert said["precision"] >= 0.95 and said["recall"] >= 0.95
    dataset = fo.load_dataset(name)
    given, trusted, verdict = dataset.values(
        ["ground_truth.label", "trusted_label.label", "clipcleaner_verdict"]
    )
    wrong = np.array(given) != np.array(trusted)
    flagged = np.array(verdict) == "mislabeled"
    assert said["wrong labels"] == wrong.sum() == 242  # 270 redrawn, a tenth onto themselves
    assert said["found"] == (wrong & flagged).sum()
    assert said["missed"] == (wrong & ~flagged).sum()
    assert said["falsely flagged"] == (flagged & ~wrong).sum()
    assert f"fiftyone app launch {name}" in out and "clipcleaner: mislabeled" in out
    assert out.count("suggested") == said["falsely flagged"]
    assert dataset.persistent and len(dataset) == 901

    first, ids = fields(dataset), dataset.values("id")
    dataset.add_sample_field("my_note", fo.StringField)
    dataset.limit(3).tag_samples("seen")
    dataset.save_view("clipcleaner: mine", dataset.limit(3))
    assert main(["demo", "--name", name]) == 0
    again = fo.load_dataset(name)
    again.reload()
    assert again.values("id") == ids  # the same samples, so their embeddings are used again
    assert fields(again) == first
    assert not again.has_sample_field("my_note") and not again.distinct("tags")
    assert again.list_brain_runs() == ["clipcleaner"]


def test_errors_between_classes_that_look_alike_are_found(name: str) -> None:
    demo = run_demo(read_images(DIGITS), model=TINY_CLIP, noise="asymmetric", name=name)
    assert demo.found["precision"] >= 0.95 and demo.found["recall"] >= 0.95
    assert demo.found["suggestions_right"] >= 0.95
    trusted, given = demo.dataset.values(["trusted_label.label", "ground_truth.label"])
    assert {pair for pair in zip(trusted, given, strict=True) if pair[0] != pair[1]} == {
        *(("three", "eight"), ("eight", "three"), ("four", "nine"), ("nine", "four")),
        *(("one", "seven"), ("seven", "one")),
    }


@pytest.fixture(scope="module")
def features() -> tuple[np.ndarray, np.ndarray, list[np.ndarray]]:
    """Image features, true labels and text features of the demo's digits."""
    model = load_model(TINY_CLIP, device="cpu")
    scans, labels, _ = load_half("held-out")
    pixels = torch.stack([model.transform(render(scan)) for scan in scans])
    prompts = [[f"a photo of a {digit}."] for digit in DIGIT_NAMES]
    return model.encode_images(pixels), labels, class_text_features(model, prompts)


@pytest.mark.parametrize("noise", ["symmetric", "asymmetric"])
@pytest.mark.parametrize("seed", [1, 2, 3])
def test_other_draws_are_found_as_well(
    features: tuple[np.ndarray, np.ndarray, list[np.ndarray]], noise: str, seed: int
) -> None:
    images, labels, texts = features
    names = list(DIGIT_NAMES)
    pairs = None
    if noise == "asymmetric":
        pairs = [(names.index(a), names.index(b)) for a, b in confusion_pairs(names) or ()]
    noisy = draw_noise(labels, 10, noise, 0.3, seed, pairs)
    flagged = score_labels(images, noisy, texts).verdict == "mislabeled"
    found = (flagged & (noisy != labels)).sum()
    assert found / flagged.sum() >= 0.95 and found / (noisy != labels).sum() >= 0.95


def test_no_noise_means_no_truth(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["demo", "--name", name, "--rate", "0", "--max-samples", "300"]) == 0
    out = capsys.readouterr().out
    assert "No errors were planted" in out and "precision" not in out
    dataset = fo.load_dataset(name)
    assert len(dataset) == 300
    flagged = dataset.count_values("clipcleaner_verdict").get("mislabeled", 0)
    assert f"flagged {flagged} of 300" in out


def test_a_dataset_of_the_user_is_read_only(
    name: str, dataset: Callable[..., fo.Dataset], capsys: pytest.CaptureFixture[str]
) -> None:
    images = read_images(DIGITS, max_samples=200)
    labels: list[str | None] = images.names(images.labels)
    labels[7] = None
    mine = dataset(
        [
            fo.Sample(filepath=p, kind=None if k is None else fo.Classification(label=k))
            for p, k in zip(images.filepaths, labels, strict=True)
        ]
    )
    before = mine.to_dict()
    options = ["--dataset", mine.name, "--label-field", "kind", "--model", TINY_CLIP]
    assert main(["demo", "--name", name, *options]) == 0
    assert "199 labelled images" in capsys.readouterr().out
    mine.reload()
    assert mine.to_dict() == before
    made = fo.load_dataset(name)
    assert made.values("filepath") == images.filepaths
    assert made.values("trusted_label.label") == labels
    assert made.values("ground_truth.label")[7] is None


def test_a_directory_of_class_folders(
    name: str, own_digits: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = {path: path.stat().st_mtime_ns for path in own_digits.rglob("*")}
    temporary = set(fo.list_datasets())
    assert main(["demo", "--dataset", str(own_digits), "--model", TINY_CLIP, "--name", name]) == 0
    assert "knows handwritten digits only" in capsys.readouterr().err
    made = fo.load_dataset(name)
    assert made.distinct("trusted_label.label") == ["one", "two", "zero"]
    assert set(made.values("filepath")) == {str(p) for p in before if p.is_file()}
    assert {path: path.stat().st_mtime_ns for path in own_digits.rglob("*")} == before
    assert set(fo.list_datasets()) - temporary == {name}


def test_a_dataset_of_the_zoo(own_digits: Path, tmp_path: Path) -> None:
    """Laid out as FiftyOne keeps a download: CIFAR-10 by name, digits by content."""
    home = Path(fo.config.dataset_zoo_dir) / "cifar10"
    source = fo.Dataset.from_dir(
        str(own_digits), dataset_type=fo.types.ImageClassificationDirectoryTree, progress=False
    )
    kind = fo.types.FiftyOneImageClassificationDataset
    source.export(str(home / "test"), dataset_type=kind, label_field="ground_truth", progress=False)
    n = len(source)
    source.delete()
    info = foz.ZooDatasetInfo(
        foz.get_zoo_dataset("cifar10"),
        kind,
        n,
        downloaded_splits={"test": foz.ZooDatasetSplitInfo("test", n)},
        classes=["one", "two", "zero"],
    )
    info.write_json(str(home / "info.json"), pretty_print=True)
    images = read_images("cifar10", max_samples=50)
    assert images.source == "zoo dataset cifar10, test"
    assert images.classes == ["one", "two", "zero"] and len(images) == 50
    assert all(path.startswith(str(home)) for path in images.filepaths)
    with pytest.raises(ValueError, match="no split 'val'; it has: train, test"):
        read_images("cifar10", split="val")


def test_a_zoo_out_of_reach(monkeypatch: pytest.MonkeyPatch) -> None:
    def unreachable(*args: Any, **kwargs: Any) -> fo.Dataset:
        raise ConnectionError("no route to host")

    monkeypatch.setattr(foz, "load_zoo_dataset", unreachable)
    with pytest.raises(ValueError, match=r"'mnist' could not be loaded.*no route to host.*Without"):
        read_images("mnist")


def test_the_subset_is_always_the_same() -> None:
    first, second = (read_images(DIGITS, max_samples=40) for _ in range(2))
    assert first.filepaths == second.filepaths and len(first) == 40
    assert len(read_images(DIGITS, max_samples=5000)) == 901


def test_image_files_are_kept_and_mended() -> None:
    paths = [Path(p) for p in read_images(DIGITS).filepaths[:2]]
    before = [(p.stat().st_mtime_ns, p.read_bytes()) for p in paths]
    paths[0].write_bytes(b"broken")
    read_images(DIGITS)
    assert paths[0].read_bytes() == before[0][1]
    assert paths[1].stat().st_mtime_ns == before[1][0]
    assert Image.open(paths[0]).size == (64, 64)


def test_another_source_replaces_the_demo(name: str, own_digits: Path) -> None:
    run_demo(read_images(DIGITS, max_samples=200), model=TINY_CLIP, name=name)
    run_demo(read_images(str(own_digits)), model=TINY_CLIP, name=name)
    made = fo.load_dataset(name)
    assert all(path.startswith(str(own_digits)) for path in made.values("filepath"))
    assert made.list_brain_runs() == ["clipcleaner"]


def test_a_demo_that_was_cut_off_is_repaired(name: str) -> None:
    """Fields without a run stay behind when a process dies while it writes."""
    images = read_images(DIGITS, max_samples=200)
    run_demo(images, model=TINY_CLIP, name=name)
    dataset = fo.load_dataset(name)
    config = dataset.get_brain_info("clipcleaner").config
    dataset._doc.brain_methods.clear()
    dataset._doc.save()
    assert config.label_field == "ground_truth" and dataset.has_sample_field("clipcleaner_score")
    demo = run_demo(images, model=TINY_CLIP, name=name)
    assert demo.dataset.list_brain_runs() == ["clipcleaner"]
    assert demo.results.counts()["unscorable"] == 0


@pytest.mark.parametrize(
    ("options", "match"),
    [
        (["--rate", "1.5"], r"--rate is 1\.5"),
        (["--dataset", "cifar1"], r"'cifar1' is no FiftyOne dataset, no directory.*cifar10"),
        (["--dataset", "same", "--name", "same"], "what --name would replace"),
        (["--max-samples", "0"], "max_samples=0"),
        (["--model", "ViT-B32"], "Close names: .*ViT-B-32"),
        (["--class-prompts", "/no/such/file.yaml"], "/no/such/file.yaml"),
    ],
)
def test_wrong_options(
    options: list[str], match: str, name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["demo", "--name", name, *options]) == 1
    assert re.search(match, capsys.readouterr().err)


def test_wrong_labels_in_a_dataset(dataset: Callable[..., fo.Dataset], tmp_path: Path) -> None:
    path = str(read_images(DIGITS, max_samples=1).filepaths[0])
    mine = dataset([fo.Sample(filepath=path, kind=fo.Classification(label="a"), note="x")])
    with pytest.raises(ValueError, match="1 classes in field 'kind'"):
        read_images(mine.name, "kind")
    with pytest.raises(ValueError, match=r"field 'note' is a StringField"):
        read_images(mine.name, "note")
    with pytest.raises(ValueError, match="there is no field 'ground_truth'"):
        read_images(mine.name)
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match=r"empty has no images; expected a folder for each class"):
        read_images(str(tmp_path / "empty"))


def test_a_misspelt_model_does_not_cost_the_former_demo(name: str) -> None:
    images = read_images(DIGITS, max_samples=200)
    run_demo(images, model=TINY_CLIP, name=name)
    before = fields(fo.load_dataset(name))
    with pytest.raises(ValueError, match="no open_clip model"):
        run_demo(images, model="ViT-B32", seed=3, name=name)
    assert fields(fo.load_dataset(name)) == before


def test_a_dataset_that_no_demo_made_is_not_replaced(dataset: Callable[..., fo.Dataset]) -> None:
    images = read_images(DIGITS, max_samples=20)
    mine = dataset([fo.Sample(filepath=images.filepaths[0])])
    with pytest.raises(ValueError, match="was not made by the demo"):
        run_demo(images, model=TINY_CLIP, name=mine.name)
    assert len(mine) == 1


def test_confusions() -> None:
    cifar = "airplane automobile bird cat deer dog frog horse ship truck".split()  # noqa: SIM905
    pairs = confusion_pairs(cifar)
    assert pairs is not None
    assert [f"{a}>{b}" for a, b in pairs] == [
        *("truck>automobile", "bird>airplane", "deer>horse", "cat>dog", "dog>cat")
    ]
    assert confusion_pairs(["cat", "dog"]) is None


def test_names_of_no_label() -> None:
    images = Images("", ["a", "b"], np.array([1, -1]), ["x", "y"])
    assert images.names(images.labels) == ["y", None] and len(images) == 2


def test_the_app_opens_on_the_result(name: str) -> None:
    port = free_port()
    env = {**os.environ, "FIFTYONE_DEFAULT_APP_PORT": str(port), "BROWSER": "true"}
    command = [sys.executable, "-m", "clipcleaner_plugin", "demo", "--app", "--name", name]
    process = subprocess.Popen(
        [*command, "--max-samples", "200"],
        env=env,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    try:
        wait_for_page(f"http://127.0.0.1:{port}/", process)
        assert process.stdout is not None
        for line in process.stdout:
            if "Ctrl-C ends it" in line:
                break
        process.send_signal(signal.SIGINT)
        assert process.wait() == 0
    finally:
        process.kill()
        process.wait()


def wait_for_page(url: str, process: subprocess.Popen[str]) -> None:
    deadline = time.monotonic() + 300
    while time.monotonic() < deadline and process.poll() is None:
        try:
            with urllib.request.urlopen(url, timeout=5) as page:
                assert page.status == 200
                return
        except OSError:
            time.sleep(0.3)
    pytest.fail(f"no App at {url}; the demo's exit status is {process.poll()}")
