"""The embedding store under damage: torn and flipped bytes, full disks, writers at once."""

from __future__ import annotations

import logging
import multiprocessing
import os
import resource
import shutil
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from small_stores import (
    ALL_IDS,
    BATCHES,
    DIM,
    again,
    check_no_wrong_vector,
    files,
    fill,
    stamps_of,
    vectors_of,
)

from clipcleaner_plugin.store import EmbeddingStore


@pytest.fixture
def store(tmp_path: Path) -> EmbeddingStore:
    return EmbeddingStore("dataset", "model [1]", tmp_path)


@pytest.mark.parametrize("suffix", [".index", ".vectors"])
def test_a_file_cut_anywhere_keeps_the_batches_before(tmp_path: Path, suffix: str) -> None:
    store = EmbeddingStore("d", "m", tmp_path / "whole")
    fill(store, BATCHES)
    (path,) = files(store, suffix)
    content = path.read_bytes()
    if suffix == ".vectors":
        ends = np.cumsum([len(b) * DIM * 4 for b in BATCHES])
    else:
        ends = np.cumsum([len(line) for line in content.splitlines(keepends=True)])
    for length in range(0, len(content), 1 if suffix == ".vectors" else 7):
        path.write_bytes(content[:length])
        complete = int((ends <= length).sum())
        expected = {i for batch in BATCHES[:complete] for i in batch}
        assert check_no_wrong_vector(store) == expected


@pytest.mark.parametrize("suffix", [".index", ".vectors"])
def test_writing_goes_on_after_a_torn_tail(store: EmbeddingStore, suffix: str) -> None:
    fill(store, BATCHES)
    (path,) = files(store, suffix)
    os.truncate(path, path.stat().st_size - 3)
    torn = path.read_bytes()
    assert check_no_wrong_vector(store) == set(BATCHES[0] + BATCHES[1])
    fill(again(store), [BATCHES[2]])
    assert check_no_wrong_vector(store) == set(ALL_IDS)
    assert path.read_bytes() == torn


def test_a_torn_line_becomes_visible_once_whole(store: EmbeddingStore) -> None:
    """What a reader sees that looks while a line is being written."""
    fill(store, BATCHES)
    (path,) = files(store, ".index")
    content = path.read_bytes()
    path.write_bytes(content[:-10])
    reader = again(store)
    assert len(reader) == 5
    path.write_bytes(content)
    assert len(reader) == 9
    np.testing.assert_array_equal(reader.read(ALL_IDS), vectors_of(ALL_IDS))


def test_zeros_behind_the_end_are_a_torn_tail(store: EmbeddingStore) -> None:
    """What file systems leave after a power cut: the length is there, the bytes are not."""
    fill(store, BATCHES)
    for suffix in (".index", ".vectors"):
        (path,) = files(store, suffix)
        os.truncate(path, path.stat().st_size + 4096)
    assert check_no_wrong_vector(store) == set(ALL_IDS)


@pytest.fixture(scope="module")
def two_segments(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("two")
    store = EmbeddingStore("d", "m", root)
    fill(store, BATCHES, version=0)
    fill(store, [BATCHES[1]], version=1)
    return root


@settings(max_examples=80, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    suffix=st.sampled_from([".index", ".vectors"]),
    place=st.floats(0, 1, exclude_max=True),
    bit=st.integers(0, 7),
    segment=st.integers(0, 1),
)
def test_a_flipped_bit_costs_its_batch_at_most(
    two_segments: Path, tmp_path: Path, suffix: str, place: float, bit: int, segment: int
) -> None:
    root = tmp_path / "copy"
    shutil.rmtree(root, ignore_errors=True)
    shutil.copytree(two_segments, root)
    store = EmbeddingStore("d", "m", root)
    path = files(store, suffix)[segment]
    content = bytearray(path.read_bytes())
    content[int(place * len(content))] ^= 1 << bit
    path.write_bytes(content)

    stored = check_no_wrong_vector(store, versions=(0, 1))

    # a newline that is lost or won takes two lines with it; what segment 2 holds is also in 1
    assert len(stored) >= (2 if segment == 0 else 9)
    fill(again(store), [ALL_IDS], version=2)
    assert check_no_wrong_vector(store, versions=(2,)) == set(ALL_IDS)


def test_a_damaged_batch_is_logged_once(
    store: EmbeddingStore, caplog: pytest.LogCaptureFixture
) -> None:
    fill(store, BATCHES)
    (path,) = files(store, ".vectors")
    content = bytearray(path.read_bytes())
    content[1] ^= 4
    path.write_bytes(content)
    reader = again(store)
    with caplog.at_level(logging.WARNING):
        assert reader.stamps().keys() == set(BATCHES[1] + BATCHES[2])
        assert np.isnan(reader.read(BATCHES[0])).all()
    (record,) = caplog.records
    assert "checksum of the vectors" in record.getMessage()
    assert str(path.with_suffix("")) in record.getMessage()


def test_a_torn_tail_is_not_worth_a_warning(
    store: EmbeddingStore, caplog: pytest.LogCaptureFixture
) -> None:
    fill(store, BATCHES)
    (path,) = files(store, ".index")
    os.truncate(path, path.stat().st_size - 5)
    assert len(again(store)) == 5
    assert caplog.records == []


def test_missing_vector_file(store: EmbeddingStore) -> None:
    fill(store, BATCHES[:1])
    fill(store, BATCHES[1:])
    files(store, ".vectors")[0].unlink()
    assert check_no_wrong_vector(store) == set(BATCHES[1] + BATCHES[2])


def test_batches_of_another_length_are_ignored(store: EmbeddingStore, tmp_path: Path) -> None:
    fill(store, BATCHES[:1])
    other = EmbeddingStore("other", "model [1]", tmp_path)
    with other.writer() as writer:
        writer.append(["z"], [(1, 1)], np.ones((1, 3)))
    for path in [*files(other, ".index"), *files(other, ".vectors")]:
        shutil.copy(path, store.folder / path.name.replace("000001", "000007"))
    assert again(store).stamps().keys() == set(BATCHES[0])


# -- failing writes -------------------------------------------------------------------------------


def test_full_disk_keeps_earlier_batches(store: EmbeddingStore) -> None:
    """A limit on the size of files stands in for the disk: the kernel cuts the write short."""
    big = {f"big{i}": np.full((1, 20_000), i, dtype=np.float32) for i in range(4)}
    _, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    with store.writer() as writer:
        resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, hard))
        try:
            writer.append(["big0"], [(1, 1)], big["big0"])
            writer.append(["big1"], [(1, 1)], big["big1"])
            with pytest.raises(OSError, match="earlier batches are safe: make room") as caught:
                writer.append(["big2"], [(1, 1)], big["big2"])
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))
        assert str(store.folder) in str(caught.value)
        assert files(store, ".vectors")[0].stat().st_size == 200_000  # truly cut inside a row
        with pytest.raises(OSError, match="open a new writer"):
            writer.append(["big3"], [(1, 1)], big["big3"])
    assert again(store).stamps().keys() == {"big0", "big1"}
    with store.writer() as writer:
        writer.append(["big2"], [(1, 1)], big["big2"])
    np.testing.assert_array_equal(
        again(store).read(["big2", "big1", "big0"]), np.vstack([big[f"big{i}"] for i in (2, 1, 0)])
    )


