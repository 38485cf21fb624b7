"""What goes wrong while embedding costs little: bad images, dead workers, full memory."""

from __future__ import annotations

import multiprocessing
import os
import signal
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from projection import (
    COUNT,
    DIM,
    IDENTITY,
    Projection,
    ShrinkToTensor,
    embed_quietly,
    expected_vectors,
    make_images,
    spoil,
)

from clipcleaner_plugin.images import ImageReadError
from clipcleaner_plugin.store import EmbeddingStore


@pytest.fixture
def store(tmp_path: Path) -> EmbeddingStore:
    return EmbeddingStore("dataset", IDENTITY, tmp_path / "store")


@pytest.mark.parametrize("num_workers", [0, 2])
@pytest.mark.parametrize("batch_size", [1, 4, 12])
def test_one_bad_image_costs_one_sample(
    tmp_path: Path, store: EmbeddingStore, num_workers: int, batch_size: int
) -> None:
    ids, paths = make_images(tmp_path / "images", 12)
    bad = spoil(paths)
    good = [i for i in range(12) if i not in bad]

    for computed, reused in ((7, 0), (0, 7)):
        report = embed_quietly(
            ids, paths, Projection(), store, num_workers=num_workers, batch_size=batch_size
        )
        assert (report.computed, report.reused) == (computed, reused)
        assert list(report.failures) == [ids[i] for i in bad]
        for position, word in bad.items():
            reason = report.failures[ids[position]]
            assert reason.startswith(f"{paths[position]}: ") and word in reason

    found = store.read(ids)
    assert np.isnan(found[list(bad)]).all()
    np.testing.assert_allclose(found[good], expected_vectors([paths[i] for i in good]), atol=1e-6)


def test_a_repaired_image_is_computed_by_the_next_call(
    tmp_path: Path, store: EmbeddingStore
) -> None:
    ids, paths = make_images(tmp_path / "images", 12)
    good = Path(paths[7]).read_bytes()
    spoil(paths)
    embed_quietly(ids, paths, Projection(), store)
    Path(paths[7]).write_bytes(good)
    report = embed_quietly(ids, paths, Projection(), store)
    assert (report.computed_ids, len(report.failures)) == ((ids[7],), 4)


@pytest.mark.parametrize("num_workers", [0, 2])
@pytest.mark.parametrize("content", [b"", b"no image"])
def test_skip_failures_false_names_sample_and_path(
    tmp_path: Path, store: EmbeddingStore, num_workers: int, content: bytes
) -> None:
    ids, paths = make_images(tmp_path / "images", 12)
    Path(paths[6]).write_bytes(content)
    with pytest.raises(ImageReadError) as caught:
        embed_quietly(
            ids,
            paths,
            Projection(),
            store,
            skip_failures=False,
            batch_size=4,
            num_workers=num_workers,
        )
    assert str(caught.value).startswith(f"sample {ids[6]}: {paths[6]}: ")
    assert multiprocessing.active_children() == []
    # an empty file is found before any work; the others by reading, in order
    assert set(ids[:4] if content else []) <= store.stamps().keys() <= set(ids[:6] + ids[7:8])


def test_failures_alone_need_no_model(tmp_path: Path, store: EmbeddingStore) -> None:
    def load() -> Projection:
        raise AssertionError("nothing to compute")

    report = embed_quietly(["a"], [str(tmp_path / "none.png")], load, store)
    assert list(report.failures) == ["a"]
    assert not store.folder.exists()


class NotANumber(Projection):
    """Fails on one image by numbers, as half precision does."""

    def image_features(self, pixels: torch.Tensor) -> torch.Tensor:
        vectors = super().image_features(pixels)
        for row, image in enumerate(pixels):
            if image.min() == image.max():
                vectors[row, row % DIM] = np.nan if image.max() else np.inf
        return vectors


def test_vectors_that_are_no_numbers(tmp_path: Path, store: EmbeddingStore) -> None:
    ids, paths = make_images(tmp_path / "images", 8)
    Image.new("RGB", (9, 9), "black").save(paths[2])
    Image.new("RGB", (9, 9), "white").save(paths[5])
    report = embed_quietly(ids, paths, NotANumber(), store)
    assert report.computed == 6
    assert report.failures.keys() == {ids[2], ids[5]}
    assert "NaN or infinite" in report.failures[ids[2]]
    with pytest.raises(ImageReadError, match=f"sample {ids[2]}: .*NaN or infinite"):
        embed_quietly(ids, paths, NotANumber(), store, skip_failures=False)


