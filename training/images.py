"""From an image file to the uint8 pixels that a network gets, and the cache of decoded images."""

from __future__ import annotations

import functools
import logging
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor
from torch.utils.data import Dataset
from torchvision import transforms

from .presets import Preset

logger = logging.getLogger(__name__)

# (index of a sample, seed of its augmentation; NO_AUGMENTATION = none)
Item = tuple[int, int]
NO_AUGMENTATION = -1

# Shortest side becomes some 32 to 320 pixels: without a limit a 1 x 100,000 image would be 30 GB
_MAX_ASPECT_RATIO = 100


class ImageReadError(ValueError):
    """An image file that cannot be used; the text names the path and the reason."""


def read_image(path: str, resize: int, squash: bool = False) -> np.ndarray:
    """Reads an image upright, as RGB, its shorter side scaled to a length.

    Args:
        path: the file
        resize: pixels of the shorter side
        squash: whether the longer side gets that length too

    Returns:
        (h, w, 3) uint8, min(h, w) = ``resize``

    Raises:
        ImageReadError: if it is missing, no image, damaged or more than 100 times as long as wide
    """
    try:
        if not Path(path).is_file():  # a pipe or a device could block for ever
            raise ImageReadError(f"{path}: no such file")
        # By list: Pillow hands EPS to an external program, which files of others must not reach
        with Image.open(path, formats=_formats()) as opened:
            image = _eight_bit(ImageOps.exif_transpose(opened)).convert("RGB")
        short, long = sorted(image.size)
        if long > _MAX_ASPECT_RATIO * short:
            raise ImageReadError(f"{path}: {image.width} x {image.height} is too elongated")
        width, height = (max(resize, round(side * resize / short)) for side in image.size)
        size = (resize, resize) if squash else (width, height)
        if size != image.size:
            image = image.resize(size, Image.Resampling.BILINEAR)
        return np.asarray(image)
    except ImageReadError:
        raise
    except Exception as err:  # damaged files raise nearly anything from Pillow's decoders
        raise ImageReadError(f"{path}: {type(err).__name__}: {err}") from err


@functools.cache
def _formats() -> tuple[str, ...]:
    Image.init()
    return tuple(name for name in Image.ID if name != "EPS")


def _eight_bit(image: Image.Image) -> Image.Image:
    """Scales 16-bit grey images, which ``convert`` would clip: 65535 is white."""
    if not image.mode.startswith("I"):
        return image
    pixels = np.asarray(image).astype(np.float32)
    depth = 257 if pixels.max(initial=0) > 255 else 1
    return Image.fromarray((pixels / depth).clip(0, 255).round().astype(np.uint8))


def augmentation(preset: Preset) -> transforms.Compose:
    """Returns the random transform of training: PIL image → PIL image of ``image_size``."""
    size, kind = preset.image_size, preset.augmentation
    if kind == "none":
        return transforms.Compose([transforms.CenterCrop(size)])
    steps: list[object] = [transforms.RandomCrop(size, padding=preset.padding or None)]
    if preset.crop_scale < 1:
        steps = [transforms.RandomResizedCrop(size, scale=(preset.crop_scale, 1))]
    if kind != "crop":
        steps.append(transforms.RandomHorizontalFlip())
    if kind.startswith("autoaugment"):
        policy = kind.removeprefix("autoaugment-")
        steps.append(transforms.AutoAugment(transforms.AutoAugmentPolicy(policy)))
    elif kind == "randaug":
        steps.append(transforms.RandAugment())
    return transforms.Compose(steps)


class ImageSet(Dataset[tuple[Tensor, bool]]):
    """The images of a bundle by ``Item``; the random part depends on the item's seed alone.

    Neither the number of workers nor that of processes changes what an item looks like. An image
    that cannot be read comes as a black one with the flag False; training gives it no weight.
    """

    def __init__(self, paths: Sequence[str], preset: Preset) -> None:
        """Remembers the paths.

        Args:
            paths: N image files
            preset: sizes and augmentation
        """
        self.paths = paths
        self.size, self.resize = preset.image_size, preset.resize
        self.squash = preset.aspect == "squash"
        self.augment = augmentation(preset)
        self.cache: list[np.ndarray | None] | None = None

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, item: Item) -> tuple[Tensor, bool]:
        index, seed = item
        pixels = self.cache[index] if self.cache is not None else self._read(index)
        if pixels is None:
            return torch.zeros(3, self.size, self.size, dtype=torch.uint8), False
        if seed == NO_AUGMENTATION:
            cropped = _center(pixels, self.size)
        else:
            cropped = self._augmented(pixels, seed)
        return torch.from_numpy(np.ascontiguousarray(cropped.transpose(2, 0, 1))), True

    def _augmented(self, pixels: np.ndarray, seed: int) -> np.ndarray:
        """torchvision draws from torch's global generator: borrowed, and put back as it was."""
        generator = torch.default_generator
        state = generator.get_state()
        try:
            generator.manual_seed(seed)
            return np.array(self.augment(Image.fromarray(pixels)))
        finally:
            generator.set_state(state)

    def _read(self, index: int) -> np.ndarray | None:
        try:
            return read_image(self.paths[index], self.resize, self.squash)
        except ImageReadError:
            return None

    def fill_cache(self, threads: int) -> np.ndarray:
        """Decodes every image once and keeps it.

        Args:
            threads: how many decode at a time

        Returns:
            (N,) bool, which images could not be read
        """
        cache: list[np.ndarray | None] = []
        with ThreadPoolExecutor(threads) as pool:
            for start in range(0, len(self), 4096):
                cache += pool.map(self._read, range(start, min(start + 4096, len(self))))
        self.cache = cache
        return np.array([pixels is None for pixels in cache], dtype=bool)

    def reason(self, index: int) -> str:
        """Returns in words why an image cannot be read, path included."""
        try:
            read_image(self.paths[index], self.resize, self.squash)
        except ImageReadError as err:
            return str(err)
        return f"{self.paths[index]}: could not be read before, now it can"

    def cache_bytes(self) -> int:
        """Estimates what a full cache takes, at an aspect ratio of 3:2."""
        return round(len(self.paths) * 3 * 1.5 * self.resize**2)


def _center(pixels: np.ndarray, size: int) -> np.ndarray:
    top, left = ((side - size) // 2 for side in pixels.shape[:2])
    return pixels[top : top + size, left : left + size]


def available_memory() -> int:
    """Returns the bytes of main memory that are free, 0 where the system does not tell."""
    try:
        return os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, ValueError, OSError):
        return 0


def typical_side(paths: Sequence[str], probes: int = 64) -> int:
    """Looks at some images, evenly spread, for the length of their shorter side.

    Args:
        paths: image files
        probes: how many to look at

    Returns:
        the median

    Raises:
        ImageReadError: if none of them can be opened
    """
    sides: list[int] = []
    for path in paths[:: max(1, len(paths) // probes)]:
        try:
            with Image.open(path, formats=_formats()) as image:
                sides.append(min(image.size))
        except Exception as err:
            logger.debug("%s: %s", path, err)
    if not sides:
        raise ImageReadError(
            f"None of the images looked at can be opened, the first is {paths[0]}: "
            "check where the bundle's images are"
        )
    return int(np.median(sides))
