"""A tiny image encoder with the surface of ClipModel, and image files for it to read."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from PIL import Image

if TYPE_CHECKING:  # spawned workers import this module where the package is not installed
    from clipcleaner_plugin.embed import EmbeddingReport
    from clipcleaner_plugin.store import EmbeddingStore

IDENTITY = "random projection [1]"
SIZE = 12
DIM = 16
COUNT = 50  # images of the fixture that embedding is tried on


class ShrinkToTensor:
    """PIL RGB → (3, 12, 12) float32; a class of a module, so that spawned workers can have it."""

    def __call__(self, image: Image.Image) -> torch.Tensor:
        small = np.array(image.resize((SIZE, SIZE)), dtype=np.float32)
        return torch.from_numpy(small).permute(2, 0, 1) / 255


class Projection:
    """Multiplies pixels with a fixed random matrix.

    Args:
        seconds (0): how long each batch takes
        identity: what the model says it is
    """

    def __init__(self, seconds: float = 0, identity: str = IDENTITY) -> None:
        self.identity = identity
        self.device = torch.device("cpu")
        self.embed_dim = DIM
        self.prepare = ShrinkToTensor()
        self.batch_sizes: list[int] = []
        self._seconds = seconds
        generator = torch.Generator().manual_seed(0)
        self._weights = torch.randn(3 * SIZE * SIZE, DIM, generator=generator)

    def image_features(self, pixels: torch.Tensor) -> torch.Tensor:
        self.batch_sizes.append(len(pixels))
        time.sleep(self._seconds)
        features = pixels.flatten(1) @ self._weights
        return features / features.norm(dim=1, keepdim=True)


def make_images(folder: Path, count: int, size: int = 14) -> tuple[list[str], list[str]]:
    """Writes images of noise; returns their ids and paths."""
    folder.mkdir(parents=True, exist_ok=True)
    ids, paths = [], []
    for number in range(count):
        pixels = np.random.default_rng(number).integers(0, 256, (size, size, 3), dtype=np.uint8)
        path = folder / f"{number:04d}.png"
        Image.fromarray(pixels).save(path)
        ids.append(f"id{number:04d}")
        paths.append(str(path))
    return ids, paths


def expected_vectors(paths: list[str]) -> np.ndarray:
    """(N, 16) float32, computed image by image without the code under test."""
    model = Projection()
    rows = []
    for path in paths:
        with Image.open(path) as image:
            rows.append(model.image_features(model.prepare(image.convert("RGB"))[None])[0])
    return torch.stack(rows).numpy()


def embed_quietly(
    ids: list[str], paths: list[str], model: Any, store: EmbeddingStore, **options: Any
) -> EmbeddingReport:
    """Embeds images without a progress bar."""
    from clipcleaner_plugin.embed import embed_images

    return embed_images(ids, paths, model, store, **{"progress": False, **options})


def spoil(paths: list[str]) -> dict[int, str]:
    """Spoils some images; returns position → a word of the reason."""
    os.remove(paths[0])
    Path(paths[3]).write_bytes(b"")
    Path(paths[4]).write_bytes(Path(paths[4]).read_bytes()[:-200])
    Path(paths[7]).write_text("no image")
    os.remove(paths[9])
    os.mkdir(paths[9])
    return {0: "no such file", 3: "empty", 4: "truncated", 7: "not an image", 9: "directory"}
