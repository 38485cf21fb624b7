"""Which model is meant: from what a user typed to architecture, weights, preprocessing and a name
for their sum."""

from __future__ import annotations

import hashlib
import json
import logging
import os
from collections.abc import Iterable, Mapping
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .checkpoints import CONFIG_NAME, SUFFIXES, content_digest, describe, find_weights
from .model_names import HUB_PREFIX, TINY_CLIP, tags_of, unknown_model, unknown_tag
from .preprocessing import check_preprocess, complete_preprocess

logger = logging.getLogger(__name__)

TINY_CLIP_FOLDER = Path(__file__).resolve().parent / "assets" / "tiny_clip_digits"
DEFAULT_PRETRAINED = "openai"
FOLDER_PREFIX = "local-dir:"


@dataclass(frozen=True)
class ResolvedModel:
    """Everything that decides what features a model gives.

    Attributes:
        readable: a name for people
        architecture: what open_clip is asked for: a built-in name, "hf-hub:org/name" or
            "local-dir:/folder"
        config: open_clip's model configuration
        preprocess: size, mean, std, interpolation, resize_mode, fill_color: complete
        quick_gelu: whether the weights were trained with QuickGELU
        weights: a local file, or None if the weights must be downloaded
        tag: open_clip's entry for the pretrained tag, if that is where the weights come from
    """

    readable: str
    architecture: str
    config: dict[str, Any]
    preprocess: dict[str, Any]
    quick_gelu: bool
    weights: Path | None = None
    tag: Mapping[str, Any] | None = None

    @property
    def identity(self) -> str:
        """``"<readable> [<12 hex digits>]"``: equal where, and only where, the features are
        comparable."""
        facts: dict[str, Any] = {"preprocess": self.preprocess, "quick_gelu": self.quick_gelu}
        if self.weights is not None:
            facts["weights"] = content_digest(self.weights)
        elif self.tag is not None:
            facts["weights"] = self.readable
        else:
            facts["weights"], facts["config"] = self.architecture, self.config
        text = json.dumps(facts, sort_keys=True)
        return f"{self.readable} [{hashlib.sha256(text.encode()).hexdigest()[:12]}]"


def resolve(
    model: str | os.PathLike[str],
    pretrained: str | os.PathLike[str] | None = DEFAULT_PRETRAINED,
    preprocess: Mapping[str, Any] | None = None,
) -> ResolvedModel:
    """Finds out which model is meant; only "hf-hub:" asks the network, for the configuration.

    Args:
        model: an open_clip name, "hf-hub:org/name", a local folder or file, or :data:`TINY_CLIP`
        pretrained: an open_clip tag or a local weights file; without meaning where ``model`` brings
            its weights
        preprocess: replaces parts of the preprocessing: size, mean, std, interpolation,
            resize_mode, fill_color

    Returns:
        the source

    Raises:
        TypeError: if an argument has the wrong type
        ValueError: if the model, the tag, a file or the preprocessing cannot be determined
    """
    import open_clip

    name, weights = _as_text("model", model), _as_text("pretrained", pretrained or "")
    overrides = check_preprocess({} if preprocess is None else preprocess)
    if not name.removeprefix(FOLDER_PREFIX):
        raise ValueError(f"model={name!r}: say which; the default is 'ViT-B-32'")
    if name == TINY_CLIP:
        return _from_folder(TINY_CLIP_FOLDER, overrides, readable=TINY_CLIP)
    if name.startswith(HUB_PREFIX):
        _refuse_pretrained(name, weights)
        return _from_hub(name, overrides)
    builtin = name.replace("/", "-")
    if builtin in open_clip.list_models():
        return _from_builtin(builtin, weights, overrides)
    path = Path(name.removeprefix(FOLDER_PREFIX)).expanduser().absolute()
    if path.is_dir():
        _refuse_pretrained(name, weights)
        return _from_folder(path, overrides, readable=path.name)
    if path.is_file():
        _refuse_pretrained(name, weights)
        return _from_file(path, None, overrides)
    raise ValueError(unknown_model(name))


def _as_text(option: str, value: Any) -> str:
    if not isinstance(value, str | os.PathLike):
        raise TypeError(f"{option}: expected a name or a path, got {value!r}")
    return os.fspath(value).strip()


def _refuse_pretrained(model: str, pretrained: str) -> None:
    if pretrained not in ("", DEFAULT_PRETRAINED):
        raise ValueError(
            f"pretrained={pretrained!r}: model={model!r} brings its own weights; leave pretrained "
            "out"
        )


def _from_builtin(name: str, pretrained: str, overrides: dict[str, Any]) -> ResolvedModel:
    import open_clip

    if not pretrained:
        raise ValueError(
            f"model={name!r} needs pretrained=: {tags_of(name)}, or a local weights file"
        )
    tag = open_clip.get_pretrained_cfg(name, pretrained)
    config = open_clip.get_model_config(name)
    if tag:
        tag_name = pretrained.lower().replace("-", "_")
        quick_gelu = bool(config.get("quick_gelu") or tag.get("quick_gelu") or tag_name == "openai")
        where = f"{name}/{tag_name}"
        # With and without the suffix it is one and the same model, so it must have one identity.
        readable = f"{name.removesuffix('-quickgelu')}/{tag_name}"
        return ResolvedModel(
            readable,
            name,
            config,
            complete_preprocess(where, config, tag, overrides),
            quick_gelu,
            tag=dict(tag),
        )
    path = Path(pretrained).expanduser().absolute()
    if path.is_file():
        return _from_file(path, name, overrides)
    if path.is_dir():
        raise ValueError(f"pretrained={pretrained!r} is a folder: pass it as model=")
    raise ValueError(unknown_tag(name, pretrained))