def test_interrupt_inside_a_batch(store: EmbeddingStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ctrl-C between the vectors and their index line: the batch is missing, the rest is whole."""
    with store.writer() as writer:
        writer.append(BATCHES[0], stamps_of(BATCHES[0]), vectors_of(BATCHES[0]))
        with monkeypatch.context() as patch:
            patch.setattr(os, "fsync", _interrupt)
            with pytest.raises(KeyboardInterrupt):
                writer.append(BATCHES[1], stamps_of(BATCHES[1]), vectors_of(BATCHES[1]))
        with pytest.raises(OSError, match="open a new writer"):
            writer.append(BATCHES[2], stamps_of(BATCHES[2]), vectors_of(BATCHES[2]))
    assert check_no_wrong_vector(store) == set(BATCHES[0])


def _interrupt(_: int) -> None:
    raise KeyboardInterrupt


def test_every_batch_is_synced_vectors_first(
    store: EmbeddingStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced: list[str] = []
    real = os.fsync

    def spy(descriptor: int) -> None:
        synced.append(Path(os.readlink(f"/proc/self/fd/{descriptor}")).suffix)
        real(descriptor)

    with store.writer() as writer:
        writer.append(["a"], stamps_of("a"), vectors_of("a"))
        monkeypatch.setattr(os, "fsync", spy)
        for id_ in "bc":
            writer.append([id_], stamps_of(id_), vectors_of(id_))
            assert synced == [".vectors", ".index"]
            synced.clear()


@pytest.mark.parametrize(
    ("ids", "stamps", "vectors", "message"),
    [
        (["a"], [(1, 1)], np.zeros(3), r"need vectors of shape \(1, d\), found \(3,\)"),
        (["a", "b"], [(1, 1)], np.zeros((2, 3)), "2 ids and 1 stamps"),
        (["a"], [(1, 1)], np.zeros((2, 3)), r"found \(2, 3\)"),
        (["a", "b"], [(1, 1)] * 2, np.array([[0.0], [np.nan]]), "sample b holds NaN"),
        (["a", "b"], [(1, 1)] * 2, np.array([[np.inf], [0.0]]), "sample a holds NaN or infinite"),
        (["a"], [(1, 1)], np.array([[1e39]]), "sample a holds NaN or infinite"),
    ],
)
def test_append_refuses(
    store: EmbeddingStore, ids: list, stamps: list, vectors: np.ndarray, message: str
) -> None:
    with store.writer() as writer, pytest.raises(ValueError, match=message):
        writer.append(ids, stamps, vectors)
    assert len(store) == 0


def test_append_refuses_vectors_of_another_length(store: EmbeddingStore) -> None:
    fill(store, BATCHES)
    with (
        store.writer() as writer,
        pytest.raises(ValueError, match="holds vectors of length 5, found 6: not the same model"),
    ):
        writer.append(["z"], [(1, 1)], np.ones((1, 6)))
    assert check_no_wrong_vector(store) == set(ALL_IDS)


# -- several at once ------------------------------------------------------------------------------


def _write_many(root: Path, worker: int, start: multiprocessing.Barrier) -> None:  # type: ignore[name-defined]
    store = EmbeddingStore("d", "m", root)
    start.wait()
    fill(store, [[f"w{worker}b{b}i{i}" for i in range(8)] + ["shared"] for b in range(15)], worker)


def test_writers_at_once(tmp_path: Path) -> None:
    context = multiprocessing.get_context("fork")
    start = context.Barrier(4)
    processes = [context.Process(target=_write_many, args=(tmp_path, w, start)) for w in range(4)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
        assert process.exitcode == 0
    store = EmbeddingStore("d", "m", tmp_path)
    assert len(store) == 4 * 15 * 8 + 1
    for worker in range(4):
        ids = [f"w{worker}b{b}i{i}" for b in range(15) for i in range(8)]
        np.testing.assert_array_equal(store.read(ids), vectors_of(ids, worker))
    shared = store.read(["shared"])[0]
    assert any((shared == vectors_of(["shared"], w)[0]).all() for w in range(4))
    assert not list(store.folder.glob("meta.json.*"))
