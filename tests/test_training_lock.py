"""Two trainers in one folder: the second is told who the first is; a dead one is no obstacle."""

from __future__ import annotations

import os
import signal
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from training_bundles import make_bundle, metrics, train

from training import lock
from training.lock import FolderIsBusy, hold
from training.train import main

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="the tests fork")


@contextmanager
def holder(folder: Path) -> Iterator[tuple[int, int]]:
    """A process that holds the folder, and one that it has started, as it starts image loaders."""
    reading, writing = os.pipe()
    first = os.fork()
    if first == 0:
        with hold(folder):
            second = os.fork()
            if second:
                os.write(writing, f"{second}\n".encode())
            time.sleep(3600)
        os._exit(1)
    second = int(os.read(reading, 20))
    try:
        yield first, second
    finally:
        for pid in (first, second):
            os.kill(pid, signal.SIGKILL)
        os.waitpid(first, 0)
        os.close(reading)
        os.close(writing)


def test_the_other_process_is_named(tmp_path: Path) -> None:
    with holder(tmp_path / "out") as (pid, _):
        who = f"Process {pid} on {socket.gethostname()}, started 20"
        with (
            pytest.raises(FolderIsBusy, match="give another --out") as caught,
            hold(tmp_path / "out"),
        ):
            pass
        assert str(caught.value).startswith(who) and str(tmp_path / "out") in str(caught.value)
        with hold(tmp_path / "other"):
            pass


def test_a_process_that_was_killed_is_no_obstacle(tmp_path: Path) -> None:
    with holder(tmp_path) as (first, second):
        os.kill(first, signal.SIGKILL)
        os.waitid(os.P_PID, first, os.WEXITED | os.WNOWAIT)
        os.kill(second, 0)  # its child lives on for a while
        with hold(tmp_path):
            assert f'"pid": {os.getpid()}' in (tmp_path / lock.LOCK).read_text()


def test_it_may_be_held_again_and_after_a_failure(tmp_path: Path) -> None:
    with pytest.raises(KeyError), hold(tmp_path):
        raise KeyError
    with hold(tmp_path), pytest.raises(FolderIsBusy), _elsewhere(tmp_path):
        pass


@contextmanager
def _elsewhere(folder: Path) -> Iterator[None]:
    """Tries to hold the folder in another process."""
    pid = os.fork()
    if pid == 0:
        try:
            with hold(folder):
                os._exit(0)
        except FolderIsBusy:
            os._exit(3)
    if os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 3:
        raise FolderIsBusy
    yield


def test_a_lock_file_that_says_nothing(tmp_path: Path) -> None:
    with holder(tmp_path):
        for text in ("", "{}", "[1]", '{"pid": 1, "host": "a", "since": "noon"}'):
            (tmp_path / lock.LOCK).write_text(text)
            with pytest.raises(FolderIsBusy, match=r"^Another process trains"), hold(tmp_path):
                pass


def test_the_trainer_keeps_away_from_anothers_run(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bundle, out = make_bundle(tmp_path / "bundle", train=64, val=16, test=16), tmp_path / "out"
    options = ("--epochs", "1", "--batch-size", "16")
    train(bundle, out, *options)
    before = {path.name: path.stat().st_mtime_ns for path in out.iterdir() if path.is_file()}
    with holder(out) as (pid, _):
        before[lock.LOCK] = (out / lock.LOCK).stat().st_mtime_ns
        fixed = ("--out", str(out), "--device", "cpu", "--workers", "0", "--quiet")
        assert main([str(bundle), *fixed, *options, "--restart"]) == 1
        assert f"error: Process {pid} on " in capsys.readouterr().err
        assert {p.name: p.stat().st_mtime_ns for p in out.iterdir() if p.is_file()} == before
    train(bundle, out, *options)
    assert len(metrics(out)) == 1
