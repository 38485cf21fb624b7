"""Fitting by several processes: ``torchrun … -m clipcleaner_plugin.score DATASET``.

The first process (rank 0) does what ``python -m clipcleaner_plugin score`` does, and only it asks
the database. The logistic regressions, which take nearly all of the time, are fitted by all: each
process holds an equal share of the rows, and in every pass the losses and gradients of the shares
are added up. The models are those of one process, but for rounding.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np

from .logistic import Logistic, fit_logistic, fitted_by

if TYPE_CHECKING:
    import torch

    from .ranks import Ranks

_CHUNK = 2**26  # numbers in a message


@contextmanager
def fits_shared(ranks: Ranks) -> Iterator[None]:
    """Within it, rank 0 fits together with the others, which are in :func:`help_fits`.

    Where it is left by an error the others are not told: torchrun ends them with this process.

    Args:
        ranks: all processes, seen from rank 0
    """
    import torch.distributed as dist

    def fit(task: dict[str, Any]) -> Logistic:
        count = len(task["labels"])
        bounds = [count * rank // ranks.size for rank in range(ranks.size + 1)]
        for rank in range(1, ranks.size):
            part = _part(task, slice(bounds[rank], bounds[rank + 1]))
            forms = [(array.shape, array.dtype.str) for array in _rows(part)]
            dist.send_object_list([forms, _without_rows(part)], dst=rank)
            for array in _rows(part):
                for chunk in _chunks(array):
                    dist.send(chunk, dst=rank)
        return fit_logistic(**_part(task, slice(0, bounds[1])), reduce=_sum)

    with fitted_by(fit):
        yield
    for rank in range(1, ranks.size):
        dist.send_object_list([None, None], dst=rank)


def help_fits(ranks: Ranks) -> None:
    """Fits with rank 0 until that has no more to fit.

    Args:
        ranks: all processes, seen from another one
    """
    import torch.distributed as dist

    while True:
        message: list[Any] = [None, None]
        dist.recv_object_list(message, src=0)
        forms, task = message
        if forms is None:
            return
        rows = [np.empty(shape, dtype) for shape, dtype in forms]
        for array in rows:
            for chunk in _chunks(array):
                dist.recv(chunk, src=0)
        task["features"], task["labels"], task["weights"], *doubts = rows
        task["doubts"] = tuple(doubts) or None
        task["device"] = ranks.device(None) or "cpu"
        fit_logistic(**task, reduce=_sum)


def _part(task: dict[str, Any], rows: slice) -> dict[str, Any]:
    """The task of one process: contiguous rows of the arguments of ``fit_logistic``."""
    part = dict(task)
    part["features"], part["labels"] = task["features"][rows], task["labels"][rows]
    part["weights"] = np.ascontiguousarray(task["weights"][:, rows])
    if task["doubts"] is not None:
        other, share = task["doubts"]
        part["doubts"] = other[rows], np.ascontiguousarray(share[:, rows])
    return part


def _rows(task: dict[str, Any]) -> list[np.ndarray]:
    return [task["features"], task["labels"], task["weights"], *(task["doubts"] or ())]


def _without_rows(task: dict[str, Any]) -> dict[str, Any]:
    names = ("features", "labels", "weights", "doubts", "device")
    return {name: value for name, value in task.items() if name not in names}


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


if __name__ == "__main__":
    from clipcleaner_plugin.__main__ import main

    sys.exit(main(["score", *sys.argv[1:]]))
