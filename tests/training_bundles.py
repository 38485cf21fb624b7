"""Training bundles of handwritten digits, and ways to start the trainer on them."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch
from checkouts import REPO_ROOT
from PIL import Image
from sklearn.datasets import load_digits

from training.options import parse
from training.train import run

DIGITS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
SCRIPT = REPO_ROOT / "training" / "train.py"


def make_bundle(
    folder: Path,
    train: int = 160,
    val: int = 40,
    test: int = 60,
    noise: float = 0.4,
    selected: float = 0.7,
    precision: float = 0.9,
    seed: int = 0,
) -> Path:
    """Writes a bundle of 8x8 scans with planted label errors in ``train`` and ``val``.

    Args:
        folder: where to
        train: samples in the split, likewise ``val`` and ``test``
        noise: share of wrong labels; a wrong label is any of the nine others
        selected: share of the rightly labelled training samples in the selection
        precision: share of the selection that is rightly labelled
        seed: of the choice of samples, errors and selection

    Returns:
        ``folder``
    """
    scans = load_digits()
    rng = np.random.default_rng(seed)
    (folder / "images").mkdir(parents=True)
    total = train + val + test
    chosen = rng.permutation(len(scans.target))[:total]
    truth = scans.target[chosen]
    splits = np.repeat(["train", "val", "test"], [train, val, test])
    wrong = (splits != "test") & (rng.random(total) < noise)
    given = np.where(wrong, (truth + rng.integers(1, 10, total)) % 10, truth)
    # wrong · share / (wrong · share + right · selected) = 1 − precision
    share = selected * (1 - noise) * (1 - precision) / (precision * max(noise, 1e-9))
    picked = rng.random(total) < np.where(wrong, share, selected)
    scores = np.clip(np.where(wrong, 0.25, 0.75) + rng.normal(0, 0.15, total), 0, 1)
    rows = []
    for i, scan in enumerate(scans.images[chosen]):
        Image.fromarray((scan * 15.9).astype(np.uint8)).save(folder / "images" / f"{i:04}.png")
        rows.append(
            {
                "id": f"s{i}",
                "image": f"images/{i:04}.png",
                "label": DIGITS[given[i]],
                "suggested": DIGITS[truth[i]],
                "selected": bool(picked[i]) and splits[i] == "train",
                "clean_score": round(float(scores[i]), 4),
                "split": str(splits[i]),
                "trusted": DIGITS[truth[i]],
            }
        )
    write_bundle(folder, rows)
    return folder


def write_bundle(folder: Path, rows: list[dict[str, Any]], **header: Any) -> None:
    """Writes ``manifest.jsonl`` and ``bundle.json``; ``header`` replaces keys of the latter."""
    lines = "".join(json.dumps(row) + "\n" for row in rows)
    (folder / "manifest.jsonl").write_text(lines, encoding="utf-8")
    content = {
        "format": "clipcleaner-bundle",
        "version": 1,
        "classes": DIGITS,
        "referenced": False,
        "dataset": "digits",
        "run_key": None,
        "parameters": {},
        **header,
    }
    (folder / "bundle.json").write_text(json.dumps(content), encoding="utf-8")


def read_rows(folder: Path) -> list[dict[str, Any]]:
    """Returns the entries of the manifest."""
    return [json.loads(line) for line in (folder / "manifest.jsonl").read_text().splitlines()]


def train(bundle: Path, out: Path, *options: str, on_epoch: Any = None) -> dict[str, Any]:
    """Trains in this process, on one thread so that figures repeat; returns the results."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        fixed = ("--out", str(out), "--device", "cpu", "--workers", "0", "--quiet")
        return run(parse([str(bundle), *fixed, *options]), on_epoch)
    finally:
        torch.set_num_threads(threads)


def weights(path: Path) -> dict[str, torch.Tensor]:
    """Returns the network's tensors in a checkpoint."""
    model: dict[str, torch.Tensor] = torch.load(path, weights_only=True)["model"]
    return model


def metrics(out: Path) -> list[dict[str, Any]]:
    """Returns ``metrics.jsonl`` without the times, which no two runs share."""
    rows = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    times = ("seconds", "images_per_second")
    return [{k: v for k, v in row.items() if k not in times} for row in rows]


def one_thread() -> dict[str, str]:
    """Returns an environment for a trainer of its own process."""
    kept = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
    return {**kept, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}


def command(*arguments: str | Path) -> list[str]:
    """Returns the command line that starts the script."""
    return [sys.executable, str(SCRIPT), *map(str, arguments)]
