"""Loading: whichever way a model is named, what comes out is what open_clip would compute."""

from __future__ import annotations

import logging
from multiprocessing.reduction import ForkingPickler
from pathlib import Path
from typing import Any

import numpy as np
import open_clip
import pytest
import torch
from PIL import Image
from tiny_models import ARCHITECTURES, GIVEN, VIT, make_weights, pixels, write_folder

from clipcleaner_plugin.digits import DIGIT_NAMES, load_half, render
from clipcleaner_plugin.models import TINY_CLIP, choose_device, load_model, model_identity


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write_folder(tmp_path / "mine")
    return tmp_path / "mine"


# --- what a loaded model computes


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_features_are_those_of_open_clip(
    architecture: str, tmp_path: Path, picture: Image.Image
) -> None:
    write_folder(tmp_path, ARCHITECTURES[architecture])
    model = load_model(tmp_path, device="cpu")
    theirs, _, transform = open_clip.create_model_and_transforms(f"local-dir:{tmp_path}")
    tokens = open_clip.get_tokenizer(f"local-dir:{tmp_path}")(["a cat", "a dog on a mat"])
    batch = pixels(model, picture)
    assert torch.equal(batch[0], transform(picture))
    with torch.inference_mode():
        images = theirs.eval().encode_image(batch, normalize=True).numpy()
        texts = theirs.encode_text(tokens, normalize=True).numpy()
    np.testing.assert_allclose(model.encode_images(batch), images, atol=1e-6)
    np.testing.assert_allclose(model.encode_texts(["a cat", "a dog on a mat"]), texts, atol=1e-6)
    assert model.embed_dim == images.shape[1] == 16


def test_features_are_unit_float32_rows_and_repeat_to_the_bit(
    folder: Path, picture: Image.Image
) -> None:
    model = load_model(folder, device="cpu")
    batch = pixels(model, picture)
    images, texts = model.encode_images(batch), model.encode_texts(["one", "two"])
    for features, n in ((images, 3), (texts, 2)):
        assert features.dtype == np.float32 and features.shape == (n, 16)
        np.testing.assert_allclose(np.linalg.norm(features, axis=1), 1, atol=1e-6)
    again = load_model(folder, device="cpu")
    assert np.array_equal(again.encode_images(batch), images)
    assert np.array_equal(again.encode_texts(["one", "two"]), texts)


def test_batch_norm_and_dropout_are_frozen(tmp_path: Path, picture: Image.Image) -> None:
    write_folder(tmp_path, ARCHITECTURES["resnet"])
    model = load_model(tmp_path, device="cpu")
    batch = pixels(model, picture)
    together = model.encode_images(batch)
    alone = np.concatenate([model.encode_images(one[None]) for one in batch])
    np.testing.assert_allclose(together, alone, atol=1e-5)


def test_empty_batches(folder: Path) -> None:
    model = load_model(folder, device="cpu")
    assert model.encode_images(torch.empty(0, 3, 16, 16)).shape == (0, 16)
    assert model.encode_texts([]).shape == (0, 16)


@pytest.mark.parametrize("shape", [(3, 16, 16), (2, 1, 16, 16), (2, 16, 16, 3)])
def test_wrong_pixels_are_refused(folder: Path, shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"expected shape \(B, 3, H, W\)"):
        load_model(folder, device="cpu").encode_images(torch.zeros(shape))


@pytest.mark.parametrize("texts", ["a cat", ["a cat", 3]])
def test_wrong_texts_are_refused(folder: Path, texts: Any) -> None:
    with pytest.raises(TypeError, match="expected a list of strings"):
        load_model(folder, device="cpu").encode_texts(texts)


def test_transform_can_be_pickled(folder: Path, picture: Image.Image) -> None:
    transform = load_model(folder, device="cpu").transform
    again = ForkingPickler.loads(ForkingPickler.dumps(transform))
    assert torch.equal(again(picture), transform(picture))


