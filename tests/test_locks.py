"""Two writers on one run: the second one is told so, and a dead one is no obstacle."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from datetime import datetime, timedelta, timezone
from typing import Any

import fiftyone as fo
import numpy as np
import pytest
from feature_clusters import make_clusters

import clipcleaner_plugin as cc
from clipcleaner_plugin import locks
from clipcleaner_plugin.locks import RunIsBusy, confirm_lock, run_lock

Maker = Callable[..., fo.Dataset]
N = 60


@pytest.fixture
def labeled(dataset: Maker) -> fo.Dataset:
    clusters = make_clusters(N)
    made = dataset(
        [
            fo.Sample(filepath=f"/none/{i}.png", ground_truth=fo.Classification(label=str(k)))
            for i, k in enumerate(clusters.truth)
        ]
    )
    made.add_sample_field("vectors", fo.VectorField)
    made.set_values("vectors", list(clusters.images))
    return made


def apply(labeled: fo.Dataset, key: str = "run", **options: Any) -> Any:
    return cc.apply_clipcleaner(labeled, key=key, model=None, embeddings="vectors", **options)


def documents(labeled: fo.Dataset) -> list[dict[str, Any]]:
    """The locks of one dataset: a process killed by another test may have left its own."""
    of_it = {"_id": {"$regex": f"^{labeled._doc.id}/"}}
    return list(locks._locks().find(of_it))


def test_a_second_writer_is_refused_and_told_who_is_at_work(labeled: fo.Dataset) -> None:
    refused: list[str] = []

    def meanwhile(bar: Any) -> None:
        for write in (
            lambda: apply(labeled),
            lambda: cc.delete_run(labeled, "run"),
            lambda: cc.rename_run(labeled, "run", "other"),
            lambda: results.reselect(theta_cons=0.9),
        ):
            with pytest.raises(RunIsBusy) as error:
                write()
            refused.append(str(error.value))
        apply(labeled, "another")

    results = apply(labeled)
    apply(labeled, progress=meanwhile)
    assert len(refused) == 4 and len(set(refused)) == 1
    assert f"run 'run' is being written by process {os.getpid()} on " in refused[0]
    assert sorted(cc.list_runs(labeled)) == ["another", "run"]
    assert documents(labeled) == []


def test_a_failure_lets_go_of_the_run(labeled: fo.Dataset) -> None:
    with pytest.raises(ValueError, match="theta_cons"):
        apply(labeled, theta_cons=2)
    with pytest.raises(TypeError, match="FiftyOne dataset"):
        cc.apply_clipcleaner([1, 2])
    assert documents(labeled) == []
    apply(labeled)


def test_a_killed_process_does_not_keep_a_run(labeled: fo.Dataset) -> None:
    code = f"""
import sys, time, fiftyone as fo
from clipcleaner_plugin.locks import run_lock
with run_lock(fo.load_dataset({labeled.name!r}), "run"):
    print("held", flush=True)
    time.sleep(3600)
"""
    holder = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    assert holder.stdout is not None
    try:
        assert any(line.strip() == "held" for line in holder.stdout)
        with pytest.raises(RunIsBusy, match=f"process {holder.pid} "):
            apply(labeled)
    finally:
        holder.send_signal(signal.SIGKILL)
        holder.wait(20)
    apply(labeled)


def write_lock(labeled: fo.Dataset, seconds: float) -> None:
    """A lock of another machine that lapses in so many seconds."""
    now = datetime.now(timezone.utc)
    lock = locks._lock_id(labeled, "run")
    holder = {"token": "theirs", "host": "elsewhere", "pid": 1, "since": now}
    until = now + timedelta(seconds=seconds)
    locks._locks().replace_one({"_id": lock}, {**holder, "until": until}, upsert=True)


def test_a_lock_of_another_machine_holds_until_it_lapses(labeled: fo.Dataset) -> None:
    write_lock(labeled, 3600)
    with pytest.raises(RunIsBusy, match="process 1 on elsewhere since"):
        apply(labeled)
    write_lock(labeled, -1)
    apply(labeled)
    assert documents(labeled) == []


def test_who_lost_the_run_while_it_was_suspended_writes_nothing(labeled: fo.Dataset) -> None:
    with pytest.raises(RunIsBusy, match="taken over by another process"):
        apply(labeled, progress=lambda bar: write_lock(labeled, 3600))
    assert cc.list_runs(labeled) == []
    assert [found["token"] for found in documents(labeled)] == ["theirs"], "not ours to release"
    write_lock(labeled, -1)


def test_a_long_run_keeps_its_lock(labeled: fo.Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(locks, "_RENEWALS", 600)
    with run_lock(labeled, "run"):
        now = datetime.now(timezone.utc)
        (lock,) = documents(labeled)
        long_ago = {"$set": {"until": now - timedelta(days=1)}}
        locks._locks().update_one({"_id": lock["_id"]}, long_ago)
        while documents(labeled)[0]["until"] < now.replace(tzinfo=None):
            time.sleep(0.01)
        confirm_lock(labeled, "run")
        with pytest.raises(RunIsBusy), run_lock(labeled, "run"):
            pass


def test_of_many_at_once_one_wins(labeled: fo.Dataset) -> None:
    start, inside, won = threading.Barrier(8), [], []

    def write() -> None:
        start.wait()
        try:
            with run_lock(labeled, "run"):
                inside.append(1)
                won.append(len(inside))
                time.sleep(0.3)
                inside.pop()
        except RunIsBusy:
            pass

    threads = [threading.Thread(target=write) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert won and set(won) == {1}


def test_the_signature_is_that_of_the_function() -> None:
    import inspect

    names = list(inspect.signature(cc.apply_clipcleaner).parameters)
    assert names[:3] == ["samples", "label_field", "key"]
    assert np.array_equal(list(inspect.signature(cc.delete_run).parameters), ["samples", "key"])
