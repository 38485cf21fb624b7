"""What is to be embedded: the images that a store lacks, in batches, for one process or more."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import lru_cache
from typing import TYPE_CHECKING

from .crops import Media, media_stamp
from .images import ImageReadError, file_stamp

if TYPE_CHECKING:
    from .store import EmbeddingStore

# A network file system answers in a millisecond, whoever else is asking
_THREADS = 16
_CHUNK = 256


@dataclass
class Plan:
    """What one call has to do.

    Attributes:
        todo: positions of the images to compute, in order
        stamps: position → two numbers that change with the image, for those
        failures: sample id → why there is nothing to read
        reused: how many are stored already
    """

    todo: list[int] = field(default_factory=list)
    stamps: dict[int, tuple[int, int]] = field(default_factory=dict)
    failures: dict[str, str] = field(default_factory=dict)
    reused: int = 0


@dataclass(frozen=True)
class Share:
    """The part of a plan that one process does. Can be pickled.

    Attributes:
        batches: positions of images, to be encoded together
        ids: position → sample id
        media: position → image file, or part of one
        stamps: position → two numbers that change with it
    """

    batches: list[list[int]]
    ids: dict[int, str]
    media: dict[int, Media]
    stamps: dict[int, tuple[int, int]]

    def __len__(self) -> int:
        return len(self.ids)


def make_plan(ids: Sequence[str], media: Sequence[Media], store: EmbeddingStore) -> Plan:
    """Compares N images with what the store has of them."""
    # Stamps are taken before the files are read: one that changes in between is computed again
    plan = Plan()
    stored = store.stamps()
    for position, (id_, stamp) in enumerate(zip(ids, _stamps(media), strict=True)):
        if isinstance(stamp, str):
            plan.failures[id_] = stamp
        elif stored.get(id_) == stamp:
            plan.reused += 1
        else:
            plan.todo.append(position)
            plan.stamps[position] = stamp
    return plan


def deal(
    plan: Plan, ids: Sequence[str], media: Sequence[Media], batch_size: int, players: int = 1
) -> list[Share]:
    """Deals the batches of a plan out to processes, one after the other.

    However many there are, the batches are the same, and so are the bits of the vectors.
    """
    batches = cut_batches(plan.todo, batch_size)
    return [_share(plan, ids, media, batches[player::players]) for player in range(players)]


def _share(
    plan: Plan, ids: Sequence[str], media: Sequence[Media], batches: list[list[int]]
) -> Share:
    mine = [position for batch in batches for position in batch]
    return Share(
        batches,
        {p: ids[p] for p in mine},
        {p: media[p] for p in mine},
        {p: plan.stamps[p] for p in mine},
    )


def cut_batches(positions: Iterable[int], batch_size: int) -> list[list[int]]:
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


def _stamps(media: Sequence[Media]) -> Iterator[tuple[int, int] | str]:
    """The stamps of images in order, or why there is none."""
    chunks = [media[start : start + _CHUNK] for start in range(0, len(media), _CHUNK)]
    with ThreadPoolExecutor(_THREADS, "clipcleaner-stamps") as pool:
        for stamps in pool.map(_stamps_of, chunks):
            yield from stamps


def _stamps_of(media: Sequence[Media]) -> list[tuple[int, int] | str]:
    look = lru_cache(maxsize=1)(file_stamp)  # the objects of an image follow each other
    return [_stamp(one, look) for one in media]


def _stamp(media: Media, look: Callable[[str], tuple[int, int]]) -> tuple[int, int] | str:
    try:
        return media_stamp(media, look)
    except ImageReadError as err:
        return str(err)
