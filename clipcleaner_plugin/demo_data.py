"""The demo's images: digits that come with scikit-learn, or anybody's own, read and never
altered."""

from __future__ import annotations

import difflib
import logging
import uuid
from dataclasses import dataclass
from pathlib import Path

import fiftyone as fo
import numpy as np

from .digits import DIGIT_NAMES, SPLIT_SEED, load_half, render
from .pngs import write_png
from .targets import check_images, check_label_field

logger = logging.getLogger(__name__)

DIGITS = "digits"
TRUSTED_FIELD = "trusted_label"
LABEL_FIELD = "ground_truth"
KEY = "clipcleaner"
_MARK = "clipcleaner_demo"
_FIRST_FIELDS = {
    *("id", "filepath", "tags", "metadata", "created_at", "last_modified_at"),
    TRUSTED_FIELD,
}
_SPLITS = ("test", "validation")


@dataclass(frozen=True)
class Images:
    """Images with labels that the demo takes for true.

    Attributes:
        source: where they come from, for people
        filepaths: N absolute paths
        labels: (N,) index into ``classes``; -1 = no label
        classes: the K class names
    """

    source: str
    filepaths: list[str]
    labels: np.ndarray
    classes: list[str]

    def __len__(self) -> int:
        return len(self.filepaths)

    def names(self, labels: np.ndarray) -> list[str | None]:
        """Turns class indices into names.

        Args:
            labels: (N,) index into ``classes``; -1 = no label

        Returns:
            N names; None = no label
        """
        return [self.classes[k] if k >= 0 else None for k in labels]


def read_images(
    dataset: str = DIGITS,
    label_field: str = LABEL_FIELD,
    split: str | None = None,
    max_samples: int | None = None,
) -> Images:
    """Reads the images and labels that the demo works on.

    Args:
        dataset ("digits"): "digits"; or the name of a FiftyOne dataset; or a directory with a
            folder for each class; or the name of a dataset in FiftyOne's zoo, which is downloaded
        label_field ("ground_truth"): the labels of a FiftyOne or zoo dataset
        split (None): of a zoo dataset; None = "test", else "validation", else everything
        max_samples (None): a random subset of this size, always the same one

    Returns:
        the images

    Raises:
        ValueError: if there is no such dataset, or it has no usable images and labels
    """
    if max_samples is not None and max_samples < 1:
        raise ValueError(f"max_samples={max_samples}: expected 1 or more")
    if dataset == DIGITS:
        images = _digits()
    elif fo.dataset_exists(dataset):
        images = _from_dataset(fo.load_dataset(dataset), f"dataset {dataset}", label_field)
    elif Path(dataset).expanduser().is_dir():
        images = _from_directory(Path(dataset).expanduser().absolute())
    else:
        images = _from_zoo(dataset, label_field, split)
    return images if max_samples is None else _subset(images, max_samples)


def demo_dataset(name: str, images: Images) -> fo.Dataset:
    """Makes the demo's own dataset, or brings the one of an earlier demo back to its first state.

    Samples of the same images are kept, because their embeddings are kept with them.

    Args:
        name: of the dataset
        images: what it shall hold

    Returns:
        a persistent dataset, its samples in the order of ``images``, with ``trusted_label``

    Raises:
        ValueError: if there is a dataset of this name that no demo made
    """
    if fo.dataset_exists(name):
        old = fo.load_dataset(name)
        if _MARK not in old.info:
            raise ValueError(
                f"dataset {name!r} was not made by the demo and will not be replaced; choose "
                "another --name"
            )
        if _holds(old, images):
            _restore(old)
            return old
        delete_demo(old)
    trusted = images.names(images.labels)
    dataset = fo.Dataset(name, persistent=True)
    dataset.info[_MARK] = images.source
    dataset.save()
    dataset.add_samples(
        [
            fo.Sample(filepath=path, **{TRUSTED_FIELD: _classification(label)})
            for path, label in zip(images.filepaths, trusted, strict=True)
        ],
        progress=False,
    )
    return dataset


def delete_demo(dataset: fo.Dataset) -> None:
    """Deletes a demo's dataset with its runs and kept embeddings; the image files stay.

    Args:
        dataset: made by :func:`demo_dataset`
    """
    from .runs import delete_run, list_runs

    for key in list_runs(dataset):
        delete_run(dataset, key)
    fo.delete_dataset(dataset.name)


