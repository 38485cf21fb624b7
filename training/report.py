"""What a run writes for people and programs: metrics, TensorBoard, predictions, confusion."""

from __future__ import annotations

import json
import logging
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

from .bundle import Bundle
from .checkpoint import write_bytes
from .mixfix import NextSet

logger = logging.getLogger(__name__)

METRICS = "metrics.jsonl"


def write_json(path: Path, content: object) -> None:
    """Writes JSON, whole or not at all."""
    write_bytes(path, (json.dumps(content, indent=1) + "\n").encode())


class Metrics:
    """``metrics.jsonl``, a line an epoch, and TensorBoard where it is installed."""

    def __init__(self, out: Path, epochs_done: int) -> None:
        """Drops the lines of epochs that no checkpoint holds: they are going to be repeated.

        Args:
            out: output folder
            epochs_done: how many epochs the checkpoint holds
        """
        self.path = out / METRICS
        kept = [row for row in read_metrics(self.path) if row["epoch"] <= epochs_done]
        write_bytes(self.path, "".join(json.dumps(row) + "\n" for row in kept).encode())
        self.board = _tensorboard(out, epochs_done)

    def add(self, row: dict[str, Any]) -> None:
        """Appends the line of an epoch."""
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(row) + "\n")
        if self.board is not None:
            for name, value in row.items():
                if name != "epoch" and value is not None:
                    self.board.add_scalar(name, value, row["epoch"])
            self.board.flush()

    def close(self) -> None:
        """Closes TensorBoard's file."""
        if self.board is not None:
            self.board.close()


def read_metrics(path: Path) -> list[dict[str, Any]]:
    """Reads ``metrics.jsonl`` up to the first line that was not written whole."""
    rows: list[dict[str, Any]] = []
    if path.exists():
        for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
            try:
                row = json.loads(line)
            except ValueError:
                break
            if not isinstance(row, dict) or not isinstance(row.get("epoch"), int):
                break
            rows.append(row)
    return rows


def _tensorboard(out: Path, epochs_done: int) -> Any:
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        return None
    return SummaryWriter(str(out / "tensorboard"), purge_step=epochs_done + 1)


