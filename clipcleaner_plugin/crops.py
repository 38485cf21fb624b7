"""The image of an object: the part of an image file within its box."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from PIL import Image

from .images import MAX_ASPECT_RATIO, ImageReadError, file_stamp, read_image

# Fewer pixels a side show nothing that could be recognised
LEAST_SIDE = 4


class Crop(NamedTuple):
    """A part of an image file.

    Attributes:
        path: the file
        box: left, top, right and bottom edge in the upright image, as shares of its width and
            height, cut off at its borders; the reason why there is none, in words
    """

    path: str
    box: tuple[float, float, float, float] | str


# A whole file, or a part of one
Media = str | Crop


def make_crop(path: str, bounding_box: Any, alpha: float | None = None) -> Crop:
    """Returns the part of an image within a box, as FiftyOne's patch embeddings have it.

    Args:
        path: the image file
        bounding_box: left, top, width and height, as shares of those of the image
        alpha (None): how much width and height of the box grow, or shrink where it is negative: by
            ``100 * alpha`` percent
    """
    if not _is_box(bounding_box):
        return Crop(path, f"its box {bounding_box!r} is not four finite numbers")
    left, top, width, height = map(float, bounding_box)
    if width <= 0 or height <= 0:
        return Crop(path, f"its box {bounding_box!r} has no area")
    pad = 0.5 * (alpha or 0.0)
    edges = (
        left - pad * width,
        top - pad * height,
        left + width + pad * width,
        top + height + pad * height,
    )
    x0, y0, x1, y1 = (min(max(edge, 0.0), 1.0) for edge in edges)
    if x0 >= x1 or y0 >= y1:
        return Crop(path, f"its box {bounding_box!r} lies outside of the image")
    return Crop(path, (x0, y0, x1, y1))


def _is_box(value: Any) -> bool:
    return (
        isinstance(value, Sequence)
        and len(value) == 4
        and all(isinstance(v, (int, float)) and math.isfinite(v) for v in value)
    )


def media_stamp(
    media: Media, look: Callable[[str], tuple[int, int]] = file_stamp
) -> tuple[int, int]:
    """Returns two numbers that change with the file, and with the box.

    Args:
        media: a file, or a part of one
        look: returns the stamp of a file

    Raises:
        ImageReadError: as :func:`clipcleaner_plugin.images.file_stamp`, or if there is no box
    """
    if isinstance(media, str):
        return look(media)
    size, mtime = look(media.path)
    if isinstance(media.box, str):
        raise ImageReadError(f"{media.path}: {media.box}")
    text = repr((mtime, media.box)).encode()
    digest = hashlib.blake2b(text, digest_size=8).digest()
    return size, int.from_bytes(digest, "little") >> 1  # stores hold signed numbers of 64 bits


class MediaReader:
    """Reads images and parts of images; the last file stays decoded, for its other objects.

    Args:
        least_side (None): as in :func:`clipcleaner_plugin.images.read_image`, for whole files
    """

    def __init__(self, least_side: int | None = None) -> None:
        self._least_side = least_side
        self._path: str | None = None
        self._image: Image.Image | None = None

    def __call__(self, media: Media) -> Image.Image:
        """Returns the RGB image.

        Raises:
            ImageReadError: if the file cannot be read, or the part is too small to show anything
        """
        if isinstance(media, str):
            return read_image(media, self._least_side)
        if self._image is None or self._path != media.path:
            self._path, self._image = None, None  # not two in memory
            self._image, self._path = read_image(media.path), media.path
        return _cut(self._image, media)


def _cut(image: Image.Image, crop: Crop) -> Image.Image:
    assert not isinstance(crop.box, str)
    x0, y0, x1, y1 = crop.box
    pixels = (
        int(x0 * image.width),
        int(y0 * image.height),
        int(x1 * image.width),
        int(y1 * image.height),
    )
    width, height = pixels[2] - pixels[0], pixels[3] - pixels[1]
    if min(width, height) < LEAST_SIDE:
        raise ImageReadError(
            f"{crop.path}: the box has {width} x {height} pixels: fewer than {LEAST_SIDE} a side "
            "show nothing"
        )
    if max(width, height) > MAX_ASPECT_RATIO * min(width, height):
        raise ImageReadError(
            f"{crop.path}: a box of {width} x {height} pixels is too elongated to be resized for a "
            f"model (limit 1 : {MAX_ASPECT_RATIO})"
        )
    return image.crop(pixels)