def test_half_precision_files_are_computed_in_single(tmp_path: Path, picture: Image.Image) -> None:
    write_folder(tmp_path / "half", half=True)
    write_folder(tmp_path / "single")
    half, single = (load_model(tmp_path / name, device="cpu") for name in ("half", "single"))
    batch = pixels(half, picture)
    a, b = half.encode_images(batch), single.encode_images(batch)
    assert a.dtype == np.float32
    np.testing.assert_allclose(a, b, atol=5e-3)
    assert not np.array_equal(a, b)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_cuda_agrees_with_cpu(folder: Path, picture: Image.Image) -> None:
    cpu, cuda = load_model(folder, device="cpu"), load_model(folder)
    batch = pixels(cpu, picture)
    assert cuda.device.type == "cuda"
    features = cuda.encode_images(batch)
    assert features.dtype == np.float32 and np.array_equal(features, cuda.encode_images(batch))
    np.testing.assert_allclose(features, cpu.encode_images(batch), atol=2e-2)
    np.testing.assert_allclose(np.linalg.norm(features, axis=1), 1, atol=1e-6)


# --- ways to name a model


def test_all_ways_to_name_a_local_model_agree(folder: Path, picture: Image.Image) -> None:
    file = folder / "open_clip_model.safetensors"
    models = [
        load_model(folder, device="cpu"),
        load_model(f"local-dir:{folder}", None, device="cpu"),
        load_model(file, device="cpu"),
        load_model(str(file), "", device="cpu"),
    ]
    batch = pixels(models[0], picture)
    for model in models[1:]:
        assert np.array_equal(model.encode_images(batch), models[0].encode_images(batch))


@pytest.mark.parametrize("style", ["plain", "legacy", "training", "parallel"])
def test_torch_files(folder: Path, picture: Image.Image, style: str) -> None:
    weights = make_weights(folder)
    content: dict[str, Any] = weights
    if style == "training":
        content = {"epoch": 3, "name": "run", "state_dict": weights, "optimizer": {"lr": 0.1}}
    if style == "parallel":
        content = {"state_dict": {f"module.{k}": v for k, v in weights.items()}}
    path = folder / "weights.pt"
    torch.save(content, path, _use_new_zipfile_serialization=style != "legacy")
    model, same = load_model(path, device="cpu"), load_model(folder, device="cpu")
    batch = pixels(model, picture)
    assert np.array_equal(model.encode_images(batch), same.encode_images(batch))


