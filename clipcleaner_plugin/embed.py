"""Image files → vectors in an embedding store: only what is missing, durable batch by batch.

Workers decode, the device encodes and a thread writes at the same time. ``torchrun -m
clipcleaner_plugin.embed DATASET`` does it with several processes: see ``ranks.py``.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, cast

import fiftyone.core.utils as fou
import numpy as np
import torch

from .crops import Media
from .encoder import Encoder
from .images import ImageReadError
from .loader import DecodedBatch, choose_num_workers, decoded_batches
from .planning import Share, deal, make_plan

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
    media: Sequence[Media],
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
    file differ from what they were then. Work goes in the order of ``ids``, and a batch is made
    durable while the next is encoded: after Ctrl-C, an exception or a kill, the next call starts
    at the first sample that is not stored. Failures are not stored, so the next call tries them
    again. If the GPU runs out of memory, the batch is halved until it fits.

    Args:
        ids: N distinct sample ids
        media: N images: paths of files, which may serve several ids, or parts of files
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
    check_request(ids, media, batch_size, num_workers)
    plan = make_plan(ids, media, store)
    raise_first(plan.failures, skip_failures)
    outcome = Outcome()
    if plan.todo:
        loaded = cast("ClipModel", model if hasattr(model, "image_features") else model())
        logger.info("Computing %d of %d embeddings", len(plan.todo), len(ids))
        (share,) = deal(plan, ids, media, batch_size or default_batch_size(loaded.device))
        outcome = compute_share(
            share,
            loaded,
            store,
            num_workers=num_workers,
            skip_failures=skip_failures,
            progress=progress,
        )
    return make_report(ids, plan.reused, {**plan.failures, **outcome.failures}, outcome.computed)


def make_report(
    ids: Sequence[str], reused: int, failures: dict[str, str], computed: Sequence[int]
) -> EmbeddingReport:
    """Makes the report of a call from what was done, failures in the order of ``ids``."""
    ordered = {i: failures[i] for i in ids if i in failures} if failures else {}
    return EmbeddingReport(tuple(ids[p] for p in computed), reused, ordered)


def default_batch_size(device: torch.device) -> int:
    """Returns how many images a forward pass takes where nobody says."""
    return _BATCH_SIZE_CUDA if torch.device(device).type == "cuda" else _BATCH_SIZE


def raise_first(failures: dict[str, str], skip_failures: bool) -> None:
    """Raises ImageReadError for the first failure, unless failures are skipped."""
    if failures and not skip_failures:
        raise ImageReadError("sample {}: {}".format(*next(iter(failures.items()))))


def check_request(
    ids: Sequence[str], media: Sequence[Media], batch_size: int | None, num_workers: int | None
) -> None:
    """Raises ValueError or TypeError unless the arguments of :func:`embed_images` fit."""
    if len(ids) != len(media):
        raise ValueError(f"{len(ids)} ids need as many filepaths, found {len(media)}")
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
class Outcome:
    """What became of a share.

    Attributes:
        computed: positions of the images whose vectors are stored
        failures: sample id → reason
    """

    computed: list[int] = field(default_factory=list)
    failures: dict[str, str] = field(default_factory=dict)


def compute_share(
    share: Share,
    model: ClipModel,
    store: EmbeddingStore,
    *,
    num_workers: int | None = None,
    skip_failures: bool = True,
    progress: Progress = None,
) -> Outcome:
    """Computes and stores the vectors of a share; options and errors as :func:`embed_images`."""
    if model.identity != store.identity:
        raise ValueError(
            f"the store {store.folder} is for model {store.identity!r}, not {model.identity!r}"
        )
    batches = [[(p, share.media[p]) for p in batch] for batch in share.batches]
    size = max(map(len, batches), default=1)
    workers = choose_num_workers(num_workers, len(batches), size, model.prepare)
    on_cuda = torch.device(model.device).type == "cuda"
    decoded = decoded_batches(
        batches, model.prepare, num_workers=workers, pin_memory=on_cuda and workers > 0
    )
    outcome = Outcome()
    with (
        closing(decoded),  # type: ignore[type-var]
        store.writer() as writer,
        ThreadPoolExecutor(1, "clipcleaner-writer") as thread,
        fou.ProgressBar(total=len(share), progress=progress) as bar,
    ):
        work = _Work(share, Encoder(model), writer, skip_failures, outcome)
        writing: Future[_Written] | None = None
        for batch in decoded:
            store_it = work.encode(batch)
            if writing is not None:
                bar.update(work.take(writing.result()))
            writing = thread.submit(store_it)
        if writing is not None:
            bar.update(work.take(writing.result()))
    return outcome


@dataclass
class _Written:
    """A batch that is durable: the positions that are stored, and those that failed."""

    stored: list[int]
    failures: dict[int, str]


class _Work:
    """The steps of a batch: encode (main thread), store (writer's thread), take (main thread)."""

    def __init__(
        self,
        share: Share,
        encoder: Encoder,
        writer: StoreWriter,
        skip_failures: bool,
        outcome: Outcome,
    ) -> None:
        self._share = share
        self._encoder = encoder
        self._writer = writer
        self._skip_failures = skip_failures
        self._outcome = outcome

    def encode(self, batch: DecodedBatch) -> Callable[[], _Written]:
        """Starts the forward pass; what it returns waits for the vectors and stores them."""
        failures = dict(batch.failures)
        if batch.pixels is None:
            return lambda: _Written([], failures)
        vectors = self._encoder(batch.pixels)
        return lambda: self._store(batch.positions, vectors(), failures)

    def _store(
        self, positions: list[int], vectors: np.ndarray, failures: dict[int, str]
    ) -> _Written:
        finite = np.isfinite(vectors).all(axis=1)
        good = [p for p, ok in zip(positions, finite, strict=True) if ok]
        bad = [p for p, ok in zip(positions, finite, strict=True) if not ok]
        failures |= dict.fromkeys(bad, "the model returned NaN or infinite values for it")
        share = self._share
        self._writer.append(
            [share.ids[p] for p in good], [share.stamps[p] for p in good], vectors[finite]
        )
        return _Written(good, failures)

    def take(self, written: _Written) -> int:
        """Notes what a batch gave, and returns its size."""
        self._outcome.computed += written.stored
        failures = {self._share.ids[p]: written.failures[p] for p in sorted(written.failures)}
        raise_first(failures, self._skip_failures)
        self._outcome.failures |= failures
        return len(written.stored) + len(failures)


if __name__ == "__main__":
    from clipcleaner_plugin.__main__ import main

    sys.exit(main(["embed", *sys.argv[1:]]))
