"""What is known of the images of a data set before it becomes a FiftyOne dataset."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path


class LayoutError(ValueError):
    """A folder that does not hold what the original data set has; the text says what is missing."""


@dataclass(frozen=True)
class Source:
    """A data set as it lies on disk.

    Attributes:
        classes: K names, in the order of the data set's own numbers
        filepaths: N images
        given: N labels as they came, some of them wrong
        trusted: N labels that are known to be right; None = unknown
        splits: N times "train", "val" or "test"
    """

    classes: tuple[str, ...]
    filepaths: Sequence[str]
    given: Sequence[str]
    trusted: Sequence[str | None]
    splits: Sequence[str]


def class_name(classes: Sequence[str], number: object, where: str) -> str:
    """Returns the name of a class number as files hold it.

    Args:
        classes: K names
        number: 0 to K - 1, as a number or a text
        where: file and line, for the message

    Raises:
        LayoutError: if it is something else
    """
    text = str(number)
    if not text.isascii() or not text.isdigit() or int(text) >= len(classes):
        raise LayoutError(f"{where}: class {text!r}, expected 0 to {len(classes) - 1}")
    return classes[int(text)]


def need(path: Path, what: str) -> Path:
    """Returns the path.

    Raises:
        LayoutError: if nothing is there; ``what`` says what was expected
    """
    if not path.exists():
        raise LayoutError(f"{path} is not there: expected {what}")
    return path


def inside(root: Path, relative: str, where: str) -> str:
    """Joins a path that a list names to the root.

    Raises:
        LayoutError: if it leads out of the root
    """
    parts = Path(relative).parts
    if Path(relative).is_absolute() or ".." in parts:
        raise LayoutError(f"{where}: {relative!r} leads out of {root}: refused")
    return str(root / relative)
