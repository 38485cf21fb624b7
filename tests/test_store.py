"""The embedding store: round trips, folders, names, deletion."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from small_stores import (
    ALL_IDS,
    BATCHES,
    DIM,
    again,
    check_no_wrong_vector,
    files,
    fill,
    names,
    stamps_of,
    vectors_of,
)

from clipcleaner_plugin.store import EmbeddingStore, store_root


@pytest.fixture
def store(tmp_path: Path) -> EmbeddingStore:
    return EmbeddingStore("dataset", "model [1]", tmp_path)


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


@settings(max_examples=35)
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
