"""The shape of the loss of a logistic regression, which tells how far each class has to go."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from .fitting import in_order
from .logistic_rows import Reduce, with_one

if TYPE_CHECKING:
    import torch

MOST_NUMBERS = 2**29  # in the matrices of all classes: 2 GiB
_LEAST_DOUBT = 0.01  # p (1 - p) of a row that shapes a class by itself, not with all others
_MOST_ROWS = 1024  # that do, of a class
_ROWS_OF_BLOCK, _CLASSES = 4096, 16  # at a time


class Curvature:
    """An approximate Hessian of a mean loss and its penalty, one block a class, inverted.

    Classes are taken to be independent of each other, which is what makes it cheap.
    """

    def __init__(self, inverse: torch.Tensor, moments: torch.Tensor) -> None:
        """Takes what :func:`at_zero` and :func:`at_model` make.

        Args:
            inverse: (K, d + 1, d + 1), or (1, d + 1, d + 1) for all classes
            moments: (d + 1, d + 1) float64, mean of ``x x'`` over the rows
        """
        self._inverse, self._moments = inverse, moments

    def divide(self, gradients: torch.Tensor) -> torch.Tensor:
        """Newton's steps against the gradients of some models, (M, K, d + 1) float64."""
        import torch

        if len(self._inverse) == 1:
            return gradients @ self._inverse[0]
        of_class = gradients.permute(1, 2, 0).to(self._inverse)
        parts = zip(self._inverse.split(_CLASSES), of_class.split(_CLASSES), strict=True)
        apply = in_order if gradients.device.type == "cpu" else map
        steps = torch.cat(list(apply(lambda part: part[0] @ part[1], parts)))
        return steps.permute(2, 0, 1).double()

    def length(self, step: torch.Tensor) -> float:
        """How far a step moves the logits of a class, root mean square over the rows, at most."""
        return float((step @ self._moments * step).sum(dim=1).max().clamp_min(0).sqrt())


def at_zero(moments: torch.Tensor, num_classes: int, penalty: float) -> Curvature:
    """The curvature where all classes are equally probable; the classes share one block.

    Args:
        moments: see :class:`Curvature`
        num_classes: K
        penalty: factor of half the square of each coefficient, > 0
    """
    return Curvature(_invert(moments / num_classes, penalty)[None], moments)


def at_model(
    model: torch.Tensor,
    rows: torch.Tensor,
    weights: torch.Tensor,
    moments: torch.Tensor,
    penalty: float,
    reduce: Reduce,
) -> Curvature:
    """The curvature at a model, by some rows.

    The block of class k is the mean of ``p_k (1 - p_k) x x'``. Most rows are sure that they do, or
    do not, belong to a class: they count together, by the moments of all rows.

    Args:
        model: (K, d + 1) float64
        rows: (n, d) float32, those of this process
        weights: (n,) float32 >= 0
        moments: see :class:`Curvature`
        penalty: factor of half the square of each coefficient, > 0
        reduce: sums a tensor over all processes
    """
    import torch

    k, d = len(model), rows.shape[1]
    on_cpu = rows.device.type == "cpu"
    total = float(reduce(weights.sum(dtype=torch.float64)[None]))
    rows, model = with_one(rows), model.float()
    blocks = [rows[start : start + _ROWS_OF_BLOCK] for start in range(0, len(rows), _ROWS_OF_BLOCK)]
    apply = in_order if on_cpu else map
    sums = apply(lambda block: torch.logsumexp(block @ model.T, dim=1), blocks)
    evidence = torch.cat([rows.new_zeros(0), *sums])

    def look(of_class: int) -> torch.Tensor:
        probs = torch.exp(rows @ model[of_class] - evidence)
        doubt = probs * (1 - probs)
        share = doubt * weights / total
        chosen = torch.nonzero(doubt > _LEAST_DOUBT)[:, 0]
        if len(chosen) > _MOST_ROWS:
            chosen = chosen[share[chosen].topk(_MOST_ROWS).indices.sort().values]
        some = rows[chosen] * share[chosen, None].sqrt()
        rest = share.sum() - share[chosen].sum()
        return torch.cat([(some.T @ some).reshape(-1), rest[None]]).double()

    def invert(found: torch.Tensor) -> torch.Tensor:
        block = found[:-1].view(d + 1, d + 1) + found[-1].clamp_min(0) * moments
        return _invert(block, penalty).float()

    found: Iterator[torch.Tensor] = (reduce(block) for block in apply(look, range(k)))
    inverse = torch.empty(k, d + 1, d + 1, device=rows.device)
    for of_class, block in enumerate(apply(invert, found)):
        inverse[of_class] = block
    return Curvature(inverse, moments)


def can_hold(num_classes: int, dim: int) -> bool:
    """Whether the matrices of :func:`at_model` are of bounded size."""
    return num_classes * (dim + 1) ** 2 <= MOST_NUMBERS


def _invert(block: torch.Tensor, penalty: float) -> torch.Tensor:
    """Inverts a block of the Hessian, (d + 1, d + 1) float64, with the penalty added to it."""
    import torch

    diagonal = block.diagonal().clone()
    diagonal[:-1] += penalty
    # Sums of float32 may be negative where nothing varies; of a class that is never probable
    # nothing is left
    floor = 1e-7 * float(diagonal.max()) + 1e-12
    for _ in range(10):
        factor, failed = torch.linalg.cholesky_ex(block.diagonal_scatter(diagonal + floor))
        if not failed:
            break
        floor *= 10
    return torch.cholesky_inverse(factor)
