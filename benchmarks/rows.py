"""The rows of the paper's tables, and scaled-down ones that a CPU finishes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path

import fiftyone as fo
import numpy as np

from benchmarks import small
from clipcleaner_plugin import datasets
from clipcleaner_plugin.demo import confusion_pairs
from clipcleaner_plugin.model_names import TINY_CLIP

RECIPES = ("ce", "ce-clean", "weighted", "mixfix")


@dataclass(frozen=True)
class Row:
    """One experiment.

    Attributes:
        about: data, noise and embeddings, in words
        data: a name of ``datasets.DATASETS``, and its variant
        kind: of the noise to draw; None = the data set has its own
        rate: of that noise
        preset: of the trainer
        trainer: further arguments of its command line
        epochs: passes; None = those of the preset
        theta_cons: of the selection
        model: that embeds images and class names; None = ``features`` does
        prompts: whether classes are described, beyond their names
        recipes: to train with
        val: share of the training images that chooses the best epoch
        make: (root, work, name) → the dataset, for data that is not in ``datasets``
        features: (filepaths) → (N, d) array, instead of a model
    """

    about: str
    data: tuple[str, str | None] = ("", None)
    kind: str | None = None
    rate: float = 0.0
    preset: str = "auto"
    trainer: tuple[str, ...] = ()
    epochs: int | None = None
    theta_cons: float = 0.8
    model: str | None = "ViT-B-32"
    prompts: bool = True
    recipes: tuple[str, ...] = ("mixfix",)
    val: float = 0.05
    make: Callable[[Path, Path, str], fo.Dataset] | None = field(default=None, repr=False)
    features: Callable[[list[str]], np.ndarray] | None = field(default=None, repr=False)

    def dataset(self, root: Path, work: Path, name: str) -> fo.Dataset:
        """Makes the FiftyOne dataset, without noise that has to be drawn."""
        if self.make is not None:
            return self.make(root, work, name)
        return datasets.load(*self.reading(root), dataset_name=name, persistent=True)

    def reading(self, root: Path) -> tuple[str, Path, str | None]:
        """Returns the arguments of ``datasets.load``."""
        return self.data[0], root, self.data[1]

    def pairs(self, classes: list[str]) -> list[tuple[str, str]] | None:
        """Returns which class asymmetric noise takes for which."""
        return confusion_pairs(classes) if self.kind == "asymmetric" else None


def _synthetic(data: str, kind: str, percent: int) -> Row:
    about = f"{data.upper()[:5]}-{data[5:]}, {percent} % {kind} noise"
    return Row(about, (data, None), kind, percent / 100, data)


_CIFAR10N = Row("CIFAR-10N", preset="cifar10")
_WEBVISION = Row("mini-WebVision", ("webvision", None), preset="webvision", theta_cons=1.0)

# Little enough for a CPU: a small network on images of 16 pixels
_CPU = ("--device", "cpu", "--workers", "0")
_SMALL = (
    *("--network", "small-cnn", "--image-size", "16", "--resize", "16", "--padding", "2"),
    *_CPU,
)
# The network of the paper, at the size at which the digits were scanned
_RESNET = (
    *("--network", "preact-resnet18", "--image-size", "8", "--resize", "8", "--padding", "1"),
    *_CPU,
)
_DIGITS = Row(
    "The demo's 901 handwritten digits, 70 / 10 / 20 % for training, validation and test; 40 % of "
    "the labels drawn anew (36 % wrong); embeddings and class names by the CLIP that comes with "
    "the package, which was trained on other scans of the same collection",
    kind="symmetric",
    rate=0.4,
    trainer=(*_SMALL, *("--augmentation", "crop", "--batch-size", "32")),
    epochs=60,
    model=TINY_CLIP,
    prompts=False,
    recipes=RECIPES,
    val=0.0,
    make=small.digits,
)

ROWS: dict[str, Row] = {
    **{f"cifar10-sym{p}": _synthetic("cifar10", "symmetric", p) for p in (20, 50, 80, 90)},
    "cifar10-asym40": _synthetic("cifar10", "asymmetric", 40),
    **{f"cifar100-sym{p}": _synthetic("cifar100", "symmetric", p) for p in (20, 50, 80, 90)},
    **{
        f"cifar10-idn{p}": Row(
            f"CIFAR-10, {p} % instance-dependent noise",
            ("cifar10-idn", str(p / 100)),
            preset="cifar10-idn",
        )
        for p in (10, 20, 30, 40, 50)
    },
    **{
        f"cifar10n-{labels}": replace(
            _CIFAR10N, about=f"CIFAR-10N, labels {labels!r}", data=("cifar10n", labels)
        )
        for labels in datasets.DATASETS["cifar10n"].variants
    },
    "cifar100n": Row("CIFAR-100N", ("cifar100n", None), preset="cifar100"),
    "animal10n": Row("ANIMAL-10N", ("animal10n", None), preset="animal10n"),
    **{
        f"red-mini-imagenet-{p}": Row(
            f"Red mini-ImageNet, {p} % noise of the web",
            ("red-mini-imagenet", str(p / 100)),
            preset="red-mini-imagenet",
        )
        for p in (20, 40, 60, 80)
    },
    "webvision": _WEBVISION,
    "webvision-ilsvrc12": replace(
        _WEBVISION,
        about="mini-WebVision, tested on the same classes of ILSVRC12",
        data=("webvision-ilsvrc12", None),
    ),
    "clothing1m": Row("Clothing1M", ("clothing1m", None), preset="clothing1m", val=0.0),
    "cifar10n-worse-small": Row(
        f"{small.TRAIN:,} training and {small.TEST:,} test images of CIFAR-10, CIFAR-10N's labels "
        "'worse' (40 % wrong); embeddings: features of k-means on 6 x 6 patches, learned without "
        "labels on the same images, and no text, since no weights of CLIP are at hand. Visual "
        "evidence alone",
        ("cifar10n", "worse"),
        trainer=(*_SMALL, *("--augmentation", "flip", "--batch-size", "64")),
        epochs=20,
        model=None,
        recipes=RECIPES,
        val=0.1,
        make=small.cifar10n,
        features=small.patch_features,
    ),
    "digits-sym40": _DIGITS,
    "digits-sym40-resnet": replace(
        _DIGITS,
        about=f"{_DIGITS.about}. The paper's network, at the 8 pixels of the scans; without "
        "augmentation, so that 40 epochs suffice to learn wrong labels by heart",
        trainer=(*_RESNET, *("--augmentation", "none", "--batch-size", "32")),
        epochs=40,
    ),
}