def _from_folder(
    folder: Path, overrides: dict[str, Any], readable: str, weights: Path | None = None
) -> ResolvedModel:
    document = _read_config(folder / CONFIG_NAME)
    config = document["model_cfg"]
    return ResolvedModel(
        readable,
        f"{FOLDER_PREFIX}{folder}",
        config,
        complete_preprocess(
            f"model folder {folder}", config, document.get("preprocess_cfg") or {}, overrides
        ),
        bool(config.get("quick_gelu")),
        weights=weights or find_weights(folder),
    )


def _from_file(path: Path, architecture: str | None, overrides: dict[str, Any]) -> ResolvedModel:
    import open_clip

    if path.suffix not in SUFFIXES:
        raise ValueError(f"weights {path}: expected a file that ends in {', '.join(SUFFIXES)}")
    if (path.parent / CONFIG_NAME).is_file():
        source = _from_folder(path.parent, overrides, readable=path.name, weights=path)
        if architecture:
            _refuse_other_architecture(architecture, source.config, path)
        return source
    if architecture is None:
        raise ValueError(
            f"model={str(path)!r}: weights alone do not say their architecture. Put {CONFIG_NAME} "
            "beside the file, or pass model='ViT-B-32' (its architecture) with "
            f"pretrained={str(path)!r}"
        )
    config = open_clip.get_model_config(architecture)
    return ResolvedModel(
        f"{architecture}/{path.name}",
        architecture,
        config,
        complete_preprocess(f"weights {path}", config, {}, overrides),
        bool(config.get("quick_gelu")) or _guess_quick_gelu(architecture, path),
        weights=path,
    )


def _guess_quick_gelu(architecture: str, path: Path) -> bool:
    """A state dict does not say its activation; only OpenAI's name on the file settles it."""
    import open_clip

    twin = f"{architecture}-quickgelu"
    if "openai" in path.stem.lower():
        logger.warning(
            "%s: named after OpenAI, so QuickGELU is used (as with model=%r)", path, twin
        )
        return True
    if twin in open_clip.list_models():
        logger.warning(
            "%s: taken as trained with GELU; for QuickGELU weights pass model=%r", path, twin
        )
    return False


def _refuse_other_architecture(architecture: str, config: Mapping[str, Any], path: Path) -> None:
    import open_clip

    named = open_clip.get_model_config(architecture)
    keys = [
        ("embed_dim",),
        ("vision_cfg", "width"),
        ("vision_cfg", "layers"),
        ("vision_cfg", "patch_size"),
    ]
    for key in keys:
        mine, its = _dig(named, key), _dig(config, key)
        if mine is not None and its is not None and mine != its:
            raise ValueError(
                f"weights {path}: {CONFIG_NAME} beside it has {'.'.join(key)} = {its}, but "
                f"model={architecture!r} has {mine}; pass model={str(path)!r} to use what the file "
                "says"
            )


def _dig(config: Mapping[str, Any], key: Iterable[str]) -> Any:
    value: Any = config
    for part in key:
        value = value.get(part) if isinstance(value, Mapping) else None
    return value


def _from_hub(name: str, overrides: dict[str, Any]) -> ResolvedModel:
    from open_clip.pretrained import download_pretrained_from_hf

    repository = name.removeprefix(HUB_PREFIX)
    if not repository:
        raise ValueError(f"model={name!r}: say which, as in hf-hub:org/name")
    try:
        path = Path(download_pretrained_from_hf(repository, filename=CONFIG_NAME))
    except Exception as error:  # whatever the hub's client raises, offline, refused or not found
        raise ValueError(
            f"{download_failure(name, error)}. A model on the hub must be in open_clip's format: "
            f"its repository holds {CONFIG_NAME}"
        ) from error
    document = _read_config(path)
    config = document["model_cfg"]
    quick_gelu = bool(config.get("quick_gelu", "openai" in repository.rpartition("/")[2].lower()))
    base = document.get("preprocess_cfg") or {}
    return ResolvedModel(
        name, name, config, complete_preprocess(name, config, base, overrides), quick_gelu
    )


def download_failure(name: str, error: Exception) -> str:
    """Says what to do when weights or a configuration cannot be downloaded.

    Args:
        name: the model
        error: what the download raised

    Returns:
        the text for a user
    """
    return (
        f"could not download {name} ({describe(error)}). The first use of a model needs the "
        "network (huggingface.co); afterwards it is cached. Without network: bring a folder with "
        f"{CONFIG_NAME} and open_clip_model.safetensors and pass model='/that/folder', or use the "
        f"embedded model={TINY_CLIP!r} (handwritten digits only)"
    )


def _read_config(path: Path) -> dict[str, Any]:
    if not path.is_file():
        raise ValueError(
            f"model folder {path.parent}: {CONFIG_NAME} is missing; it says architecture and "
            "preprocessing"
        )
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except (UnicodeDecodeError, json.JSONDecodeError) as error:
        raise ValueError(f"{path}: not JSON ({error}); copy it again") from error
    config = document.get("model_cfg") if isinstance(document, dict) else None
    parts = ("embed_dim", "vision_cfg", "text_cfg")
    if not isinstance(config, dict) or any(part not in config for part in parts):
        raise ValueError(
            f"{path}: no 'model_cfg' with {', '.join(parts)}; is it open_clip's own file?"
        )
    return deepcopy(document)