class Progress:
    """One line on a terminal that is written over; nothing elsewhere."""

    def __init__(self, title: str, total: int, shown: bool) -> None:
        self.title, self.total = title, total
        self.shown = shown and sys.stderr.isatty()
        self.started = self.painted = time.monotonic()

    def step(self, done: int) -> None:
        """Says that ``done`` of ``total`` are done."""
        now = time.monotonic()
        if self.shown and (now - self.painted > 0.2 or done == self.total):
            self.painted = now
            filled = "█" * (20 * done // self.total)
            left = (now - self.started) * (self.total - done) / done
            print(
                f"\r{self.title} {filled:░<20} {done}/{self.total}  {left:.0f} s left ",
                end="",
                file=sys.stderr,
                flush=True,
            )

    def close(self) -> None:
        """Wipes the line."""
        if self.shown:
            print("\r\033[K", end="", file=sys.stderr, flush=True)


def accuracy(predicted: np.ndarray, labels: np.ndarray) -> float | None:
    """Returns the share of predictions that are right; -1 = no prediction, left out.

    Returns:
        in [0, 1], None if there is no prediction
    """
    known = predicted >= 0
    return float((predicted[known] == labels[known]).mean()) if known.any() else None


def confusion_matrix(
    predicted: np.ndarray, labels: np.ndarray, num_classes: int
) -> list[list[int]]:
    """Counts predictions (columns) for each label (rows); -1 = no prediction, left out."""
    known = predicted >= 0
    cells = labels[known] * num_classes + predicted[known]
    counts = np.bincount(cells, minlength=num_classes**2)
    matrix: list[list[int]] = counts.reshape(num_classes, num_classes).tolist()
    return matrix


def reference_labels(bundle: Bundle, split: str) -> np.ndarray:
    """Returns (N,) what predictions of a split are measured by.

    For ``test`` trusted labels, where there are some. For ``val`` the given ones: it chooses the
    best epoch, and trusted labels must not take part in training in any way.
    """
    return bundle.truth if split == "test" else bundle.labels


def write_predictions(
    path: Path, bundle: Bundle, predicted: np.ndarray, confidence: np.ndarray
) -> None:
    """Writes a line a sample, in the order of the manifest; null where an image was unreadable."""
    lines = []
    for sample_id, k, q in zip(bundle.ids, predicted.tolist(), confidence.tolist(), strict=True):
        known = k >= 0
        entry = {
            "id": sample_id,
            "label": bundle.classes[k] if known else None,
            "confidence": q if known else None,
        }
        lines.append(json.dumps(entry) + "\n")
    write_bytes(path, "".join(lines).encode())


def write_confusion(path: Path, bundle: Bundle, predictions: dict[str, np.ndarray]) -> None:
    """Writes the confusion matrices of the splits that were not trained on.

    Args:
        path: the JSON file
        bundle: the samples
        predictions: "last" and "best" → (N,) int
    """
    content: dict[str, Any] = {
        "classes": bundle.classes,
        "rows": "label (test: trusted, where known; val: as given)",
        "columns": "prediction",
    }
    for split in ("val", "test"):
        chosen = bundle.splits[split]
        if len(chosen):
            labels = reference_labels(bundle, split)[chosen]
            content[split] = {
                name: confusion_matrix(predicted[chosen], labels, len(bundle.classes))
                for name, predicted in predictions.items()
            }
    write_json(path, content)


def set_counts(bundle: Bundle, members: np.ndarray, labels: np.ndarray) -> dict[str, Any]:
    """Counts the set of an epoch, and how many of its labels are right as far as that is known.

    Args:
        bundle: the samples
        members: (M,) int, indices of the set
        labels: (N,) int, current labels

    Returns:
        ``set_size``; ``set_known``, those with a trusted label; ``set_right``
    """
    known = members[bundle.trusted[members] >= 0]
    right = int((labels[known] == bundle.trusted[known]).sum())
    return {"set_size": len(members), "set_known": len(known), "set_right": right}


def joined_counts(bundle: Bundle, found: NextSet, initial: np.ndarray) -> dict[str, Any]:
    """Counts who joins the next set, and how many of their labels are right as far as is known.

    Args:
        bundle: the samples
        found: the next set
        initial: (N,) bool, the initial selection: who is in it needs no absorption

    Returns:
        ``absorbed`` and ``relabelled``; ``*_known``, those with a trusted label; ``*_right``
    """
    groups = {"absorbed": found.absorbed & ~initial, "relabelled": found.relabelled}
    row: dict[str, Any] = {}
    for name, members in groups.items():
        counts = set_counts(bundle, np.flatnonzero(members), found.labels)
        row[name] = counts["set_size"]
        row |= {f"{name}_{what}": counts[f"set_{what}"] for what in ("known", "right")}
    return row


def epoch_line(row: dict[str, Any], epochs: int) -> str:
    """Returns an epoch's metrics as a line for people."""
    parts = [f"epoch {row['epoch']}/{epochs}", f"loss {row['loss']:.3f}"]
    for split in ("val", "test"):
        if row[f"{split}_accuracy"] is not None:
            parts.append(f"{split} {row[f'{split}_accuracy']:.2%}")
    parts.append(f"set {row['set_size']}")
    if row["absorbed"] or row["relabelled"]:
        parts.append(f"then {', '.join(_joined(row, n) for n in ('absorbed', 'relabelled'))}")
    parts.append(f"{row['seconds']:.1f} s, {row['images_per_second']:.0f} images/s")
    return " | ".join(parts)


def _joined(row: dict[str, Any], name: str) -> str:
    right, known = row[f"{name}_right"], row[f"{name}_known"]
    return f"{name} {row[name]}" + (f" ({right / known:.0%} right)" if known else "")


def log_results(results: dict[str, Any], out: Path) -> None:
    """Says how a run ended."""
    if results["unreadable"]:
        ids = results["unreadable"]
        logger.warning(
            "%d images could not be read and were left out: %s (all in %s)",
            *(len(ids), ", ".join(ids[:5]), out / "results.json"),
        )
    if results["best_chosen_on"] is None:
        logger.warning("No weights were chosen on a val split: the last also count as the best")
    for name in ("last", "best"):
        found = results[name]
        shown = [
            f"{split} {found[f'{split}_accuracy']:.2%}"
            for split in ("val", "test")
            if found[f"{split}_accuracy"] is not None
        ]
        logger.info("%s (epoch %d): %s", name, found["epoch"], ", ".join(shown) or "no val, test")
    logger.info("Results in %s", out)
