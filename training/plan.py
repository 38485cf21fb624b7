"""What an epoch draws: decided before it begins, from (seed, epoch), alike in all processes."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from torch.utils.data import Sampler

from .images import NO_AUGMENTATION, Item
from .mixfix import draw, mixup_lambda
from .parallel import World

# Independent streams of random numbers of one epoch
_SUBSET, _DRAWS = 0, 1


@dataclass(frozen=True)
class Plan:
    """The global batches of one epoch: I iterations of B samples.

    Args:
        indices: (I, B) int64, the samples
        seeds: (I, B) int64, of their augmentations
        lambdas: (I,) float, mixup
        partners: (I, B) int64, positions in the batch of those they are mixed with
    """

    indices: np.ndarray
    seeds: np.ndarray
    lambdas: np.ndarray
    partners: np.ndarray

    def slice_of(self, world: World) -> slice:
        """Returns the positions in each batch that are this process's."""
        own = self.indices.shape[1] // world.size
        return slice(world.rank * own, (world.rank + 1) * own)

    def batches(self, world: World) -> list[list[Item]]:
        """Returns this process's items, a list an iteration."""
        own = self.slice_of(world)
        return [
            list(zip(indices[own].tolist(), seeds[own].tolist(), strict=True))
            for indices, seeds in zip(self.indices, self.seeds, strict=True)
        ]


def plan_epoch(
    members: np.ndarray,
    labels: np.ndarray,
    iterations: int,
    batch_size: int,
    *,
    balanced: bool,
    beta: float,
    seed: int,
    epoch: int,
) -> Plan:
    """Draws an epoch.

    Args:
        members: (M,) int, the samples to train on
        labels: (M,) int, their current labels
        iterations: I
        batch_size: B, over all processes
        balanced: whether every class is oversampled to the size of the largest
        beta: parameter of mixup's Beta distribution
        seed: of the run
        epoch: from 0

    Returns:
        the plan
    """
    rng = np.random.default_rng([seed, epoch, _DRAWS])
    shape = (iterations, batch_size)
    return Plan(
        indices=draw(members, labels, iterations * batch_size, balanced, rng).reshape(shape),
        seeds=rng.integers(0, 2**63 - 1, size=shape),
        lambdas=np.array([mixup_lambda(beta, rng) for _ in range(iterations)]),
        partners=rng.permuted(np.tile(np.arange(batch_size), (iterations, 1)), axis=1),
    )


def epoch_subset(train: np.ndarray, size: int, seed: int, epoch: int) -> np.ndarray:
    """Returns the samples an epoch looks at: ascending; all of them where ``size`` is 0."""
    if size == 0 or size >= len(train):
        return train
    rng = np.random.default_rng([seed, epoch, _SUBSET])
    return np.sort(rng.choice(train, size, replace=False))


def plain_batches(indices: np.ndarray, batch_size: int) -> list[list[Item]]:
    """Returns items without augmentation, in order."""
    return [
        [(int(i), NO_AUGMENTATION) for i in indices[start : start + batch_size]]
        for start in range(0, len(indices), batch_size)
    ]


class Batches(Sampler[list[Item]]):
    """Hands a loader the batches set last, so that its workers stay alive between epochs."""

    def __init__(self) -> None:
        self.batches: list[list[Item]] = []

    def __iter__(self) -> Iterator[list[Item]]:
        return iter(self.batches)

    def __len__(self) -> int:
        return len(self.batches)
