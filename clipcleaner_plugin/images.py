"""Reading one image file as a model sees it: upright, 8-bit RGB, or a reason in words why not."""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import IO

import numpy as np
from PIL import Image, UnidentifiedImageError

# EXIF tag 0x0112: how the stored pixels must be turned to stand upright (EXIF 2.32, section 4.6.4)
_ORIENTATION_TAG = 0x0112
_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}

# Pillow hands these to an external program, Ghostscript: files of unknown origin must not reach it
_PROGRAM_FORMATS = frozenset({"EPS"})

# Models enlarge the shorter side to some 224 to 448 pixels: a 1 x 100,000 image would become 60 GB
MAX_ASPECT_RATIO = 500


class ImageReadError(ValueError):
    """An image file that cannot be used; the text names the path and the reason."""


def file_stamp(path: str | os.PathLike[str]) -> tuple[int, int]:
    """Returns what tells one content of a file from another, without reading it.

    Args:
        path: the image file

    Returns:
        its size in bytes and its modification time in nanoseconds

    Raises:
        ImageReadError: if the path is missing, not a file, empty, or may not be looked at
    """
    try:
        info = os.stat(path)
    except FileNotFoundError:
        raise ImageReadError(f"{path}: no such file") from None
    except (OSError, ValueError) as err:  # ValueError: a NUL character in the path
        raise ImageReadError(f"{path}: cannot be opened: {_words(err)}") from err
    if stat.S_ISDIR(info.st_mode):
        raise ImageReadError(f"{path}: is a directory, not an image file")
    if not stat.S_ISREG(info.st_mode):  # a pipe or device may block for ever
        raise ImageReadError(f"{path}: is not a regular file")
    if info.st_size == 0:
        raise ImageReadError(f"{path}: the file is empty (0 bytes)")
    return info.st_size, info.st_mtime_ns


def read_image(path: str | os.PathLike[str], least_side: int | None = None) -> Image.Image:
    """Reads an image file as upright 8-bit RGB.

    - The EXIF orientation is applied.
    - Transparency is dropped, not composited: what lies under it becomes visible. That is what
      ``Image.convert("RGB")`` in the preprocessing of CLIP, open_clip and FiftyOne does, so
      embeddings agree with theirs.
    - Deeper grey images are scaled to 8 bit, where ``convert`` would clip them: 16-bit ones by
      their depth (65535 is white); 32-bit ones, which have no fixed white, by the smallest usual
      range that holds all values (floats: 1, 255, 65535; integers: 65535), else from their
      smallest to their largest value.
    - Of animations and multi-page files, the first frame is taken.

    Args:
        path: the image file
        least_side (None): JPEG files may be decoded at 1/2, 1/4 or 1/8 of their size, several
            times as fast, where the shorter side keeps this many pixels; None = in full

    Returns:
        an RGB image, decoded and detached from the file

    Raises:
        ImageReadError: if there is no such file, it is no image, damaged, truncated, too large to
            be safe (``PIL.Image.MAX_IMAGE_PIXELS``), or more than 500 times as long as wide
    """
    file_stamp(path)
    try:
        with Path(path).open("rb") as file:
            return _decode(file, path, least_side)
    except ImageReadError:
        raise
    except UnidentifiedImageError:
        raise ImageReadError(f"{path}: not an image, or its header is damaged") from None
    except Image.DecompressionBombError as err:
        raise ImageReadError(
            f"{path}: too large to be decoded safely ({_words(err)}); "
            "raise PIL.Image.MAX_IMAGE_PIXELS if you trust it"
        ) from err
    except PermissionError as err:
        raise ImageReadError(f"{path}: cannot be opened: {_words(err)}") from err
    except Exception as err:  # damaged files raise nearly anything from Pillow's decoders
        raise ImageReadError(f"{path}: truncated or damaged: {_words(err)}") from err


def _decode(file: IO[bytes], path: str | os.PathLike[str], least_side: int | None) -> Image.Image:
    with Image.open(file) as image:
        if image.format in _PROGRAM_FORMATS:
            raise ImageReadError(f"{path}: {image.format} is a program, not an image")
        width, height = image.size
        if max(width, height) > MAX_ASPECT_RATIO * min(width, height):
            raise ImageReadError(
                f"{path}: {width} x {height} pixels is too elongated to be resized for a model "
                f"(limit 1 : {MAX_ASPECT_RATIO})"
            )
        if least_side is not None:
            _decode_smaller(image, least_side)
        image.load()
        rgb = _to_rgb(image)
        turn = _UPRIGHT.get(_orientation(image))
    return rgb if turn is None else rgb.transpose(turn)


def _decode_smaller(image: Image.Image, least_side: int) -> None:
    """Makes the decoder average blocks of 2, 4 or 8 pixels a side; for JPEG only, as Pillow has it.

    Only where they divide the image: a block that reaches over the edge shifts everything a little.
    """
    width, height = image.size
    for scale in (8, 4, 2):
        if width % scale == 0 == height % scale and min(width, height) >= scale * least_side:
            image.draft(None, (width // scale, height // scale))
            return


def _orientation(image: Image.Image) -> int:
    if image.format == "TIFF":  # turned by load(), but before Pillow 10.1 the tag says otherwise
        return 1
    # Asked after load(): PNG may keep EXIF behind the pixels. Damaged EXIF costs no good image.
    try:
        value = image.getexif().get(_ORIENTATION_TAG)
    except Exception:
        return 1
    return value if isinstance(value, int) else 1


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.mode == "RGB":
        return image  # convert() would copy it
    if image.mode.startswith("I;16"):
        return _from_array(np.asarray(image), 0, 65535)
    if image.mode in ("I", "F"):
        values = np.asarray(image)
        return _from_array(values, *_value_range(values))
    if image.mode == "P" and "transparency" in image.info:
        image = image.convert("RGBA")  # a direct conversion warns, and gives the same colours
    elif image.mode in ("La", "RGBa"):
        image = image.convert(image.mode.upper())  # undo the premultiplied alpha
    return image.convert("RGB")


def _value_range(values: np.ndarray) -> tuple[float, float]:
    finite = values[np.isfinite(values)]
    if finite.size == 0:
        raise ValueError("none of its pixels is a finite number")
    low, high = float(finite.min()), float(finite.max())
    for white in (1.0, 255.0, 65535.0) if values.dtype.kind == "f" else (65535.0,):
        if low >= 0 and high <= white:
            return 0.0, white
    return low, high


def _from_array(values: np.ndarray, black: float, white: float) -> Image.Image:
    # float64 holds every 32-bit integer exactly; NaN becomes black, infinities black and white
    span = (white - black) or 1.0
    grey = np.nan_to_num(values.astype(np.float64), nan=black, posinf=white, neginf=black)
    scaled = np.rint((grey - black) / span * 255.0)
    return Image.fromarray(scaled.astype(np.uint8)).convert("RGB")


def _words(err: BaseException) -> str:
    text = err.strerror if isinstance(err, OSError) and err.strerror else str(err)
    return text or type(err).__name__
