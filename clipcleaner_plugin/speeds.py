"""How fast this machine embeds: measured by every longer run, to say how long the next one takes.

One small JSON file beside the stores. It is a convenience: where it cannot be read or written,
nothing is known, and nothing fails.
"""

from __future__ import annotations

import json
import logging
import os
from pathlib import Path

from .store import store_root

logger = logging.getLogger(__name__)

# The time of fewer images is mostly that of loading the model
_FEWEST = 100


def remember_speed(identity: str, device: str, images: int, seconds: float) -> None:
    """Notes a measurement; the latest one of a model on a device counts.

    Args:
        identity: of the model
        device: "cpu", "cuda", ...
        images: how many were embedded
        seconds: how long it took, reading and loading included
    """
    if images < _FEWEST or seconds <= 0:
        return
    path = _path()
    speeds = {**_read(path), _name(identity, device): images / seconds}
    part = path.with_name(f"{path.name}.{os.getpid()}")
    try:
        part.write_text(json.dumps(speeds, indent=1))
        part.replace(path)
    except OSError as error:
        logger.debug("The speed was not noted: %s", error)


def known_speed(identity: str, device: str) -> float | None:
    """Returns images per second of a model on a device; None where none was measured."""
    speed = _read(_path()).get(_name(identity, device))
    return float(speed) if isinstance(speed, int | float) and speed > 0 else None


def _path() -> Path:
    return store_root() / "speeds.json"


def _name(identity: str, device: str) -> str:
    return f"{identity} on {device}"


def _read(path: Path) -> dict[str, object]:
    try:
        content = json.loads(path.read_text())
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}