def _digits() -> Images:
    scans, labels, rows = load_half("held-out")
    folder = Path(fo.config.default_dataset_dir) / "clipcleaner-digits"
    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / f"digit-{row:04d}.png" for row in rows]
    for path, scan in zip(paths, scans, strict=True):
        write_png(path, render(scan))
    return Images(
        "handwritten digits", [str(p) for p in paths], labels.astype(np.int64), list(DIGIT_NAMES)
    )


def _from_dataset(dataset: fo.Dataset, source: str, label_field: str) -> Images:
    check_images(dataset)
    check_label_field(dataset, label_field)
    paths, names = dataset.values(["filepath", f"{label_field}.label"])
    classes = sorted({name for name in names if name is not None})
    if len(classes) < 2:
        raise ValueError(
            f"{source}: {len(classes)} classes in field {label_field!r}; the demo needs at least 2"
        )
    index = {name: k for k, name in enumerate(classes)}
    labels = np.array([index[name] if name is not None else -1 for name in names])
    return Images(source, paths, labels, classes)


def _from_directory(folder: Path) -> Images:
    loaded = fo.Dataset.from_dir(
        str(folder), dataset_type=fo.types.ImageClassificationDirectoryTree, progress=False
    )
    try:
        if not loaded:
            raise ValueError(
                f"directory {folder} has no images; expected a folder for each class with its "
                "images in it"
            )
        return _from_dataset(loaded, f"directory {folder}", LABEL_FIELD)
    finally:
        loaded.delete()


def _from_zoo(name: str, label_field: str, split: str | None) -> Images:
    import fiftyone.zoo as foz

    available = foz.list_zoo_datasets()
    if name not in available:
        choices = [DIGITS, *fo.list_datasets(), *available]
        close = difflib.get_close_matches(name, choices, n=5) or [DIGITS, "cifar10", "mnist"]
        raise ValueError(
            f"dataset {name!r} is no FiftyOne dataset, no directory, and not in FiftyOne's zoo; "
            f"close: {', '.join(close)}"
        )
    splits = foz.get_zoo_dataset(name).supported_splits or ()
    if split is not None and split not in splits:
        raise ValueError(
            f"zoo dataset {name!r} has no split {split!r}; it has: {', '.join(splits) or 'none'}"
        )
    chosen = split or next((s for s in _SPLITS if s in splits), None)
    temporary = f"clipcleaner-demo-{uuid.uuid4().hex}"
    try:
        loaded = foz.load_zoo_dataset(name, split=chosen, dataset_name=temporary)
    except Exception as error:  # whatever the zoo's many downloaders raise
        raise ValueError(
            f"zoo dataset {name!r} could not be loaded ({type(error).__name__}: {error}). Without "
            "network, pass a directory with a folder for each class, or a FiftyOne dataset of "
            "yours"
        ) from error
    try:
        return _from_dataset(
            loaded, f"zoo dataset {name}" + f", {chosen}" * bool(chosen), label_field
        )
    finally:
        loaded.delete()


def _subset(images: Images, size: int) -> Images:
    # The same subset whatever the noise, so that embeddings can be reused between runs
    chosen = np.sort(np.random.RandomState(SPLIT_SEED).permutation(len(images))[:size])
    paths = [images.filepaths[i] for i in chosen]
    return Images(images.source, paths, images.labels[chosen], images.classes)


def _holds(dataset: fo.Dataset, images: Images) -> bool:
    if not dataset.has_sample_field(TRUSTED_FIELD):
        return False
    paths, names = dataset.values(["filepath", f"{TRUSTED_FIELD}.label"])
    return paths == images.filepaths and names == images.names(images.labels)


def _restore(dataset: fo.Dataset) -> None:
    """Takes away what was added since the samples were made, except the demo's own run.

    That run is replaced, not deleted: deleting it would delete the embeddings that the next one
    uses.
    """
    from .runs import delete_run, list_runs

    runs = list_runs(dataset)
    for key in runs:
        if key != KEY:
            delete_run(dataset, key)
    own = f"{KEY}_" if KEY in runs else None
    added = [
        name
        for name in dataset.get_field_schema()
        if name not in _FIRST_FIELDS and not (own and name.startswith(own))
    ]
    if added:
        dataset.delete_sample_fields(added, error_level=1)
    if dataset.distinct("tags"):
        dataset.set_values("tags", [[] for _ in range(len(dataset))])


def _classification(label: str | None) -> fo.Classification | None:
    return None if label is None else fo.Classification(label=label)