def test_bare_weights_need_their_preprocessing(
    folder: Path, tmp_path: Path, picture: Image.Image, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(open_clip.factory._MODEL_CONFIGS, "ViT-B-32", VIT)
    bare = tmp_path / "bare.safetensors"
    bare.write_bytes((folder / "open_clip_model.safetensors").read_bytes())
    with pytest.raises(ValueError, match=r"mean and std unknown.*open_clip_config.json beside it"):
        load_model("ViT-B-32", bare)
    with pytest.raises(ValueError, match=r"\(std unknown\)"):
        load_model("ViT-B-32", bare, preprocess={"mean": (0, 0, 0)})
    model = load_model("ViT-B-32", bare, preprocess=GIVEN, device="cpu")
    same = load_model(folder, device="cpu")
    batch = pixels(same, picture)
    assert torch.equal(pixels(model, picture), batch)
    assert np.array_equal(model.encode_images(batch), same.encode_images(batch))


def test_given_preprocessing_is_what_happens(folder: Path, picture: Image.Image) -> None:
    given = {
        "mean": 0.5,
        "std": (0.5, 0.5, 0.5),
        "interpolation": "bicubic",
        "resize_mode": "longest",
    }
    theirs = open_clip.image_transform(
        16, False, (0.5,) * 3, (0.5,) * 3, resize_mode="longest", interpolation="bicubic"
    )
    model = load_model(folder, preprocess=given, device="cpu")
    assert torch.equal(model.transform(picture), theirs(picture))


def test_given_size_resizes_the_model(folder: Path, picture: Image.Image) -> None:
    model = load_model(folder, preprocess={"size": 32}, device="cpu")
    batch = pixels(model, picture)
    assert batch.shape == (3, 3, 32, 32)
    assert model.encode_images(batch).shape == (3, 16)


@pytest.mark.parametrize(
    ("preprocess", "match"),
    [
        ({"average": 1}, "unknown key 'average'"),
        ({"mean": (0.1, 0.2)}, r"preprocess\['mean'\].*three finite numbers"),
        ({"mean": ("a", "b", "c")}, "three finite numbers"),
        ({"std": (0.1, 0.0, 0.2)}, "each above 0"),
        ({"std": float("nan")}, "three finite numbers"),
        ({"interpolation": "nearest"}, "choose one of bicubic, bilinear"),
        ({"resize_mode": "crop"}, "choose one of shortest, longest, squash"),
        ({"size": 0}, r"preprocess\['size'\]"),
        ({"size": (8, 8, 8)}, r"preprocess\['size'\]"),
    ],
)
def test_wrong_preprocessing_is_refused(folder: Path, preprocess: Any, match: str) -> None:
    with pytest.raises(ValueError, match=match):
        load_model(folder, preprocess=preprocess)


@pytest.mark.parametrize("kwargs", [{"model": 3}, {"preprocess": "mean"}, {"pretrained": 7}])
def test_wrong_types_are_refused(kwargs: dict[str, Any]) -> None:
    with pytest.raises(TypeError, match=f"{next(iter(kwargs))}: expected"):
        load_model(**kwargs)


def test_config_beside_a_file_is_its_truth(folder: Path) -> None:
    file = folder / "open_clip_model.safetensors"
    with pytest.raises(ValueError, match=r"embed_dim = 16, but model='ViT-B-32' has 512"):
        load_model("ViT-B-32", file)


def test_weights_of_its_own_exclude_pretrained(folder: Path) -> None:
    for model in (folder, folder / "open_clip_model.safetensors", "hf-hub:org/name"):
        with pytest.raises(ValueError, match="brings its own weights"):
            load_model(model, "laion2b_s34b_b79k")


# --- surroundings


def test_devices() -> None:
    assert choose_device("cpu").type == "cpu"
    expected = (
        "cuda"
        if torch.cuda.is_available()
        else "mps"
        if torch.backends.mps.is_available()
        else "cpu"
    )
    assert choose_device().type == expected
    with pytest.raises(
        ValueError, match=r"device='gpu' is no torch device; this machine has .*cpu"
    ):
        choose_device("gpu")
    with pytest.raises(ValueError, match="is not there"):
        choose_device("cuda:99")


def test_open_clip_neither_warns_of_random_weights_nor_configures_logging(
    folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    before = list(logging.getLogger().handlers)
    with caplog.at_level(logging.INFO):
        load_model(folder, device="cpu")
    assert "initialized randomly" not in caplog.text
    assert "Loaded mine [" in caplog.text
    assert logging.getLogger().handlers == before and not logging.getLogger().filters


# --- the embedded model


def test_tiny_clip_is_small_and_knows_digits() -> None:
    model = load_model(TINY_CLIP, device="cpu")
    assert {p.dtype for p in model._module.parameters()} == {torch.float32}
    scans, labels, _ = load_half("held-out")
    images = model.encode_images(torch.stack([model.transform(render(scan)) for scan in scans]))
    for template in ("a photo of a {}.", "the number {}", "{}"):
        texts = model.encode_texts([template.format(name) for name in DIGIT_NAMES])
        assert ((images @ texts.T).argmax(axis=1) == labels).mean() > 0.97, template


def test_tiny_clip_needs_no_tag() -> None:
    assert model_identity(TINY_CLIP, None) == model_identity(TINY_CLIP, "openai")
    assert model_identity(TINY_CLIP).startswith(f"{TINY_CLIP} [")
