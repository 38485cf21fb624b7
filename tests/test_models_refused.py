"""Models that cannot be had, or must not be loaded: what is said, and what is to be done."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import open_clip
import pytest
import torch
from PIL import Image
from tiny_models import GIVEN, VIT, changed, make_weights, pixels, write_config, write_folder

from clipcleaner_plugin.models import TINY_CLIP, load_model


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write_folder(tmp_path / "mine")
    return tmp_path / "mine"


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
