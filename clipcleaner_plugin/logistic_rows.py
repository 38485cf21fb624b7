"""The loss of a logistic regression and its gradient: sums over rows, block by block."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from copy import copy
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from .fitting import in_order

if TYPE_CHECKING:
    import torch

# Numbers in a block of logits, on the CPU few enough for a core's cache. Fixed, like all that
# sets the size of a block: the sums have the same bits on any number of cores.
_BLOCK = {"cpu": 2**19, "cuda": 2**26}
_ROWS_OF_BLOCK = {"cpu": (256, 8192), "cuda": (1024, 2**17)}
_ROWS_OF_MOMENTS = 8192  # more would not make a better path


def _alone(tensor: torch.Tensor) -> torch.Tensor:
    return tensor


@dataclass(frozen=True)
class Team:
    """The processes that the rows are spread over; by default there is one.

    Attributes:
        leads: whether this one finds the way for all: others may be on a device that rounds
            otherwise, and would part from it
        sum: sums a tensor over all processes
        agree: takes a tensor of each process, and gives every one the leader's
    """

    leads: bool = True
    sum: Callable[[torch.Tensor], torch.Tensor] = _alone
    agree: Callable[[torch.Tensor], torch.Tensor] = _alone


def with_one(rows: torch.Tensor) -> torch.Tensor:
    """Appends 1, the factor of the intercept, to each of (n, d) rows."""
    import torch

    return torch.cat([rows, torch.ones_like(rows[:, :1])], dim=1)


def _free_bytes(device: torch.device) -> int:
    """Memory of a GPU that is free, or that torch has kept from what was freed."""
    import torch

    kept = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    return int(torch.cuda.mem_get_info(device)[0]) + kept


class Rows:
    """The rows of this process: sums over them, block by block, and over all processes.

    Attributes:
        num_classes: K
        weights: (M, n) float32, of each row in each model
        totals: (M,) float64, their sums over all processes
        team: these processes
    """

    def __init__(
        self,
        features: np.ndarray,
        labels: np.ndarray,
        num_classes: int,
        weights: np.ndarray,
        doubts: tuple[np.ndarray, np.ndarray] | None,
        device: torch.device,
        team: Team,
    ) -> None:
        import torch

        self.team, self._device, self.num_classes = team, device, num_classes
        self._x, self._y = torch.from_numpy(features), torch.from_numpy(labels)
        self._chosen: torch.Tensor | None = None
        self._doubts = None if doubts is None else tuple(map(torch.from_numpy, doubts))
        if device.type == "cuda" and features.nbytes < _free_bytes(device) / 2:
            self._x = self._x.to(device)  # otherwise block by block, in every pass
        self._weigh(weights)

    def part(self, chosen: np.ndarray, weights: np.ndarray) -> Rows:
        """Some of all rows with weights of their own; the features are not copied.

        Args:
            chosen: (n,) int
            weights: (M, n) float32 >= 0
        """
        import torch

        rows = torch.from_numpy(chosen)
        part = copy(self)
        part._chosen, part._y = rows.to(self._x.device), self._y[rows]
        part._doubts = self._doubts and tuple(column[rows] for column in self._doubts)
        part._weigh(weights)
        return part

    def _weigh(self, weights: np.ndarray) -> None:
        """Sets the weights, (M, n), and with them the blocks and which models they are for."""
        import torch

        self.weights = torch.from_numpy(weights)
        self.totals = self.team.sum(self.weights.sum(dim=1, dtype=torch.float64))
        size, (least, most) = _BLOCK[self._device.type], _ROWS_OF_BLOCK[self._device.type]
        block = min(max(size // (len(weights) * self.num_classes), least), most)
        slices = [slice(start, start + block) for start in range(0, weights.shape[1], block)]
        self._blocks = [(rows, np.flatnonzero(weights[:, rows].any(axis=1))) for rows in slices]

    def features(self, rows: slice) -> torch.Tensor:
        """The features of some of the rows, (n, d) float32 on the device."""
        chosen = rows if self._chosen is None else self._chosen[rows]
        return self._x[chosen].to(self._device)

    def moments(self) -> torch.Tensor:
        """Mean of ``x x'``, (d + 1, d + 1) float64, where 1 is appended to each row x.

        It is taken from some of all rows, also for a part: it shapes the path to the minimum, not
        the minimum.
        """
        import torch

        n = self.team.sum(torch.tensor([float(len(self._x))], dtype=torch.float64)).item()
        some = self._x[:: math.ceil(n / _ROWS_OF_MOMENTS)]
        sums = self.team.sum(with_one(some).sum(dim=0, dtype=torch.float64))
        mean = sums / sums[-1]
        # Features of CLIP have most of their length in common: float32 would lose the rest
        centred = some - mean[:-1].to(some)
        moments = mean.outer(mean)
        moments[:-1, :-1] += self.team.sum((centred.T @ centred).double()) / sums[-1]
        return moments.to(self._device)

    def evaluate(self, models: dict[int, torch.Tensor]) -> tuple[list[float], torch.Tensor]:
        """Mean loss and its gradient for some models, in one pass over the rows.

        Args:
            models: (K, d + 1) float64 by number: coefficients and, in the last column, intercepts

        Returns:
            their values and their gradients, (m, K, d + 1) float64
        """
        import torch

        d = self._x.shape[1]
        places = {m: place for place, m in enumerate(models)}
        losses = torch.zeros(len(models), dtype=torch.float64, device=self._device)
        sums = torch.zeros(
            len(models), self.num_classes, d + 1, dtype=torch.float64, device=self._device
        )
        stacks: dict[tuple[int, ...], torch.Tensor] = {}

        def tasks() -> Iterator[tuple[slice, tuple[int, ...], torch.Tensor]]:
            for rows, present in self._blocks:
                of_block = tuple(m for m in models if m in present)
                if of_block and of_block not in stacks:
                    stacks[of_block] = torch.cat([models[m] for m in of_block]).float()
                if of_block:
                    yield rows, of_block, stacks[of_block]

        apply = in_order if self._device.type == "cpu" else map
        for of_block, loss, gradient in apply(self._block, tasks()):
            for i, m in enumerate(of_block):
                losses[places[m]] += loss[i]
                sums[places[m]] += gradient[i]
        totals = self.totals[list(models)].to(losses)
        losses, sums = self.team.sum(losses) / totals, self.team.sum(sums)
        return losses.tolist(), sums.div_(totals[:, None, None])

    def _block(
        self, task: tuple[slice, tuple[int, ...], torch.Tensor]
    ) -> tuple[tuple[int, ...], torch.Tensor, torch.Tensor]:
        """Loss, (m,), and gradient, (m, K, d + 1), summed over the rows of one block."""
        import torch

        rows, models, stack = task
        x, y = self.features(rows), self._y[rows].to(self._device)
        weights = self.weights[list(models), rows].to(self._device)
        m, n = weights.shape
        # Rows run along the last axis: over the classes between, a softmax is many times faster
        logits = torch.addmm(stack[:, -1:], stack[:, :-1], x.T).view(m, self.num_classes, n)
        log_probs = torch.log_softmax(logits, dim=1)
        shares = [(y.expand(m, 1, n), torch.ones_like(weights[0]))]
        if self._doubts is not None:
            other, share = (column[rows].to(self._device) for column in self._doubts)
            shares = [(y.expand(m, 1, n), 1 - share), (other.expand(m, 1, n), share)]
        fit = torch.zeros_like(weights)
        for of_label, share in shares:
            fit += share * log_probs.gather(1, of_label)[:, 0]
        loss = -(weights * fit).sum(dim=1, dtype=torch.float64)
        residuals = log_probs.exp_()
        for of_label, share in shares:
            residuals.scatter_add_(1, of_label, -share.expand_as(of_label))
        residuals *= weights[:, None]
        gradient = (residuals.view(m * self.num_classes, n) @ x).view(m, self.num_classes, -1)
        return models, loss, torch.cat([gradient, residuals.sum(dim=2, keepdim=True)], dim=2)
