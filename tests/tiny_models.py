"""Model folders as open_clip reads them, with random weights and architectures that are made in
milliseconds."""

from __future__ import annotations

import json
from copy import deepcopy
from pathlib import Path
from typing import Any

import torch
from PIL import Image

from clipcleaner_plugin.models import ClipModel

PREPROCESS: dict[str, Any] = {
    "mean": [0.1, 0.2, 0.3],
    "std": [0.4, 0.5, 0.6],
    "interpolation": "bilinear",
    "resize_mode": "squash",
}
# The same as it is given where a folder does not say it
GIVEN = {**PREPROCESS, "mean": (0.1, 0.2, 0.3), "std": (0.4, 0.5, 0.6)}
VIT: dict[str, Any] = {
    "embed_dim": 16,
    "vision_cfg": {"image_size": 16, "layers": 2, "width": 16, "patch_size": 8, "head_width": 8},
    "text_cfg": {"context_length": 16, "vocab_size": 49408, "width": 8, "heads": 1, "layers": 1},
}


def changed(config: dict[str, Any], **changes: Any) -> dict[str, Any]:
    """A copy with some top-level keys replaced."""
    return {**deepcopy(config), **changes}


ARCHITECTURES: dict[str, dict[str, Any]] = {
    "vit": VIT,
    "custom text": changed(VIT, custom_text=True),
    "resnet": changed(VIT, vision_cfg={"image_size": 32, "layers": [1, 1, 1, 1], "width": 8}),
    "coca": changed(
        VIT,
        custom_text=True,
        vision_cfg={
            **VIT["vision_cfg"],
            "attentional_pool": True,
            "attn_pooler_heads": 1,
            "output_tokens": True,
        },
        text_cfg={**VIT["text_cfg"], "embed_cls": True, "output_tokens": True},
        multimodal_cfg={
            **{"context_length": 16, "vocab_size": 49408, "width": 8, "heads": 1, "layers": 1},
            "attn_pooler_heads": 1,
        },
    ),
    "timm": changed(
        VIT,
        vision_cfg={
            **{"timm_model_name": "test_vit", "timm_model_pretrained": False},
            **{"timm_pool": "", "timm_proj": "linear", "image_size": 160},
        },
    ),
}


def write_config(
    folder: Path, config: dict[str, Any] = VIT, preprocess: dict[str, Any] | None = PREPROCESS
) -> Path:
    """Writes ``open_clip_config.json``; ``preprocess=None`` leaves that part out."""
    folder.mkdir(parents=True, exist_ok=True)
    document = {"model_cfg": config}
    if preprocess is not None:
        document["preprocess_cfg"] = preprocess
    path = folder / "open_clip_config.json"
    path.write_text(json.dumps(document), encoding="utf-8")
    return path


def make_weights(folder: Path, seed: int = 0) -> dict[str, torch.Tensor]:
    """Random weights for the configuration in a folder."""
    import open_clip

    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = open_clip.create_model(f"local-dir:{folder}", load_weights=False)
    return model.state_dict()


def write_folder(
    folder: Path,
    config: dict[str, Any] = VIT,
    preprocess: dict[str, Any] | None = PREPROCESS,
    name: str = "open_clip_model.safetensors",
    seed: int = 0,
    half: bool = False,
) -> Path:
    """Writes a whole model folder and returns the path of its weights."""
    from safetensors.torch import save_file

    write_config(folder, config, preprocess)
    weights = make_weights(folder, seed)
    if half:
        weights = {k: v.half() if v.is_floating_point() else v for k, v in weights.items()}
    weights = {k: v.contiguous() for k, v in weights.items()}
    if name.endswith(".safetensors"):
        save_file(weights, folder / name)
    else:
        torch.save(weights, folder / name)
    return folder / name


def write_hub_cache(cache: Path, repository: str, config: dict[str, Any], **kwargs: Any) -> Path:
    """Lays a model out as the Hugging Face client keeps downloads."""
    home = cache / f"models--{repository.replace('/', '--')}"
    revision = "0123456789abcdef0123456789abcdef01234567"
    (home / "refs").mkdir(parents=True)
    (home / "refs" / "main").write_text(revision)
    return write_folder(home / "snapshots" / revision, config, **kwargs)


def pixels(model: ClipModel, picture: Image.Image, n: int = 3) -> torch.Tensor:
    """(n, 3, height, width) of a picture that is turned, prepared by the model's own transform."""
    return torch.stack([model.transform(picture.rotate(30 * i)) for i in range(n)])
