"""Weights from files: read without running code from them, refused with a reason, named by their
content."""

from __future__ import annotations

import functools
import hashlib
import logging
import pickle
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch

logger = logging.getLogger(__name__)

CONFIG_NAME = "open_clip_config.json"
SUFFIXES = (".safetensors", ".bin", ".pt", ".pth")
_PREFERRED = (
    "open_clip_model.safetensors",
    "open_clip_pytorch_model.safetensors",
    "open_clip_pytorch_model.bin",
)
_BLOCK = 1 << 20


def find_weights(folder: Path) -> Path:
    """Finds the weights file in a folder that holds an ``open_clip_config.json``.

    Args:
        folder: an existing folder

    Returns:
        the file with one of open_clip's own names, else the only file with a known suffix

    Raises:
        ValueError: if there is no such file, or more than one and none with open_clip's name
    """
    for name in _PREFERRED:
        if (folder / name).is_file():
            return folder / name
    found = sorted(f for f in folder.iterdir() if f.suffix in SUFFIXES and f.is_file())
    if not found:
        raise ValueError(
            f"model folder {folder}: no weights in it; put {_PREFERRED[0]} or {_PREFERRED[2]} "
            f"beside {CONFIG_NAME}"
        )
    if len(found) > 1:
        names = ", ".join(f.name for f in found)
        raise ValueError(
            f"model folder {folder}: {len(found)} weights files ({names}) and none is named "
            f"{_PREFERRED[0]}; pass the path of the one to use"
        )
    return found[0]


def content_digest(path: Path) -> str:
    """SHA-256 of a file's content; read once a process for as long as size and time stay the same.

    Args:
        path: an existing file

    Returns:
        64 hexadecimal digits
    """
    stat = path.stat()
    return _digest(str(path), stat.st_size, stat.st_mtime_ns)


@functools.lru_cache(maxsize=64)
def _digest(path: str, size: int, mtime_ns: int) -> str:
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while block := file.read(_BLOCK):
            digest.update(block)
    return digest.hexdigest()


def load_weights(model: torch.nn.Module, path: Path, architecture: str) -> None:
    """Fills a model with the weights of a file, all of them; half precision widens to the model's
    own.

    Args:
        model: an open_clip model
        path: safetensors, or a torch file holding tensors only
        architecture: its name, for error texts

    Raises:
        ValueError: if the file is damaged, could run code, or does not fit the architecture
    """
    import open_clip
    from safetensors import SafetensorError

    if path.suffix != ".safetensors":
        _refuse_code(path)
    try:
        open_clip.load_checkpoint(model, str(path), strict=True, weights_only=True)
    except SafetensorError as error:
        raise ValueError(
            f"weights {path}: damaged or not a safetensors file ({error}); copy it again"
        ) from error
    except RuntimeError as error:
        raise ValueError(
            f"weights {path} do not fit architecture {architecture}: {_shortened(error)}. Name the "
            "architecture that they were trained with"
        ) from error
    except (
        AttributeError,
        EOFError,
        KeyError,
        OSError,
        StopIteration,
        TypeError,
        ValueError,
    ) as error:
        raise ValueError(
            f"weights {path}: not a state dict of tensors ({_shortened(error)})"
        ) from error


def _refuse_code(path: Path) -> None:
    """A torch file is a pickle: only plain tensors may be in it.

    open_clip falls back to unpickling without limits when reading raises a TypeError, so the file
    is proved harmless here first; on the "meta" device, which reads the structure and none of the
    numbers.
    """
    import torch

    if _is_torchscript(path):
        raise ValueError(
            f"weights {path}: a TorchScript archive (OpenAI's original .pt files are) holds "
            "program code and is not run. OpenAI's weights come with pretrained='openai'; or, if "
            "you trust the file, convert it once with open_clip.load_openai_model(path, 'fp32', "
            "'cpu').state_dict() and torch.save(…, 'openai.pt')"
        )
    try:
        torch.load(path, map_location="meta", weights_only=True)
    except pickle.UnpicklingError as error:
        raise ValueError(
            f"weights {path}: damaged, or holds Python objects other than tensors, which could run "
            "code; not loaded. Save the state dict alone, best as safetensors "
            f"({_shortened(error)})"
        ) from error
    except (
        AttributeError,
        EOFError,
        KeyError,
        OSError,
        RuntimeError,
        TypeError,
        ValueError,
    ) as error:
        raise ValueError(
            f"weights {path}: damaged or not a torch file ({_shortened(error)})"
        ) from error


def _is_torchscript(path: Path) -> bool:
    if not zipfile.is_zipfile(path):
        return False
    with zipfile.ZipFile(path) as archive:
        return any(name.endswith("/constants.pkl") for name in archive.namelist())


def _shortened(error: BaseException, limit: int = 300) -> str:
    text = " ".join(str(error).split()) or type(error).__name__
    return text if len(text) <= limit else text[:limit] + " …"


def describe(error: Any) -> str:
    """One line for an error of another library.

    Args:
        error: the exception

    Returns:
        its type and shortened text
    """
    return f"{type(error).__name__}: {_shortened(error)}"
