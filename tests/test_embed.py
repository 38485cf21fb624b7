"""Image files to stored vectors: what is computed or reused, progress, refusals."""

from __future__ import annotations

import itertools
import multiprocessing
import os
import random
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from projection import (
    COUNT,
    IDENTITY,
    Projection,
    embed_quietly,
    expected_vectors,
    make_images,
    spoil,
)

from clipcleaner_plugin.embed import embed_images
from clipcleaner_plugin.planning import cut_batches
from clipcleaner_plugin.store import EmbeddingStore


@pytest.fixture
def store(tmp_path: Path) -> EmbeddingStore:
    return EmbeddingStore("dataset", IDENTITY, tmp_path / "store")


@pytest.mark.parametrize("num_workers", [0, 2, None])
@pytest.mark.parametrize("batch_size", [1, 7, COUNT, 1000])
def test_every_id_gets_its_own_vector(
    images: tuple[list[str], list[str]],
    store: EmbeddingStore,
    num_workers: int | None,
    batch_size: int,
) -> None:
    if num_workers == 2 and batch_size == 1:
        batch_size = 2
    ids, paths = images
    order = random.Random(3).sample(range(COUNT), COUNT)
    ids, paths = [ids[i] for i in order], [paths[i] for i in order]

    report = embed_quietly(
        ids, paths, Projection(), store, batch_size=batch_size, num_workers=num_workers
    )

    assert (report.computed, report.reused, report.failures) == (COUNT, 0, {})
    assert report.computed_ids == tuple(ids)
    np.testing.assert_allclose(store.read(ids), expected_vectors(paths), atol=1e-6)


def test_workers_change_no_bit(images: tuple[list[str], list[str]], tmp_path: Path) -> None:
    vectors = []
    for number, workers in enumerate([0, 0, 1, 2]):
        store = EmbeddingStore("d", IDENTITY, tmp_path / str(number))
        embed_quietly(*images, Projection(), store, num_workers=workers, batch_size=16)
        vectors.append(store.read(images[0]).tobytes())
    assert len(set(vectors)) == 1


def test_second_call_computes_nothing(
    images: tuple[list[str], list[str]], store: EmbeddingStore
) -> None:
    embed_quietly(*images, Projection(), store)
    before = store.read(images[0]).tobytes()

    def load() -> Projection:
        raise AssertionError("the model is not needed")

    report = embed_quietly(*images, load, store)

    assert (report.computed, report.reused, report.failures) == (0, COUNT, {})
    assert store.read(images[0]).tobytes() == before
    assert len(list(store.folder.glob("*.index"))) == 1


def test_model_is_loaded_once(images: tuple[list[str], list[str]], store: EmbeddingStore) -> None:
    loaded: list[Projection] = []

    def load() -> Projection:
        loaded.append(Projection())
        return loaded[-1]

    report = embed_quietly(*images, load, store, batch_size=4)
    assert (len(loaded), report.computed) == (1, COUNT)


def test_only_changed_files_are_computed_again(tmp_path: Path, store: EmbeddingStore) -> None:
    ids, paths = make_images(tmp_path / "images", 10)
    embed_quietly(ids, paths, Projection(), store)
    old = store.read(ids)

    Image.new("RGB", (14, 14), (9, 99, 199)).save(paths[2])  # another size in bytes
    info = os.stat(paths[5])
    content = Path(paths[6]).read_bytes()  # as long as 5 in pixels, written over it with a new time
    Path(paths[5]).write_bytes(content)
    os.utime(paths[5], ns=(info.st_atime_ns, info.st_mtime_ns + 1))
    report = embed_quietly(ids, paths, Projection(), store)

    assert report.computed_ids == (ids[2], ids[5])
    assert report.reused == 8
    np.testing.assert_allclose(store.read(ids), expected_vectors(paths), atol=1e-6)
    unchanged = [i for i in range(10) if i not in (2, 5)]
    np.testing.assert_array_equal(store.read(ids)[unchanged], old[unchanged])


def test_another_file_under_a_known_id(tmp_path: Path, store: EmbeddingStore) -> None:
    ids, paths = make_images(tmp_path / "images", 3)
    embed_quietly(ids, paths, Projection(), store)
    Image.new("RGB", (30, 30), (1, 200, 3)).save(tmp_path / "other.png")
    paths[1] = str(tmp_path / "other.png")
    report = embed_quietly(ids, paths, Projection(), store)
    assert report.computed_ids == (ids[1],)
    np.testing.assert_allclose(store.read(ids), expected_vectors(paths), atol=1e-6)


def test_one_file_under_two_ids(tmp_path: Path, store: EmbeddingStore) -> None:
    _, (path,) = make_images(tmp_path / "images", 1)
    report = embed_quietly(["a", "b"], [path, path], Projection(), store)
    assert report.computed == 2
    np.testing.assert_allclose(store.read(["a", "b"]), expected_vectors([path] * 2), atol=1e-6)


def test_added_samples(images: tuple[list[str], list[str]], store: EmbeddingStore) -> None:
    ids, paths = images
    embed_quietly(ids[10:20], paths[10:20], Projection(), store)
    report = embed_quietly(ids, paths, Projection(), store, batch_size=8)
    assert (report.computed, report.reused) == (COUNT - 10, 10)
    np.testing.assert_allclose(store.read(ids), expected_vectors(paths), atol=1e-6)


