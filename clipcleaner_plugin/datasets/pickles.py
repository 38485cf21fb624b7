"""Reads pickles of others without running code: numbers, texts, containers and numpy arrays.

CIFAR's batches, and the label files of CIFAR-10N and -100N, are pickles, and a pickle may call any
function. Here it finds none but those that rebuild an array, and these are our own.
"""

from __future__ import annotations

import io
import pickle
import re
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

# Bool, whole numbers, floats and texts; no objects, which could hold anything
_DTYPE = re.compile(r"[<>|=]?[?biufSU]\d*")
# What a torch file from before release 1.6 begins with
_TORCH_MAGIC = 0x1950A86A20F9469CFC6C


class PickleError(ValueError):
    """A file that holds something else than plain data, or is damaged."""


def read_pickle(path: Path) -> Any:
    """Reads a pickle of plain data.

    Args:
        path: written by Python 2 or 3, with any numpy

    Returns:
        its content; texts of Python 2 as str

    Raises:
        PickleError: if it holds something else, or is damaged
        OSError: if it cannot be read
    """
    return _loaded(path, io.BytesIO(path.read_bytes()), before=0)


def read_torch_file(path: Path) -> Any:
    """Reads a file of ``torch.save`` that holds plain data and numpy arrays, but no tensors.

    Args:
        path: in the format of any torch

    Returns:
        its content

    Raises:
        PickleError: if it holds something else, or is damaged
        OSError: if it cannot be read
    """
    data = path.read_bytes()
    if not zipfile.is_zipfile(io.BytesIO(data)):
        return _loaded(path, io.BytesIO(data), before=3)
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            names = [name for name in archive.namelist() if name.endswith("/data.pkl")]
            content = archive.read(names[0])
    # zipfile raises NotImplementedError for a compression that it does not know
    except (IndexError, zipfile.BadZipFile, NotImplementedError, RuntimeError) as error:
        raise PickleError(f"{path}: not a file of torch.save, or damaged; get it again") from error
    return _loaded(path, io.BytesIO(content), before=0)


def _loaded(path: Path, stream: io.BytesIO, before: int) -> Any:
    """Unpickles what follows ``before`` other pickles: the header of an old torch file."""
    try:
        for index in range(before):
            header = _PlainUnpickler(stream).load()
            if index == 0 and header != _TORCH_MAGIC:
                raise pickle.UnpicklingError("not a file of torch.save")
        return _PlainUnpickler(stream).load()
    except Exception as error:  # damaged pickles raise nearly anything
        raise PickleError(
            f"{path}: {str(error) or type(error).__name__}. Only plain data is read: a pickle "
            "can run code; get the original file again"
        ) from error


class _PlainUnpickler(pickle.Unpickler):
    def __init__(self, stream: io.BytesIO) -> None:
        super().__init__(stream, encoding="latin1")
        self._known = _array_builders()

    def find_class(self, module: str, name: str) -> Any:
        # numpy 2 has moved the module, and files name either place
        known = self._known.get((module.replace("numpy._core", "numpy.core"), name))
        if known is None:
            raise pickle.UnpicklingError(f"it asks for {module}.{name}, which is refused")
        return known


def _array_builders() -> dict[tuple[str, str], Callable[..., Any]]:
    """Makes the functions that pickled arrays call; anew each time, since a pickle may set
    attributes of what it is given."""

    def ndarray(*args: Any) -> Any:
        raise pickle.UnpicklingError("it makes an array of its own")

    def reconstruct(kind: Any, shape: Any, code: Any) -> np.ndarray:
        return np.ndarray.__new__(np.ndarray, (0,), "b")  # its content follows, as a state

    def frombuffer(data: Any, kind: Any, shape: Any, order: Any) -> np.ndarray:
        if not isinstance(data, (bytes, bytearray)) or not isinstance(kind, np.dtype):
            raise pickle.UnpicklingError("it holds a damaged array")
        return np.frombuffer(data, kind).reshape(shape, order=order)

    def dtype(code: Any, *_: Any) -> np.dtype[Any]:
        if not isinstance(code, str) or not _DTYPE.fullmatch(code):
            raise pickle.UnpicklingError(f"it holds an array of {code!r}")
        return np.dtype(code, False, True)  # its byte order follows, as a state

    def scalar(kind: Any, data: Any) -> Any:
        if not isinstance(kind, np.dtype) or not isinstance(data, (bytes, str)):
            raise pickle.UnpicklingError("it holds a damaged number")
        raw = data.encode("latin1") if isinstance(data, str) else data
        return np.frombuffer(raw, kind, count=1)[0]

    def encode(text: Any, encoding: Any = "latin1") -> bytes:
        if not isinstance(text, str) or encoding != "latin1":
            raise pickle.UnpicklingError("it holds damaged bytes")
        return text.encode("latin1")

    def empty() -> bytes:
        return b""

    return {
        ("__builtin__", "bytes"): empty,
        ("numpy", "ndarray"): ndarray,
        ("numpy", "dtype"): dtype,
        ("numpy.core.multiarray", "_reconstruct"): reconstruct,
        ("numpy.core.multiarray", "scalar"): scalar,
        ("numpy.core.numeric", "_frombuffer"): frombuffer,
        ("_codecs", "encode"): encode,
    }
