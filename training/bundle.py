"""Reads and checks a training bundle: ``bundle.json``, ``manifest.jsonl`` and the images.

README.md describes the format. Nothing here is trusted: a bundle may come from somebody else.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any

import numpy as np

FORMAT, VERSION = "clipcleaner-bundle", 1
SPLITS = ("train", "val", "test")


class BundleError(ValueError):
    """A bundle that cannot be used; the text says where and what to do."""


@dataclass(frozen=True)
class Bundle:
    """A checked bundle, one entry a sample in the order of the manifest.

    Args:
        root: its folder
        classes: K names
        ids: N unique ids
        paths: N image files
        labels: (N,) int64, the given labels, indices into ``classes``
        trusted: (N,) int64, trusted labels; -1 = unknown. They only measure, they never train
        selected: (N,) bool, the initial selection
        clean_score: (N,) float64 in [0, 1]; NaN = unknown
        splits: split → indices of its samples, ascending
        digest: hexadecimal SHA-256 of ``bundle.json`` and ``manifest.jsonl``
    """

    root: Path
    classes: tuple[str, ...]
    ids: tuple[str, ...]
    paths: tuple[str, ...]
    labels: np.ndarray
    trusted: np.ndarray
    selected: np.ndarray
    clean_score: np.ndarray
    splits: dict[str, np.ndarray]
    digest: str

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def truth(self) -> np.ndarray:
        """(N,) int64: the trusted label where there is one, else the given one."""
        return np.where(self.trusted >= 0, self.trusted, self.labels)


def read_bundle(root: str | Path, referenced: bool = False) -> Bundle:
    """Reads and checks a bundle. The images are not opened.

    Args:
        root: the folder
        referenced: absolute image paths may be read, where ``bundle.json`` says so too

    Returns:
        the bundle

    Raises:
        BundleError: if it is no bundle, unfinished, of a newer version, or an entry is wrong
    """
    root = Path(root)
    header = _read_header(root)
    classes = _classes(header)
    allow_absolute = _allow_absolute(header, referenced)
    index = {name: k for k, name in enumerate(classes)}
    rows: list[_Row] = []
    lines_of: dict[str, int] = {}
    for number, line in _lines(root / "manifest.jsonl"):
        row = _read_row(line, number, root, index, allow_absolute)
        if row.id in lines_of:
            raise _wrong(number, f"id {row.id!r} is also in line {lines_of[row.id]}")
        lines_of[row.id] = number
        rows.append(row)
    if not any(row.split == "train" for row in rows):
        raise BundleError(f"{root}: no sample has split 'train': there is nothing to train on")
    split_of = np.array([SPLITS.index(row.split) for row in rows])
    return Bundle(
        root=root,
        classes=classes,
        ids=tuple(row.id for row in rows),
        paths=tuple(row.path for row in rows),
        labels=np.array([row.label for row in rows], dtype=np.int64),
        trusted=np.array([row.trusted for row in rows], dtype=np.int64),
        selected=np.array([row.selected for row in rows], dtype=bool),
        clean_score=np.array([row.clean_score for row in rows], dtype=np.float64),
        splits={name: np.flatnonzero(split_of == s) for s, name in enumerate(SPLITS)},
        digest=_digest(root),
    )


@dataclass(frozen=True)
class _Row:
    id: str
    path: str
    label: int
    trusted: int
    selected: bool
    clean_score: float
    split: str


def _read_header(root: Path) -> dict[str, Any]:
    path = root / "bundle.json"
    if not root.is_dir():
        raise BundleError(f"{root}: no such folder")
    if not path.is_file():
        raise BundleError(
            f"{root} holds no bundle.json: it is no bundle, or its export was interrupted "
            "(bundle.json is written last); export it again"
        )
    try:
        header = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as err:
        raise BundleError(f"{path}: damaged JSON ({err}); export the bundle again") from None
    if not isinstance(header, dict) or header.get("format") != FORMAT:
        raise BundleError(f"{path}: 'format' is not {FORMAT!r}: this is no training bundle")
    version = header.get("version")
    if type(version) is not int or version < 1:
        raise BundleError(f"{path}: 'version' is {version!r}, expected the number {VERSION}")
    if version > VERSION:
        raise BundleError(
            f"{path}: format version {version}, this trainer reads up to {VERSION}: "
            "use the training folder of the newer release that wrote it"
        )
    return header


def _classes(header: dict[str, Any]) -> tuple[str, ...]:
    classes = header.get("classes")
    if not isinstance(classes, list) or not all(isinstance(c, str) and c for c in classes):
        raise BundleError("bundle.json: 'classes' must be a list of names")
    if len(classes) < 2:
        raise BundleError(f"bundle.json: {len(classes)} classes; training needs at least 2")
    double = next((c for c in classes if classes.count(c) > 1), None)
    if double is not None:
        raise BundleError(f"bundle.json: class {double!r} is listed twice")
    return tuple(classes)


def _allow_absolute(header: dict[str, Any], referenced: bool) -> bool:
    stated = header.get("referenced", False)
    if not isinstance(stated, bool):
        raise BundleError(f"bundle.json: 'referenced' is {stated!r}, expected true or false")
    if stated and not referenced:
        raise BundleError(
            "The bundle refers to images outside its folder. If you trust it, add --referenced"
        )
    return stated


def _lines(path: Path) -> Iterator[tuple[int, str]]:
    try:
        with path.open(encoding="utf-8") as file:
            for number, line in enumerate(file, 1):
                if line.strip():
                    yield number, line
    except FileNotFoundError:
        raise BundleError(f"{path} is missing: export the bundle again") from None
    except UnicodeDecodeError as err:
        raise BundleError(f"{path}: not UTF-8 ({err}); export the bundle again") from None


def _read_row(
    line: str, number: int, root: Path, index: dict[str, int], allow_absolute: bool
) -> _Row:
    try:
        entry = json.loads(line)
    except (ValueError, RecursionError) as err:
        raise _wrong(number, f"damaged JSON ({err}); export the bundle again") from None
    if not isinstance(entry, dict):
        raise _wrong(number, "not a JSON object")
    sample_id, split = entry.get("id"), entry.get("split")
    if not isinstance(sample_id, str) or not sample_id:
        raise _wrong(number, f"'id' is {sample_id!r}, expected a text")
    where = f"sample {sample_id!r}: "
    if split not in SPLITS:
        raise _wrong(number, f"{where}'split' is {split!r}, expected one of {', '.join(SPLITS)}")
    selected = entry.get("selected")
    if not isinstance(selected, bool):
        raise _wrong(number, f"{where}'selected' is {selected!r}, expected true or false")
    label = _class_index(entry.get("label"), "label", index, number, where)
    # No recipe uses the suggestion; a wrong one still says that the manifest is not what it claims
    trusted, _ = (
        -1 if entry.get(name) is None else _class_index(entry[name], name, index, number, where)
        for name in ("trusted", "suggested")
    )
    try:
        path = _image_path(entry.get("image"), root, allow_absolute)
    except ValueError as err:
        raise _wrong(number, f"{where}{err}") from None
    return _Row(
        id=sample_id,
        path=path,
        label=label,
        trusted=trusted,
        selected=selected,
        clean_score=_score(entry.get("clean_score"), number, where),
        split=split,
    )


def _class_index(value: object, name: str, index: dict[str, int], number: int, where: str) -> int:
    if not isinstance(value, str) or value not in index:
        raise _wrong(
            number, f"{where}{name!r} is {value!r}, which is not in the 'classes' of bundle.json"
        )
    return index[value]


def _score(value: object, number: int, where: str) -> float:
    if value is None:
        return math.nan
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= 1:
        raise _wrong(number, f"{where}'clean_score' is {value!r}, expected null or 0 to 1")
    return float(value)


def _image_path(value: object, root: Path, allow_absolute: bool) -> str:
    """Joins a manifest's image path to the root, where it cannot lead out of it.

    The check is one of the text, so that the files themselves may be symbolic links.
    """
    if not isinstance(value, str) or not value or "\0" in value:
        raise ValueError(f"'image' is {value!r}, expected a path")
    windows = PureWindowsPath(value)
    if PurePosixPath(value).is_absolute() or windows.is_absolute():
        if not allow_absolute:
            raise ValueError(
                f"image {value!r} is an absolute path, and bundle.json does not say 'referenced'"
            )
        return value
    # Backslashes and drives as well: the same bundle must not escape on another system
    if ".." in windows.parts or windows.drive or windows.root:
        raise ValueError(f"image {value!r} leads out of the bundle's folder: refused")
    return str(root / value)


def _wrong(number: int, text: str) -> BundleError:
    return BundleError(f"manifest.jsonl, line {number}: {text}")


def _digest(root: Path) -> str:
    total = hashlib.sha256()
    for name in ("bundle.json", "manifest.jsonl"):
        total.update(hashlib.sha256((root / name).read_bytes()).digest())
    return total.hexdigest()
