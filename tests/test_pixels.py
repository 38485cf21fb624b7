"""The fast preprocessing against the models' own transform, on photos and on odd transforms."""

from __future__ import annotations

import itertools
from multiprocessing.reduction import ForkingPickler
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from tiny_models import ARCHITECTURES, PREPROCESS, VIT, changed, write_folder
from torchvision import transforms

from clipcleaner_plugin.images import read_image
from clipcleaner_plugin.models import TINY_CLIP, load_model
from clipcleaner_plugin.pixels import (
    LEVELS,
    TOLERANCE,
    Normalise,
    QuickResize,
    ToPixels,
    split_transform,
)


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Two photos, 640 x 424, as JPEG files."""
    import sklearn.datasets

    folder = tmp_path_factory.mktemp("photos")
    source = Path(sklearn.datasets.__file__).parent / "images"
    paths = [folder / "china.jpg", folder / "flower.jpg"]
    for path in paths:
        with Image.open(source / path.name) as image:
            image.crop((0, 0, 640, 424)).save(path, quality=95)
    return paths


def open_clip_transform(size: Any, interpolation: str, resize_mode: str) -> Any:
    from open_clip.transform import PreprocessCfg, image_transform_v2

    config = {
        **{"size": size, "mean": (0.48, 0.45, 0.4), "std": (0.26, 0.261, 0.27), "fill_color": 0},
        **{"interpolation": interpolation, "resize_mode": resize_mode},
    }
    return image_transform_v2(PreprocessCfg(**config), is_train=False)


def split(transform: Any) -> tuple[ToPixels, Normalise]:
    halves = split_transform(transform)
    assert halves is not None
    return halves


def is_quick(prepare: ToPixels) -> bool:
    return any(isinstance(step, QuickResize) for step in prepare._steps)


@pytest.mark.parametrize("resize_mode", ["shortest", "longest", "squash"])
@pytest.mark.parametrize("interpolation", ["bicubic", "bilinear"])
@pytest.mark.parametrize("size", [224, 500, 31, (40, 60)])
def test_the_halves_equal_the_whole(
    photos: list[Path], size: Any, interpolation: str, resize_mode: str
) -> None:
    transform = open_clip_transform(size, interpolation, resize_mode)
    prepare, normalise = ForkingPickler.loads(ForkingPickler.dumps(split(transform)))
    by_pillow = ToPixels(transform.transforms[:-2], 0)
    for path, turn in itertools.product(photos, (0, 90)):
        image = read_image(path).rotate(turn, expand=True)
        pixels, exact = prepare(image), by_pillow(image)
        assert pixels.dtype == torch.uint8
        off = (pixels.int() - exact.int()).abs()
        if is_quick(prepare):
            assert off.max() <= LEVELS and off.float().mean() < 0.1
        else:
            assert off.max() == 0
        found = normalise(exact[None])
        assert found.is_contiguous() and found.dtype == torch.float32
        assert (found[0] - transform(image)).abs().max() <= TOLERANCE


class SizeOfPillow:
    """Crops what says its size as Pillow's images do."""

    def __call__(self, image: Image.Image) -> Image.Image:
        width, height = image.size
        return image.crop((0, 0, min(width, 30), min(height, 30)))


SHORTEST = open_clip_transform(31, "bicubic", "shortest")


