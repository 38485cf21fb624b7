"""Every kind of image file becomes upright 8-bit RGB, or an error that names file and reason."""

from __future__ import annotations

import os
import warnings
from pathlib import Path

import numpy as np
import pytest
from image_blocks import blocks, pixels
from PIL import Image

from clipcleaner_plugin.images import ImageReadError, file_stamp, read_image

RED, GREEN, BLUE, WHITE = (255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 255)


# What the file holds for an upright picture v. EXIF 2.32, 4.6.4, "The 0th row is at the visual ...
# of the image, and the 0th column is the visual ...": top left, top right, bottom right, ...
STORED = {
    1: lambda v: v,
    2: lambda v: v[:, ::-1],
    3: lambda v: v[::-1, ::-1],
    4: lambda v: v[::-1],
    5: lambda v: v.transpose(1, 0, 2),
    6: lambda v: v.transpose(1, 0, 2)[::-1],
    7: lambda v: v.transpose(1, 0, 2)[::-1, ::-1],
    8: lambda v: v.transpose(1, 0, 2)[:, ::-1],
}


@pytest.mark.parametrize("orientation", STORED)
@pytest.mark.parametrize("suffix", ["png", "tiff", "lzw.tiff", "webp", "jpg"])
def test_exif_orientation_is_applied(tmp_path: Path, orientation: int, suffix: str) -> None:
    upright = blocks()
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = tmp_path / f"turned.{suffix}"
    options: dict[str, object] = {"lossless": True} if suffix == "webp" else {}
    if suffix == "lzw.tiff":
        options = {"compression": "tiff_lzw"}
    if suffix == "jpg":
        options = {"quality": 98, "subsampling": 0}
    stored = np.ascontiguousarray(STORED[orientation](upright))
    Image.fromarray(stored).save(path, exif=exif, **options)

    found = pixels(path)

    assert found.shape == upright.shape
    tolerance = 12 if suffix == "jpg" else 0
    assert np.abs(found.astype(int) - upright).max() <= tolerance


@pytest.mark.parametrize("orientation", [0, 9, 65535])
def test_unknown_orientation_is_ignored(tmp_path: Path, orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = tmp_path / "a.png"
    Image.fromarray(blocks()).save(path, exif=exif)
    np.testing.assert_array_equal(pixels(path), blocks())


def test_damaged_exif_does_not_cost_the_image(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    Image.fromarray(blocks()).save(path, exif=b"Exif\0\0MM\0*\xff\xff\xff\xff\xff\xff")
    np.testing.assert_array_equal(pixels(path), blocks())


@pytest.mark.parametrize(("suffix", "dtype"), [("png", "<u2"), ("tiff", "<u2"), ("tiff", ">u2")])
def test_16_bit_grey_is_scaled(tmp_path: Path, suffix: str, dtype: str) -> None:
    values = np.arange(0, 65536, 16, dtype=np.uint16).reshape(64, 64)
    values[0, :4] = [0, 128, 129, 65535]  # 128 / 257 rounds to 0, 129 / 257 to 1
    path = tmp_path / f"deep.{suffix}"
    Image.fromarray(values.astype(dtype)).save(path)

    found = pixels(path)

    np.testing.assert_array_equal(found[0, :4, 0], [0, 0, 1, 255])
    np.testing.assert_array_equal(found[..., 0], np.rint(values / 257.0))
    np.testing.assert_array_equal(found[..., 0], found[..., 2])


def test_16_bit_pgm_is_scaled(tmp_path: Path) -> None:
    path = tmp_path / "deep.pgm"
    path.write_bytes(b"P5 3 1 65535\n" + np.array([0, 32896, 65535], ">u2").tobytes())
    np.testing.assert_array_equal(pixels(path)[0, :, 0], [0, 128, 255])


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([0.0, 0.5, 1.0], [0, 128, 255]),
        ([0.0, 100.0, 255.0], [0, 100, 255]),
        ([0.0, 257.0, 65535.0], [0, 1, 255]),
        ([-1.0, 0.0, 1.0], [0, 128, 255]),
        ([0.0, 5e5, 1e6], [0, 128, 255]),
        ([7e7, 7e7, 7e7], [0, 0, 0]),
        ([np.nan, 0.2, 1.0], [0, 51, 255]),
        ([-np.inf, 0.2, np.inf], [0, 51, 255]),
    ],
)
def test_float_tiff_is_scaled(tmp_path: Path, values: list[float], expected: list[int]) -> None:
    path = tmp_path / "float.tiff"
    Image.fromarray(np.array([values], dtype=np.float32)).save(path)
    np.testing.assert_array_equal(pixels(path)[0, :, 0], expected)


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([0, 32896, 65535], [0, 128, 255]),
        ([0, 10, 255], [0, 0, 1]),
        ([-100, 0, 100], [0, 128, 255]),
        ([0, 2**30, 2**31 - 1], [0, 128, 255]),
    ],
)
def test_32_bit_tiff_is_scaled(tmp_path: Path, values: list[int], expected: list[int]) -> None:
    path = tmp_path / "int.tiff"
    Image.fromarray(np.array([values], dtype=np.int32)).save(path)
    np.testing.assert_array_equal(pixels(path)[0, :, 0], expected)


