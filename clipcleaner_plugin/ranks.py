"""Embedding by several processes: ``torchrun … -m clipcleaner_plugin.embed DATASET``.

The first process (rank 0) reads the dataset, finds out what is missing and deals the batches out;
every process stores the vectors of its share. What one that died has not stored, the next start
finds missing, and deals anew. The others need the images, the model and the store's folder under
the same paths; none of them asks the database for anything.
"""

from __future__ import annotations

import logging
import os
import platform
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from .crops import Media
from .embed import (
    EmbeddingReport,
    Outcome,
    Progress,
    check_request,
    compute_share,
    default_batch_size,
    make_report,
    raise_first,
)
from .planning import Plan, Share, deal, make_plan
from .store import EmbeddingStore

if TYPE_CHECKING:
    from .embeddings import ModelSource

logger = logging.getLogger(__name__)

_VARIABLES = ("RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")
# The slowest may need days longer than the others; torchrun notices at once when one dies
_PATIENCE = timedelta(days=30)
# Network file systems show new files of other machines after up to a minute
_SECONDS_TO_SEE = 120.0


@dataclass(frozen=True)
class Ranks:
    """The processes that work together, seen from one of them.

    Attributes:
        rank: the number of this one; 0 leads
        size: how many there are
    """

    rank: int
    size: int

    def scatter(self, tasks: Sequence[_Task] | None) -> _Task:
        """Hands rank i the i-th task of rank 0; the others pass None."""
        import torch.distributed as dist

        mine: list[Any] = [None]
        with _in_touch(self.rank):
            dist.scatter_object_list(mine, list(tasks) if tasks is not None else None, src=0)
        task: _Task = mine[0]
        return task

    def gather(self, outcome: Outcome) -> list[Outcome]:
        """Returns the outcomes of all on rank 0, and none on the others."""
        import torch.distributed as dist

        found: list[Any] | None = [None] * self.size if self.rank == 0 else None
        dist.gather_object(outcome, found, dst=0)
        return found or []

    def device(self, device: str | None) -> str | None:
        """Returns the device of this process, where the user named none or "cuda"."""
        import torch

        if device not in (None, "", "cuda") or not torch.cuda.is_available():
            return device
        return f"cuda:{int(os.environ.get('LOCAL_RANK', 0)) % torch.cuda.device_count()}"


@contextmanager
def _in_touch(rank: int) -> Iterator[None]:
    """Says that another process stopped, where gloo's words are about sockets."""
    try:
        yield
    except RuntimeError as error:
        raise RuntimeError(
            f"rank {rank} has lost the others: one of them stopped, and says why"
        ) from error


@contextmanager
def joined() -> Iterator[Ranks | None]:
    """Joins the other processes that torchrun has started; gives None where there are none."""
    if any(name not in os.environ for name in _VARIABLES) or os.environ["WORLD_SIZE"] == "1":
        yield None
        return
    import torch.distributed as dist

    rank = int(os.environ["RANK"])
    # Rank 0 opens the port that the others ask for it: what fails there is not their doing
    with _in_touch(rank) if rank else nullcontext():
        dist.init_process_group("gloo", timeout=_PATIENCE)
    try:
        yield Ranks(dist.get_rank(), dist.get_world_size())
    finally:
        dist.destroy_process_group()


@dataclass(frozen=True)
class _Task:
    """All that a process needs to know to do its share."""

    share: Share
    dataset_id: str
    identity: str
    root: str
    model: tuple[Any, ...]
    num_workers: int | None
    skip_failures: bool


def lead(
    ranks: Ranks,
    ids: Sequence[str],
    media: Sequence[Media],
    source: ModelSource,
    store: EmbeddingStore,
    *,
    batch_size: int | None = None,
    num_workers: int | None = None,
    skip_failures: bool = True,
    progress: Progress = None,
) -> EmbeddingReport:
    """Does on rank 0 what :func:`clipcleaner_plugin.embed.embed_images` does, with all ranks.

    The vectors are the same whatever the number of ranks. ``progress`` shows this rank's share.
    """
    check_request(ids, media, batch_size, num_workers)
    plan = make_plan(ids, media, store)
    raise_first(plan.failures, skip_failures)
    size = batch_size or 1
    if plan.todo:
        model = source()  # downloaded, if need be, before the others ask for it
        store.create(model.embed_dim)
        size = batch_size or default_batch_size(model.device)
        logger.info(
            "Computing %d of %d embeddings with %d processes",
            len(plan.todo), len(ids), ranks.size,
        )  # fmt: skip
    shares = deal(plan, ids, media, size, ranks.size)
    root, model_arguments = str(store.folder.parents[1]), source.arguments
    tasks = [
        _Task(
            share, store.dataset_id, store.identity, root, model_arguments, num_workers,
            skip_failures,
        )
        for share in shares
    ]  # fmt: skip
    own = ranks.scatter(tasks)
    outcomes = ranks.gather(_do(own, store, source, progress))
    computed = sorted(position for outcome in outcomes for position in outcome.computed)
    _wait_until_stored(store, ids, plan, computed)
    failures = {**plan.failures}
    for outcome in outcomes:
        failures |= outcome.failures
    return make_report(ids, plan.reused, failures, computed)


def follow(ranks: Ranks) -> None:
    """Does on the other ranks what rank 0 deals out.

    Raises:
        RuntimeError: if this process does not see the store's folder
    """
    from .embeddings import ModelSource

    task = ranks.scatter(None)
    store = EmbeddingStore(task.dataset_id, task.identity, task.root)
    model, pretrained, preprocess, device = task.model
    source = ModelSource(model, pretrained, preprocess, ranks.device(device))
    if task.share:
        _wait_until_created(store, ranks)
    ranks.gather(_do(task, store, source, progress=False))


def _do(task: _Task, store: EmbeddingStore, source: ModelSource, progress: Progress) -> Outcome:
    if not task.share:
        return Outcome()
    return compute_share(
        task.share,
        source(),
        store,
        num_workers=task.num_workers,
        skip_failures=task.skip_failures,
        progress=progress,
    )


def _wait_until_created(store: EmbeddingStore, ranks: Ranks) -> None:
    deadline = time.monotonic() + _SECONDS_TO_SEE
    while store.dim is None:
        if time.monotonic() > deadline:
            raise RuntimeError(
                f"rank {ranks.rank} on {platform.node()} does not see {store.folder}, which "
                "rank 0 has made: set CLIPCLEANER_STORE_DIR to a folder that all machines share"
            )
        time.sleep(0.2)


def _wait_until_stored(
    store: EmbeddingStore, ids: Sequence[str], plan: Plan, computed: Sequence[int]
) -> None:
    deadline = time.monotonic() + _SECONDS_TO_SEE
    while True:
        stored = store.stamps()
        missing = sum(stored.get(ids[p]) != plan.stamps[p] for p in computed)
        if not missing:
            return
        if time.monotonic() > deadline:
            raise RuntimeError(
                f"{missing} vectors that other ranks stored do not appear in {store.folder}: it "
                "must be one folder that all machines share"
            )
        time.sleep(1)
