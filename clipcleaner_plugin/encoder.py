"""Encoding batches as fast as the device takes them, within its memory."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np
import torch

if TYPE_CHECKING:
    from .models import ClipModel

logger = logging.getLogger(__name__)


class Encoder:
    """Encodes batches, in smaller parts from the moment on that memory ran out.

    Args:
        model: the model
    """

    def __init__(self, model: ClipModel) -> None:
        self._model = model
        self._limit: int | None = None

    def __call__(self, pixels: torch.Tensor) -> Callable[[], np.ndarray]:
        """Starts to encode a batch of B images.

        Returns:
            a function that waits for the (B, d) float32 vectors, in whatever thread

        Raises:
            ValueError: if the model makes something of another shape
            RuntimeError: if memory runs out for a single image, or the model fails
        """
        parts: list[torch.Tensor] = []
        start = 0
        while start < len(pixels):
            part = pixels[start : start + (self._limit or len(pixels))]
            features = self._encode(part)
            if features is None:
                self._limit = len(part) // 2
                logger.warning("Out of memory: encoding %d images at a time now", self._limit)
                continue
            parts.append(features)
            start += len(part)
        return _to_host(torch.cat(parts) if len(parts) > 1 else parts[0])

    def _encode(self, pixels: torch.Tensor) -> torch.Tensor | None:
        """Encodes a batch; None if there is not enough memory, but may be for half of it."""
        try:
            features = self._model.image_features(pixels)
        except RuntimeError as err:
            if len(pixels) == 1 or not _out_of_memory(err):
                raise
        else:
            expected = (len(pixels), self._model.embed_dim)
            if features.shape != expected:
                raise ValueError(
                    f"the model made vectors of shape {tuple(features.shape)} for {len(pixels)} "
                    f"images, expected {expected}"
                )
            return features
        # Past the except block: the exception holds the tensors of the failed pass
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        return None


def _to_host(features: torch.Tensor) -> Callable[[], np.ndarray]:
    if features.device.type != "cuda":
        return lambda: features.cpu().numpy()
    # The copy is queued behind this batch, so that waiting for it is not waiting for the next one
    host = features.to("cpu", non_blocking=True)
    copied = torch.cuda.Event()
    copied.record(torch.cuda.current_stream(features.device))

    def wait() -> np.ndarray:
        copied.synchronize()
        return host.numpy()

    return wait


def _out_of_memory(err: RuntimeError) -> bool:
    # MPS raises a plain RuntimeError, "MPS backend out of memory"
    return isinstance(err, torch.cuda.OutOfMemoryError) or "out of memory" in str(err).lower()
