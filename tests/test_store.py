"""The embedding store: round trips, torn and flipped bytes, full disks, writers at once."""

from __future__ import annotations

import json
import logging
import multiprocessing
import os
import resource
import shutil
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from clipcleaner_plugin.store import EmbeddingStore, store_root

DIM = 5


def vectors_of(ids: Iterable[str], version: int = 0, dim: int = DIM) -> np.ndarray:
    """(N, dim) float32 that differ between ids and versions."""
    rows = [
        np.random.default_rng([version, *i.encode("utf-8", "surrogatepass")]).normal(size=dim)
        for i in ids
    ]
    return np.array(rows, dtype=np.float32).reshape(-1, dim)


def stamps_of(ids: Iterable[str], version: int = 0) -> list[tuple[int, int]]:
    return [(len(i) + version, 1_700_000_000_000_000_000 + version) for i in ids]


def fill(store: EmbeddingStore, batches: list[list[str]], version: int = 0) -> None:
    with store.writer() as writer:
        for ids in batches:
            writer.append(ids, stamps_of(ids, version), vectors_of(ids, version))


def names(count: int, start: int = 0) -> list[str]:
    return [f"sample{i}" for i in range(start, start + count)]


@pytest.fixture
def store(tmp_path: Path) -> EmbeddingStore:
    return EmbeddingStore("dataset", "model [1]", tmp_path)


def again(store: EmbeddingStore) -> EmbeddingStore:
    """The same store as another process sees it."""
    return EmbeddingStore(store.dataset_id, store.identity, store.folder.parents[1])


def test_round_trip(store: EmbeddingStore) -> None:
    ids = names(7)
    fill(store, [ids[:4], ids[4:]])
    for reader in (store, again(store)):
        found = reader.read(ids)
        assert found.dtype == np.float32
        np.testing.assert_array_equal(found, vectors_of(ids))
        assert reader.stamps() == dict(zip(ids, stamps_of(ids), strict=True))
        assert (reader.dim, len(reader)) == (DIM, 7)


def test_missing_ids_are_nan_and_repeated_ids_repeat(store: EmbeddingStore) -> None:
    fill(store, [["a", "b"]])
    found = store.read(["b", "?", "b", "a"])
    np.testing.assert_array_equal(found[[0, 2, 3]], vectors_of(["b", "b", "a"]))
    assert np.isnan(found[1]).all()


def test_empty_store(store: EmbeddingStore) -> None:
    assert store.read(["a", "b"]).shape == (2, 0)
    assert (store.dim, len(store), store.stamps()) == (None, 0, {})
    with store.writer() as writer:
        writer.append([], [], np.empty((0, DIM)))
    assert not store.folder.exists()


def test_reading_nothing(store: EmbeddingStore) -> None:
    fill(store, [["a"]])
    assert store.read([]).shape == (0, DIM)


def test_float64_is_stored_as_float32(store: EmbeddingStore) -> None:
    with store.writer() as writer:
        writer.append(["a"], [(1, 2)], np.array([[0.1, 0.2]]))
    np.testing.assert_array_equal(store.read(["a"]), np.array([[0.1, 0.2]], dtype=np.float32))


def test_strided_and_fortran_arrays(store: EmbeddingStore) -> None:
    wide = np.asfortranarray(vectors_of(names(4), dim=2 * DIM))
    with store.writer() as writer:
        writer.append(names(4), stamps_of(names(4)), wide[:, ::2])
    np.testing.assert_array_equal(store.read(names(4)), wide[:, ::2])


def test_the_latest_segment_counts(store: EmbeddingStore) -> None:
    fill(store, [["a", "b"], ["c"]], version=0)
    fill(store, [["b"]], version=1)
    fill(store, [["c"], ["c"]], version=2)
    np.testing.assert_array_equal(
        store.read(["a", "b", "c"]),
        np.concatenate([vectors_of(i, v) for i, v in (("a", 0), ("b", 1), ("c", 2))]),
    )
    assert store.stamps()["b"] == stamps_of(["b"], 1)[0]
    assert len(store) == 3


def test_the_latest_segment_counts_also_when_an_earlier_one_grows(store: EmbeddingStore) -> None:
    with store.writer() as early, store.writer() as late:
        early.append(["a"], stamps_of("a", 0), vectors_of("a", 0))
        late.append(["b"], stamps_of("b", 1), vectors_of("b", 1))
        assert len(store) == 2
        early.append(["b"], stamps_of("b", 2), vectors_of("b", 2))
        for reader in (store, again(store)):
            np.testing.assert_array_equal(reader.read(["b"]), vectors_of("b", 1))


def test_a_reader_sees_what_was_appended_since(store: EmbeddingStore) -> None:
    reader = again(store)
    assert len(reader) == 0
    with store.writer() as writer:
        for count, id_ in enumerate("abc", 1):
            writer.append([id_], stamps_of([id_]), vectors_of([id_]))
            assert len(reader) == count
            np.testing.assert_array_equal(reader.read([id_]), vectors_of([id_]))


