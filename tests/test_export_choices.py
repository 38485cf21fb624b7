"""Which label and which split an export takes; a new dataset appears whole or not at all."""

from __future__ import annotations

import signal
import subprocess
import sys
import textwrap
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import fiftyone as fo
import pytest
from exports import N

import clipcleaner_plugin as cc
from training.bundle import read_bundle

pytestmark = pytest.mark.usefixtures("quiet")


def test_an_image_lies_in_the_folder_of_its_suggestion(
    untouched: fo.Dataset, tmp_path: Path
) -> None:
    """With labels="suggested", where the suggestion is sure enough; clean images stay."""
    results, tree = cc.load_results(untouched), tmp_path / "t"
    ids, suggested, sure = results.mislabeled_view().values(
        ["id", "clipcleaner_suggestion.label", "clipcleaner_suggestion.confidence"]
    )
    threshold = sorted(sure)[len(sure) // 2]
    moved = {i: k for i, k, q in zip(ids, suggested, sure, strict=True) if q >= threshold}
    assert 0 < len(moved) < len(ids)
    report = cc.export_cleaned(
        untouched, "clipcleaner", tree, format="image_tree", labels="suggested",
        min_confidence=threshold,
    )  # fmt: skip
    clean = dict(zip(*results.clean_view().values(["id", "ground_truth.label"]), strict=True))
    folders = {path.stem: path.parent.name for path in tree.glob("*/*/*")}
    assert folders == clean | moved and report.relabelled == len(moved)
    sources = dict(zip(*untouched.values(["id", "filepath"]), strict=True))
    for path in tree.glob("*/*/*"):
        assert path.read_bytes() == Path(sources[path.stem]).read_bytes()


def splits_of(samples: fo.Dataset, folder: Path, **options: Any) -> dict[str, str]:
    """Exports a bundle and returns id → split."""
    cc.export_cleaned(samples, "clipcleaner", folder, split="random", **options)
    bundle = read_bundle(folder)
    return {bundle.ids[i]: name for name, members in bundle.splits.items() for i in members}


def test_a_random_split_depends_on_the_seed_and_keeps_every_class(
    digits: fo.Dataset, tmp_path: Path
) -> None:
    ids = digits.values("id")
    first = splits_of(digits, tmp_path / "a", seed=7)
    assert splits_of(digits, tmp_path / "b", seed=7) == first
    assert splits_of(digits, tmp_path / "c", seed=8) != first
    # Neither tags nor the order of the samples matter
    digits.select(ids[:30]).tag_samples("test")
    shuffled = digits.shuffle(seed=1)
    assert splits_of(shuffled, tmp_path / "d", seed=7) == first

    wanted = {"train": 0.6, "val": 0.2, "test": 0.2}
    drawn = splits_of(digits, tmp_path / "e", seed=7, fractions=wanted)
    labels = dict(zip(*digits.values(["id", "ground_truth.label"]), strict=True))
    for splits, shares in ((first, {"train": 0.8, "val": 0.1, "test": 0.1}), (drawn, wanted)):
        assert splits.keys() == set(ids)
        counts = Counter((labels[i], split) for i, split in splits.items())
        for label, n in Counter(labels.values()).items():
            for split, share in shares.items():
                assert abs(counts[label, split] - share * n) < 2, (label, split)
        for split, share in shares.items():
            assert abs(sum(s == split for s in splits.values()) - share * N) <= 1


# --- a new dataset


@pytest.fixture
def name(digits: fo.Dataset) -> Iterator[str]:
    """A name for a dataset to be made; whatever has it in its name goes after the test."""
    yield (made := f"{digits.name}-cleaned")
    for left in fo.list_datasets(f"{made}*"):
        fo.delete_dataset(left)


class Stop(BaseException):
    """Ends an export from within, as Ctrl-C does."""


def stop(bar: Any) -> None:
    raise Stop


def test_a_stopped_export_leaves_no_dataset(digits: fo.Dataset, name: str) -> None:
    options: dict[str, Any] = {"format": "dataset", "dataset_name": name}
    with pytest.raises(Stop):
        cc.export_cleaned(digits, progress=stop, **options)
    assert fo.list_datasets(f"{name}*") == []
    cc.export_cleaned(digits, **options)
    before = fo.load_dataset(name).values(["id", "ground_truth.label", "tags"])
    with pytest.raises(Stop):
        cc.export_cleaned(digits.limit(20), progress=stop, overwrite=True, **options)
    assert fo.list_datasets(f"{name}*") == [name]
    assert fo.load_dataset(name).values(["id", "ground_truth.label", "tags"]) == before


_EXPORT = """
    import sys, time
    sys.path[:0] = [{root!r}]
    import fiftyone as fo
    import clipcleaner_plugin as cc

    fo.config.show_progress_bars = False

    def report(bar):
        print("working", flush=True)
        while True:
            time.sleep(1)

    samples = fo.load_dataset({source!r})
    cc.export_cleaned(
        samples, format="dataset", dataset_name={name!r}, overwrite=True, progress=report
    )
"""


@pytest.mark.parametrize("replaces", [False, True])
def test_a_killed_export_leaves_nothing_that_looks_whole(
    digits: fo.Dataset, name: str, repo_root: Path, replaces: bool
) -> None:
    """What is left says in its name what it is, and FiftyOne removes it: it is not persistent."""
    digits.persistent = True
    if replaces:
        cc.export_cleaned(digits.limit(20), format="dataset", dataset_name=name)
        size = len(fo.load_dataset(name))
    code = textwrap.dedent(_EXPORT).format(root=str(repo_root), source=digits.name, name=name)
    child = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    assert child.stdout is not None
    assert any(line == "working\n" for line in child.stdout)
    child.send_signal(signal.SIGKILL)
    child.communicate()

    assert fo.dataset_exists(name) == replaces
    left = [n for n in fo.list_datasets(f"{name}*") if n != name]
    assert len(left) == 1 and left[0].startswith(f"{name}-unfinished-")
    assert not fo.load_dataset(left[0]).persistent
    if replaces:
        assert len(fo.load_dataset(name)) == size
    report = cc.export_cleaned(digits, format="dataset", dataset_name=name, overwrite=replaces)
    assert len(fo.load_dataset(name)) == report.samples == cc.load_results(digits).counts()["clean"]
