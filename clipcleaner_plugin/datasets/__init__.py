"""The data sets of the paper, from the folders that their authors distribute::

dataset = cc.datasets.load("cifar10n", "data", variant="worse")
dataset.apply_clipcleaner(class_prompts=cc.datasets.prompts("cifar10n"))
"""

from __future__ import annotations

import itertools
import logging
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import fiftyone as fo

from . import cifar, listed
from .rows import LayoutError, Source

__all__ = ["DATASETS", "GIVEN_FIELD", "TRUSTED_FIELD", "LayoutError", "load", "prompts"]

logger = logging.getLogger(__name__)

GIVEN_FIELD, TRUSTED_FIELD = "ground_truth", "trusted_label"
_BLOCK = 10_000  # samples added at a time


@dataclass(frozen=True)
class _DataSet:
    """How a data set is read.

    Attributes:
        read: (root, variant, progress) → what lies there
        prompts: the file of its descriptors
        variants: names, the default first; none = it has no variants
    """

    read: Callable[[Path, str | None, cifar.Progress], Source]
    prompts: str
    variants: tuple[str, ...] = ()


DATASETS = {
    "cifar10": _DataSet(cifar.cifar10, "cifar10.json"),
    "cifar10n": _DataSet(
        cifar.cifar10n, "cifar10.json", ("worse", "aggre", "random1", "random2", "random3")
    ),
    "cifar10-idn": _DataSet(cifar.cifar10_idn, "cifar10.json", ("0.4", "0.1", "0.2", "0.3", "0.5")),
    "cifar100": _DataSet(cifar.cifar100, "cifar100.json"),
    "cifar100n": _DataSet(cifar.cifar100n, "cifar100.json"),
    "animal10n": _DataSet(listed.animal10n, "animal10n.json"),
    "red-mini-imagenet": _DataSet(
        listed.red_mini_imagenet,
        "mini-imagenet.json",
        ("0.4", "0.0", "0.05", "0.1", "0.15", "0.2", "0.3", "0.5", "0.6", "0.8"),
    ),
    "webvision": _DataSet(listed.webvision, "webvision.json"),
    "webvision-ilsvrc12": _DataSet(listed.webvision_ilsvrc12, "webvision.json"),
    "clothing1m": _DataSet(listed.clothing1m, "clothing1m.json"),
}


def load(
    name: str,
    root: str | os.PathLike[str],
    variant: str | None = None,
    *,
    dataset_name: str | None = None,
    persistent: bool = False,
    progress: cifar.Progress = None,
) -> fo.Dataset:
    """Makes a FiftyOne dataset of a data set as it was distributed; see docs/datasets.md.

    Every sample is tagged ``train``, ``val`` or ``test``. ``ground_truth`` holds its label as it
    came, ``trusted_label`` the one that is known to be right, where there is one. The images of
    CIFAR are written as PNG files into a folder beside the batches; a second call, also after a
    kill, writes only those that are missing.

    Args:
        name: one of ``DATASETS``
        root: the folder that holds it
        variant (None): of "cifar10n" the labels: "worse", "aggre", "random1" to "random3"; of
            "cifar10-idn" and "red-mini-imagenet" the rate of noise, such as "0.4"; None = the
            first of ``DATASETS[name].variants``
        dataset_name (None): of the new dataset; None = the name and the variant
        persistent (False): whether it outlives FiftyOne's database session
        progress (None): as in FiftyOne: True, False, None, or a callable that takes the bar

    Returns:
        the dataset; ``default_classes`` holds the class list in the data set's own order

    Raises:
        ValueError: if an option does not fit, or a dataset of that name is there
        LayoutError: if the folder does not hold what it should; a ValueError too
    """
    found = _known(name)
    if variant is None and found.variants:
        variant = found.variants[0]
    if variant is not None and variant not in found.variants:
        choices = ", ".join(map(repr, found.variants)) or "none"
        raise ValueError(f"{name} has no variant {variant!r}; its variants: {choices}")
    dataset_name = dataset_name or "-".join(part for part in (name, variant) if part)
    if fo.dataset_exists(dataset_name):
        raise ValueError(
            f"there is a dataset {dataset_name!r} already: load it with fo.load_dataset, or choose "
            "another dataset_name"
        )
    folder = Path(root).expanduser().absolute()
    if not folder.is_dir():
        raise LayoutError(f"{folder} is no folder")
    source = found.read(folder, variant, progress)
    if not source.filepaths:
        raise LayoutError(f"{folder} holds no images of {name}")
    return _made(source, dataset_name, {"name": name, "variant": variant}, persistent, progress)


def prompts(name: str) -> str:
    """Returns the file with descriptors for a data set's classes, as ``class_prompts`` takes it.

    Args:
        name: one of ``DATASETS``

    Raises:
        ValueError: if there is no such data set
    """
    return str(Path(__file__).with_name("prompts") / _known(name).prompts)


def _known(name: str) -> _DataSet:
    if name not in DATASETS:
        raise ValueError(f"no data set {name!r}: choose from {', '.join(DATASETS)}")
    return DATASETS[name]


def _made(
    source: Source,
    dataset_name: str,
    origin: dict[str, Any],
    persistent: bool,
    progress: cifar.Progress,
) -> fo.Dataset:
    """Makes the dataset, whole or not at all."""
    dataset = fo.Dataset(dataset_name)
    try:
        dataset.default_classes = list(source.classes)
        dataset.info["clipcleaner_source"] = origin
        dataset.save()
        for field in (GIVEN_FIELD, TRUSTED_FIELD):
            dataset.add_sample_field(
                field, fo.EmbeddedDocumentField, embedded_doc_type=fo.Classification
            )
        samples = _samples(source)
        while block := list(itertools.islice(samples, _BLOCK)):
            dataset.add_samples(block, progress=progress)
        dataset.persistent = persistent
    except BaseException:
        dataset.delete()
        raise
    logger.info("Dataset %s: %d images", dataset_name, len(source.filepaths))
    return dataset


def _samples(source: Source) -> Iterator[fo.Sample]:
    rows = zip(source.filepaths, source.given, source.trusted, source.splits, strict=True)
    for filepath, given, trusted, split in rows:
        labels = {GIVEN_FIELD: fo.Classification(label=given)}
        if trusted is not None:
            labels[TRUSTED_FIELD] = fo.Classification(label=trusted)
        yield fo.Sample(filepath=filepath, tags=[split], **labels)
