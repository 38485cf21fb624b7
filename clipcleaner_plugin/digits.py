"""Handwritten digits, in two halves: one trains the embedded CLIP, the other is the demo's dataset.

The images are scikit-learn's copy of the UCI "Optical Recognition of Handwritten Digits" test set:
1,797 scans of 8 x 8 pixels. Training script, demo and tests take the halves from here, so that no
image is ever on both sides.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import numpy as np

if TYPE_CHECKING:
    from PIL.Image import Image

DIGIT_NAMES = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
SPLIT_SEED = 51
INK_LEVELS = 16  # the scans count ink in 4 x 4 blocks of pixels: 0 (paper) to 16 (ink)

Half = Literal["train", "held-out"]


def split_indices(labels: np.ndarray, half: Half) -> np.ndarray:
    """Says which samples belong to one half: stratified, and the same on every machine.

    numpy's ``RandomState`` is used because its stream is frozen: a split that changed with a
    library's version would silently let training images into the held-out half.

    Args:
        labels: (N,) int class of every sample
        half: "train" or "held-out"

    Returns:
        sorted (n,) int indices; an odd class gives its extra sample to the held-out half

    Raises:
        ValueError: if ``half`` is something else
    """
    if half not in ("train", "held-out"):
        raise ValueError(f"half={half!r}: choose 'train' or 'held-out'")
    random = np.random.RandomState(SPLIT_SEED)
    chosen = []
    for label in np.unique(labels):
        members = random.permutation(np.flatnonzero(labels == label))
        cut = len(members) // 2
        chosen.append(members[:cut] if half == "train" else members[cut:])
    return np.sort(np.concatenate(chosen))


def load_half(half: Half) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Loads one half of the digits.

    Args:
        half: "train" or "held-out"

    Returns:
        (n, 8, 8) float scans in [0, 16], (n,) int labels in [0, 10), and (n,) int row numbers in
        scikit-learn's data
    """
    from sklearn.datasets import load_digits

    digits = load_digits()
    rows = split_indices(digits.target, half)
    return digits.images[rows], digits.target[rows], rows


def render(scan: np.ndarray, size: int = 64) -> Image:
    """Draws a scan as a picture that can be looked at: dark ink on white paper, enlarged smoothly.

    Args:
        scan: (8, 8) ink in [0, 16]
        size: height and width of the picture in pixels

    Returns:
        an RGB image
    """
    from PIL import Image

    grey = np.rint(255 * (1 - np.asarray(scan, dtype=np.float64) / INK_LEVELS)).astype(np.uint8)
    picture = Image.fromarray(grey, mode="L").resize((size, size), Image.Resampling.BICUBIC)
    return picture.convert("RGB")