def test_many_rows_in_any_order(store: EmbeddingStore) -> None:
    ids = names(40_000)
    vectors = np.random.default_rng(0).normal(size=(len(ids), 3)).astype(np.float32)
    for part in (slice(0, 25_000), slice(25_000, None)):
        with store.writer() as writer:
            writer.append(ids[part], stamps_of(ids[part]), vectors[part])
    order = np.random.default_rng(1).permutation(len(ids))
    np.testing.assert_array_equal(store.read([ids[i] for i in order]), vectors[order])


ids_strategy = st.text(min_size=1, max_size=6)
batches_strategy = st.lists(
    st.lists(st.lists(ids_strategy, max_size=4), max_size=3), min_size=1, max_size=4
)


@settings(max_examples=35, deadline=None)
@given(writers=batches_strategy, data=st.data())
def test_round_trip_of_anything(
    tmp_path_factory: pytest.TempPathFactory, writers: list[list[list[str]]], data: st.DataObject
) -> None:
    """Batches of any ids, with repetitions, against a dict."""
    store = EmbeddingStore("d", "m", tmp_path_factory.mktemp("any"))
    expected: dict[str, np.ndarray] = {}
    for version, batches in enumerate(writers):
        fill(store, batches, version)
        for ids in batches:
            expected.update(zip(ids, vectors_of(ids, version), strict=True))
    asked = data.draw(st.permutations([*expected, "never written"]))
    for reader in (store, again(store)):
        assert reader.stamps().keys() == expected.keys()
        found = reader.read(asked)
        for id_, vector in zip(asked, found, strict=True):
            if id_ in expected:
                np.testing.assert_array_equal(vector, expected[id_])
            else:
                assert np.isnan(vector).all()


# -- damage ---------------------------------------------------------------------------------------


BATCHES = [names(3), names(2, 3), names(4, 5)]
ALL_IDS = [i for batch in BATCHES for i in batch]


def files(store: EmbeddingStore, suffix: str) -> list[Path]:
    return sorted(store.folder.glob(f"*{suffix}"))


def check_no_wrong_vector(store: EmbeddingStore, versions: Iterable[int] = (0,)) -> set[str]:
    """Every id has one of its own vectors or none; returns the ids that have one."""
    reader = again(store)
    found = reader.read(ALL_IDS)
    stored = set()
    for id_, vector in zip(ALL_IDS, found, strict=True):
        if found.shape[1] and not np.isnan(vector).any():
            assert any((vector == vectors_of([id_], v)[0]).all() for v in versions)
            stored.add(id_)
    assert stored == reader.stamps().keys()
    return stored


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


@settings(
    max_examples=80, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
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
        process.join(60)
        assert process.exitcode == 0
    store = EmbeddingStore("d", "m", tmp_path)
    assert len(store) == 4 * 15 * 8 + 1
    for worker in range(4):
        ids = [f"w{worker}b{b}i{i}" for b in range(15) for i in range(8)]
        np.testing.assert_array_equal(store.read(ids), vectors_of(ids, worker))
    shared = store.read(["shared"])[0]
    assert any((shared == vectors_of(["shared"], w)[0]).all() for w in range(4))
    assert not list(store.folder.glob("meta.json.*"))


# -- identity, versions, folders ------------------------------------------------------------------


def test_datasets_and_models_have_folders_of_their_own(tmp_path: Path) -> None:
    stores = [EmbeddingStore(d, m, tmp_path) for d in ("d1", "d2") for m in ("m1", "m2")]
    for version, store in enumerate(stores):
        fill(store, BATCHES, version)
    assert len({store.folder for store in stores}) == 4
    for version, store in enumerate(stores):
        np.testing.assert_array_equal(again(store).read(ALL_IDS), vectors_of(ALL_IDS, version))


def test_a_folder_of_another_model_is_refused(store: EmbeddingStore, tmp_path: Path) -> None:
    fill(store, BATCHES)
    other = EmbeddingStore("dataset", "model [2]", tmp_path)
    shutil.copytree(store.folder, other.folder)
    with pytest.raises(ValueError, match=r"identity 'model \[1\]', not to 'model \[2\]'"):
        EmbeddingStore("dataset", "model [2]", tmp_path)


def test_a_folder_of_another_dataset_is_refused(store: EmbeddingStore, tmp_path: Path) -> None:
    fill(store, BATCHES)
    shutil.copytree(store.folder.parent, tmp_path / "copy")
    with pytest.raises(ValueError, match="belongs to dataset_id 'dataset', not to 'copy'"):
        EmbeddingStore("copy", "model [1]", tmp_path)


def test_a_newer_format_is_refused(store: EmbeddingStore) -> None:
    fill(store, BATCHES)
    path = store.folder / "meta.json"
    meta = json.loads(path.read_text())
    assert meta == {"format": 1, "dataset_id": "dataset", "identity": "model [1]", "dim": DIM}
    path.write_text(json.dumps({**meta, "format": 2}))
    with pytest.raises(ValueError, match="store format 2, this version reads 1; upgrade"):
        again(store)


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", '{"format": 1}', '{"format": 1, "dim": 0}'])
def test_a_damaged_meta_file_is_refused(store: EmbeddingStore, text: str) -> None:
    fill(store, BATCHES)
    path = store.folder / "meta.json"
    path.write_text(text)
    with pytest.raises(ValueError, match=r"delete the folder"):
        again(store)


@pytest.mark.parametrize(
    "dataset_id",
    [
        "..",
        ".",
        "../up",
        "/etc",
        "a/b",
        "a\\b",
        "C:",
        "nul\0",
        "ü",
        "x" * 300,
        " ",
        "-rf",
        "\ud800",
    ],
)
def test_no_dataset_id_leaves_the_root(tmp_path: Path, dataset_id: str) -> None:
    root = tmp_path / "root"
    store = EmbeddingStore(dataset_id, "m", root)
    assert store.folder.parents[1] == root
    assert store.folder.parent.name.strip(".- ")
    fill(store, BATCHES)
    assert check_no_wrong_vector(store) == set(ALL_IDS)
    assert [p.name for p in tmp_path.iterdir()] == ["root"]


def test_similar_dataset_ids_do_not_meet(tmp_path: Path) -> None:
    ids = ["a/b", "a\\b", "a_b", "a b", "a//b", "65f0c0ffee65f0c0ffee65f0"]
    assert len({EmbeddingStore(i, "m", tmp_path).folder for i in ids}) == len(ids)


@pytest.mark.parametrize("value", ["", None, 5])
def test_names_must_be_text(tmp_path: Path, value: object) -> None:
    with pytest.raises(TypeError, match="dataset_id must be a non-empty string"):
        EmbeddingStore(value, "m", tmp_path)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="identity must be a non-empty string"):
        EmbeddingStore("d", value, tmp_path)  # type: ignore[arg-type]


