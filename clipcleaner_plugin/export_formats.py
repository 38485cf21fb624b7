"""What lies where in each kind of exported folder, and what its text files say."""

from __future__ import annotations

import csv
import hashlib
import io
import json
import unicodedata
from collections.abc import Iterable, Sequence
from typing import Any
from urllib.parse import quote

from .export_rows import Row
from .media import MediaFile, file_name
from .staging import BUNDLE_FORMAT, BUNDLE_HEADER, EXPORT_FORMAT, EXPORT_HEADER

BUNDLE_VERSION = EXPORT_VERSION = 1
MANIFEST, TABLE = "manifest.jsonl", "labels.csv"
CSV_COLUMNS = ("filepath", "label", "split", "given_label", "clean_score", "source_id")
OBJECT_COLUMNS = ("source_sample", "bounding_box")

# FiftyOne's readers: hidden folders are passed over, and this one holds images without a label
_UNLABELED = "_unlabeled"
# Of 255 bytes that file systems allow
_MAX_NAME_BYTES = 200
_UNSAFE = set('/\\:*?"<>|%')


def media_files(rows: Iterable[Row], form: str, classes: Sequence[str]) -> list[MediaFile]:
    """Returns where the images go. Names are ids: no two rows share one, whatever their files are
    called."""
    folders = folder_names(classes) if form == "image_tree" else {}
    files = []
    for row in rows:
        name = file_name(row.id, row.source)
        if form == "image_tree":
            target = f"{row.split}/{folders[row.label]}/{name}"
        else:
            target = f"{'images' if form == 'bundle' else 'data'}/{name}"
        files.append(MediaFile(row.id, row.source, row.stamp, target))
    return files


def text_files(
    form: str,
    rows: Sequence[Row],
    files: Sequence[MediaFile],
    classes: Sequence[str],
    referenced: bool,
    origin: dict[str, Any],
) -> dict[str, bytes]:
    """Returns relative path → content; the header, which says that all is there, comes last.

    Args:
        form: "bundle", "image_tree" or "csv"
        rows: the samples
        files: their images, in the same order
        classes: the class names
        referenced: whether images stay where they are
        origin: ``dataset``, ``run_key`` and ``parameters``, as JSON values
    """
    images = [f.path if referenced else f.target for f in files]
    if form == "csv":  # FiftyOne looks for what is not absolute under data/
        images = [image if referenced else image.removeprefix("data/") for image in images]
    if form == "bundle":
        header = {"format": BUNDLE_FORMAT, "version": BUNDLE_VERSION, "classes": list(classes)}
        texts = {MANIFEST: _manifest(rows, images)}
        return texts | {BUNDLE_HEADER: _json({**header, "referenced": referenced, **origin})}
    header = {"format": EXPORT_FORMAT, "version": EXPORT_VERSION, "kind": form, **origin}
    if form == "csv":
        texts = {TABLE: _table(rows, images)}
        return texts | {EXPORT_HEADER: _json({**header, "entries": ["data", TABLE]})}
    folders = folder_names(classes)
    header["entries"] = sorted({row.split for row in rows})
    header["folders"] = {name: folder for name, folder in folders.items() if name != folder}
    # An image tree has no file of its own that would tell one content from another
    listing = "".join(f"{image}\0{row.given}\n" for image, row in zip(images, rows, strict=True))
    header["digest"] = hashlib.sha256(listing.encode("utf-8", "surrogatepass")).hexdigest()
    return {EXPORT_HEADER: _json(header)}


def folder_names(classes: Sequence[str]) -> dict[str, str]:
    """Names a folder for every class.

    A name that cannot be a folder's, or that FiftyOne would not read back as a label, has its
    characters written as %XX; of names that a file system may take for the same (``Cat``, ``cat``),
    the later ones get a number.

    Args:
        classes: K names

    Returns:
        class → folder, all different
    """
    taken: set[str] = set()
    folders = {}
    for name in classes:
        folder = base = _safe(name)
        number = 1
        while _folded(folder) in taken:
            number += 1
            folder = f"{base}~{number}"
        taken.add(_folded(folder))
        folders[name] = folder
    return folders


def _safe(name: str) -> str:
    odd = (c in _UNSAFE or not c.isprintable() for c in name)
    text = "".join(quote(c, safe="") if bad else c for c, bad in zip(name, odd, strict=True))
    if text.startswith(".") or text == _UNLABELED:
        text = f"%{ord(text[0]):02X}{text[1:]}"
    if text[-1] in " .":  # Windows drops them
        text = f"{text[:-1]}%{ord(text[-1]):02X}"
    if len(text.encode("utf-8", "surrogatepass")) > _MAX_NAME_BYTES:
        digest = hashlib.sha256(name.encode("utf-8", "surrogatepass")).hexdigest()[:8]
        cut = text.encode("utf-8", "surrogatepass")[: _MAX_NAME_BYTES - 9]
        text = f"{cut.decode('utf-8', 'ignore')}~{digest}"
    return text


def _folded(name: str) -> str:
    return unicodedata.normalize("NFC", name).casefold()


def _manifest(rows: Sequence[Row], images: Sequence[str]) -> bytes:
    lines = []
    for row, image in zip(rows, images, strict=True):
        entry = {
            "id": row.id,
            "image": image,
            "label": row.label,
            "suggested": row.suggested,
            "selected": row.selected,
            "clean_score": row.clean_score,
            "split": row.split,
            "trusted": row.trusted,
        }
        if row.box is not None:
            entry["sample"] = row.sample_id
        lines.append(json.dumps(entry, ensure_ascii=False, allow_nan=False) + "\n")
    return "".join(lines).encode("utf-8")


def _table(rows: Sequence[Row], images: Sequence[str]) -> bytes:
    text = io.StringIO(newline="")
    writer = csv.writer(text)
    objects = any(row.box is not None for row in rows)
    writer.writerow(CSV_COLUMNS + OBJECT_COLUMNS if objects else CSV_COLUMNS)
    for row, image in zip(rows, images, strict=True):
        score = "" if row.clean_score is None else row.clean_score
        of_object = [row.sample_id, json.dumps(row.box)] if objects else []
        writer.writerow([image, row.label, row.split, row.given, score, row.id, *of_object])
    return text.getvalue().encode("utf-8")


def _json(content: dict[str, Any]) -> bytes:
    return (json.dumps(content, indent=1, ensure_ascii=False) + "\n").encode("utf-8")
