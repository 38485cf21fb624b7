"""How long a run takes, roughly: from the size of its model and how fast the device multiplies.

It tells seconds from minutes and hours, before anything was computed. How fast a model was here
the last time is known better: see :mod:`clipcleaner_plugin.speeds`.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from functools import lru_cache
from typing import Any

# As in docs/scaling.md: small photos that a core decodes and resizes in a second, operations of
# scoring per sample, number of a vector and class, samples that the database takes in a second
_DECODED = 800
_SCORING = 1_000
_WRITTEN = 5_000
# Operations of the first cleaning and of the model of noise per class and sample, of which they see
# at most so many, or so many a class; CPUs do them, whatever the device
_NOISE, _SEEN, _SEEN_OF_CLASS = 600_000, 10_000, 30
_START = 3.0  # seconds; the least time of a run
# Operations a second: of any accelerator, not measured; and what a model reaches of a CPU's
_ACCELERATOR = 4e13
_SHARE = 0.7
_SIDE = 1_024  # of the matrices that are multiplied to measure a CPU: a tenth of a second


def guess_speed(vision: Mapping[str, Any], device: str) -> float | None:
    """Returns images per second that a model embeds, roughly; None = it is not known.

    Args:
        vision: ``vision_cfg`` of open_clip's configuration
        device: "cpu", "cuda", ...
    """
    work = _multiply_adds(vision)
    if work is None:
        return None
    share = _SHARE if device == "cpu" else 1.0
    return 1 / (1 / _DECODED + 2 * work / (share * _operations_per_second(device)))


def guess_scoring(samples: int, dim: int, classes: int, device: str) -> float:
    """Returns the seconds that a run takes for all but the embeddings, roughly."""
    seen = min(samples, max(_SEEN, _SEEN_OF_CLASS * classes))
    seconds = _START + samples / _WRITTEN + _NOISE * seen * classes / _measured()
    return seconds + _SCORING * samples * dim * classes / _operations_per_second(device)


def _multiply_adds(vision: Mapping[str, Any]) -> float | None:
    """Those of one image; the small parts are left out."""
    size, width, layers = (vision.get(name) for name in ("image_size", "width", "layers"))
    if not isinstance(size, int) or not width or not layers:
        return None
    if isinstance(layers, list):  # blocks of a ResNet: in each of its stages they cost the same
        return float(17 / 16 * sum(layers) + 1.7) * width**2 * size**2
    tokens = (size // vision["patch_size"]) ** 2 + 1
    return float(layers * (12 * width**2 * tokens + 2 * tokens**2 * width))


def _operations_per_second(device: str) -> float:
    return _measured() if device == "cpu" else _ACCELERATOR


@lru_cache(maxsize=1)
def _measured() -> float:
    """Multiplies two matrices a few times; the best time counts."""
    import torch

    matrix = torch.ones(_SIDE, _SIDE)
    seconds = []
    for _ in range(4):
        began = time.perf_counter()
        matrix @ matrix
        seconds.append(time.perf_counter() - began)
    return float(2 * _SIDE**3 / min(seconds))
