"""QuickGELU for the weights that were trained with it, and names that tell models apart."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import open_clip
import pytest
from tiny_models import GIVEN, PREPROCESS, VIT, changed, write_config, write_folder, write_hub_cache

from clipcleaner_plugin.models import ClipModel, load_model, model_identity


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write_folder(tmp_path / "mine")
    return tmp_path / "mine"


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
