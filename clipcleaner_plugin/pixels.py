"""A model's own transform in two halves: workers resize to 8-bit pixels, the device normalises.

Pixels of 8 bits are a quarter of the bytes that pass between processes and to the device, and the
arithmetic on whole batches costs less there than image by image in a worker. Where the processor
has the instructions for it, torch resizes in place of Pillow.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from PIL import Image

logger = logging.getLogger(__name__)

# Largest deviation of normalised pixels (they span about -2 to 2): float32 rounds to 1e-7 of them
TOLERANCE = 1e-5
# Largest deviation of 8-bit pixels that torch has resized from Pillow's: by other rounding alone
LEVELS = 2
_VECTORISED = ("AVX2", "AVX512")
# JPEG files are decoded at a fraction of their size where this many times the model's remains. On
# photos the 8-bit pixels then deviate by 0.5 on average at most, at 2 by 0.8, at 1 by 3
_SHRINK_MARGIN = 3


class ToPixels:
    """PIL RGB image → (H, W, 3) uint8: the geometry of a transform. Can be pickled.

    Attributes:
        least_side: how many pixels the shorter side of a JPEG file must keep when it is decoded at
            a fraction of its size; see :func:`clipcleaner_plugin.images.read_image`
    """

    def __init__(self, steps: Sequence[Callable[[Any], Any]], size: int) -> None:
        self._steps = tuple(steps)
        self.least_side = _SHRINK_MARGIN * size

    def __call__(self, image: Image.Image) -> torch.Tensor:
        made: Any = image
        for step in self._steps:
            made = step(made)
        if isinstance(made, torch.Tensor):
            return made.permute(1, 2, 0)
        return torch.from_numpy(np.array(made))


class QuickResize:
    """torchvision's ``Resize`` as torch does it to 8-bit pixels: in a fifth of Pillow's time.

    Made by :func:`quick_resize`. PIL RGB image → (3, H, W) uint8, which ``CenterCrop`` takes too.
    """

    def __init__(self, size: list[int], interpolation: Any) -> None:
        self._size, self._interpolation = size, interpolation

    def __call__(self, image: Image.Image) -> torch.Tensor:
        from torchvision.transforms.v2.functional import resize

        pixels = torch.from_numpy(np.array(image)).permute(2, 0, 1)
        return resize(pixels, self._size, self._interpolation, antialias=True)


def quick_resize(step: Any) -> QuickResize | None:
    """Returns what may stand for a step of a transform; None where nothing quicker is known.

    Only what scales both sides alike can: otherwise the order in which Pillow resizes them, and
    rounds in between, depends on the image, and edges come out differently.
    """
    from torchvision.transforms import InterpolationMode, Resize

    size = [step.size] if isinstance(getattr(step, "size", None), int) else []
    if not size or type(step) is not Resize or step.max_size is not None:
        return None
    if step.interpolation not in (InterpolationMode.BICUBIC, InterpolationMode.BILINEAR):
        return None
    if torch.backends.cpu.get_cpu_capability() not in _VECTORISED:
        return None
    return QuickResize(size, step.interpolation)


class Normalise:
    """(B, H, W, 3) uint8 → (B, 3, H, W) float32 on the same device: the rest of a transform."""

    def __init__(self, mean: Sequence[float], std: Sequence[float]) -> None:
        # (x / 255 - mean) / std in one multiplication and one addition
        self._scale = [1 / (255 * s) for s in std]
        self._shift = [-m / s for m, s in zip(mean, std, strict=True)]

    def __call__(self, pixels: torch.Tensor) -> torch.Tensor:
        batch, height, width, _ = pixels.shape
        shape = (batch, 3, height, width)
        out = torch.empty(shape, dtype=torch.float32, device=pixels.device)
        if pixels.device.type == "cpu":
            # By NumPy, in one thread: torch's would wait at every step for cores that decode
            self._apply(out.numpy(), pixels.numpy().transpose(0, 3, 1, 2))
        else:
            self._apply(out, pixels.permute(0, 3, 1, 2))
        return out

    def _apply(self, out: Any, pixels: Any) -> None:
        out[...] = pixels
        for channel, (scale, shift) in enumerate(zip(self._scale, self._shift, strict=True)):
            plane = out[:, channel]
            plane *= scale
            plane += shift


def split_transform(transform: Any) -> tuple[ToPixels, Normalise] | None:
    """Splits a transform, where it can be split and the halves give what the whole gives.

    Args:
        transform: torchvision's ``Compose`` of steps on PIL images, a conversion to a tensor, and
            ``Normalize``, as open_clip makes it

    Returns:
        the halves; None where the transform is built otherwise, or the halves deviate from it by
        more than :data:`TOLERANCE`: then the transform itself is to be used
    """
    from torchvision.transforms import Normalize, ToTensor

    steps = list(getattr(transform, "transforms", ()))
    if len(steps) < 2 or not isinstance(steps[-1], Normalize):
        return None
    if not isinstance(steps[-2], ToTensor):
        return None
    try:
        halves = _verified(transform, steps[:-2], steps[-1])
    except Exception:  # a step that takes no PIL image, or changes the type: whatever it raises
        logger.debug("The transform cannot be split", exc_info=True)
        return None
    if halves is None:
        logger.info("The fast preprocessing deviates from the model's own, which is used")
    return halves


def _verified(
    transform: Any, geometry: list[Any], normalize: Any
) -> tuple[ToPixels, Normalise] | None:
    random = np.random.default_rng(0)
    sides: list[int] = []
    normalise = Normalise(*(np.ravel(v).tolist() for v in (normalize.mean, normalize.std)))
    quick = [quick_resize(step) or step for step in geometry]
    for width, height in ((70, 50), (330, 470)):
        image = Image.fromarray(random.integers(0, 256, (height, width, 3), dtype=np.uint8))
        pixels = ToPixels(geometry, 0)(image)
        if pixels.dtype != torch.uint8 or pixels.shape[2:] != (3,):
            return None
        expected = transform(image)
        found = normalise(pixels[None])[0]
        if found.shape != expected.shape or (found - expected).abs().max() > TOLERANCE:
            return None
        if quick != geometry and not _alike(ToPixels(quick, 0), image, pixels):
            quick = geometry
        sides += pixels.shape[:2]
    return ToPixels(quick, max(sides)), normalise


def _alike(quick: ToPixels, image: Image.Image, expected: torch.Tensor) -> bool:
    try:
        found = quick(image)
    except Exception:  # a later step that takes PIL images only: whatever it raises
        logger.debug("The steps do not take what torch resized", exc_info=True)
        return False
    if found.dtype != torch.uint8 or found.shape != expected.shape:
        return False
    return int((found.int() - expected.int()).abs().max()) <= LEVELS
