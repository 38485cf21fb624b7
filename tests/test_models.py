"""Loading: whichever way a model is named, what comes out is what open_clip would compute."""

from __future__ import annotations

import logging
import os
from multiprocessing.reduction import ForkingPickler
from pathlib import Path
from typing import Any

import numpy as np
import open_clip
import pytest
import torch
from PIL import Image
from tiny_models import (
    ARCHITECTURES,
    PREPROCESS,
    VIT,
    changed,
    make_weights,
    write_config,
    write_folder,
    write_hub_cache,
)

from clipcleaner_plugin.digits import DIGIT_NAMES, load_half, render
from clipcleaner_plugin.models import (
    TINY_CLIP,
    ClipModel,
    choose_device,
    load_model,
    model_identity,
)

GIVEN = {
    "mean": (0.1, 0.2, 0.3),
    "std": (0.4, 0.5, 0.6),
    "interpolation": "bilinear",
    "resize_mode": "squash",
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write_folder(tmp_path / "mine")
    return tmp_path / "mine"


@pytest.fixture
def picture() -> Image.Image:
    pixels = np.random.default_rng(0).integers(0, 256, (40, 24, 3), dtype=np.uint8)
    return Image.fromarray(pixels)


@pytest.fixture
def hub_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache for the hub's client, which is offline in tests."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    return tmp_path / "hub"


def pixels(model: ClipModel, picture: Image.Image, n: int = 3) -> torch.Tensor:
    return torch.stack([model.transform(picture.rotate(30 * i)) for i in range(n)])


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


# --- names that nobody knows


@pytest.mark.parametrize(
    ("model", "pretrained", "match"),
    [
        ("ViT-B32", "openai", r"Close names: .*ViT-B-32.*list_pretrained"),
        ("tiny-clip", None, TINY_CLIP),
        ("", "openai", "say which"),
        ("laion/CLIP-ViT-B-32", "openai", "written hf-hub:laion/CLIP-ViT-B-32"),
        ("./nothing/here", None, "no file or folder is there"),
        ("ViT-B-32", "opneai", r"Its tags: openai.*Close: openai"),
        ("ViT-B-32", "webli", r"'webli' belongs to .*SigLIP"),
        ("ViT-B-32", None, "needs pretrained=: openai"),
        ("ViT-B-32", "/no/such/file.pt", "no file is there"),
        ("hf-hub:", None, "say which"),
    ],
)
def test_unknown_names_say_what_is_close(model: str, pretrained: str | None, match: str) -> None:
    with pytest.raises(ValueError, match=match):
        load_model(model, pretrained)


def test_hub_out_of_reach_says_what_to_do(hub_cache: Path) -> None:
    for model, named in (("ViT-B-32", "ViT-B-32/openai"), ("hf-hub:org/name", "hf-hub:org/name")):
        with pytest.raises(ValueError, match=f"could not download {named}") as caught:
            load_model(model, device="cpu")
        assert "needs the network" in str(caught.value)
        assert "open_clip_config.json" in str(caught.value) and TINY_CLIP in str(caught.value)


def test_text_tower_that_lives_on_the_hub_says_so(tmp_path: Path, hub_cache: Path) -> None:
    towers = {
        "hf_model_name": "org/text-tower",
        "hf_proj_type": "mlp",
        "hf_pooler_type": "mean_pooler",
    }
    write_config(tmp_path, changed(VIT, text_cfg=towers))
    (tmp_path / "open_clip_model.safetensors").write_bytes(b"never read")
    with pytest.raises(ValueError, match=r"could not build .*network is needed once"):
        load_model(tmp_path, device="cpu")


# --- QuickGELU


def activations(model: ClipModel) -> set[str]:
    found = {type(m).__name__ for m in model._module.modules()}
    return found & {"QuickGELU", "GELU"}


OPENAI_REPOSITORY = "timm/vit_base_patch32_clip_224.openai"


@pytest.mark.parametrize("name", ["ViT-B-32", "ViT-B-32-quickgelu", "ViT-B/32"])
def test_openai_weights_get_quickgelu_under_every_name(
    name: str, hub_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_hub_cache(hub_cache, OPENAI_REPOSITORY, VIT)
    monkeypatch.setitem(open_clip.factory._MODEL_CONFIGS, "ViT-B-32", VIT)
    quick = changed(VIT, quick_gelu=True)
    monkeypatch.setitem(open_clip.factory._MODEL_CONFIGS, "ViT-B-32-quickgelu", quick)
    model = load_model(name, "openai", device="cpu")
    assert activations(model) == {"QuickGELU"}
    assert model.transform.transforms[-1].mean == pytest.approx(open_clip.OPENAI_DATASET_MEAN)


def test_other_weights_keep_gelu(hub_cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_hub_cache(hub_cache, "laion/CLIP-ViT-B-32-laion2B-s34B-b79K", VIT)
    monkeypatch.setitem(open_clip.factory._MODEL_CONFIGS, "ViT-B-32", VIT)
    assert activations(load_model("ViT-B-32", "laion2b_s34b_b79k", device="cpu")) == {"GELU"}


@pytest.mark.parametrize(
    ("repository", "config", "expected"),
    [
        ("org/name", changed(VIT, quick_gelu=True), "QuickGELU"),
        ("org/name", VIT, "GELU"),
        ("timm/some_clip.openai", VIT, "QuickGELU"),
        ("org/not-by-openai", changed(VIT, quick_gelu=False), "GELU"),
    ],
)
def test_hub_configurations_decide(
    hub_cache: Path, repository: str, config: dict[str, Any], expected: str
) -> None:
    write_hub_cache(hub_cache, repository, config)
    model = load_model(f"hf-hub:{repository}", device="cpu")
    assert activations(model) == {expected}
    assert model.identity == model_identity(f"hf-hub:{repository}")
    assert model.transform.transforms[-1].mean == PREPROCESS["mean"]


def test_bare_files_of_openai_get_quickgelu(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setitem(open_clip.factory._MODEL_CONFIGS, "ViT-B-32", VIT)
    content = (folder / "open_clip_model.safetensors").read_bytes()
    for name, expected in (("vitb32_openai.safetensors", "QuickGELU"), ("my.safetensors", "GELU")):
        (tmp_path / name).write_bytes(content)
        caplog.clear()
        with caplog.at_level(logging.WARNING, "clipcleaner_plugin"):
            model = load_model("ViT-B-32", tmp_path / name, preprocess=GIVEN, device="cpu")
        assert activations(model) == {expected}
        assert "ViT-B-32-quickgelu" in caplog.text


def test_every_openai_tag_of_open_clip_is_quickgelu_in_our_eyes() -> None:
    from clipcleaner_plugin.model_source import resolve

    names = open_clip.list_pretrained_models_by_tag("openai")
    assert len(names) >= 9
    assert all(resolve(name, "openai").quick_gelu for name in names)


# --- files that must not be loaded


class Payload:
    """Runs a command when it is unpickled."""

    def __init__(self, command: str) -> None:
        self.command = command

    def __reduce__(self) -> Any:
        return os.system, (self.command,)


class RaisesTypeError:
    """Makes unpickling raise a TypeError, at which open_clip would drop all caution."""

    def __reduce__(self) -> Any:
        return torch.Size, (3,)


@pytest.mark.parametrize("suffix", [".pt", ".bin", ".pth"])
def test_code_in_a_checkpoint_is_not_run(folder: Path, tmp_path: Path, suffix: str) -> None:
    marker = tmp_path / "marker"
    weights = {**make_weights(folder), "x": Payload(f"touch {marker}")}
    torch.save(weights, folder / f"evil{suffix}")
    with pytest.raises(ValueError, match="could run code; not loaded"):
        load_model(folder / f"evil{suffix}", device="cpu")
    assert not marker.exists()


def test_a_type_error_does_not_open_the_door(folder: Path, tmp_path: Path) -> None:
    marker = tmp_path / "marker"
    torch.save({"a": RaisesTypeError(), "b": Payload(f"touch {marker}")}, folder / "evil.pt")
    with pytest.raises(ValueError, match=r"evil\.pt"):
        load_model(folder / "evil.pt", device="cpu")
    assert not marker.exists()


def test_torchscript_is_refused_with_a_way_out(
    tmp_path: Path, picture: Image.Image, monkeypatch: pytest.MonkeyPatch
) -> None:
    like_openai = changed(
        VIT,
        quick_gelu=True,
        vision_cfg={"image_size": 16, "layers": 1, "width": 64, "patch_size": 8},
        text_cfg={**VIT["text_cfg"], "width": 64},
    )
    monkeypatch.setitem(open_clip.factory._MODEL_CONFIGS, "ViT-B-32", like_openai)
    original = open_clip.create_model("ViT-B-32").eval()
    mask = original.attn_mask
    del original.attn_mask
    original.attn_mask = mask  # no buffer: OpenAI's archives do not hold it
    archive = tmp_path / "ViT-B-32.pt"
    torch.jit.save(torch.jit.script(original), str(archive))
    with pytest.raises(ValueError, match=r"TorchScript.*pretrained='openai'.*load_openai_model"):
        load_model("ViT-B-32", archive, preprocess=GIVEN)
    weights = open_clip.load_openai_model(str(archive), "fp32", "cpu").state_dict()
    torch.save(weights, tmp_path / "openai.pt")
    model = load_model("ViT-B-32", tmp_path / "openai.pt", preprocess=GIVEN, device="cpu")
    batch = pixels(model, picture)
    with torch.inference_mode():
        expected = original.encode_image(batch, normalize=True).numpy()
    # OpenAI's files are half precision, and so is what open_clip makes of them on the way
    np.testing.assert_allclose(model.encode_images(batch), expected, atol=5e-3)


@pytest.mark.parametrize("name", ["w.safetensors", "w.pt"])
@pytest.mark.parametrize("damage", ["truncated", "empty", "text"])
def test_damaged_weights(folder: Path, name: str, damage: str) -> None:
    path = folder / name
    good = (folder / "open_clip_model.safetensors").read_bytes()
    if name.endswith(".pt"):
        torch.save(make_weights(folder), path)
        good = path.read_bytes()
    path.write_bytes(
        {"truncated": good[: len(good) // 2], "empty": b"", "text": b"hello " * 99}[damage]
    )
    with pytest.raises(ValueError, match=rf"weights .*{name}: .*damaged"):
        load_model(path, device="cpu")


def test_weights_of_another_architecture(folder: Path) -> None:
    other = changed(VIT, vision_cfg={**VIT["vision_cfg"], "width": 24})
    write_config(folder, other)
    with pytest.raises(ValueError, match="do not fit architecture"):
        load_model(folder, device="cpu")


def test_incomplete_weights(folder: Path) -> None:
    weights = make_weights(folder)
    del weights["text_projection"]
    torch.save(weights, folder / "w.pt")
    with pytest.raises(ValueError, match=r"do not fit.*text_projection"):
        load_model(folder / "w.pt", device="cpu")


def test_a_list_is_no_state_dict(folder: Path) -> None:
    torch.save([torch.zeros(2)], folder / "w.pt")
    with pytest.raises(ValueError, match="not a state dict"):
        load_model(folder / "w.pt", device="cpu")


# --- folders that are not whole


def test_folder_without_weights(tmp_path: Path) -> None:
    write_config(tmp_path)
    with pytest.raises(ValueError, match="no weights in it"):
        load_model(tmp_path)


def test_folder_without_config(folder: Path) -> None:
    (folder / "open_clip_config.json").unlink()
    with pytest.raises(ValueError, match=r"open_clip_config\.json is missing"):
        load_model(folder)
    with pytest.raises(ValueError, match="weights alone do not say their architecture"):
        load_model(folder / "open_clip_model.safetensors")


def test_folder_with_two_weights(tmp_path: Path) -> None:
    first = write_folder(tmp_path, name="a.safetensors")
    (tmp_path / "b.safetensors").write_bytes(first.read_bytes())
    with pytest.raises(ValueError, match=r"2 weights files \(a\.safetensors, b\.safetensors\)"):
        load_model(tmp_path)


@pytest.mark.parametrize(
    "content", ["{", "[]", '{"embed_dim": 4}', '{"model_cfg": {"embed_dim": 4}}']
)
def test_folder_with_a_bad_config(folder: Path, content: str) -> None:
    (folder / "open_clip_config.json").write_text(content)
    with pytest.raises(ValueError, match=r"open_clip_config\.json: no"):
        load_model(folder)


def test_folder_that_does_not_say_its_preprocessing(tmp_path: Path) -> None:
    write_folder(tmp_path, preprocess=None)
    with pytest.raises(ValueError, match="mean and std unknown"):
        load_model(tmp_path)
    assert load_model(tmp_path, preprocess=GIVEN, device="cpu").embed_dim == 16


@pytest.mark.parametrize("name", ["weights.npz", "weights"])
def test_unknown_suffix(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(b"x")
    with pytest.raises(ValueError, match=r"ends in \.safetensors"):
        load_model("ViT-B-32", tmp_path / name)


def test_pretrained_folder(folder: Path) -> None:
    with pytest.raises(ValueError, match="is a folder: pass it as model="):
        load_model("ViT-B-32", folder)


# --- identity


def test_identity_is_pinned() -> None:
    """A change here makes every user compute every embedding again: be sure that it is meant."""
    assert model_identity("ViT-B-32", "openai") == "ViT-B-32/openai [a536504f8a7f]"


def test_identity_names_what_decides_the_features(folder: Path, tmp_path: Path) -> None:
    mine = model_identity(folder)
    assert mine.startswith("mine [") and len(mine) == len("mine [0123456789ab]")
    assert load_model(folder, device="cpu").identity == mine
    (tmp_path / "else").mkdir()
    (folder).rename(tmp_path / "else" / "mine")
    moved = tmp_path / "else" / "mine"
    assert model_identity(moved) == mine
    assert model_identity(moved, preprocess={"mean": (0, 0, 0)}) != mine
    assert model_identity(moved, preprocess=GIVEN) == mine
    write_folder(moved, seed=1)
    assert model_identity(moved) != mine


def test_identity_tells_quickgelu_apart(folder: Path) -> None:
    before = model_identity(folder)
    write_config(folder, changed(VIT, quick_gelu=True))
    assert model_identity(folder) != before


def test_identities_of_all_tags() -> None:
    """Every pair that open_clip knows resolves without network, and only true twins share a
    name."""
    names: dict[str, set[tuple[str, str]]] = {}
    for name, tag in open_clip.list_pretrained():
        pair = (name.removesuffix("-quickgelu"), tag)
        names.setdefault(model_identity(name, tag), set()).add(pair)
    assert len(names) > 100
    assert all(len(pairs) == 1 for pairs in names.values())
    assert model_identity("ViT-B-32", "openai") == model_identity("ViT-B-32-quickgelu", "OpenAI")


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