class BreaksOnRed(ShrinkToTensor):
    def __call__(self, image: Image.Image) -> torch.Tensor:
        if image.getpixel((0, 0)) == (255, 0, 0):
            raise RuntimeError("too red")
        return super().__call__(image)


@pytest.mark.parametrize("num_workers", [0, 2])
def test_preprocessing_that_fails(tmp_path: Path, store: EmbeddingStore, num_workers: int) -> None:
    ids, paths = make_images(tmp_path / "images", 4)
    Image.new("RGB", (9, 9), "red").save(paths[1])
    model = Projection()
    model.prepare = BreaksOnRed()
    report = embed_quietly(ids, paths, model, store, num_workers=num_workers, batch_size=2)
    assert report.computed == 3
    assert "could not be prepared for the model: RuntimeError: too red" in report.failures[ids[1]]


class DiesOnRed(ShrinkToTensor):
    def __call__(self, image: Image.Image) -> torch.Tensor:
        if image.getpixel((0, 0)) == (255, 0, 0):
            os.kill(os.getpid(), signal.SIGKILL)
        return super().__call__(image)


def test_a_killed_worker_ends_the_call_and_loses_nothing(
    tmp_path: Path, store: EmbeddingStore
) -> None:
    """What the kernel does to a worker when memory runs out."""
    ids, paths = make_images(tmp_path / "images", 40)
    Image.new("RGB", (9, 9), "red").save(paths[35])
    model = Projection()
    model.prepare = DiesOnRed()
    done: list[int] = []
    with pytest.raises(RuntimeError, match="worker"):
        embed_quietly(
            ids,
            paths,
            model,
            store,
            num_workers=1,
            batch_size=5,
            progress=lambda bar: done.append(bar.iteration),
        )
    assert multiprocessing.active_children() == []
    # batch 8 kills; it is not handed out before batch 5 is back. The news may come at any moment.
    assert done[-1] >= 25 and len(store) in (done[-1], done[-1] + 5)
    report = embed_quietly(ids, paths, Projection(), store, num_workers=0)
    assert report.reused + report.computed == 40 and report.reused >= done[-1]


# -- memory of the device -------------------------------------------------------------------------


class LittleMemory(Projection):
    """Runs out of memory above a number of images."""

    def __init__(self, limit: int, error: Callable[[], RuntimeError]) -> None:
        super().__init__()
        self._limit, self._error = limit, error

    def image_features(self, pixels: torch.Tensor) -> torch.Tensor:
        if len(pixels) > self._limit:
            self.batch_sizes.append(-len(pixels))
            raise self._error()
        return super().image_features(pixels)


def cuda_error() -> RuntimeError:
    return torch.cuda.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB")


def mps_error() -> RuntimeError:
    return RuntimeError("MPS backend out of memory (MPS allocated: 9.00 GB)")


@pytest.mark.parametrize("error", [cuda_error, mps_error])
def test_out_of_memory_halves_the_batch(
    images: tuple[list[str], list[str]], store: EmbeddingStore, error: Callable[[], RuntimeError]
) -> None:
    ids, paths = images
    model = LittleMemory(5, error)
    report = embed_quietly(ids, paths, model, store, batch_size=20)
    assert report.computed == COUNT
    # 20 → 10 → 5 fits, and stays
    assert model.batch_sizes == [-20, -10, *[5] * 10]
    np.testing.assert_allclose(store.read(ids), expected_vectors(paths), atol=1e-6)


def test_out_of_memory_for_one_image(
    images: tuple[list[str], list[str]], store: EmbeddingStore
) -> None:
    model = LittleMemory(0, cuda_error)
    with pytest.raises(torch.cuda.OutOfMemoryError):
        embed_quietly(*images, model, store, batch_size=8)
    assert model.batch_sizes == [-8, -4, -2, -1]


def test_other_errors_of_the_model_are_not_swallowed(
    images: tuple[list[str], list[str]], store: EmbeddingStore
) -> None:
    model = LittleMemory(5, lambda: RuntimeError("shapes cannot be multiplied"))
    with pytest.raises(RuntimeError, match="shapes cannot be multiplied"):
        embed_quietly(*images, model, store, batch_size=8)
    assert model.batch_sizes == [-8]
