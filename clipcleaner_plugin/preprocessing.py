"""How a model wants its images: checked where a user says it, complete where a model is loaded."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from .checkpoints import CONFIG_NAME

_PREPROCESS_KEYS = ("size", "mean", "std", "interpolation", "resize_mode", "fill_color")
_INTERPOLATIONS = ("bicubic", "bilinear")
_RESIZE_MODES = ("shortest", "longest", "squash")


def check_preprocess(preprocess: Mapping[str, Any]) -> dict[str, Any]:
    """Checks what a user says about preprocessing.

    Args:
        preprocess: any of size (pixels, or (height, width)), mean and std (three numbers for pixels
            in [0, 1]), interpolation, resize_mode, fill_color

    Returns:
        the same as plain JSON values

    Raises:
        TypeError: if it is not a mapping
        ValueError: if a key or value is not known
    """
    if not isinstance(preprocess, Mapping):
        raise TypeError(
            f"preprocess: expected a mapping such as {{'mean': …, 'std': …}}, got {preprocess!r}"
        )
    for key in preprocess:
        if key not in _PREPROCESS_KEYS:
            raise ValueError(
                f"preprocess: unknown key {key!r}; known are {', '.join(_PREPROCESS_KEYS)}"
            )
    checked = {key: value for key, value in preprocess.items() if value is not None}
    for key in ("mean", "std"):
        if key in checked:
            checked[key] = _three_numbers(key, checked[key])
    for key, choices in (("interpolation", _INTERPOLATIONS), ("resize_mode", _RESIZE_MODES)):
        if key in checked and checked[key] not in choices:
            raise ValueError(
                f"preprocess[{key!r}] is {checked[key]!r}; choose one of {', '.join(choices)}"
            )
    if "size" in checked:
        checked["size"] = _size(checked["size"])
    return checked


def _three_numbers(key: str, value: Any) -> list[float]:
    try:
        numbers = [float(v) for v in ([value] * 3 if isinstance(value, int | float) else value)]
    except (TypeError, ValueError):
        numbers = []
    good = (
        len(numbers) == 3
        and all(map(math.isfinite, numbers))
        and (key != "std" or min(numbers) > 0)
    )
    if not good:
        raise ValueError(
            f"preprocess[{key!r}] is {value!r}; expected three finite numbers for pixels in [0, 1]"
            + (", each above 0" if key == "std" else "")
        )
    return numbers


def _size(value: Any) -> int | list[int]:
    sides = (
        [value]
        if isinstance(value, int)
        else list(value)
        if isinstance(value, list | tuple)
        else []
    )
    if len(sides) not in (1, 2) or not all(isinstance(s, int) and s > 0 for s in sides):
        raise ValueError(f"preprocess['size'] is {value!r}; expected pixels, or (height, width)")
    return sides[0] if len(set(sides)) == 1 else sides


def complete_preprocess(
    where: str, config: Mapping[str, Any], base: Mapping[str, Any], overrides: Mapping[str, Any]
) -> dict[str, Any]:
    """Preprocessing with nothing left open. open_clip would fill a missing mean with OpenAI's,
    silently."""
    given = {
        **{k: v for k, v in base.items() if k in _PREPROCESS_KEYS and v is not None},
        **overrides,
    }
    missing = [key for key in ("mean", "std") if key not in given]
    if missing:
        raise ValueError(
            f"{where}: a state dict does not say how its images were normalised "
            f"({' and '.join(missing)} unknown), and "
            f"wrong values spoil the features silently. Put its {CONFIG_NAME} beside it, or pass "
            "preprocess={'mean': (r, g, b), 'std': (r, g, b), 'interpolation': 'bicubic', "
            "'resize_mode': 'shortest'}"
        )
    size = _size(config.get("vision_cfg", {}).get("image_size", 224))
    defaults = {
        "size": size,
        "interpolation": "bicubic",
        "resize_mode": "shortest",
        "fill_color": 0,
    }
    # The architecture decides the size, whatever a tag says, unless the user does.
    base_without_size = {k: v for k, v in given.items() if k != "size" or k in overrides}
    return check_preprocess({**defaults, **base_without_size})
