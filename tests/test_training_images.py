"""Images on their way to the network: reading, augmentation by seed, cache and workers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision import transforms

from training.engine import Engine
from training.images import (
    NO_AUGMENTATION,
    ImageReadError,
    ImageSet,
    augmentation,
    read_image,
    typical_side,
)
from training.parallel import World
from training.plan import plan_epoch
from training.presets import PRESETS, override

CPU = World(0, 1, torch.device("cpu"))


def save(path: Path, pixels: np.ndarray, **options: object) -> str:
    Image.fromarray(pixels).save(path, **options)  # type: ignore[arg-type]
    return str(path)


def noise(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


def test_an_image_is_read_as_rgb_of_its_size(tmp_path: Path) -> None:
    pixels = noise(8, 12, 3)
    assert np.array_equal(read_image(save(tmp_path / "a.png", pixels), 8), pixels)
    grey = read_image(save(tmp_path / "b.png", noise(8, 8)), 8)
    assert grey.shape == (8, 8, 3) and np.array_equal(grey[..., 0], grey[..., 2])
    assert read_image(str(tmp_path / "a.png"), 16).shape == (16, 24, 3)
    assert read_image(str(tmp_path / "a.png"), 4).shape == (4, 6, 3)


def test_both_sides_may_be_squashed(tmp_path: Path) -> None:
    columns = np.tile(np.arange(0, 240, 20, dtype=np.uint8)[None, :, None], (8, 1, 3))
    path = save(tmp_path / "a.png", columns)
    squashed = read_image(path, 8, squash=True)
    assert squashed.shape == (8, 8, 3)
    # From the first column to the last one: nothing is cut off
    assert squashed[0, 0, 0] < 20 and squashed[0, -1, 0] > 200
    plain = ImageSet([path], override(PRESETS["cifar10"], {"image_size": 8}))
    preset = override(PRESETS["cifar10"], {"image_size": 8, "aspect": "squash"})
    assert np.array_equal(plain[(0, NO_AUGMENTATION)][0][0, 0], columns[0, 2:10, 0])
    found = ImageSet([path], preset)[(0, NO_AUGMENTATION)][0]
    assert np.array_equal(found.permute(1, 2, 0).numpy(), squashed)


def test_a_turned_image_is_read_upright(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # stored lying on its side: turn it clockwise by a quarter
    pixels = noise(8, 12, 3)
    path = save(tmp_path / "a.png", pixels, exif=exif)
    assert np.array_equal(read_image(path, 8), np.rot90(pixels, -1))


def test_sixteen_bits_are_scaled_and_not_clipped(tmp_path: Path) -> None:
    pixels = (np.arange(64, dtype=np.uint16).reshape(8, 8)) * 257
    assert np.array_equal(read_image(save(tmp_path / "a.png", pixels), 8)[..., 0], pixels // 257)


def test_what_cannot_be_read_says_why(tmp_path: Path) -> None:
    with pytest.raises(ImageReadError, match="no such file"):
        read_image(str(tmp_path / "absent.png"), 8)
    with pytest.raises(ImageReadError, match="no such file"):
        read_image(str(tmp_path), 8)
    (tmp_path / "text.png").write_text("no image")
    with pytest.raises(ImageReadError, match=r"text\.png"):
        read_image(str(tmp_path / "text.png"), 8)
    whole = Path(save(tmp_path / "a.jpg", noise(64, 64, 3))).read_bytes()
    (tmp_path / "half.jpg").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ImageReadError, match=r"half\.jpg"):
        read_image(str(tmp_path / "half.jpg"), 8)
    (tmp_path / "a.png").write_text("%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n")
    with pytest.raises(ImageReadError, match=r"a\.png"):
        read_image(str(tmp_path / "a.png"), 8)
    with pytest.raises(ImageReadError, match="elongated"):
        read_image(save(tmp_path / "line.png", noise(2, 300, 3)), 8)


@pytest.fixture
def images(tmp_path: Path) -> ImageSet:
    paths = [save(tmp_path / f"{i}.png", noise(40, 50, 3, seed=i)) for i in range(6)]
    return ImageSet(paths, PRESETS["cifar10"])


def test_augmentation_depends_on_the_seed_alone(images: ImageSet) -> None:
    torch.manual_seed(5)
    state = torch.get_rng_state()
    first, readable = images[(0, 7)]
    assert readable and first.shape == (3, 32, 32) and first.dtype == torch.uint8
    assert torch.equal(torch.get_rng_state(), state), "the caller's generator is left alone"
    torch.manual_seed(6)
    assert torch.equal(images[(0, 7)][0], first)
    different = [not torch.equal(images[(0, seed)][0], first) for seed in range(8, 18)]
    assert all(different)


def test_no_augmentation_is_the_middle(images: ImageSet) -> None:
    whole = read_image(images.paths[0], 32)
    assert whole.shape == (32, 40, 3)
    plain = images[(0, NO_AUGMENTATION)][0]
    assert np.array_equal(plain.permute(1, 2, 0).numpy(), whole[:, 4:36])


@pytest.mark.parametrize("kind", ["none", "crop", "flip", "autoaugment-imagenet", "randaug"])
def test_every_augmentation_gives_the_size(images: ImageSet, kind: str) -> None:
    preset = override(PRESETS["cifar10"], {"augmentation": kind})
    drawn = [ImageSet(images.paths, preset)[(1, seed)][0] for seed in range(4)]
    assert {d.shape for d in drawn} == {(3, 32, 32)}
    assert torch.equal(drawn[0], drawn[1]) == (kind == "none")


@pytest.mark.parametrize("scale", [1.0, 0.08])
def test_crops_of_a_part_are_brought_to_the_size(tmp_path: Path, scale: float) -> None:
    columns = np.tile(np.arange(40, dtype=np.uint8)[None, :, None], (40, 1, 3))
    values = {"resize": 40, "image_size": 32, "augmentation": "crop", "padding": 0}
    preset = override(PRESETS["cifar10"], {**values, "crop_scale": scale})
    images = ImageSet([save(tmp_path / "a.png", columns)], preset)
    drawn = [images[(0, seed)][0] for seed in range(30)]
    assert {d.shape for d in drawn} == {(3, 32, 32)}
    widths = {int(d[0, 0, -1]) - int(d[0, 0, 0]) + 1 for d in drawn}
    # A twelfth of the area, twice as high as wide, is 8 columns
    assert widths == {32} if scale == 1 else min(widths) < 16 and max(widths) > 30


def test_a_cache_changes_no_image(images: ImageSet) -> None:
    items = [(i, seed) for i in range(6) for seed in (NO_AUGMENTATION, 3)]
    before = [images[item][0] for item in items]
    assert not images.fill_cache(threads=2).any()
    for path in images.paths:
        Path(path).unlink()
    assert all(torch.equal(images[i][0], b) for i, b in zip(items, before, strict=True))


def test_an_unreadable_image_is_flagged(images: ImageSet) -> None:
    Path(images.paths[2]).write_text("no image")
    pixels, readable = images[(2, 3)]
    assert not readable and not pixels.any()
    assert images.fill_cache(threads=2).tolist() == [False, False, True, False, False, False]
    assert not images[(2, 3)][1]
    assert images.paths[2] in images.reason(2)


def test_workers_and_cache_change_no_weight(images: ImageSet) -> None:
    preset = override(
        PRESETS["cifar10"], {"network": "small-cnn", "image_size": 16, "batch_size": 4}
    )
    labels = np.array([0, 1, 0, 1, 0, 1])
    plan = plan_epoch(np.arange(6), labels, 3, 4, balanced=True, beta=1.0, seed=0, epoch=0)
    found = []
    for workers, cache in ((0, "on"), (2, "off")):
        engine = Engine(
            preset, 2, ImageSet(images.paths, preset), CPU, seed=1, workers=workers, cache=cache
        )
        loss = engine.train(plan, labels, np.ones(6, np.float32), 0.1, True, 0)
        found.append((loss, engine.predict(np.array([5, 0]))))
    (loss_a, (class_a, sure_a)), (loss_b, (class_b, sure_b)) = found
    assert loss_a == loss_b
    assert np.array_equal(class_a, class_b) and np.array_equal(sure_a, sure_b)
    assert (sure_a[[1, 2, 3, 4]] == -1).all() and (sure_a[[0, 5]] >= 0.5).all()


def test_the_typical_side_is_the_median(tmp_path: Path) -> None:
    paths = [save(tmp_path / f"{n}.png", noise(n, 90, 3)) for n in (10, 20, 60)]
    assert typical_side(paths) == 20
    assert typical_side([*paths, str(tmp_path / "absent.png")]) == 20
    with pytest.raises(ImageReadError, match=r"check where the bundle's images are"):
        typical_side([str(tmp_path / "absent.png")])


CROP, FLIP = transforms.RandomCrop, transforms.RandomHorizontalFlip
CIFAR10_POLICY, IMAGENET_POLICY = (
    (transforms.AutoAugment, transforms.AutoAugmentPolicy(name)) for name in ("cifar10", "imagenet")
)
RANDAUGMENT = (transforms.RandAugment, (2, 9))  # two operations of strength 9 of 31


# METHOD's table, of the paper: crop (of pixels, padded by), flip, policy
@pytest.mark.parametrize(
    ("name", "crop", "policy"),
    [
        ("cifar10", (32, 4), CIFAR10_POLICY),
        ("cifar100", (32, 4), CIFAR10_POLICY),
        ("cifar10-idn", (32, 4), CIFAR10_POLICY),
        ("red-mini-imagenet", (32, 4), CIFAR10_POLICY),
        ("animal10n", (64, 8), RANDAUGMENT),
        ("webvision", (299, (0.08, 1)), IMAGENET_POLICY),
        ("clothing1m", (224, None), IMAGENET_POLICY),
    ],
)
def test_the_steps_of_the_presets(name: str, crop: tuple[Any, Any], policy: Any) -> None:
    first, flip, last = augmentation(PRESETS[name]).transforms
    size, more = crop
    assert first.size == (size, size)
    if name == "webvision":
        assert type(first) is transforms.RandomResizedCrop and first.scale == more
    else:
        assert type(first) is CROP and first.padding == more
    assert type(flip) is FLIP and flip.p == 0.5
    if policy is RANDAUGMENT:
        found = (type(last), (last.num_ops, last.magnitude))
    else:
        found = (type(last), last.policy)
    assert found == policy
