"""A run that is stopped, killed, starved of disk or damaged: what is left, and how it goes on."""

from __future__ import annotations

import io
import json
import os
import pickle
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import pytest
import torch
from training_bundles import (
    make_bundle,
    metrics,
    one_thread,
    read_rows,
    train,
    weights,
    write_bundle,
)

from training import checkpoint
from training.checkpoint import CheckpointError

SHORT = ("--epochs", "4", "--lr", "0.1")


class Stop(Exception):
    """Raised by a callback to end a run after an epoch."""


def stop_after(epochs: int) -> Any:
    def on_epoch(row: dict[str, Any]) -> None:
        if row["epoch"] == epochs:
            raise Stop

    return on_epoch


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_bundle(tmp_path_factory.mktemp("resume") / "bundle")


@pytest.fixture(scope="module")
def whole(bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The output of a run that nothing disturbed."""
    out = tmp_path_factory.mktemp("resume") / "whole"
    train(bundle, out, *SHORT)
    return out


@pytest.fixture
def stopped(bundle: Path, tmp_path: Path) -> Path:
    """The output of the same run, stopped after two epochs."""
    with pytest.raises(Stop):
        train(bundle, tmp_path / "out", *SHORT, on_epoch=stop_after(2))
    return tmp_path / "out"


def assert_same_run(out: Path, expected: Path) -> None:
    for name in ("last.pt", "best.pt"):
        got, wanted = weights(out / name), weights(expected / name)
        assert got.keys() == wanted.keys()
        assert all(torch.equal(got[key], wanted[key]) for key in wanted), name
    assert metrics(out) == metrics(expected)
    for name in ("predictions.jsonl", "results.json", "confusion.json"):
        assert (out / name).read_bytes() == (expected / name).read_bytes()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="the test forks")
def test_killed_at_any_moment_it_ends_with_the_same_weights(tmp_path: Path) -> None:
    """With batch normalisation, momentum, dropout, AutoAugment and relabelling at work."""
    bundle = make_bundle(tmp_path / "bundle", train=96, val=16, test=16)
    options = "--preset cifar10 --network mobilenet_v3_small --batch-size 16 --epochs 6 --lr 0.05"
    choices = (*options.split(), "--theta-r", "0.1", "--theta-r2", "0.1", "--workers", "0")
    train(bundle, tmp_path / "whole", *choices)
    relabelled = [row["relabelled"] + row["absorbed"] for row in metrics(tmp_path / "whole")]
    assert any(relabelled[:-1]), "the set must change on the way"
    done = subprocess.run(
        [
            *(sys.executable, str(Path(__file__).with_name("training_kills.py"))),
            *(str(bundle), str(tmp_path / "killed"), "3", "--quiet", *choices),
        ],
        env=one_thread(),
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) >= 2, "it was too quick to be killed"
    assert_same_run(tmp_path / "killed", tmp_path / "whole")
    left = {path.name for path in (tmp_path / "killed").iterdir()}
    assert not {name for name in left if name.endswith(".tmp")} and "incoming.pt" not in left


def test_stopped_by_a_callback_it_goes_on(bundle: Path, whole: Path, stopped: Path) -> None:
    assert not (stopped / "results.json").exists()
    assert len(metrics(stopped)) == 2
    train(bundle, stopped, *SHORT)
    assert_same_run(stopped, whole)
    before = weights(stopped / "last.pt")
    train(bundle, stopped, *SHORT)  # finished: nothing is trained, the results are written again
    assert_same_run(stopped, whole)
    assert all(torch.equal(before[k], v) for k, v in weights(stopped / "last.pt").items())


def test_lines_of_an_epoch_without_checkpoint_are_dropped(
    bundle: Path, whole: Path, stopped: Path
) -> None:
    with (stopped / "metrics.jsonl").open("a") as file:
        file.write('{"epoch": 3, "loss": 1.0}\n{"epoch": 4, "lo')
    train(bundle, stopped, *SHORT)
    assert_same_run(stopped, whole)


def flip(path: Path) -> None:
    """Alters one byte in the middle: some tensor's."""
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 0x10
    path.write_bytes(data)


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1000])


def empty(path: Path) -> None:
    path.write_bytes(b"")


@pytest.mark.parametrize("damage", [flip, truncate, empty, Path.unlink])
def test_a_damaged_checkpoint_is_passed_over_for_the_one_before(
    bundle: Path, whole: Path, stopped: Path, damage: Any, caplog: pytest.LogCaptureFixture
) -> None:
    damage(stopped / "last.pt")
    train(bundle, stopped, *SHORT)
    assert ("going on from" in caplog.text) == (damage is not Path.unlink)
    assert_same_run(stopped, whole)


def test_nothing_is_trained_over_checkpoints_that_are_all_damaged(
    bundle: Path, whole: Path, stopped: Path
) -> None:
    for name in ("last.pt", "previous.pt"):
        flip(stopped / name)
    before = {p.name: p.read_bytes() for p in stopped.glob("*.pt")}
    with pytest.raises(CheckpointError, match=r"last.pt.*damaged.*previous.pt.*--restart"):
        train(bundle, stopped, *SHORT)
    assert {p.name: p.read_bytes() for p in stopped.glob("*.pt")} == before
    train(bundle, stopped, *SHORT, "--restart")
    assert_same_run(stopped, whole)


