"""Files that cannot be read as images are refused in words, and never shown in part."""

from __future__ import annotations

import os
import tempfile
import warnings
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from image_blocks import blocks, pixels
from PIL import Image

from clipcleaner_plugin.images import ImageReadError, file_stamp, read_image


def bad_file(folder: Path, kind: str) -> Path:
    path = folder / f"{kind}.jpg"
    if kind == "empty":
        path.touch()
    elif kind == "directory":
        path.mkdir()
    elif kind == "text":
        path.write_text("not an image")
    elif kind == "pipe":
        os.mkfifo(path)
    elif kind == "truncated":
        Image.fromarray(blocks()).save(path)
        path.write_bytes(path.read_bytes()[:-60])
    elif kind == "program":
        Image.new("RGB", (4, 4)).save(path, "EPS")
    elif kind == "thread":
        Image.new("L", (1, 501)).save(path, "PNG")
    elif kind == "no number":
        Image.fromarray(np.full((2, 2), np.nan, dtype=np.float32)).save(path, "TIFF")
    return path


@pytest.mark.parametrize(
    ("kind", "reason"),
    [
        ("missing", "no such file"),
        ("empty", "the file is empty (0 bytes)"),
        ("directory", "is a directory, not an image file"),
        ("text", "not an image, or its header is damaged"),
        ("pipe", "is not a regular file"),
        ("truncated", "truncated or damaged: image file is truncated"),
        ("program", "EPS is a program, not an image"),
        ("thread", "1 x 501 pixels is too elongated"),
        ("no number", "none of its pixels is a finite number"),
        ("nul\0", "cannot be opened: "),
    ],
)
def test_what_cannot_be_read(tmp_path: Path, kind: str, reason: str) -> None:
    path = bad_file(tmp_path, kind)
    with pytest.raises(ImageReadError) as caught:
        read_image(path)
    assert str(caught.value).startswith(f"{path}: ")
    assert reason in str(caught.value)


def test_unreadable_file() -> None:
    with tempfile.TemporaryDirectory() as folder:  # tmp_path may be closed to other users
        os.chmod(folder, 0o755)
        path = Path(folder) / "secret.png"
        Image.new("RGB", (2, 2)).save(path)
        path.chmod(0)
        user = os.geteuid()
        if user == 0:  # root may read everything: become nobody for a moment
            os.seteuid(65534)
        try:
            with pytest.raises(ImageReadError, match="cannot be opened: Permission denied"):
                read_image(path)
        finally:
            os.seteuid(user)


def test_parent_that_is_a_file(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(ImageReadError, match="cannot be opened: Not a directory"):
        file_stamp(tmp_path / "file" / "a.png")


def test_decompression_bomb(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "bomb.png"
    Image.new("1", (300, 300)).save(path)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 40_000)
    with pytest.raises(ImageReadError, match=r"bomb\.png: too large .*90000 pixels"):
        read_image(path)


def test_thin_image_within_the_limit(tmp_path: Path) -> None:
    path = tmp_path / "thin.png"
    Image.new("L", (500, 1)).save(path)
    assert read_image(path).size == (500, 1)


@pytest.mark.parametrize(
    ("form", "options"),
    [
        ("JPEG", {}),
        ("JPEG", {"progressive": True}),
        ("PNG", {}),
        ("GIF", {}),
        ("WEBP", {}),
        ("TIFF", {"compression": "tiff_lzw"}),
        ("BMP", {}),
    ],
)
def test_a_cut_file_is_refused_or_complete(tmp_path: Path, form: str, options: dict) -> None:
    """Never half a picture: wherever a file ends, it is an error or shows every pixel."""
    path = tmp_path / "cut"
    Image.fromarray(blocks()).save(path, form, **options)
    data, whole = path.read_bytes(), pixels(path)
    refused = 0
    for length in np.linspace(1, len(data) - 1, 60, dtype=int):
        path.write_bytes(data[:length])
        try:
            np.testing.assert_array_equal(pixels(path), whole)
        except ImageReadError:
            refused += 1
    assert refused > 50


@settings(max_examples=60)
@given(data=st.data(), form=st.sampled_from(["JPEG", "PNG", "GIF", "TIFF", "WEBP"]))
def test_damaged_bytes_never_raise_anything_else(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject, form: str
) -> None:
    path = tmp_path_factory.getbasetemp() / "damaged"
    Image.fromarray(blocks()).save(path, form)
    content = bytearray(path.read_bytes())
    for _ in range(data.draw(st.integers(1, 4))):
        place = data.draw(st.integers(0, len(content) - 1))
        content[place] = data.draw(st.integers(0, 255))
    path.write_bytes(content)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Pillow remarks on odd metadata
        try:
            image = read_image(path)
        except ImageReadError as err:
            assert str(path) in str(err)
        else:
            assert image.mode == "RGB"