def test_no_samples(store: EmbeddingStore) -> None:
    report = embed_quietly([], [], Projection(), store)
    assert (report.computed, report.reused, report.failures) == (0, 0, {})


# -- progress -------------------------------------------------------------------------------------


def test_progress_counts_samples(tmp_path: Path, store: EmbeddingStore) -> None:
    ids, paths = make_images(tmp_path / "images", 12)
    spoil(paths)  # three of five need no reading: missing, empty, a directory
    seen: list[tuple[int, int, int]] = []
    embed_quietly(
        ids,
        paths,
        Projection(),
        store,
        batch_size=4,
        progress=lambda bar: seen.append((bar.iteration, bar.total, len(store))),
    )
    assert [(done, total) for done, total, _ in seen] == [(2, 9), (6, 9), (9, 9)]
    # a step is reported when it is stored, not before
    assert [stored for _, _, stored in seen] == [2, 4, 7]


@pytest.mark.parametrize(("progress", "drawn"), [(True, True), (False, False)])
def test_progress_bar_is_drawn_on_demand(
    images: tuple[list[str], list[str]],
    store: EmbeddingStore,
    capsys: pytest.CaptureFixture[str],
    progress: bool,
    drawn: bool,
) -> None:
    embed_images(*images, Projection(), store, progress=progress)  # type: ignore[arg-type]
    assert ("/50" in capsys.readouterr().out) is drawn


@pytest.mark.parametrize("num_workers", [0, 2])
@pytest.mark.parametrize("error", [ZeroDivisionError, KeyboardInterrupt])
def test_what_progress_raises_ends_the_work_and_loses_nothing(
    images: tuple[list[str], list[str]],
    store: EmbeddingStore,
    num_workers: int,
    error: type[BaseException],
) -> None:
    def cancel(bar) -> None:  # type: ignore[no-untyped-def]
        if bar.iteration >= 16:
            raise error

    with pytest.raises(error):
        embed_quietly(
            *images, Projection(), store, batch_size=8, num_workers=num_workers, progress=cancel
        )
    assert multiprocessing.active_children() == []
    assert store.stamps().keys() == set(images[0][:16])

    model = Projection()
    report = embed_quietly(*images, model, store, batch_size=8)

    assert report.computed_ids == tuple(images[0][16:])
    assert model.batch_sizes == [8, 8, 8, 8, 2]
    whole = EmbeddingStore("whole", IDENTITY, store.folder.parents[1])
    embed_quietly(*images, Projection(), whole, batch_size=8)
    assert store.read(images[0]).tobytes() == whole.read(images[0]).tobytes()


# -- arguments ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("ids", "paths", "options", "error", "message"),
    [
        (["a"], [], {}, ValueError, "1 ids need as many filepaths, found 0"),
        (["a", "b", "a"], ["x"] * 3, {}, ValueError, "sample id 'a' occurs twice"),
        ([], [], {"batch_size": 0}, ValueError, "batch_size must be at least 1, found 0"),
        ([], [], {"batch_size": 2.5}, TypeError, "batch_size must be an integer or None"),
        ([], [], {"num_workers": -1}, ValueError, "num_workers must be at least 0, found -1"),
        ([], [], {"num_workers": True}, TypeError, "num_workers must be an integer or None"),
    ],
)
def test_arguments_are_checked(
    store: EmbeddingStore,
    ids: list[str],
    paths: list[str],
    options: dict,
    error: type[Exception],
    message: str,
) -> None:
    with pytest.raises(error, match=message):
        embed_quietly(ids, paths, Projection(), store, **options)


def test_a_store_of_another_model_is_refused(
    images: tuple[list[str], list[str]], store: EmbeddingStore
) -> None:
    with pytest.raises(ValueError, match=r"for model 'random projection \[1\]', not 'other'"):
        embed_quietly(*images, Projection(identity="other"), store)
    assert len(store) == 0


class WrongShape(Projection):
    def image_features(self, pixels: torch.Tensor) -> torch.Tensor:
        return super().image_features(pixels)[:-1]


def test_a_model_that_loses_rows_is_noticed(
    images: tuple[list[str], list[str]], store: EmbeddingStore
) -> None:
    with pytest.raises(ValueError, match=r"vectors of shape \(7, 16\) for 8 images"):
        embed_quietly(*images, WrongShape(), store, batch_size=8)
    assert len(store) == 0


@given(
    positions=st.sets(st.integers(0, 200)).map(sorted),
    batch_size=st.integers(1, 40),
    data=st.data(),
)
def test_batches_resume_where_full_ones_end(
    positions: list[int], batch_size: int, data: st.DataObject
) -> None:
    batches = cut_batches(positions, batch_size)
    assert [p for batch in batches for p in batch] == positions
    assert all(0 < len(batch) <= batch_size for batch in batches)
    # neighbours that would fit together are together, so scattered work fills its batches
    assert all(len(a) + len(b) > batch_size for a, b in itertools.pairwise(batches))
    # a run that was stopped after any number of batches goes on with the same ones
    whole = cut_batches(range(201), batch_size)
    done = data.draw(st.integers(0, len(whole)))
    rest = [p for batch in whole[done:] for p in batch]
    assert cut_batches(rest, batch_size) == whole[done:]
