"""The settings of the experiments in the paper, as a table; and ``auto`` for any other bundle.

Source: Feng, Tzimiropoulos, Patras, "CLIPCleaner", ACM MM 2024, arXiv 2408.10012, and its reference
implementation.
"""

from __future__ import annotations

from dataclasses import dataclass, field, fields, replace
from typing import Any

ASPECTS = ("keep", "squash")
AUGMENTATIONS = ("none", "crop", "flip", "autoaugment-cifar10", "autoaugment-imagenet", "randaug")

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def _option(default: Any, text: str) -> Any:
    return field(default=default, metadata={"help": text})


@dataclass(frozen=True)
class Preset:
    """How one network is trained. Every field is an option of the command line as well."""

    network: str = _option("preact-resnet18", "architecture: see networks.py")
    image_size: int = _option(32, "pixels a side that the network sees")
    resize: int = _option(32, "pixels to which the shorter side of an image is brought first")
    aspect: str = _option("keep", "'keep' the shape of images, or 'squash' both sides to 'resize'")
    crop_scale: float = _option(
        1.0, "below 1: random crops take this share of the area or more, brought to image-size"
    )
    padding: int = _option(4, "pixels added at each side before a crop of fixed size")
    augmentation: str = _option("autoaugment-cifar10", "; ".join(AUGMENTATIONS))
    mean: tuple[float, ...] = _option((0.4914, 0.4822, 0.4465), "mean of the channels, in 0..1")
    std: tuple[float, ...] = _option((0.2023, 0.1994, 0.2010), "their standard deviation")
    weights: str = _option("", "'imagenet' (needs the network) or a file with a state dict")
    dropout: float = _option(0.2, "dropout in the classifier of vgg19-bn")
    epochs: int = _option(300, "passes; the milestones are scaled with it")
    milestones: tuple[int, ...] = _option((200, 250), "epochs from which the rate is a tenth")
    batch_size: int = _option(128, "images in a batch, over all processes")
    epoch_samples: int = _option(0, "samples looked at in an epoch, drawn anew each; 0 = all")
    lr: float = _option(0.02, "learning rate of SGD")
    momentum: float = _option(0.9, "momentum of SGD")
    weight_decay: float = _option(5e-4, "weight decay of SGD")
    beta: float = _option(1.0, "mixup: lambda ~ Beta(beta, beta)")
    theta_r: float = _option(0.8, "confidence from which an agreeing label is absorbed")
    theta_r2: float = _option(0.8, "confidence from which a differing label is replaced")


_IMAGENET_STYLE = Preset(
    padding=0, augmentation="autoaugment-imagenet", mean=IMAGENET_MEAN, std=IMAGENET_STD
)
_CIFAR10 = Preset()

PRESETS: dict[str, Preset] = {
    "cifar10": _CIFAR10,
    "cifar100": Preset(mean=(0.5071, 0.4867, 0.4408), std=(0.2675, 0.2565, 0.2761)),
    # Instance-dependent noise. Confidence 1: absorption and relabelling are in effect off
    "cifar10-idn": replace(_CIFAR10, theta_r=1.0, theta_r2=1.0),
    "animal10n": Preset(
        network="vgg19-bn",
        image_size=64,
        resize=64,
        padding=8,
        augmentation="randaug",
        mean=(0.0, 0.0, 0.0),
        std=(1.0, 1.0, 1.0),
        beta=0.5,
        theta_r=0.7,
        theta_r2=0.95,
    ),
    "red-mini-imagenet": replace(
        _CIFAR10,
        aspect="squash",
        mean=(0.0, 0.0, 0.0),
        std=(1.0, 1.0, 1.0),
        batch_size=64,
        beta=4.0,
        theta_r2=0.95,
    ),
    "webvision": replace(
        _IMAGENET_STYLE,
        network="inception-resnet-v2",
        image_size=299,
        resize=320,
        crop_scale=0.08,
        batch_size=64,
        epochs=150,
        milestones=(80, 120),
        beta=0.5,
        theta_r=0.7,
        theta_r2=1.0,
    ),
    "clothing1m": replace(
        _IMAGENET_STYLE,
        network="resnet50",
        weights="imagenet",
        image_size=224,
        resize=256,
        mean=(0.6959, 0.6537, 0.6371),
        std=(0.3113, 0.3192, 0.3214),
        epoch_samples=128 * 1000,
    ),
}


