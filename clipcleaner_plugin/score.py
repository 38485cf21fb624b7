"""Scoring by several processes: ``torchrun … -m clipcleaner_plugin.score DATASET``.

The first process (rank 0) does what ``python -m clipcleaner_plugin score`` does, and only it asks
the database. What takes nearly all of the time is done by all, each with an equal share of the
rows: in every pass of the logistic regressions the losses and gradients of the shares are added up,
and each process asks the models about its own rows, and sends back columns. Rank 0 alone decides
where a fit goes and when it ends, so that the others may be on devices that round otherwise. The
models are those of one process, but for rounding.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from .logistic import Logistic, fit_logistic, fitted_by
from .logistic_rows import Team
from .opinions import Opinions, Work, asked_by

if TYPE_CHECKING:
    import torch

    from .ranks import Ranks

_CHUNK = 2**26  # numbers in a message


@contextmanager
def work_shared(ranks: Ranks) -> Iterator[None]:
    """Within it, rank 0 works together with the others, which are in :func:`help_out`.

    Where it is left by an error the others are not told: torchrun ends them with this process.

    Args:
        ranks: all processes, seen from rank 0
    """
    import torch.distributed as dist

    leader = _Leader(ranks)
    with fitted_by(leader.fit), asked_by(leader.ask):
        yield
    for rank in range(1, ranks.size):
        dist.send_object_list([None, None, [], []], dst=rank)


def help_out(ranks: Ranks) -> None:
    """Does its share of what rank 0 does, until that has no more to do.

    Args:
        ranks: all processes, seen from another one
    """
    import torch.distributed as dist

    held: list[np.ndarray] = []
    while True:
        message: list[Any] = [None] * 4
        dist.recv_object_list(message, src=0)
        step, rest, places, forms = message
        if step is None:
            return
        arrays = [np.empty(shape, dtype) for shape, dtype in forms]
        for array in arrays:
            for chunk in _chunks(array):
                dist.recv(chunk, src=0)
        new = max(places) + 1 - len(held)
        held += arrays[: max(new, 0)]
        columns = arrays[max(new, 0) :]
        # Rank 0 names the kind: where it was told to compute on its CPU, no other takes a GPU
        if step is _fit and rest["device"] != "cpu":
            rest["device"] = ranks.device(None) or "cpu"
        step(rest, [held[place] for place in places], columns)


class _Leader:
    """Rank 0: hands out shares of the rows, and does its own."""

    def __init__(self, ranks: Ranks) -> None:
        self._ranks = ranks
        self._held: list[np.ndarray] = []  # features of which the others have their shares

    def fit(self, task: dict[str, Any]) -> Logistic:
        """Does with all what :func:`fit_logistic` does with these arguments."""
        import torch

        names = ("features", "labels", "weights", "doubts", "pilot")
        rest = {name: value for name, value in task.items() if name not in names}
        rest["device"] = torch.device(task["device"]).type
        rest["doubts"], rest["pilot"] = task["doubts"] is not None, task["pilot"] is not None
        columns = [task["labels"], task["weights"].T, *(task["doubts"] or ())]
        if rest["pilot"]:
            columns.append(task["pilot"])
        own = self._hand_out(_fit, rest, [task["features"]], columns)
        return _fit({**rest, "device": task["device"]}, *own)

    def ask(self, opinions: Opinions, work: Work[Any]) -> Iterator[Any]:
        """Does with all what :meth:`Opinions.each_block` does."""
        import torch.distributed as dist

        no = np.empty(0)
        judges = replace(opinions, rows=no, features=no, visual_features=no, labels=no, fold_of=no)
        rest = judges, work
        features = [opinions.features, opinions.visual_features]
        columns = [opinions.labels, opinions.fold_of]
        own = self._hand_out(_answer, rest, features, columns)
        yield from _ask(rest, *own)
        for rank in range(1, self._ranks.size):
            answer: list[Any] = [None]
            dist.recv_object_list(answer, src=rank)
            yield from answer[0]

    def _hand_out(
        self,
        step: Callable[..., Any],
        rest: Any,
        features: Sequence[np.ndarray],
        columns: Sequence[np.ndarray],
    ) -> tuple[list[np.ndarray], list[np.ndarray]]:
        """Gives every other rank something to do, and its share of the rows.

        Args:
            step: is called there with ``rest``, features and columns
            rest: what is the same for all
            features: arrays of N rows; what they have is not sent again
            columns: arrays of N rows

        Returns:
            features and columns of this rank's share
        """
        import torch.distributed as dist

        before = len(self._held)
        places = [self._place(array) for array in features]
        count, size = len(columns[0]), self._ranks.size
        bounds = [count * rank // size for rank in range(size + 1)]
        for rank in range(1, size):
            rows = slice(bounds[rank], bounds[rank + 1])
            sent = (*self._held[before:], *columns)
            arrays = [np.ascontiguousarray(array[rows]) for array in sent]
            forms = [(array.shape, array.dtype.str) for array in arrays]
            dist.send_object_list([step, rest, places, forms], dst=rank)
            for array in arrays:
                for chunk in _chunks(array):
                    dist.send(chunk, dst=rank)
        own = slice(0, bounds[1])
        return [self._held[p][own] for p in places], [column[own] for column in columns]

    def _place(self, array: np.ndarray) -> int:
        """Where the others hold their shares of an array: its number among all that they hold."""
        for place, held in enumerate(self._held):
            if array.shape == held.shape and array.ctypes.data == held.ctypes.data:
                return place
        self._held.append(array)
        return len(self._held) - 1


def _fit(rest: dict[str, Any], features: list[np.ndarray], columns: list[np.ndarray]) -> Logistic:
    """One rank's part of a fit."""
    import torch.distributed as dist

    labels, weights, *more = columns
    task = {**rest, "features": features[0], "labels": labels}
    task["weights"] = np.ascontiguousarray(weights.T)
    task["pilot"] = more.pop() if rest["pilot"] else None
    task["doubts"] = (more[0], more[1]) if rest["doubts"] else None
    return fit_logistic(**task, team=Team(dist.get_rank() == 0, _sum, _agree))


