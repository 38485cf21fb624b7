"""The frozen CLIP: loads any open_clip model with its own preprocessing, and turns pixels and texts
into features."""

from __future__ import annotations

import contextlib
import logging
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from .checkpoints import describe, load_weights
from .model_names import TINY_CLIP
from .model_source import DEFAULT_PRETRAINED, ResolvedModel, download_failure, resolve

if TYPE_CHECKING:
    import torch
    from PIL.Image import Image

__all__ = ["TINY_CLIP", "ClipModel", "load_model", "model_identity"]

logger = logging.getLogger(__name__)


class ClipModel:
    """A frozen CLIP on a device. Made by :func:`load_model`.

    Attributes:
        identity: name of model, weights and preprocessing; see :func:`model_identity`
        device: the torch device that it computes on
        embed_dim: length d of its features
        transform: the model's own preprocessing: PIL image to (3, H, W) float32 tensor; can be
            pickled
        prepare: the part of it that decoding workers do: PIL image to (H, W, 3) uint8 tensor, the
            rest is done on the device; the whole of it where it cannot be split exactly
    """

    def __init__(
        self,
        identity: str,
        module: torch.nn.Module,
        tokenizer: Callable[[list[str]], torch.Tensor],
        transform: Callable[[Image], torch.Tensor],
        embed_dim: int,
        device: torch.device,
    ) -> None:
        import torch

        from .pixels import split_transform

        self.identity = identity
        self.device = device
        self.embed_dim = embed_dim
        self.transform = transform
        halves = split_transform(transform)
        self.prepare: Callable[[Image], torch.Tensor] = halves[0] if halves else transform
        self._normalise = halves[1] if halves else None
        self._on_cuda = device.type == "cuda"
        if self._on_cuda:
            module = module.to(memory_format=torch.channels_last)
        self._module: Any = module.to(device).eval().requires_grad_(False)
        self._tokenizer: Any = tokenizer

    def __repr__(self) -> str:
        return f"ClipModel({self.identity!r}, device={str(self.device)!r})"

    def encode_images(self, pixels: torch.Tensor) -> np.ndarray:
        """Computes image features, in half precision where the device is CUDA.

        Args:
            pixels: (B, 3, H, W) floats, images after :attr:`transform`, or a batch of what
                :attr:`prepare` makes; on any device

        Returns:
            (B, d) float32, every row of length 1

        Raises:
            ValueError: if ``pixels`` has another shape
        """
        return self.image_features(pixels).cpu().numpy()

    def image_features(self, pixels: torch.Tensor) -> torch.Tensor:
        """Starts what :meth:`encode_images` waits for.

        Args:
            pixels: as for :meth:`encode_images`

        Returns:
            (B, d) float32 on the model's device; CUDA may still be computing it

        Raises:
            ValueError: if ``pixels`` has another shape
        """
        prepared = pixels.ndim == 4 and pixels.shape[3] == 3 and not pixels.is_floating_point()
        if prepared and self._normalise is not None:
            pixels = self._normalise(pixels.to(self.device, non_blocking=self._on_cuda))
        elif pixels.ndim != 4 or pixels.shape[1] != 3:
            raise ValueError(f"pixels: expected shape (B, 3, H, W), got {tuple(pixels.shape)}")
        return self._normalised(self._module.encode_image, pixels)

    def encode_texts(self, texts: Sequence[str]) -> np.ndarray:
        """Computes text features in one forward pass; see ``text.class_text_features`` for many
        texts.

        Args:
            texts: T texts; what does not fit the model's context is cut off

        Returns:
            (T, d) float32, every row of length 1

        Raises:
            TypeError: if ``texts`` is a single string or holds something else than strings
        """
        if isinstance(texts, str) or not all(isinstance(text, str) for text in texts):
            raise TypeError(f"texts: expected a list of strings, got {texts!r}")
        if not texts:
            return np.empty((0, self.embed_dim), dtype=np.float32)
        tokens = self._tokenizer(list(texts))
        return self._normalised(self._module.encode_text, tokens).cpu().numpy()

    def _normalised(
        self, encode: Callable[[torch.Tensor], torch.Tensor], batch: torch.Tensor
    ) -> torch.Tensor:
        import torch

        if not len(batch):
            return torch.empty((0, self.embed_dim))
        half = (
            torch.autocast("cuda", dtype=torch.float16)
            if self._on_cuda
            else contextlib.nullcontext()
        )
        with torch.inference_mode(), half:
            features = encode(batch.to(self.device, non_blocking=self._on_cuda))
            return torch.nn.functional.normalize(features.float(), dim=-1)


