"""Decoding images for a model in worker processes: one bad image costs one image."""

from __future__ import annotations

import logging
import multiprocessing
import os
import shutil
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from PIL import Image
from torch.utils.data import DataLoader, Dataset

from .crops import Media, MediaReader
from .images import ImageReadError

logger = logging.getLogger(__name__)

# An RGB image → the tensor that travels; reading gets its attribute ``least_side``, if any
Transform = Callable[[Image.Image], torch.Tensor]
# Position of an image in the caller's list, and where it is
Item = tuple[int, Media]

_MAX_WORKERS = 8
_PREFETCH = 2  # batches that each worker holds ready


class DecodedBatch(NamedTuple):
    """``pixels[i]`` is the image at ``positions[i]``; the others have a reason."""

    positions: list[int]
    pixels: torch.Tensor | None
    failures: list[tuple[int, str]]


class _Images(Dataset[tuple[int, torch.Tensor | None, str]]):
    # Keyed by (position, path) instead of an index: the paths travel with the batches, and no
    # worker holds a copy of a million of them.
    def __init__(self, transform: Transform) -> None:
        self._transform = transform
        self._read = MediaReader(getattr(transform, "least_side", None))

    def __getitem__(self, item: Item) -> tuple[int, torch.Tensor | None, str]:
        position, media = item
        try:
            return position, self._transform(self._read(media)), ""
        except ImageReadError as err:
            return position, None, str(err)
        except Exception as err:
            path = media if isinstance(media, str) else media.path
            reason = f"{path}: could not be prepared for the model: {type(err).__name__}: {err}"
            return position, None, reason


def decoded_batches(
    batches: Sequence[list[Item]],
    transform: Transform,
    *,
    num_workers: int = 0,
    pin_memory: bool = False,
) -> Iterator[DecodedBatch]:
    """Reads and transforms images, batch after batch in the given order.

    The workers end with the generator: close it, or exhaust it.

    Args:
        batches: lists of (position, file or part of a file)
        transform: makes a tensor of an RGB image, always of one shape; pickled where workers are
            spawned
        num_workers (0): number of worker processes; 0 = in this process
        pin_memory (False): whether to hand out page-locked tensors, for CUDA

    Yields:
        one :class:`DecodedBatch` for each batch

    Raises:
        RuntimeError: if a worker dies
    """
    loader = DataLoader(
        _Images(transform),
        batch_sampler=batches,
        num_workers=num_workers,
        collate_fn=_collate,
        pin_memory=pin_memory,
        worker_init_fn=_leave_interrupts_to_parent,
        prefetch_factor=_PREFETCH if num_workers else None,
        generator=torch.Generator(),  # otherwise a number is drawn from the user's random state
    )
    iterator = None
    try:
        with _workers_can_import_this(), _interrupts_wait():
            iterator = iter(loader)
        yield from iterator
    except (OSError, EOFError) as err:  # of the connection: those of images never get here
        raise RuntimeError(
            "a worker process that decodes images died, often for lack of memory; what was "
            "computed is stored: call again, with a smaller num_workers if it happens again"
        ) from err
    finally:
        # A traceback may keep the iterator alive, and its workers with it
        shutdown = getattr(iterator, "_shutdown_workers", None)
        if shutdown is not None:
            shutdown()


def _collate(items: list[tuple[int, torch.Tensor | None, str]]) -> DecodedBatch:
    good = [(position, pixels.numpy()) for position, pixels, _ in items if pixels is not None]
    return DecodedBatch(
        positions=[position for position, _ in good],
        # By NumPy: torch's threads, where this process decodes by itself, would wait for each other
        pixels=torch.from_numpy(np.stack([pixels for _, pixels in good])) if good else None,
        failures=[(position, reason) for position, pixels, reason in items if pixels is None],
    )