def test_root_from_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("CLIPCLEANER_STORE_DIR", "~/vectors")
    assert store_root() == tmp_path / "home" / "vectors"
    assert EmbeddingStore("d", "m").folder.parents[1] == store_root()
    monkeypatch.delenv("CLIPCLEANER_STORE_DIR")
    assert store_root() == tmp_path / "home" / ".fiftyone" / "clipcleaner" / "embeddings"


def test_relative_root_survives_a_change_of_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    store = EmbeddingStore("d", "m", "here")
    monkeypatch.chdir("/")
    fill(store, BATCHES)
    assert (tmp_path / "here" / "d").is_dir()


def test_delete_removes_its_own_files_only(tmp_path: Path) -> None:
    mine, same_data, other = (
        EmbeddingStore(d, m, tmp_path) for d, m in (("d", "1"), ("d", "2"), ("e", "1"))
    )
    for store in (mine, same_data, other):
        fill(store, BATCHES)
    mine.delete()
    assert not mine.folder.exists()
    assert (len(mine), mine.dim, mine.read(["a"]).shape) == (0, None, (1, 0))
    for store in (same_data, other):
        assert check_no_wrong_vector(store) == set(ALL_IDS)
    same_data.delete()
    assert not same_data.folder.parent.exists()
    same_data.delete()  # nothing there any more
    assert check_no_wrong_vector(other) == set(ALL_IDS)


def test_delete_leaves_foreign_files(store: EmbeddingStore) -> None:
    fill(store, BATCHES)
    note = store.folder / "notes.index"
    note.write_text("mine")
    store.delete()
    assert [p.name for p in store.folder.iterdir()] == ["notes.index"]


def test_a_store_made_anew_elsewhere_is_noticed(store: EmbeddingStore) -> None:
    fill(store, BATCHES)
    assert len(store) == 9
    other = again(store)
    other.delete()
    assert (len(store), store.dim) == (0, None)
    ids = names(4)
    with again(store).writer() as writer:
        writer.append(ids, stamps_of(ids), vectors_of(ids, 3, dim=2))
    assert store.dim == 2
    np.testing.assert_array_equal(store.read(ids), vectors_of(ids, 3, dim=2))
    fill_dim = again(store)
    fill_dim.delete()
    fill(store, BATCHES)  # the folder vanished under a writer-to-be
    assert check_no_wrong_vector(store) == set(ALL_IDS)


# -- counts for a form ----------------------------------------------------------------------------


def test_ids_are_listed_without_looking_at_vectors(store: EmbeddingStore) -> None:
    assert (store.rows(), store.listed_ids()) == (0, set())
    fill(store, BATCHES)
    fill(store, [BATCHES[1]], version=1)
    assert store.rows() == len(ALL_IDS) + len(BATCHES[1])
    assert store.listed_ids() == set(ALL_IDS) == again(store).listed_ids()
    index, vectors = files(store, ".index")[0], files(store, ".vectors")[0]
    content = bytearray(vectors.read_bytes())
    content[0] ^= 1
    vectors.write_bytes(content)
    assert store.listed_ids() == set(ALL_IDS)  # where stamps() misses a batch
    assert again(store).stamps().keys() == set(BATCHES[1] + BATCHES[2])
    os.truncate(index, index.stat().st_size - 3)
    assert store.listed_ids() == set(BATCHES[0] + BATCHES[1])
