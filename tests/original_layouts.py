"""Small trees in the layouts in which the data sets of the paper are distributed."""

from __future__ import annotations

import pickle
from pathlib import Path

import numpy as np
import torch
from PIL import Image

SIDE = 32


def write_cifar10(root: Path, a_batch: int = 4, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Writes CIFAR-10's batches.

    Returns:
        (n, 32, 32, 3) pixels and (n,) labels, those of the test batch last
    """
    folder = root / "cifar-10-batches-py"
    folder.mkdir(parents=True)
    return _write_batches(
        folder,
        [*(f"data_batch_{i}" for i in range(1, 6)), "test_batch"],
        "labels",
        10,
        a_batch,
        seed,
    )


def write_cifar100(root: Path, a_batch: int = 4, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Writes CIFAR-100's batches, likewise."""
    folder = root / "cifar-100-python"
    folder.mkdir(parents=True)
    return _write_batches(folder, ["train", "test"], "fine_labels", 100, a_batch, seed)


def _write_batches(
    folder: Path, names: list[str], key: str, classes: int, a_batch: int, seed: int
) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    shape = (len(names) * a_batch, SIDE, SIDE, 3)
    pixels = rng.integers(0, 256, shape, dtype=np.uint8)
    labels = rng.integers(0, classes, len(pixels))
    for i, name in enumerate(names):
        part = slice(i * a_batch, (i + 1) * a_batch)
        # All of red, then green, then blue; protocol 2, as Python 2 wrote it
        data = pixels[part].transpose(0, 3, 1, 2).reshape(a_batch, -1)
        content = {"batch_label": name, key: labels[part].tolist(), "data": data}
        (folder / name).write_bytes(pickle.dumps(content, protocol=2))
    return pixels, labels


def write_human(path: Path, clean: np.ndarray, seed: int = 1, **more: np.ndarray) -> np.ndarray:
    """Writes a label file of CIFAR-10N or -100N; all its noisy labels are the same.

    Returns:
        (n,) noisy labels
    """
    noisy = np.where(np.random.default_rng(seed).random(len(clean)) < 0.5, (clean + 1) % 10, clean)
    names = ("worse_label", "aggre_label", *(f"random_label{i}" for i in (1, 2, 3)), "noisy_label")
    torch.save({"clean_label": clean, **dict.fromkeys(names, noisy), **more}, path)
    return noisy


def write_image(path: Path) -> None:
    """Writes a small JPEG file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (12, 10), (len(path.name) * 9 % 256, 80, 160)).save(path, "JPEG")


def write_list(path: Path, *lines: str) -> None:
    """Writes a list, one entry a line."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
