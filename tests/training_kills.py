"""Trains in forked children and kills them with SIGKILL, so that torch is imported only once.

    python training_kills.py BUNDLE OUT SEED [trainer's options]

Kills after random times until a child finishes. Prints how many were killed.
"""

from __future__ import annotations

import os
import random
import signal
import sys
import time
from pathlib import Path

REPO_ROOT = Path(__file__).resolve().parent.parent


def child(arguments: list[str]) -> int:
    pid = os.fork()
    if pid == 0:
        from training.train import main

        os._exit(main(arguments))
    return pid


if __name__ == "__main__":
    sys.path.insert(0, str(REPO_ROOT))
    import torch

    import training.train  # noqa: F401

    torch.set_num_threads(1)
    bundle, out, seed = sys.argv[1:4]
    rng, kills = random.Random(int(seed)), 0
    while True:
        pid = child([bundle, "--out", out, "--device", "cpu", *sys.argv[4:]])
        # Later and later, so that a slow machine gets on as well
        ends = time.monotonic() + rng.uniform(0.2, 1.0) * (1 + kills / 4)
        done, status = 0, 0
        while not done and time.monotonic() < ends:
            time.sleep(0.005)
            done, status = os.waitpid(pid, os.WNOHANG)
        if done:
            print(kills)
            sys.exit(os.waitstatus_to_exitcode(status))
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        kills += 1
