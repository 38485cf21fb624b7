"""Photos of Caltech-101 with planted label errors, and the features that CLIP has of them."""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import NamedTuple

import fiftyone as fo
import numpy as np

from clipcleaner_plugin.noise import draw_noise

SEED = 51
REDRAWN = 0.05
CONFUSED = 0.4
# What is taken for what, by the one who gave the labels
PAIRS = (
    ("chandelier", "lamp"),
    ("ketch", "ferry"),
    ("ewer", "cup"),
    ("cougar body", "leopard"),
    ("crayfish", "lobster"),
)
FOREIGN = 120
_PORTRAITS = "face"
# Other classes, of which one of the labels would be half right; and figures from cartoons
_LEFT_OUT = {
    *("cougar_face", "wild_cat", "crocodile_head", "flamingo_head", "lotus", "schooner"),
    *("windsor_chair", "garfield", "snoopy"),
}


class Photos(NamedTuple):
    """A dataset, and what ``apply_clipcleaner`` takes instead of a model.

    Attributes:
        dataset: samples with ``ground_truth``, some of them wrong, and ``true_label``; none where
            the photo belongs to none of the classes
        embeddings: (N, 512) float32, in the order of the samples
        texts: class name → text feature
    """

    dataset: fo.Dataset
    embeddings: np.ndarray
    texts: dict[str, np.ndarray]


def noisy_photos(data: Path, folder: Path, name: str = "caltech-101") -> Photos:
    """Makes a dataset of 61 classes, some labels wrong, and of photos that are none of them.

    A share of 0.05 of the labels is redrawn from all classes; then 0.4 of the labels of five
    classes become that of a look-alike; and 120 photos of other classes have a label at random.
    Portraits are left out.

    Args:
        data: the folder with ``caltech101``
        folder: where to put the photos
        name: of the dataset
    """
    with np.load(data / "caltech101" / "text_features_vitb32.npz") as arrays:
        known, texts = arrays["class_index"], arrays["text_a"].astype(np.float32)
        classes = [str(c).replace("_", " ") for c in arrays["class_name"]]
    with np.load(data / "caltech101" / "image_features_vitb32.npz") as arrays:
        features, paths = arrays["image_features"].astype(np.float32), arrays["path"]
        place = {int(number): k for k, number in enumerate(known)}
        labels = np.array([place.get(int(number), -1) for number in arrays["label"]])
        others = ~np.isin(arrays["classes"][arrays["label"]], [*_LEFT_OUT]) & (labels < 0)
    portraits = classes.index(_PORTRAITS)
    own = np.flatnonzero((labels >= 0) & (labels != portraits))
    random = np.random.RandomState(SEED)
    foreign = random.choice(np.flatnonzero(others), FOREIGN, replace=False)
    used = [k for k in range(len(classes)) if k != portraits]
    names = [classes[k] for k in used]
    true = np.searchsorted(used, labels[own])
    given = np.concatenate([_confused(true, names), random.randint(len(names), size=FOREIGN)])
    truth = [*(names[k] for k in true), *[None] * FOREIGN]
    chosen = np.concatenate([own, foreign])
    with zipfile.ZipFile(data / "caltech101" / "images.zip") as photos:
        photos.extractall(folder, [str(path) for path in paths[chosen]])
    dataset = fo.Dataset(name)
    dataset.add_samples(
        [
            fo.Sample(
                filepath=str(folder / path),
                ground_truth=fo.Classification(label=names[label]),
                true_label=None if right is None else fo.Classification(label=right),
            )
            for path, label, right in zip(paths[chosen], given, truth, strict=True)
        ],
        progress=False,
    )
    return Photos(
        dataset, features[chosen], {n: texts[k] for n, k in zip(names, used, strict=True)}
    )


def _confused(true: np.ndarray, names: list[str]) -> np.ndarray:
    redrawn = draw_noise(true, len(names), "symmetric", REDRAWN, SEED)
    pairs = [(names.index(a), names.index(b)) for a, b in PAIRS]
    return draw_noise(redrawn, len(names), "asymmetric", CONFUSED, SEED, pairs)
