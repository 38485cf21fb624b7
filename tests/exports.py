"""Runs to export, and ways to look at what was exported."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import fiftyone as fo
from noisy_digits import make_samples

from training.bundle import Bundle

N = 100


def add_run(dataset: fo.Dataset, folder: Path) -> fo.Dataset:
    """Fills a dataset with 100 digits and a run on vectors of their pixels."""
    folder.mkdir(exist_ok=True)
    dataset.add_samples(make_samples(folder, N), progress=False)
    dataset.apply_clipcleaner("ground_truth", embeddings="pixels", model=None, progress=False)
    return dataset


def by_id(bundle: Bundle, values: Any) -> dict[str, Any]:
    """Returns sample id → value."""
    return dict(zip(bundle.ids, values, strict=True))


def tree(folder: Path) -> dict[str, bytes]:
    """Returns every file below a folder with its content."""
    files = (p for p in folder.rglob("*") if p.is_file())
    return {str(p.relative_to(folder)): p.read_bytes() for p in files}