def test_torch_resizes_where_it_can_and_keeps_to_pillow(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.backends.cpu.get_cpu_capability", lambda: "AVX2")
    assert is_quick(split(SHORTEST)[0])
    assert not is_quick(split(open_clip_transform(31, "bicubic", "squash"))[0])
    resize, *rest = SHORTEST.transforms
    assert not is_quick(split(transforms.Compose([resize, SizeOfPillow(), *rest[1:]]))[0])
    with monkeypatch.context() as patch:
        patch.setattr("clipcleaner_plugin.pixels.LEVELS", -1)
        assert not is_quick(split(SHORTEST)[0])
    monkeypatch.setattr("torch.backends.cpu.get_cpu_capability", lambda: "DEFAULT")
    assert not is_quick(split(SHORTEST)[0])


@pytest.mark.parametrize("architecture", sorted(ARCHITECTURES))
def test_a_model_gives_the_same_features(
    tmp_path: Path, photos: list[Path], architecture: str
) -> None:
    write_folder(tmp_path, ARCHITECTURES[architecture])
    model = load_model(tmp_path, device="cpu")
    images = [read_image(path) for path in photos]
    slow = model.encode_images(torch.stack([model.transform(image) for image in images]))
    pixels = torch.stack([model.prepare(image) for image in images])
    assert isinstance(model.prepare, ToPixels) and pixels.dtype == torch.uint8
    np.testing.assert_allclose(model.encode_images(pixels), slow, atol=1e-5)


def test_the_embedded_model_is_split() -> None:
    assert isinstance(load_model(TINY_CLIP, device="cpu").prepare, ToPixels)


class Posterise:
    """Works on what ToTensor made, so that it cannot be done in 8 bits."""

    def __call__(self, pixels: torch.Tensor) -> torch.Tensor:
        return (pixels * 3).round() / 3


class Dithering:
    """Gives something else at each call."""

    def __call__(self, image: Image.Image) -> Image.Image:
        return image.point(list(np.random.default_rng().integers(0, 256, 768)))


NORMALIZE = transforms.Normalize((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
RESIZE = transforms.Resize((16, 16))


@pytest.mark.parametrize(
    "steps",
    [
        pytest.param([RESIZE, transforms.ToTensor()], id="not normalised"),
        pytest.param([RESIZE, transforms.ToTensor(), Posterise(), NORMALIZE], id="in between"),
        pytest.param([transforms.ToTensor(), RESIZE, NORMALIZE], id="resizes floats"),
        pytest.param([RESIZE, Dithering(), transforms.ToTensor(), NORMALIZE], id="random"),
        pytest.param(
            [transforms.Grayscale(), transforms.ToTensor(), transforms.Normalize(0.5, 0.5)],
            id="grey",
        ),
        pytest.param(
            [RESIZE, transforms.ToTensor(), transforms.Normalize((0.5,) * 3, (0.0, 1.0, 1.0))],
            id="divides by zero",
        ),
    ],
)
def test_other_transforms_are_left_whole(steps: list[Any]) -> None:
    assert split_transform(transforms.Compose(steps)) is None


def test_a_function_is_left_whole() -> None:
    assert split_transform(lambda image: torch.zeros(3, 4, 4)) is None


def test_a_model_whose_transform_cannot_be_split_uses_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, photos: list[Path]
) -> None:
    write_folder(tmp_path, VIT)
    expected = load_model(tmp_path, device="cpu")
    monkeypatch.setattr("clipcleaner_plugin.pixels.TOLERANCE", -1.0)
    model = load_model(tmp_path, device="cpu")
    assert model.prepare is model.transform
    image = read_image(photos[0])
    batch = model.prepare(image)[None]
    assert batch.shape == (1, 3, 16, 16)
    np.testing.assert_array_equal(model.encode_images(batch), expected.encode_images(batch))
    with pytest.raises(ValueError, match=r"\(B, 3, H, W\), got \(1, 16, 16, 3\)"):
        model.encode_images(expected.prepare(image)[None])


# -- JPEG files decoded at a fraction of their size -----------------------------------------------


@pytest.mark.parametrize("size", [16, 26, 32, 50, 70])
def test_photos_decoded_smaller_stay_within_half_a_level(photos: list[Path], size: int) -> None:
    prepare, _ = split(open_clip_transform(size, "bicubic", "shortest"))
    assert prepare.least_side == 3 * size
    for path in photos:
        whole, smaller = read_image(path), read_image(path, prepare.least_side)
        assert min(smaller.size) >= 3 * size and smaller.width < whole.width
        found, expected = prepare(smaller).int(), prepare(whole).int()
        difference = (found - expected).abs()
        assert difference.float().mean() <= 0.5 and difference.max() <= 8


def test_the_model_decides_how_small_photos_are_decoded(tmp_path: Path, photos: list[Path]) -> None:
    write_folder(tmp_path, changed(VIT), {**PREPROCESS, "resize_mode": "shortest"})
    model = load_model(tmp_path, device="cpu")
    assert isinstance(model.prepare, ToPixels) and model.prepare.least_side == 48
    whole = model.encode_images(torch.stack([model.transform(read_image(p)) for p in photos]))
    smaller = [model.prepare(read_image(p, model.prepare.least_side)) for p in photos]
    turned = (model.encode_images(torch.stack(smaller)) * whole).sum(axis=1)
    assert (turned > 0.9999).all()