@contextmanager
def _interrupts_wait() -> Iterator[None]:
    """Holds Ctrl-C back while workers start.

    Python drops an exception that is raised in the middle of a fork, so the interrupt would get
    lost, and workers that do not ignore it yet would die of it.
    """
    if threading.current_thread() is not threading.main_thread():  # gets no interrupts
        yield
        return
    came: list[int] = []
    before = signal.signal(signal.SIGINT, lambda number, frame: came.append(number))
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, signal.SIG_DFL if before is None else before)
    if came:
        signal.raise_signal(signal.SIGINT)


def _leave_interrupts_to_parent(_: int) -> None:
    # Ctrl-C reaches every process of the terminal; the parent ends the workers in good order
    signal.signal(signal.SIGINT, signal.SIG_IGN)


@contextmanager
def _workers_can_import_this() -> Iterator[None]:
    """Prepares what spawned workers inherit; forked ones need nothing.

    They import this package anew: it may be known to this process only, as a FiftyOne plugin that
    is not pip-installed, and its import of FiftyOne must not start or visit a database.
    """
    if _forking():
        yield
        return
    inherited = {
        "FIFTYONE_DISABLE_SERVICES": "1",
        "FIFTYONE_PRIVATE_DATABASE_PORT": None,
        "FIFTYONE_DATABASE_URI": None,
    }
    before = {name: os.environ.get(name) for name in inherited}
    path = list(sys.path)
    _set_environment(inherited)
    sys.path.append(str(Path(__file__).resolve().parents[1]))
    try:
        yield
    finally:
        sys.path[:] = path
        _set_environment(before)


def _set_environment(values: Mapping[str, str | None]) -> None:
    for name, value in values.items():
        if value is None:
            os.environ.pop(name, None)
        else:
            os.environ[name] = value


def choose_num_workers(
    requested: int | None, num_batches: int, batch_size: int, transform: Transform
) -> int:
    """Returns how many worker processes to use for decoding.

    Args:
        requested: the user's number; None = one a CPU up to 8, none where processes are spawned
            (a script would need ``if __name__ == "__main__"``)
        num_batches: how many batches there are; more workers would have nothing to do
        batch_size: images in a batch
        transform: makes the tensors that must fit into shared memory

    Returns:
        the number; 0 = decode in this process
    """
    workers = requested
    if workers is None:
        workers = min(_cpus(), _MAX_WORKERS) if _forking() and num_batches > 1 else 0
    workers = min(workers, num_batches)
    if workers and multiprocessing.current_process().daemon:
        if requested:
            logger.warning("num_workers=%d: a daemonic process cannot have any; using 0", requested)
        return 0
    if not workers:
        return 0
    room = _workers_in_shared_memory(batch_size, transform)
    if room < workers:
        logger.warning(
            "/dev/shm has room for the batches of %d workers, not %d; a container gets more by "
            "--shm-size", room, workers,
        )  # fmt: skip
    return min(workers, room)


def _forking() -> bool:
    # Asked without settling the method: the user may still call set_start_method
    method = multiprocessing.get_start_method(allow_none=True)
    return (method or multiprocessing.get_all_start_methods()[0]) == "fork"


def _cpus() -> int:
    """The CPUs of this process; those of a machine are shared by the ranks that torchrun starts."""
    if hasattr(os, "sched_getaffinity"):
        cpus = len(os.sched_getaffinity(0))
    else:
        cpus = os.cpu_count() or 1
    return max(cpus // int(os.environ.get("LOCAL_WORLD_SIZE", 1)), 1)


def _workers_in_shared_memory(batch_size: int, transform: Transform) -> int:
    """How many workers there is room for: with more, they die of SIGBUS when it is full."""
    pixels = transform(Image.new("RGB", (8, 8)))
    batch_bytes = pixels.numel() * pixels.element_size() * batch_size
    return _shared_memory() // (batch_bytes * (_PREFETCH + 1))


def _shared_memory() -> int:
    """Free bytes of /dev/shm, through which Linux processes share tensors; 64 MB in a container."""
    try:
        return shutil.disk_usage("/dev/shm").free
    except OSError:  # another system, other means
        return sys.maxsize
