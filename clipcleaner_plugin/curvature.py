"""The shape of the loss of a logistic regression, which tells how far each class has to go."""

from __future__ import annotations

import math
from collections import deque
from typing import TYPE_CHECKING

from .coupling import Coupling, can_couple, couple, factor, leading, whole_hessian
from .fitting import in_order
from .logistic_rows import Rows, with_one

if TYPE_CHECKING:
    import torch

MOST_NUMBERS = 2**29  # in the matrices of all classes: 2 GiB
_LEAST_DOUBT = 0.01  # p (1 - p) of a row that shapes a class by itself, not with all others
_MOST_ROWS = 512  # that do, of a class
_MOST_LOOKED_AT = 2**17  # rows
_ROWS_OF_BLOCK, _CLASSES = 4096, 8  # at a time


class Curvature:
    """An approximate Hessian of a mean loss and its penalty, one block a class, inverted.

    Classes are taken to be independent of each other, which is what makes it cheap, except along
    the few directions along which rows are longest.
    """

    def __init__(
        self, inverse: torch.Tensor, moments: torch.Tensor, coupling: Coupling | None = None
    ) -> None:
        """Takes what :func:`at_zero` and :func:`at_model` make.

        Args:
            inverse: (K, d + 1, d + 1) float32, or (1, d + 1, d + 1) float64 for all classes
            moments: (d + 1, d + 1) float64, mean of ``x x'`` over the rows
            coupling (None): corrects the steps for what classes have to do with each other
        """
        self._inverse, self._moments, self._coupling = inverse, moments, coupling

    def divide(self, gradients: torch.Tensor) -> torch.Tensor:
        """Newton's steps against the gradients of some models, (M, K, d + 1) float64.

        They sum to zero over the classes, as gradients do: what all classes share changes no
        probability, and only the weak penalty would remove it again.
        """
        import torch

        if len(self._inverse) == 1:
            steps = gradients @ self._inverse[0]
            return steps.sub_(steps.mean(dim=1, keepdim=True))
        of_class = gradients.permute(1, 2, 0).to(self._inverse)
        parts = zip(self._inverse.split(_CLASSES), of_class.split(_CLASSES), strict=True)
        apply = in_order if gradients.device.type == "cpu" else map
        steps = torch.cat(list(apply(lambda part: part[0] @ part[1], parts)))
        steps = steps.permute(2, 0, 1).double()
        if self._coupling is not None:
            steps += self._coupling.correct(gradients)
        return steps.sub_(steps.mean(dim=1, keepdim=True))

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
    inverse, _ = _invert(moments / num_classes, penalty)
    return Curvature(inverse[None], moments)


def at_model(
    model: torch.Tensor, rows: Rows, moments: torch.Tensor, penalty: float
) -> Curvature | None:
    """The curvature at a model, by some rows.

    The block of class k is the mean of ``p_k (1 - p_k) x x'``. Most rows are sure that they do, or
    do not, belong to a class: they count together, by the moments of all rows. Of those in doubt,
    in each process at most 512 shape a class, and stand for the others. Unless classes are very
    many, it knows how they depend on each other along the directions of :func:`.leading`.

    Args:
        model: (K, d + 1) float64
        rows: with weights for one model; of many, some are looked at
        moments: see :class:`Curvature`
        penalty: factor of half the square of each coefficient, > 0

    Returns:
        the curvature; None in a process that another one leads, which adds its rows to that one's
    """
    import torch

    k, d = len(model), model.shape[1] - 1
    apply = in_order if model.device.type == "cpu" else map
    some = slice(None, None, math.ceil(len(rows.weights[0]) / _MOST_LOOKED_AT) or 1)
    x, weights = rows.features(some), rows.weights[0, some].to(model.device)
    weights = weights / float(rows.team.sum(weights.sum(dtype=torch.float64)[None]))
    model = model.float()

    def logits(classes: torch.Tensor, part: torch.Tensor) -> torch.Tensor:
        return torch.addmm(classes[:, -1:], classes[:, :-1], part.T)

    sums = apply(lambda part: logits(model, part).logsumexp(dim=0), x.split(_ROWS_OF_BLOCK))
    evidence = torch.cat(list(sums))

    def look(classes: torch.Tensor) -> list[torch.Tensor]:
        probs = torch.exp(logits(classes, x) - evidence)
        return [_shape_of_class(x, doubt, weights) for doubt in probs * (1 - probs)]

    hessian = None
    # Their signs depend on the device, and what is summed up is along them
    directions = rows.team.agree(leading(moments)) if can_couple(k) else moments[:, :0]
    if can_couple(k):
        part = whole_hessian(
            lambda some: torch.exp(logits(model, x[some]) - evidence[some]), x, weights, directions
        )
        hessian = rows.team.sum(part)
    shapes = (rows.team.sum(each) for group in apply(look, model.split(_CLASSES)) for each in group)
    if not rows.team.leads:
        deque(shapes, maxlen=0)
        return None
    of_sure = moments.float()

    def invert(shape: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        block = shape[:-1].view(d + 1, d + 1) + shape[-1].clamp_min(0) * of_sure
        inverse, block = _invert(block, penalty)
        return inverse, directions.T @ block.double() @ directions

    inverse = torch.empty(k, d + 1, d + 1, device=model.device)
    j = directions.shape[1]
    along = torch.empty(k, j, j, dtype=torch.float64, device=model.device)
    for of_class, (inverted, of_directions) in enumerate(apply(invert, shapes)):
        inverse[of_class], along[of_class] = inverted, of_directions
    coupling = None if hessian is None else couple(hessian, directions, along, penalty)
    return Curvature(inverse, moments, coupling)


def _shape_of_class(x: torch.Tensor, doubt: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
    """The block of one class by the rows in doubt, flat, and the share of all the others."""
    import torch

    share = doubt * weights
    chosen = torch.nonzero(doubt > _LEAST_DOUBT)[:, 0]
    in_doubt = share[chosen].sum()
    if len(chosen) > _MOST_ROWS:
        chosen = chosen[:: math.ceil(len(chosen) / _MOST_ROWS)]
    stands_for = in_doubt / share[chosen].sum().clamp_min(1e-30)
    some = with_one(x[chosen]) * (share[chosen, None] * stands_for).sqrt()
    return torch.cat([(some.T @ some).reshape(-1), (share.sum() - in_doubt)[None]])


def can_hold(num_classes: int, dim: int) -> bool:
    """Whether the matrices of :func:`at_model` are of bounded size."""
    return num_classes * (dim + 1) ** 2 <= MOST_NUMBERS


def _invert(block: torch.Tensor, penalty: float) -> tuple[torch.Tensor, torch.Tensor]:
    """Adds the penalty to a block of the Hessian, (d + 1, d + 1), and returns it inverted too."""
    import torch

    diagonal = block.diagonal().clone()
    diagonal[:-1] += penalty
    factors, raised = factor(block.diagonal_scatter(diagonal))
    return torch.cholesky_inverse(factors), raised
