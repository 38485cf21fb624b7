"""Data sets of image files whose labels are in lists, or in the names of the files.

ANIMAL-10N: Song, Kim, Lee, "SELFIE", ICML 2019. Red mini-ImageNet of the Controlled Noisy Web
Labels: Jiang et al., "Beyond Synthetic Noise", ICML 2020. WebVision 1.0: Li et al., arXiv
1708.02862, its first 50 classes as in MentorNet. Clothing1M: Xiao et al., CVPR 2015.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from pathlib import Path

from .cifar import Progress
from .classes import ANIMAL10N, CLOTHING1M, MINI_IMAGENET, WEBVISION50, WEBVISION50_SYNSETS
from .rows import LayoutError, Source, class_name, inside, need

# ImageNet's own images are called by synset and number: those of the web are not
_OF_IMAGENET = re.compile(r"n\d{8}")


def animal10n(root: Path, variant: str | None, progress: Progress) -> Source:
    """Reads ``training`` and ``testing`` of the raw images, called ``CLASS_NUMBER.jpg``.

    The labels of the test images are right.
    """
    rows = []
    for folder, split in (("training", "train"), ("testing", "test")):
        for path in sorted(need(root / folder, "the raw images of ANIMAL-10N").iterdir()):
            if path.name.startswith(".") or not path.is_file():
                continue
            number = path.name.partition("_")[0]
            rows.append((str(path), class_name(ANIMAL10N, number, str(path)), split))
    return _source(ANIMAL10N, rows)


def red_mini_imagenet(root: Path, variant: str | None, progress: Progress) -> Source:
    """Reads the lists ``split/red_noise_nl_RATE`` and ``split/clean_validation``.

    Images of ImageNet keep their own label; what those of the web show is not known, only that it
    is not what they are labelled. Training images lie in ``all_images``, the others in
    ``validation/CLASS`` or ``all_validation``.
    """
    root = root / "mini-imagenet" if (root / "mini-imagenet").is_dir() else root
    noisy = need(root / "split" / f"red_noise_nl_{variant}", "a list of the CNLW archive")
    clean = need(root / "split" / "clean_validation", "a list of the CNLW archive")
    flat = (root / "all_validation").is_dir()
    rows, known = [], []
    for where, image, number in _listed(noisy):
        label = class_name(MINI_IMAGENET, number, where)
        rows.append((inside(root, f"all_images/{image}", where), label, "train"))
        known.append(bool(_OF_IMAGENET.match(image)))
    for where, image, number in _listed(clean):
        label = class_name(MINI_IMAGENET, number, where)
        folder = "all_validation" if flat else f"validation/{number}"
        rows.append((inside(root, f"{folder}/{image}", where), label, "test"))
        known.append(True)
    return _source(MINI_IMAGENET, rows, known)


def webvision(root: Path, variant: str | None, progress: Progress) -> Source:
    """Reads the first 50 classes of WebVision 1.0: images of Google, and the validation set.

    The lists are ``info/train_filelist_google.txt`` and ``info/val_filelist.txt``; images of the
    latter lie in ``val_images_256``.
    """
    train = _webvision50(root, "train_filelist_google.txt", "", "train")
    return _source(
        WEBVISION50, train + _webvision50(root, "val_filelist.txt", "val_images_256/", "test")
    )


def webvision_ilsvrc12(root: Path, variant: str | None, progress: Progress) -> Source:
    """Reads the same training images, and to test on those classes of ImageNet's validation set.

    These lie in ``imagenet_val/SYNSET``.
    """
    rows = _webvision50(root, "train_filelist_google.txt", "", "train")
    for label, synset in zip(WEBVISION50, WEBVISION50_SYNSETS, strict=True):
        folder = need(root / "imagenet_val" / synset, f"ImageNet's validation images of {label}")
        for path in sorted(folder.iterdir()):
            if not path.name.startswith(".") and path.is_file():
                rows.append((str(path), label, "test"))
    return _source(WEBVISION50, rows)


def _webvision50(root: Path, name: str, folder: str, split: str) -> list[tuple[str, str, str]]:
    path = need(root / "info" / name, "a list of WebVision 1.0")
    return [
        (inside(root, folder + image, where), class_name(WEBVISION50, number, where), split)
        for where, image, number in _listed(path)
        if number.isdigit() and int(number) < len(WEBVISION50)  # not of the other 950 classes
    ]


def clothing1m(root: Path, variant: str | None, progress: Progress) -> Source:
    """Reads the million of ``noisy_train_key_list.txt`` and the clean lists for val and test."""
    lists = root / "annotations" if (root / "annotations").is_dir() else root
    numbers = {
        name: {key: number for _, key, number in _listed(need(lists / name, "labels"))}
        for name in ("noisy_label_kv.txt", "clean_label_kv.txt")
    }
    rows = []
    for name, labels, split in (
        ("noisy_train_key_list.txt", "noisy_label_kv.txt", "train"),
        ("clean_val_key_list.txt", "clean_label_kv.txt", "val"),
        ("clean_test_key_list.txt", "clean_label_kv.txt", "test"),
    ):
        path = need(lists / name, "a list of Clothing1M")
        for line, key in _lines(path):
            if key not in numbers[labels]:
                raise LayoutError(f"{path}, line {line}: {key} has no label in {labels}")
            label = class_name(CLOTHING1M, numbers[labels][key], f"{lists / labels}, {key}")
            rows.append((inside(root, key, f"{path}, line {line}"), label, split))
    return _source(CLOTHING1M, rows)


def _lines(path: Path) -> Iterator[tuple[int, str]]:
    with path.open(encoding="utf-8") as file:
        for number, line in enumerate(file, 1):
            if line.strip():
                yield number, line.strip()


def _listed(path: Path) -> Iterator[tuple[str, str, str]]:
    """Yields where a line is, and its two words: image and class number."""
    for number, line in _lines(path):
        words = line.split()
        if len(words) < 2:
            raise LayoutError(f"{path}, line {number}: {line!r}, expected an image and a class")
        yield f"{path}, line {number}", words[0], words[1]


def _source(
    classes: tuple[str, ...],
    rows: Sequence[tuple[str, str, str]],
    known: Sequence[bool] | None = None,
) -> Source:
    """Puts rows (file, label, split) together.

    Args:
        classes: K names
        rows: N rows
        known (None): N times whether the label is right; None = where it is not for training
    """
    right = [split != "train" for _, _, split in rows] if known is None else known
    return Source(
        classes,
        [file for file, _, _ in rows],
        [label for _, label, _ in rows],
        [label if ok else None for (_, label, _), ok in zip(rows, right, strict=True)],
        [split for _, _, split in rows],
    )