def test_a_checkpoint_never_runs_code(bundle: Path, stopped: Path) -> None:
    class Evil:
        def __reduce__(self) -> tuple[Any, ...]:
            return os.mkdir, (str(stopped / "evil"),)

    with zipfile.ZipFile(stopped / "last.pt", "w") as archive:
        archive.writestr("archive/data.pkl", pickle.dumps(Evil(), protocol=2))
        archive.writestr("archive/version", "3")
    (stopped / "previous.pt").unlink()
    with pytest.raises(CheckpointError, match="damaged"):
        train(bundle, stopped, *SHORT)
    assert not (stopped / "evil").exists()


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--epochs", "5", "--lr", "0.1"), "epochs 4 → 5"),
        ((*SHORT, "--recipe", "ce"), "recipe 'mixfix' → 'ce'"),
        ((*SHORT, "--seed", "1"), "seed 3047 → 1"),
    ],
)
def test_other_settings_are_refused(
    bundle: Path, stopped: Path, options: tuple[str, ...], words: str
) -> None:
    with pytest.raises(CheckpointError, match=words):
        train(bundle, stopped, *options)


def test_a_changed_bundle_is_refused(tmp_path: Path) -> None:
    bundle = make_bundle(tmp_path / "bundle", train=40, val=10, test=10)
    with pytest.raises(Stop):
        train(bundle, tmp_path / "out", *SHORT, on_epoch=stop_after(1))
    rows = read_rows(bundle)
    rows[0]["selected"] = not rows[0]["selected"]
    write_bundle(bundle, rows)
    with pytest.raises(CheckpointError, match="another content of the bundle"):
        train(bundle, tmp_path / "out", *SHORT)


def test_a_damaged_best_checkpoint_is_said_and_can_be_given_up(
    bundle: Path, whole: Path, tmp_path: Path
) -> None:
    options = ("--epochs", "3", "--lr", "0.1", "--milestones", "9")
    with pytest.raises(Stop):
        train(bundle, tmp_path, *options, on_epoch=stop_after(3))
    # As if the second epoch had been the best
    state = torch.load(tmp_path / "last.pt", weights_only=True)
    checkpoint.write_bytes(
        tmp_path / "last.pt", checkpoint.to_bytes({**state, "best_epoch": 2, "best_accuracy": 1.0})
    )
    # The weights are those of the third, as after a kill between the two files: so it is said
    results = train(bundle, tmp_path, *options)
    assert results["best"]["epoch"] == 3 and results["best"] == results["last"]
    flip(tmp_path / "best.pt")
    with pytest.raises(CheckpointError, match=r"best.pt: .*damaged.*takes the last weights"):
        train(bundle, tmp_path, *options)
    (tmp_path / "best.pt").unlink()
    results = train(bundle, tmp_path, *options)
    assert results["best_chosen_on"] is None and results["best"] == results["last"]


@pytest.mark.skipif(sys.platform == "win32", reason="no limit of file sizes")
def test_a_full_disk_leaves_the_older_checkpoint(bundle: Path, whole: Path, stopped: Path) -> None:
    """A limit on file sizes fails writes half-way, as a full disk does."""
    import resource
    import signal

    before = {p.name: p.read_bytes() for p in stopped.glob("*.pt")}
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    old_handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    size = (stopped / "last.pt").stat().st_size
    resource.setrlimit(resource.RLIMIT_FSIZE, (size // 4, limits[1]))
    try:
        with pytest.raises(OSError, match=r"\.pt"):
            train(bundle, stopped, *SHORT)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, old_handler)
    assert {p.name: p.read_bytes() for p in stopped.glob("*.pt")} == before
    assert not list(stopped.glob("*.tmp"))
    train(bundle, stopped, *SHORT)
    assert_same_run(stopped, whole)


def test_what_an_interrupted_write_left_is_removed(
    bundle: Path, whole: Path, stopped: Path
) -> None:
    (stopped / "incoming.pt").write_bytes(b"half")
    (stopped / "best.pt.tmp").write_bytes(b"half")
    train(bundle, stopped, *SHORT)
    assert_same_run(stopped, whole)
    assert not (stopped / "incoming.pt").exists() and not (stopped / "best.pt.tmp").exists()


def test_a_checkpoint_holds_what_the_readme_says(stopped: Path) -> None:
    state = torch.load(stopped / "last.pt", weights_only=True)
    assert {"model", "optimizer", "epoch", "set", "config", "bundle_digest"} <= state.keys()
    assert state["epoch"] == 2 and state["set"]["labels"].shape == (260,)
    assert checkpoint.from_bytes(checkpoint.to_bytes({"a": torch.ones(2)}))["a"].tolist() == [1, 1]
    buffer = io.BytesIO()
    torch.save([1], buffer)
    with pytest.raises(CheckpointError, match="no checkpoint"):
        checkpoint.from_bytes(buffer.getvalue())
    config = json.loads((stopped / "config.json").read_text())
    assert config["epochs"] == 4 and config["network"] == "small-cnn"