def test_transparency_is_dropped_as_clip_does(tmp_path: Path) -> None:
    rgba = np.dstack([blocks(), np.random.default_rng(0).integers(0, 256, (32, 48), np.uint8)])
    path = tmp_path / "rgba.png"
    Image.fromarray(rgba.astype(np.uint8)).save(path)
    np.testing.assert_array_equal(pixels(path), rgba[..., :3])


def test_grey_with_alpha(tmp_path: Path) -> None:
    path = tmp_path / "la.png"
    Image.merge("LA", [Image.new("L", (3, 2), 77), Image.new("L", (3, 2), 0)]).save(path)
    assert np.unique(pixels(path)).tolist() == [77]


@pytest.mark.parametrize("transparency", [None, 1, b"\x00\x80"])
def test_palette(tmp_path: Path, transparency: int | bytes | None) -> None:
    image = Image.new("P", (2, 1))
    image.putpalette([*RED, *BLUE])
    image.putpixel((1, 0), 1)
    path = tmp_path / "palette.png"
    image.save(path, **({} if transparency is None else {"transparency": transparency}))

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = pixels(path)

    np.testing.assert_array_equal(found, [[RED, BLUE]])


@pytest.mark.parametrize("suffix", ["jpg", "tiff"])
def test_cmyk(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"print.{suffix}"
    image = Image.new("CMYK", (32, 16), (255, 0, 0, 0))
    image.paste((0, 255, 255, 0), (16, 0, 32, 16))
    image.save(path)

    found = pixels(path).astype(int)

    assert np.abs(found[:, :12] - (0, 255, 255)).max() < 12
    assert np.abs(found[:, 20:] - RED).max() < 12


@pytest.mark.parametrize("mode", ["1", "L"])
def test_grey(tmp_path: Path, mode: str) -> None:
    path = tmp_path / "grey.png"
    Image.new(mode, (4, 3), 255).save(path)
    np.testing.assert_array_equal(pixels(path), np.full((3, 4, 3), 255))


@pytest.mark.parametrize("suffix", ["gif", "webp", "png", "tiff"])
def test_first_frame_of_many(tmp_path: Path, suffix: str) -> None:
    first, second, third = (Image.new("RGB", (9, 7), c) for c in (RED, GREEN, BLUE))
    path = tmp_path / f"moving.{suffix}"
    options = {"lossless": True} if suffix == "webp" else {}
    first.save(path, save_all=True, append_images=[second, third], **options)
    with Image.open(path) as image:
        assert image.n_frames == 3
    np.testing.assert_array_equal(pixels(path), np.full((7, 9, 3), RED))


def test_one_pixel(tmp_path: Path) -> None:
    path = tmp_path / "pixel.png"
    Image.new("RGB", (1, 1), GREEN).save(path)
    np.testing.assert_array_equal(pixels(path), [[GREEN]])


def test_image_outlives_its_file(tmp_path: Path) -> None:
    path = tmp_path / "a.gif"
    Image.new("RGB", (5, 5), BLUE).save(path)
    image = read_image(path)
    path.unlink()
    assert image.getpixel((4, 4)) == BLUE


def test_accepts_text_paths_with_any_letters(tmp_path: Path) -> None:
    path = tmp_path / "größe 写真.png"
    Image.new("RGB", (2, 2), WHITE).save(path)
    assert read_image(str(path)).size == (2, 2)


# -- JPEG files that may be decoded at a fraction of their size -----------------------------------


@pytest.mark.parametrize(
    ("width", "height", "least", "expected"),
    [
        (320, 160, 160, (320, 160)),
        (320, 160, 81, (320, 160)),
        (320, 160, 80, (160, 80)),
        (320, 160, 40, (80, 40)),
        (320, 160, 1, (40, 20)),
        (320, 164, 20, (80, 41)),  # no eighth: 164 / 8 is no whole number
        (321, 160, 20, (321, 160)),
    ],
)
def test_jpeg_keeps_the_least_side(
    tmp_path: Path, width: int, height: int, least: int, expected: tuple[int, int]
) -> None:
    path = tmp_path / "x.jpg"
    Image.new("RGB", (width, height), RED).save(path)
    assert read_image(path, least).size == expected
    assert read_image(path).size == (width, height)


@pytest.mark.parametrize("orientation", STORED)
def test_jpeg_decoded_smaller_is_upright(tmp_path: Path, orientation: int) -> None:
    upright = blocks(size=32)
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = tmp_path / "x.jpg"
    stored = np.ascontiguousarray(STORED[orientation](upright))
    Image.fromarray(stored).save(path, quality=100, subsampling=0, exif=exif)
    found = np.asarray(read_image(path, 32)).astype(int)
    expected = upright[::4, ::4]  # within blocks of one colour, every average is that colour
    assert found.shape == expected.shape
    assert np.abs(found - expected).max() <= 4


@pytest.mark.parametrize("mode", ["L", "CMYK", "RGB"])
@pytest.mark.parametrize("progressive", [False, True])
def test_every_jpeg_is_decoded_smaller(tmp_path: Path, mode: str, progressive: bool) -> None:
    path = tmp_path / "x.jpg"
    picture = Image.fromarray(blocks(size=32)).convert(mode)
    picture.save(path, progressive=progressive, quality=95, subsampling=0)
    found, whole = read_image(path, 32), read_image(path)
    assert (found.mode, found.size) == ("RGB", (48, 32))
    difference = np.asarray(found, int) - np.asarray(whole.reduce(4), int)
    assert np.abs(difference).max() <= 8


@pytest.mark.parametrize("suffix", ["png", "webp", "tiff", "gif", "bmp"])
def test_other_formats_are_decoded_in_full(tmp_path: Path, suffix: str) -> None:
    Image.fromarray(blocks()).save(tmp_path / f"x.{suffix}")
    assert read_image(tmp_path / f"x.{suffix}", 4).size == (48, 32)


def test_a_cut_jpeg_is_refused_at_any_size(tmp_path: Path) -> None:
    path = tmp_path / "x.jpg"
    Image.effect_noise((320, 320), 90).save(path, quality=95)
    path.write_bytes(path.read_bytes()[:-2000])
    with pytest.raises(ImageReadError, match="truncated or damaged"):
        read_image(path, 32)


def test_stamp_follows_size_and_time(tmp_path: Path) -> None:
    path = tmp_path / "a"
    path.write_bytes(b"12345")
    os.utime(path, ns=(1, 1_700_000_000_123_456_789))
    size, mtime = file_stamp(path)
    assert (size, mtime) == (5, 1_700_000_000_123_456_789)
