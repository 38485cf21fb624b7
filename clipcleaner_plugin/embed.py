"""Image files → vectors in an embedding store: only what is missing, durable batch by batch."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, cast

import fiftyone.core.utils as fou
import numpy as np
import torch

from .images import ImageReadError, file_stamp
from .loader import DecodedBatch, choose_num_workers, decoded_batches

if TYPE_CHECKING:
    from .models import ClipModel
    from .store import EmbeddingStore, StoreWriter

logger = logging.getLogger(__name__)

_BATCH_SIZE = 32
_BATCH_SIZE_CUDA = 256

Progress = bool | Callable[[Any], Any] | None


@dataclass(frozen=True)
class EmbeddingReport:
    """What a call of :func:`embed_images` did.

    Attributes:
        computed_ids: the samples whose vectors were computed and stored, in order
        reused: how many samples had an up-to-date vector in the store already
        failures: sample id → reason. The store may still hold the vector of a former, readable
            content of such a file: do not use it.
    """

    computed_ids: tuple[str, ...]
    reused: int
    failures: dict[str, str]

    @property
    def computed(self) -> int:
        """How many vectors were computed."""
        return len(self.computed_ids)


def embed_images(
    ids: Sequence[str],
    filepaths: Sequence[str],
    model: ClipModel | Callable[[], ClipModel],
    store: EmbeddingStore,
    *,
    batch_size: int | None = None,
    num_workers: int | None = None,
    skip_failures: bool = True,
    progress: Progress = None,
) -> EmbeddingReport:
    """Brings the store up to date for N samples.

    A sample is computed if the store has no vector of it, or if size or modification time of its
    file differ from what they were then. Work goes in the order of ``ids``, and each batch is
    durable before the next begins: after Ctrl-C, an exception or a kill, the next call starts at
    the first sample that is not stored. Failures are not stored, so the next call tries them
    again. If the GPU runs out of memory, the batch is halved until it fits.

    Args:
        ids: N distinct sample ids
        filepaths: N paths of image files; one file may serve several ids
        model: the model, or a callable that loads it, called only if something is to be computed
        store: the store of this model
        batch_size (None): images per forward pass; None = 256 on CUDA, else 32
        num_workers (None): processes that decode images; None = chosen by the machine
        skip_failures (True): whether to report images that cannot be read, instead of raising
        progress (None): True or False, None for ``fiftyone.config.show_progress_bars``, or a
            callable that takes the progress bar after each batch; what it raises ends the work

    Returns:
        an :class:`EmbeddingReport`

    Raises:
        ValueError: if lengths differ, an id occurs twice, or the model is not the store's
        ImageReadError: with ``skip_failures=False``, for the first image that has no vector;
            missing and empty files are found before any work
    """
    _validate(ids, filepaths, batch_size, num_workers)
    plan = _plan(ids, filepaths, store)
    if plan.failures and not skip_failures:
        raise ImageReadError("sample {}: {}".format(*next(iter(plan.failures.items()))))
    run = _Run(ids, plan, store, skip_failures)
    if plan.todo:
        loaded = cast("ClipModel", model if hasattr(model, "encode_images") else model())
        if loaded.identity != store.identity:
            raise ValueError(
                f"the store {store.folder} is for model {store.identity!r}, not {loaded.identity!r}"
            )
        logger.info("Computing %d of %d embeddings", len(plan.todo), len(ids))
        run.compute(loaded, filepaths, batch_size, num_workers, progress)
    failures = {i: run.failures[i] for i in ids if i in run.failures}
    return EmbeddingReport(tuple(run.computed), plan.reused, failures)


def _validate(
    ids: Sequence[str], filepaths: Sequence[str], batch_size: int | None, num_workers: int | None
) -> None:
    if len(ids) != len(filepaths):
        raise ValueError(f"{len(ids)} ids need as many filepaths, found {len(filepaths)}")
    if len(set(ids)) != len(ids):
        seen: set[str] = set()
        twice = next(i for i in ids if i in seen or seen.add(i))  # type: ignore[func-returns-value]
        raise ValueError(f"sample id {twice!r} occurs twice; ids must be distinct")
    for name, value, low in (("batch_size", batch_size, 1), ("num_workers", num_workers, 0)):
        if value is None:
            continue
        if not isinstance(value, int) or isinstance(value, bool):
            raise TypeError(f"{name} must be an integer or None, found {value!r}")
        if value < low:
            raise ValueError(f"{name} must be at least {low}, found {value}")


@dataclass
class _Plan:
    todo: list[int] = field(default_factory=list)
    stamps: dict[int, tuple[int, int]] = field(default_factory=dict)
    failures: dict[str, str] = field(default_factory=dict)
    reused: int = 0


def _plan(ids: Sequence[str], filepaths: Sequence[str], store: EmbeddingStore) -> _Plan:
    # Stamps are taken before the files are read: one that changes in between is computed again
    plan = _Plan()
    stored = store.stamps()
    for position, (id_, path) in enumerate(zip(ids, filepaths, strict=True)):
        try:
            stamp = file_stamp(path)
        except ImageReadError as err:
            plan.failures[id_] = str(err)
            continue
        if stored.get(id_) == stamp:
            plan.reused += 1
        else:
            plan.todo.append(position)
            plan.stamps[position] = stamp
    return plan


def _batches(positions: Iterable[int], batch_size: int) -> list[list[int]]:
    """Cuts sorted positions into batches of at most ``batch_size``.

    Cuts fall where a run over all positions would cut, and neighbouring remainders are merged if
    they fit together. So an interrupted run goes on with the batches of an uninterrupted one, and
    gets the same bits: the last ones of a vector depend on the size of its batch.
    """
    batches: list[list[int]] = []
    block = -1
    rest: list[int] = []  # positions of the current block
    for position in [*positions, -1]:
        if position // batch_size != block:
            if rest and batches and len(batches[-1]) + len(rest) <= batch_size:
                batches[-1] += rest
            elif rest:
                batches.append(rest)
            rest, block = [], position // batch_size
        rest.append(position)
    return batches


class _Run:
    """The state of one call: what was computed, what failed."""

    def __init__(
        self, ids: Sequence[str], plan: _Plan, store: EmbeddingStore, skip_failures: bool
    ) -> None:
        self._ids = ids
        self._plan = plan
        self._store = store
        self._skip_failures = skip_failures
        self.computed: list[str] = []
        self.failures = plan.failures

    def compute(
        self,
        model: ClipModel,
        filepaths: Sequence[str],
        batch_size: int | None,
        num_workers: int | None,
        progress: Progress,
    ) -> None:
        on_cuda = torch.device(model.device).type == "cuda"
        size = batch_size or (_BATCH_SIZE_CUDA if on_cuda else _BATCH_SIZE)
        batches = [[(p, filepaths[p]) for p in b] for b in _batches(self._plan.todo, size)]
        workers = choose_num_workers(num_workers, len(batches), size, model.transform)
        decoded = decoded_batches(
            batches, model.transform, num_workers=workers, pin_memory=on_cuda and workers > 0
        )
        encoder = _Encoder(model)
        total = len(self._plan.todo)
        with (
            closing(decoded),  # type: ignore[type-var]
            self._store.writer() as writer,
            fou.ProgressBar(total=total, progress=progress) as bar,
        ):
            for batch in decoded:
                self._finish(batch, encoder, writer)
                bar.update(len(batch.positions) + len(batch.failures))

    def _finish(self, batch: DecodedBatch, encoder: _Encoder, writer: StoreWriter) -> None:
        failures = dict(batch.failures)
        positions = batch.positions
        if batch.pixels is not None:
            vectors = encoder(batch.pixels)
            finite = np.isfinite(vectors).all(axis=1)
            for position, ok in zip(positions, finite, strict=True):
                if not ok:
                    failures[position] = "the model returned NaN or infinite values for it"
            self._append(writer, [p for p in positions if p not in failures], vectors[finite])
        for position in sorted(failures):
            self._fail(position, failures[position])

    def _append(self, writer: StoreWriter, positions: list[int], vectors: np.ndarray) -> None:
        ids = [self._ids[p] for p in positions]
        writer.append(ids, [self._plan.stamps[p] for p in positions], vectors)
        self.computed += ids

    def _fail(self, position: int, reason: str) -> None:
        id_ = self._ids[position]
        if not self._skip_failures:
            raise ImageReadError(f"sample {id_}: {reason}")
        self.failures[id_] = reason


class _Encoder:
    """Encodes batches, in smaller parts from the moment on that memory ran out."""

    def __init__(self, model: ClipModel) -> None:
        self._model = model
        self._limit: int | None = None

    def __call__(self, pixels: torch.Tensor) -> np.ndarray:
        parts: list[np.ndarray] = []
        start = 0
        while start < len(pixels):
            part = pixels[start : start + (self._limit or len(pixels))]
            vectors = self._encode(part)
            if vectors is None:
                self._limit = len(part) // 2
                logger.warning("Out of memory: encoding %d images at a time now", self._limit)
                continue
            parts.append(vectors)
            start += len(part)
        return np.concatenate(parts)

    def _encode(self, pixels: torch.Tensor) -> np.ndarray | None:
        """Encodes a batch; None if there is not enough memory, but may be for half of it."""
        try:
            vectors = self._model.encode_images(pixels)
        except RuntimeError as err:
            if len(pixels) == 1 or not _out_of_memory(err):
                raise
        else:
            if vectors.shape != (len(pixels), self._model.embed_dim):
                raise ValueError(
                    f"the model made vectors of shape {vectors.shape} for {len(pixels)} images, "
                    f"expected ({len(pixels)}, {self._model.embed_dim})"
                )
            return vectors
        # Past the except block: the exception holds the tensors of the failed pass
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        return None


def _out_of_memory(err: RuntimeError) -> bool:
    # MPS raises a plain RuntimeError, "MPS backend out of memory"
    return isinstance(err, torch.cuda.OutOfMemoryError) or "out of memory" in str(err).lower()