def auto_preset(side: int, num_classes: int, num_samples: int) -> Preset:
    """Chooses settings for a bundle that belongs to none of the experiments.

    Args:
        side: typical length of the shorter side of an image, in pixels
        num_classes: K
        num_samples: size of the training split

    Returns:
        the settings; networks start from random weights, so that no network access is needed
    """
    batch_size = 128 if num_samples >= 10_000 else 64 if num_samples >= 2_000 else 32
    # As many images in all as 300 epochs of 50,000, within limits
    epochs = max(60, min(300, round(15_000_000 / max(1, num_samples))))
    base = replace(
        _IMAGENET_STYLE,
        batch_size=batch_size,
        epochs=epochs,
        milestones=scaled_milestones((200, 250), 300, epochs),
    )
    if side <= 16:  # symbols and digits rather than photos: a mirrored one may be another class
        size = 8 if side <= 8 else 16
        tiny = replace(base, network="small-cnn", augmentation="crop", padding=size // 8)
        return replace(tiny, image_size=size, resize=size)
    if side <= 96:
        size = 32 if side <= 48 else 64
        small = replace(base, augmentation="autoaugment-cifar10", padding=size // 8)
        return replace(small, image_size=size, resize=size)
    deep = num_samples >= 20_000 or num_classes >= 100
    network = "resnet50" if deep else "resnet18"
    return replace(base, network=network, image_size=224, resize=256)


def scaled_milestones(milestones: tuple[int, ...], of: int, epochs: int) -> tuple[int, ...]:
    """Moves milestones of a run of ``of`` epochs to where they belong in a run of ``epochs``."""
    return tuple(round(m * epochs / of) for m in milestones)


def learning_rate(preset: Preset, epoch: int) -> float:
    """Returns the rate of an epoch (the first is 0): a tenth from each milestone on."""
    return float(preset.lr * 0.1 ** sum(epoch >= m for m in preset.milestones))


def override(preset: Preset, values: dict[str, Any]) -> Preset:
    """Replaces fields; another number of epochs moves the milestones along, unless they are given.

    Args:
        preset: the settings to start from
        values: field → value; None = keep

    Returns:
        the checked settings

    Raises:
        ValueError: if a value makes no sense; the text names the option
    """
    given = {name: value for name, value in values.items() if value is not None}
    if "epochs" in given and "milestones" not in given:
        epochs = max(1, given["epochs"])
        given["milestones"] = scaled_milestones(preset.milestones, preset.epochs, epochs)
    if "image_size" in given and "resize" not in given:
        given["resize"] = round(preset.resize * given["image_size"] / preset.image_size)
    chosen = replace(preset, **given)
    _check(chosen)
    return chosen


# Field → (smallest, largest, the smallest itself is refused)
_LIMITS: dict[str, tuple[float, float, bool]] = {
    "image_size": (1, 4096, False),
    "crop_scale": (0, 1, True),
    "padding": (0, 1024, False),
    "dropout": (0, 0.99, False),
    "epochs": (1, 1_000_000, False),
    "batch_size": (1, 1_000_000, False),
    "epoch_samples": (0, 1e12, False),
    "lr": (0, 1e6, True),
    "momentum": (0, 0.9999, False),
    "weight_decay": (0, 1e6, False),
    "beta": (0, 1e6, True),
    "theta_r": (0, 1, False),
    "theta_r2": (0, 1, False),
}


def _check(preset: Preset) -> None:
    for name, (low, high, is_open) in _LIMITS.items():
        value = getattr(preset, name)
        if not low <= value <= high or (is_open and value == low):
            bounds = f"more than {low:g}" if is_open else f"at least {low:g}"
            raise ValueError(f"--{_dashed(name)} is {value}: give {bounds}, at most {high:g}")
    if preset.resize < preset.image_size:
        raise ValueError(
            f"--resize {preset.resize} is less than --image-size {preset.image_size}: "
            "images would not fill the crop"
        )
    for name, choices in (("augmentation", AUGMENTATIONS), ("aspect", ASPECTS)):
        if getattr(preset, name) not in choices:
            raise ValueError(
                f"--{name} {getattr(preset, name)!r} is unknown: choose from {', '.join(choices)}"
            )
    if len(preset.mean) != 3 or len(preset.std) != 3 or min(preset.std) <= 0:
        raise ValueError("--mean and --std take three numbers each, those of --std above 0")
    if any(m < 0 for m in preset.milestones):
        raise ValueError(f"--milestones {preset.milestones}: epochs count from 0")


def _dashed(name: str) -> str:
    return name.replace("_", "-")


OPTION_NAMES = tuple(f.name for f in fields(Preset))
