"""Pickles of others: plain data comes through, anything that could run code does not."""

from __future__ import annotations

import os
import pickle
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from clipcleaner_plugin.datasets.pickles import PickleError, read_pickle, read_torch_file


class Calls:
    """Pickles as a call."""

    def __init__(self, function: Any, *args: Any) -> None:
        self.call = function, args

    def __reduce__(self) -> tuple[Any, tuple[Any, ...]]:
        return self.call


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "data_batch_1"


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_plain_data_comes_through(path: Path, protocol: int) -> None:
    array = np.arange(12, dtype=np.uint8).reshape(3, 4)[:, ::-1]
    data = {"data": array, "labels": [3, 1], "names": np.array(["cat", "dog"]), "n": np.int64(7)}
    path.write_bytes(pickle.dumps(data, protocol=protocol))
    found = read_pickle(path)
    assert np.array_equal(found["data"], array) and found["data"].dtype == np.uint8
    assert found["labels"] == [3, 1] and found["n"] == 7
    assert found["names"].tolist() == ["cat", "dog"]


def test_batches_of_python_2_are_read(path: Path) -> None:
    """As the original files are: text as bytes, arrays from the former place of numpy."""
    raw = (
        b"(dp0\nS'labels'\np1\n(lp2\nI6\naI9\nasS'data'\np3\ncnumpy.core.multiarray\n_reconstruct\n"
        b"p4\n(cnumpy\nndarray\np5\n(I0\ntS'b'\ntRp6\n(I1\n(I1\nI3\ntcnumpy\ndtype\np7\n"
        b"(S'u1'\nI0\nI1\ntRp8\n(I3\nS'|'\nNNNI-1\nI-1\nI0\ntbI00\nS'\\xff\\x00A'\ntbs."
    )
    path.write_bytes(raw)
    found = read_pickle(path)
    assert found["labels"] == [6, 9] and found["data"].tolist() == [[255, 0, 65]]


@given(
    array=hnp.arrays(
        st.sampled_from([np.bool_, np.int64, np.uint8, np.float32, np.dtype(">i4")]),
        hnp.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=4),
    ),
    protocol=st.integers(0, pickle.HIGHEST_PROTOCOL),
)
def test_arrays_are_what_was_pickled(
    tmp_path_factory: pytest.TempPathFactory, array: np.ndarray, protocol: int
) -> None:
    path = tmp_path_factory.mktemp("pickles") / "array"
    path.write_bytes(pickle.dumps(array, protocol=protocol))
    found, native = read_pickle(path), array.dtype.newbyteorder("=")
    # numpy itself does not keep the byte order of every array
    assert found.dtype.newbyteorder("=") == native and found.shape == array.shape
    assert found.astype(native).tobytes() == array.astype(native).tobytes()


@pytest.mark.parametrize(
    "function", [os.system, subprocess.check_output, eval, exec, getattr, __import__, open]
)
def test_a_call_is_refused_before_it_is_made(path: Path, function: Any) -> None:
    victim = path.with_name("victim")
    code = f"open({str(victim)!r}, 'w')"
    argument = code if function in (eval, exec) else f"touch {victim}"
    content = {"data": np.zeros(3), "labels": Calls(function, argument)}
    path.write_bytes(pickle.dumps(content, protocol=2))
    with pytest.raises(PickleError, match="which is refused"):
        read_pickle(path)
    assert not victim.exists()


@pytest.mark.parametrize(
    "evil",
    [
        b"cos\nsystem\n(S'true'\ntR.",
        # By way of what is allowed: a module inside numpy, and attributes of attributes
        b"cnumpy.core.multiarray\nfromfile\n(S'/etc/passwd'\ntR.",
        b"\x80\x04\x8c\x05numpy\x8c\x0cndarray.dumps\x93.",
        # An array of a size of its own, of objects, and a dtype that is none
        b"cnumpy\nndarray\n((I100000\nI100000\nI100000\nttR.",
        b"cnumpy\ndtype\n(S'O8'\nI0\nI1\ntR.",
        b"cnumpy\ndtype\n((lS'a'\natR.",
        b"c_codecs\nencode\n(S'x'\nS'zlib'\ntR.",
        b"(ios\nsystem\n.",
        b"not a pickle",
        b"",
    ],
)
def test_what_is_no_plain_data_is_refused(path: Path, evil: bytes) -> None:
    path.write_bytes(evil)
    with pytest.raises(PickleError, match="Only plain data is read"):
        read_pickle(path)


def test_a_pickle_cannot_alter_the_reader(path: Path) -> None:
    """BUILD sets attributes of what it is given: here of a function of the reader."""
    setting = b"cnumpy\ndtype\n}S'__wrapped__'\nI1\nsb."
    path.write_bytes(setting)
    read_pickle(path)
    path.write_bytes(b"cnumpy\ndtype\n.")
    assert not hasattr(read_pickle(path), "__wrapped__")


@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "before 1.6"])
def test_torch_files_of_arrays(path: Path, zipped: bool) -> None:
    labels = {"clean_label": np.array([1, 2]), "worse_label": np.array([1, 0])}
    torch.save(labels, path, _use_new_zipfile_serialization=zipped)
    found = read_torch_file(path)
    assert {name: array.tolist() for name, array in found.items()} == {
        "clean_label": [1, 2],
        "worse_label": [1, 0],
    }


@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "before 1.6"])
def test_torch_files_with_code_are_refused(path: Path, zipped: bool) -> None:
    victim = path.with_name("victim")
    evil = {"clean_label": Calls(os.system, f"touch {victim}")}
    torch.save(evil, path, _use_new_zipfile_serialization=zipped)
    with pytest.raises(PickleError, match="system, which is refused"):
        read_torch_file(path)
    assert not victim.exists()


def test_other_files_are_no_torch_files(path: Path) -> None:
    np.savez(path.with_suffix(".npz"), a=np.zeros(2))
    path.write_bytes(pickle.dumps([1, 2]))
    for file, match in ((path.with_suffix(".npz"), "get it again"), (path, "not a file of torch")):
        with pytest.raises(PickleError, match=match):
            read_torch_file(file)


def test_an_archive_that_is_compressed_in_an_unknown_way_is_damaged(path: Path) -> None:
    torch.save({"clean_label": [1]}, path)
    data = bytearray(path.read_bytes())
    entry = data.find(b"PK\x01\x02")
    while entry >= 0:
        data[entry + 10 : entry + 12] = (99).to_bytes(2, "little")  # the method of compression
        entry = data.find(b"PK\x01\x02", entry + 1)
    path.write_bytes(data)
    with pytest.raises(PickleError, match="get it again"):
        read_torch_file(path)
