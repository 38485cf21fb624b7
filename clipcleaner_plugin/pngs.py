"""Small pictures from arrays to PNG files."""

from __future__ import annotations

import io
import os
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from PIL.Image import Image


def write_png(path: Path, picture: Image) -> None:
    """Writes a picture, whole or not at all, unless the file holds the very same one.

    A file that is rewritten gets a new time, and its embedding would be computed again.

    Args:
        path: in an existing folder
        picture: what to write
    """
    buffer = io.BytesIO()
    picture.save(buffer, format="PNG")
    content = buffer.getvalue()
    if path.is_file() and path.read_bytes() == content:
        return
    part = path.with_name(f"{path.name}.{os.getpid()}.part")
    part.write_bytes(content)
    part.replace(path)
