"""CIFAR-10 and -100 from their Python batches, with human or instance-dependent label noise.

Krizhevsky, "Learning Multiple Layers of Features from Tiny Images", 2009; the human labels of
CIFAR-10N and -100N: Wei et al., ICLR 2022; the noise that depends on the image: Chen et al.,
"Beyond Class-Conditional Assumption", AAAI 2021, whose CSV files are read as they come.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import fiftyone.core.utils as fou
import numpy as np

from ..noise_file import read_noise_file
from ..pngs import write_png
from .classes import CIFAR10, CIFAR100
from .pickles import read_pickle, read_torch_file
from .rows import LayoutError, Source, class_name, need

Progress = bool | Callable[..., Any] | None

_SIDE = 32
# Key of CIFAR-10N's file by the name that papers use
HUMAN = {
    "aggre": "aggre_label",
    "worse": "worse_label",
    "random1": "random_label1",
    "random2": "random_label2",
    "random3": "random_label3",
}


def cifar10(root: Path, variant: str | None, progress: Progress) -> Source:
    """Reads ``cifar-10-batches-py``; the labels are right."""
    return _with_given(_cifar10(root, progress), None)


def cifar10n(root: Path, variant: str | None, progress: Progress) -> Source:
    """Reads CIFAR-10 with labels of people, from ``CIFAR-10_human.pt``."""
    clean = _cifar10(root, progress)
    return _with_given(clean, _human(root / "CIFAR-10_human.pt", HUMAN[variant or "worse"], clean))


def cifar10_idn(root: Path, variant: str | None, progress: Progress) -> Source:
    """Reads CIFAR-10 with labels from ``dependentRATE.csv`` or ``ind_dependentRATE.csv``."""
    clean = _cifar10(root, progress)
    names = [f"{start}dependent{variant}.csv" for start in ("", "ind_")]
    found = [root / name for name in names if (root / name).is_file()]
    if not found:
        raise LayoutError(f"{root} has neither {names[0]} nor {names[1]}")
    train = [label for label, split in zip(clean.trusted, clean.splits, strict=True)
             if split == "train"]  # fmt: skip
    return _with_given(clean, read_noise_file(found[0], train, clean.classes))


def cifar100(root: Path, variant: str | None, progress: Progress) -> Source:
    """Reads ``cifar-100-python``; the labels are right."""
    return _with_given(_cifar100(root, progress), None)


def cifar100n(root: Path, variant: str | None, progress: Progress) -> Source:
    """Reads CIFAR-100 with labels of people, from ``CIFAR-100_human.pt``."""
    clean = _cifar100(root, progress)
    return _with_given(clean, _human(root / "CIFAR-100_human.pt", "noisy_label", clean))


def _cifar10(root: Path, progress: Progress) -> Source:
    batches = [(f"data_batch_{i}", "train") for i in range(1, 6)] + [("test_batch", "test")]
    return _read(root, "cifar-10-batches-py", batches, "labels", CIFAR10, progress)


def _cifar100(root: Path, progress: Progress) -> Source:
    batches = [("train", "train"), ("test", "test")]
    return _read(root, "cifar-100-python", batches, "fine_labels", CIFAR100, progress)


def _read(
    root: Path,
    folder: str,
    batches: Sequence[tuple[str, str]],
    key: str,
    classes: tuple[str, ...],
    progress: Progress,
) -> Source:
    """Reads batches and writes their images beside them, as far as they are not there."""
    source = root if root.name == folder else root / folder
    need(source, f"the folder {folder} of the original archive")
    images = source.with_name(f"{folder}-png")
    filepaths: list[str] = []
    labels: list[str] = []
    splits: list[str] = []
    with fou.ProgressBar(total=len(batches), progress=progress, iters_str="batches") as bar:
        for name, split in bar(batches):
            pixels, numbers = _read_batch(need(source / name, "a batch of the archive"), key)
            filepaths += _write_images(images / name, pixels)
            labels += [class_name(classes, k, f"{source / name}, image {i}")
                       for i, k in enumerate(numbers)]  # fmt: skip
            splits += [split] * len(pixels)
    return Source(classes, filepaths, labels, labels, splits)


def _read_batch(path: Path, key: str) -> tuple[np.ndarray, Sequence[Any]]:
    """Returns (n, 32, 32, 3) uint8 pixels and n class numbers."""
    content = read_pickle(path)
    if not isinstance(content, dict) or "data" not in content or key not in content:
        raise LayoutError(f"{path}: no batch with 'data' and {key!r}")
    data, numbers = content["data"], content[key]
    fits = isinstance(data, np.ndarray) and data.dtype == np.uint8 and data.ndim == 2
    if not fits or data.shape[1] != 3 * _SIDE * _SIDE:
        raise LayoutError(f"{path}: 'data' is no (n, {3 * _SIDE * _SIDE}) array of bytes")
    if not isinstance(numbers, (list, np.ndarray)) or len(numbers) != len(data):
        raise LayoutError(f"{path}: {key!r} does not hold a number for each of {len(data)} images")
    return data.reshape(-1, 3, _SIDE, _SIDE).transpose(0, 2, 3, 1), list(numbers)


def _write_images(folder: Path, pixels: np.ndarray) -> list[str]:
    from PIL import Image

    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / f"{i:05d}.png" for i in range(len(pixels))]
    for path, image in zip(paths, pixels, strict=True):
        write_png(path, Image.fromarray(np.ascontiguousarray(image)))
    return [str(path) for path in paths]


def _human(path: Path, key: str, clean: Source) -> list[str]:
    """The labels that people gave, once the file proves to be in the order of the images."""
    content = read_torch_file(need(path, "the label file of github.com/UCSC-REAL/cifar-10-100n"))
    if not isinstance(content, dict) or "clean_label" not in content or key not in content:
        raise LayoutError(f"{path}: no labels 'clean_label' and {key!r} in it")
    train = [label for label, split in zip(clean.trusted, clean.splits, strict=True)
             if split == "train"]  # fmt: skip
    columns = []
    for name in ("clean_label", key):
        numbers = list(content[name])
        if len(numbers) != len(train):
            raise LayoutError(f"{path}: {len(numbers)} labels for {len(train)} training images")
        columns.append([class_name(clean.classes, k, f"{path}, {name!r} of image {i}")
                        for i, k in enumerate(numbers)])  # fmt: skip
    for i, (true, stated) in enumerate(zip(train, columns[0], strict=True)):
        if true != stated:
            raise LayoutError(
                f"{path}: image {i} is {true!r} in the batches and {stated!r} in 'clean_label': "
                "the file is in another order, or belongs to other images"
            )
    return columns[1]


def _with_given(clean: Source, noisy: Sequence[str] | None) -> Source:
    """Replaces the given labels of the training images, which come first."""
    if noisy is None:
        return clean
    given = [*noisy, *clean.given[len(noisy) :]]
    return Source(clean.classes, clean.filepaths, given, clean.trusted, clean.splits)
