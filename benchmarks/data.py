"""Real CLIP features with clean labels, to draw noise on."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from clipcleaner_plugin.zeroshot import normalize_rows

DEFAULT_FOLDER = Path(__file__).resolve().parent.parent.parent / "shared" / "data"


@dataclass(frozen=True)
class FeatureSet:
    """Images and class names of one data set as CLIP sees them.

    Attributes:
        name: how it is called in tables
        features: (N, d) float32 unit rows
        labels: (N,) int64, the true labels in [0, K)
        texts: (K, d) float array
    """

    name: str
    features: np.ndarray
    labels: np.ndarray
    texts: np.ndarray


class DataMissingError(ValueError):
    """The folder of the features is not there."""


def load_sets(folder: Path) -> list[FeatureSet]:
    """Loads all sets.

    Args:
        folder: holds ``caltech101`` and ``features``

    Returns:
        Caltech-101 with the text features of its class names, dtd and ucf101 with stand-ins

    Raises:
        DataMissingError: if a file is missing
    """
    return [load_caltech(folder), *(load_stand_in(folder, name) for name in ("dtd", "ucf101"))]


def load_caltech(folder: Path) -> FeatureSet:
    """Loads the 62 classes of Caltech-101 whose text features ("a X") are known.

    Args:
        folder: holds ``caltech101``

    Returns:
        3,051 images of 62 classes

    Raises:
        DataMissingError: if a file is missing
    """
    images = _load(folder / "caltech101" / "image_features_vitb32.npz")
    texts = _load(folder / "caltech101" / "text_features_vitb32.npz")
    position = np.full(len(images["classes"]), -1)
    position[texts["class_index"]] = np.arange(len(texts["class_index"]))
    labels = position[images["label"]]
    known = labels >= 0
    features = normalize_rows(images["image_features"][known])
    return FeatureSet("caltech101", features, labels[known], texts["text_a"])


def load_stand_in(folder: Path, name: str) -> FeatureSet:
    arrays = _load(folder / "features" / f"{name}.npz")
    features = normalize_rows(arrays["image_features"])
    return FeatureSet(name, features, arrays["label"].astype(np.int64), arrays["stand_in_text"])


def _load(path: Path) -> dict[str, np.ndarray]:
    if not path.is_file():
        raise DataMissingError(f"{path} is not there: name the folder of the features with --data")
    with np.load(path) as arrays:
        return dict(arrays)