def _ask(
    rest: tuple[Opinions, Work[Any]], features: list[np.ndarray], columns: list[np.ndarray]
) -> Iterator[Any]:
    """What one rank's models say of its share."""
    opinions, work = rest
    own = replace(
        opinions,
        features=features[0],
        visual_features=features[1],
        labels=columns[0],
        fold_of=columns[1],
    )
    return own.blocks_here(work)


def _answer(*share: Any) -> None:
    """Sends rank 0 what this rank's models say of its share."""
    import torch.distributed as dist

    dist.send_object_list([list(_ask(*share))], dst=0)


def _chunks(array: np.ndarray) -> Iterator[torch.Tensor]:
    """Views of a contiguous array that fit into messages."""
    import torch

    flat = torch.from_numpy(array.reshape(-1))
    return iter(flat.split(_CHUNK))


def _sum(tensor: torch.Tensor) -> torch.Tensor:
    """Sums a tensor over all processes; every one gets the same bits."""
    import torch.distributed as dist

    total = tensor.detach().to("cpu", copy=True)
    dist.all_reduce(total)
    return total.to(tensor.device)


def _agree(tensor: torch.Tensor) -> torch.Tensor:
    """Gives every process the tensor of rank 0."""
    import torch.distributed as dist

    agreed = tensor.detach().to("cpu", copy=True)
    dist.broadcast(agreed, src=0)
    return tensor if dist.get_rank() == 0 else agreed.to(tensor.device)


if __name__ == "__main__":
    from clipcleaner_plugin.__main__ import main

    sys.exit(main(["score", *sys.argv[1:]]))
