"""A picture that shows how it was read: blocks of colours."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from clipcleaner_plugin.images import read_image


def blocks(height: int = 4, width: int = 6, size: int = 8) -> np.ndarray:
    """(height * size, width * size, 3) blocks of random colours: no symmetry, little JPEG loss."""
    rng = np.random.default_rng(5)
    colours = rng.integers(0, 256, (height, width, 3), dtype=np.uint8)
    return np.kron(colours, np.ones((size, size, 1), dtype=np.uint8))


def pixels(path: Path) -> np.ndarray:
    """(height, width, 3) of a file as it is read for CLIP."""
    image = read_image(path)
    assert image.mode == "RGB"
    return np.asarray(image)
