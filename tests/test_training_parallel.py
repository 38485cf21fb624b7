"""Two processes under torchrun train as one does, also when they go on with its run."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from training_bundles import SCRIPT, make_bundle, metrics, one_thread, read_rows, train, weights

from training.parallel import World, gather_parts, own_part

OPTIONS = "--epochs 4 --lr 0.1 --theta-r 0.2 --theta-r2 0.2 --batch-size 16 --cache off".split()  # noqa: SIM905


class Stop(Exception):
    """Ends a run after its first epoch."""


def stop(row: dict[str, Any]) -> None:
    raise Stop


def torchrun(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    return subprocess.run(
        [*launcher, "--nproc_per_node", "2", str(SCRIPT), *map(str, arguments)],
        env=one_thread(),
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )


def test_two_processes_train_as_one(tmp_path: Path) -> None:
    """The network has no batch normalisation: on CPUs its statistics would differ by process."""
    folder = make_bundle(tmp_path / "b", train=165, val=33, test=61)
    # Met by one of the processes only
    (folder / next(r for r in read_rows(folder) if r["selected"])["image"]).write_bytes(b"")
    train(folder, tmp_path / "one", *OPTIONS)
    with pytest.raises(Stop):
        train(folder, tmp_path / "two", *OPTIONS, on_epoch=stop)
    done = torchrun(folder, "--out", tmp_path / "two", "--device", "cpu", *OPTIONS)
    assert done.returncode == 0, done.stderr
    assert "Going on after epoch 1" in done.stderr
    one, two = (torch.load(tmp_path / n / "last.pt", weights_only=True) for n in ("one", "two"))
    assert any(row["relabelled"] and row["absorbed"] for row in metrics(tmp_path / "one")[:-1])
    for name, value in one["set"].items():
        assert torch.equal(value, two["set"][name]), name
    for key, value in weights(tmp_path / "one" / "last.pt").items():
        # Only the order of the sums in the gradients differs
        torch.testing.assert_close(two["model"][key], value, rtol=1e-4, atol=1e-5)
    assert one["unreadable"].sum() == 1 and torch.equal(one["unreadable"], two["unreadable"])
    for a, b in zip(metrics(tmp_path / "one"), metrics(tmp_path / "two"), strict=True):
        assert a == pytest.approx(b, rel=1e-4)


@pytest.mark.parametrize("size", [1, 2, 3, 8])
@pytest.mark.parametrize("count", [0, 1, 7, 16])
def test_every_row_is_predicted_by_one_process(size: int, count: int) -> None:
    worlds = [World(rank, size, torch.device("cpu")) for rank in range(size)]
    parts = [own_part(count, world) for world in worlds]
    assert sorted(np.concatenate(parts).tolist()) == list(range(count))
    if size == 1:
        rows = torch.arange(count)
        assert torch.equal(gather_parts(rows, count, worlds[0]), rows)
