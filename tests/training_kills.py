"""Trains in forked children and kills them with SIGKILL, so that torch is imported only once.

    python training_kills.py BUNDLE OUT SEED [trainer's options]

Kills at random moments until a child finishes, which none does in less than the last two epochs:
however late the kill, there is work left. Prints how many were killed.
"""

from __future__ import annotations

import math
import os
import random
import signal
import sys
import time
import traceback
from pathlib import Path
from typing import Any

REPO_ROOT = Path(__file__).resolve().parent.parent


def child(arguments: list[str]) -> int:
    pid = os.fork()
    if pid == 0:
        try:
            train_two_epochs(arguments)
            os._exit(0)
        except BaseException:
            traceback.print_exc()
            os._exit(1)
    return pid


def train_two_epochs(arguments: list[str]) -> None:
    """Trains, and after two epochs waits to be killed, unless that was all."""
    from training.options import parse
    from training.train import run

    args, done = parse(arguments), list[int]()

    def wait(row: dict[str, Any]) -> None:
        done.append(row["epoch"])
        while len(done) == 2 and row["epoch"] < args.epochs:
            time.sleep(1)

    run(args, wait)


def finished_epochs(out: Path) -> int:
    path = out / "metrics.jsonl"
    return path.read_text().count("\n") if path.exists() else 0


if __name__ == "__main__":
    sys.path.insert(0, str(REPO_ROOT))
    import torch

    import training.train  # noqa: F401

    torch.set_num_threads(1)
    bundle, out, seed = sys.argv[1:4]
    rng, kills, lines = random.Random(int(seed)), 0, 0
    while True:
        pid = child([bundle, "--out", out, "--device", "cpu", *sys.argv[4:]])
        # At least one epoch further than the last child, then a random moment of the next one
        ends, done, status = math.inf, 0, 0
        while not done and time.monotonic() < ends:
            time.sleep(0.005)
            done, status = os.waitpid(pid, os.WNOHANG)
            if ends == math.inf and (count := finished_epochs(Path(out))) > lines:
                lines, ends = count, time.monotonic() + rng.uniform(0, 0.5)
        if done:
            print(kills)
            sys.exit(os.waitstatus_to_exitcode(status))
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        kills += 1