def load_model(
    model: str | os.PathLike[str] = "ViT-B-32",
    pretrained: str | os.PathLike[str] | None = DEFAULT_PRETRAINED,
    *,
    preprocess: Mapping[str, Any] | None = None,
    device: str | torch.device | None = None,
) -> ClipModel:
    """Loads a CLIP model and the preprocessing that belongs to it.

    Weights that were trained with QuickGELU get QuickGELU, under whatever name the architecture was
    asked for. Files are read without running code from them.

    Args:
        model ("ViT-B-32"): an open_clip architecture; or "hf-hub:org/name"; or a local folder with
            open_clip_config.json and weights, or a weights file in one; or :data:`TINY_CLIP`
        pretrained ("openai"): an open_clip tag of the architecture, or a local weights file
            (.safetensors, .bin, .pt, .pth); not used where ``model`` brings its own weights
        preprocess (None): for a weights file without open_clip_config.json, how its images were
            prepared: "mean" and "std" (three numbers each, for pixels in [0, 1]), and optionally
            "size", "interpolation" ("bicubic" or "bilinear"), "resize_mode" ("shortest", "longest"
            or "squash") and "fill_color". For other models, replaces these values
        device (None): "cuda", "cuda:1", "mps", "cpu"; by default the first of cuda, mps, cpu that
            is there

    Returns:
        the model, frozen, in evaluation mode

    Raises:
        TypeError: if an argument has the wrong type
        ValueError: if the model is not known, cannot be downloaded, is damaged or unsafe, or its
            preprocessing cannot be known; the text says what to do
    """
    target = choose_device(device)
    source = resolve(model, pretrained, preprocess)
    identity = source.identity
    weights = source.weights or _download(source)
    with _without_open_clip_chatter():
        module, transform = _build(source)
        load_weights(module, weights, source.architecture)
        tokenizer = _tokenizer(source)
    logger.info("Loaded %s on %s", identity, target)
    return ClipModel(
        identity, module, tokenizer, transform, int(source.config["embed_dim"]), target
    )


def model_identity(
    model: str | os.PathLike[str] = "ViT-B-32",
    pretrained: str | os.PathLike[str] | None = DEFAULT_PRETRAINED,
    *,
    preprocess: Mapping[str, Any] | None = None,
) -> str:
    """Names a model such that equal names mean comparable features, without loading it.

    The name covers architecture, weights (the content of a local file; the tag, or the hub's name
    and configuration, otherwise), activation and preprocessing. Device and precision are not part
    of it.

    Args:
        model: as in :func:`load_model`
        pretrained: as in :func:`load_model`
        preprocess: as in :func:`load_model`

    Returns:
        ``"<readable> [<12 hex digits>]"``

    Raises:
        TypeError: as :func:`load_model`
        ValueError: as :func:`load_model`
    """
    return resolve(model, pretrained, preprocess).identity


def choose_device(device: str | torch.device | None = None) -> torch.device:
    """Finds the device to compute on.

    Args:
        device: a torch device, or None for the first of cuda, mps, cpu that is there

    Returns:
        the device

    Raises:
        ValueError: if it is no device, or not one of this machine
    """
    import torch

    here = [
        name
        for name, there in (
            ("cuda", torch.cuda.is_available()),
            ("mps", torch.backends.mps.is_available()),
            ("cpu", True),
        )
        if there
    ]
    if device is None or device == "":
        return torch.device(here[0])
    try:
        chosen = torch.device(device)
    except (RuntimeError, TypeError) as error:
        raise ValueError(
            f"device={device!r} is no torch device; this machine has {', '.join(here)}"
        ) from error
    missing = chosen.type not in here or (
        chosen.type == "cuda" and (chosen.index or 0) >= torch.cuda.device_count()
    )
    if missing:
        raise ValueError(f"device={str(device)!r} is not there; this machine has {', '.join(here)}")
    return chosen


def _download(source: ResolvedModel) -> Path:
    from open_clip import pretrained

    logger.info("Getting the weights of %s (downloaded once, then cached)", source.readable)
    try:
        if source.tag is not None:
            return Path(pretrained.download_pretrained(dict(source.tag)))
        return Path(pretrained.download_pretrained_from_hf(source.readable.partition(":")[2]))
    except Exception as error:  # whatever the hub's client raises, offline, refused or not found
        raise ValueError(download_failure(source.readable, error)) from error


def _build(source: ResolvedModel) -> tuple[torch.nn.Module, Callable[[Image], torch.Tensor]]:
    """The architecture without weights, and the validation transform that belongs to it."""
    import open_clip
    from open_clip.transform import PreprocessCfg, image_transform_v2

    size = source.preprocess["size"]
    own_size = source.config["vision_cfg"].get("image_size", 224)
    try:
        module = open_clip.create_model(
            source.architecture,
            load_weights=False,
            pretrained_text=False,
            force_quick_gelu=source.quick_gelu,
            force_image_size=None if size == own_size else size,
            force_preprocess_cfg=source.preprocess,
        )
    except (ImportError, KeyError, OSError, RuntimeError, TypeError, ValueError) as error:
        raise ValueError(
            f"could not build {source.readable} ({describe(error)}); if its text tower comes from "
            "the Hugging Face hub, the network is needed once"
        ) from error
    return module, image_transform_v2(PreprocessCfg(**source.preprocess), is_train=False)


def _tokenizer(source: ResolvedModel) -> Callable[[list[str]], torch.Tensor]:
    import open_clip

    try:
        return open_clip.get_tokenizer(source.architecture)
    except (ImportError, OSError, RuntimeError, ValueError) as error:
        raise ValueError(
            f"could not get the tokenizer of {source.readable} ({describe(error)}); tokenizers "
            "from the Hugging Face hub need the network once"
        ) from error


@contextlib.contextmanager
def _without_open_clip_chatter() -> Iterator[None]:
    """open_clip configures the root logger, and warns of random weights before we load them."""

    def from_elsewhere(record: logging.LogRecord) -> bool:
        return record.levelno >= logging.ERROR or "open_clip" not in Path(record.pathname).parts

    root, silent = logging.getLogger(), logging.NullHandler()
    root.addHandler(silent)
    root.addFilter(from_elsewhere)
    try:
        yield
    finally:
        root.removeFilter(from_elsewhere)
        root.removeHandler(silent)
