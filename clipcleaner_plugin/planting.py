"""Planted label errors in a FiftyOne dataset: beside the labels that are taken for true, with a
record of what was drawn."""

from __future__ import annotations

import hashlib
import logging
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import fiftyone as fo
import numpy as np
from fiftyone.core.collections import SampleCollection

from .noise import draw_noise
from .noise_file import read_noise_file
from .targets import check_images, check_label_field

logger = logging.getLogger(__name__)

KINDS = ("symmetric", "asymmetric", "file")
INFO = "clipcleaner_noise"


def inject_noise(
    samples: SampleCollection,
    kind: str = "symmetric",
    rate: float = 0.3,
    seed: int = 51,
    *,
    label_field: str = "ground_truth",
    noisy_field: str = "noisy_label",
    pairs: Mapping[str, str] | Iterable[tuple[str, str]] | None = None,
    file: str | os.PathLike[str] | None = None,
    classes: Sequence[str] | None = None,
) -> dict[str, Any]:
    """Plants label errors, to see how well they are found.

    ``label_field`` stays as it is. ``noisy_field`` holds the same labels, some of them replaced;
    the samples of the dataset that are not in ``samples`` keep theirs. What was drawn is recorded
    in ``dataset.info["clipcleaner_noise"][noisy_field]``, and a further call replaces the field.

    "symmetric": a share of ``rate`` of the labelled samples gets a label drawn uniformly from all K
    classes; a share of ``rate * (1 - 1 / K)`` ends up wrong. "asymmetric": a share of ``rate`` of
    every class that ``pairs`` names gets the label of its pair. "file": labels from a CSV file.

    Args:
        samples: a dataset or view of images; the draw depends on their order
        kind ("symmetric"): "symmetric", "asymmetric" or "file"
        rate (0.3): in [0, 1]; not used with "file"
        seed (51): fixes the draw; likewise
        label_field ("ground_truth"): a Classification field with labels that are taken for true
        noisy_field ("noisy_label"): the field to write; one that this did not write is refused
        pairs (None): for "asymmetric": from which class to which; None = from each to the next of
            ``classes``
        file (None): for "file": a CSV file with a row a sample, in the order of ``samples``, and
            the column ``label_noisy``, and ``label`` to make sure that it belongs to them; both
            hold names or numbers of classes
        classes (None): the class list; None = the dataset's ``default_classes``, or else the
            labels in use, sorted

    Returns:
        what is recorded: "kind", "rate", "seed", "pairs", "file" (its name and SHA-256),
        "label_field", "classes", "samples" (labelled ones), "changed" (labels that are wrong now)

    Raises:
        TypeError, ValueError: if an option or field does not fit; the text says what to do
    """
    check_images(samples)
    check_label_field(samples, label_field)
    dataset = samples._root_dataset
    _check_options(dataset, kind, rate, label_field, noisy_field, pairs, file)
    ids, true = samples.values(["id", f"{label_field}.label"])
    names = _class_list(dataset, classes, true)
    record: dict[str, Any] = {"kind": kind, "label_field": label_field, "classes": names}
    if file is not None:
        path = Path(file).expanduser()
        drawn = _from_file(path, true, names)
        record |= {"file": {"name": path.name, "sha256": _digest(path)}}
    else:
        listed = None if pairs is None else _as_list(pairs)
        drawn = _drawn(true, names, kind, rate, seed, listed)
        record |= {"rate": rate, "seed": seed, "pairs": listed}
    changed = sum(a != b for a, b in zip(true, drawn, strict=True))
    record |= {"samples": sum(label is not None for label in true), "changed": changed}
    _write(dataset, label_field, noisy_field, dict(zip(ids, drawn, strict=True)), record)
    logger.info("%d of %d labels of %s are wrong now", changed, record["samples"], noisy_field)
    return record


def _check_options(
    dataset: fo.Dataset,
    kind: str,
    rate: float,
    label_field: str,
    noisy_field: str,
    pairs: Any,
    file: Any,
) -> None:
    if kind not in KINDS:
        raise ValueError(f"kind={kind!r}: choose one of {', '.join(KINDS)}")
    if (file is None) == (kind == "file"):
        raise ValueError("kind='file' needs file=, and the other kinds take none")
    if pairs is not None and kind != "asymmetric":
        raise ValueError(f"pairs: only for kind='asymmetric', not {kind!r}")
    if noisy_field == label_field:
        raise ValueError(
            f"noisy_field {noisy_field!r} holds the labels that are taken for true: choose another "
            "field, so that they are kept"
        )
    ours = noisy_field in (dataset.info.get(INFO) or {})
    if dataset.has_sample_field(noisy_field) and not ours:
        raise ValueError(
            f"noisy_field {noisy_field!r} was not written by inject_noise and is left alone: "
            "choose another field, or delete it"
        )


def _class_list(
    dataset: fo.Dataset, classes: Sequence[str] | None, labels: Sequence[str | None]
) -> list[str]:
    used = {label for label in labels if label is not None}
    names = list(classes or dataset.default_classes or sorted(used))
    unknown = sorted(used - set(names))
    if unknown:
        raise ValueError(
            f"label {unknown[0]!r} is not in the class list ({', '.join(map(repr, names))}); give "
            "classes="
        )
    return names


def _drawn(
    true: Sequence[str | None],
    names: list[str],
    kind: str,
    rate: float,
    seed: int,
    pairs: list[list[str]] | None,
) -> list[str | None]:
    index = {name: k for k, name in enumerate(names)}
    labels = np.array([-1 if label is None else index[label] for label in true], dtype=np.int64)
    unknown = [name for pair in pairs or () for name in pair if name not in index]
    if unknown:
        raise ValueError(f"pairs: {unknown[0]!r} is not in the class list")
    numbers = None if pairs is None else [(index[a], index[b]) for a, b in pairs]
    noisy = draw_noise(labels, len(names), kind, rate, seed, numbers)
    return [names[k] if k >= 0 else None for k in noisy]


def _as_list(pairs: Mapping[str, str] | Iterable[tuple[str, str]]) -> list[list[str]]:
    """As the database keeps it."""
    return [list(pair) for pair in (pairs.items() if isinstance(pairs, Mapping) else pairs)]


def _from_file(path: Path, true: Sequence[str | None], names: list[str]) -> list[str | None]:
    missing = sum(label is None for label in true)
    if missing:
        raise ValueError(
            f"{missing} samples have no label: give a view of those that the file is about"
        )
    return list(read_noise_file(path, true, names))


def _digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _write(
    dataset: fo.Dataset,
    label_field: str,
    noisy_field: str,
    drawn: Mapping[str, str | None],
    record: dict[str, Any],
) -> None:
    if not dataset.has_sample_field(noisy_field):
        dataset.add_sample_field(
            noisy_field, fo.EmbeddedDocumentField, embedded_doc_type=fo.Classification
        )
    # First, so that a call that is interrupted may be repeated
    dataset.info[INFO] = {**(dataset.info.get(INFO) or {}), noisy_field: record}
    dataset.save()
    ids, true = dataset.values(["id", f"{label_field}.label"])
    labels = [drawn.get(i, label) for i, label in zip(ids, true, strict=True)]
    dataset.set_values(
        noisy_field, [None if name is None else fo.Classification(label=name) for name in labels]
    )
