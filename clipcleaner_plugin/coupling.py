"""How the classes of a logistic regression depend on each other, along where rows are longest."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING

from .fitting import in_order
from .logistic_rows import with_one

if TYPE_CHECKING:
    import torch

_DIRECTIONS = 4  # with fewer it saves no passes, with more it costs what it saves
_MOST_COLUMNS = 8192  # of classes and directions together
_MOST_ROWS, _ROWS_OF_BLOCK = 8192, 256


class Coupling:
    """A correction of steps that take the classes to be independent.

    The blocks of the Hessian, one a class, leave out that what one class gains others lose. On
    features of CLIP that matters along the few directions in which most of their length lies, such
    as the offset that all images share. There the step is by the whole Hessian in their place (a
    coarse space: Nabben and Vuik, "A comparison of deflation and coarse grid correction", SIAM J.
    Numerical Analysis 2004).

    Args:
        directions: (d + 1, J) float64 of :func:`leading`
        hessian: (K J, K J) float64, the whole Hessian along these, class after class; what is above
            its diagonal plays no part
        blocks: (K, J, J) float64, what the blocks of the classes make of it
    """

    def __init__(
        self, directions: torch.Tensor, hessian: torch.Tensor, blocks: torch.Tensor
    ) -> None:
        self._directions = directions
        (self._whole, _), (self._blocks, _) = factor(hessian), factor(blocks)

    def correct(self, gradients: torch.Tensor) -> torch.Tensor:
        """What to add to the steps against some gradients; both are (M, K, d + 1) float64."""
        import torch

        along = gradients @ self._directions
        whole = torch.cholesky_solve(along.flatten(1).T, self._whole).T.view_as(along)
        alone = torch.cholesky_solve(along.permute(1, 2, 0), self._blocks).permute(2, 0, 1)
        return (whole - alone) @ self._directions.T


def can_couple(num_classes: int) -> bool:
    """Whether the matrix of :func:`couple` is of bounded size."""
    return num_classes * _DIRECTIONS <= _MOST_COLUMNS


def leading(moments: torch.Tensor) -> torch.Tensor:
    """The directions along which rows are longest, (d + 1, J) float64 with orthogonal columns.

    Args:
        moments: (d + 1, d + 1) float64, mean of ``x x'`` over the rows
    """
    import torch

    return torch.linalg.eigh(moments).eigenvectors.flip(1)[:, :_DIRECTIONS].contiguous()


def whole_hessian(
    probabilities: Callable[[slice], torch.Tensor],
    x: torch.Tensor,
    weights: torch.Tensor,
    directions: torch.Tensor,
) -> torch.Tensor:
    """The part of one process in the Hessian along some directions.

    That is the mean of ``(diag(p) - p p') (x) x x'``, and to be summed over all processes.

    Args:
        probabilities: takes some of the rows, gives (K, m) float32, of the classes
        x: (n, d) float32 rows; of many, 8192 are looked at
        weights: (n,) float32 >= 0, which sum to 1 over all processes
        directions: (d + 1, J) float64, the same in all processes

    Returns:
        (K J, K J) float64, class after class; of what is above its diagonal, not all
    """
    import torch

    some = slice(None, None, math.ceil(len(x) / _MOST_ROWS) or 1)
    probs, along = probabilities(some), with_one(x[some]) @ directions.float()
    weights = weights[some] * (weights.sum() / weights[some].sum().clamp_min(1e-30))
    k, j = len(probs), along.shape[1]
    spread = ((probs * weights.sqrt())[:, None] * along.T).reshape(k * j, -1)
    squares = (along[:, :, None] * along[:, None]).flatten(1)
    hessian = torch.block_diag(*((probs * weights) @ squares).view(k, j, j).double())
    parts = [slice(start, start + _ROWS_OF_BLOCK) for start in range(0, k * j, _ROWS_OF_BLOCK)]
    apply = in_order if x.device.type == "cpu" else map
    products = apply(lambda part: spread[part] @ spread[: part.stop].T, parts)
    for part, product in zip(parts, products, strict=True):
        hessian[part, : part.stop] -= product
    return hessian


def couple(
    hessian: torch.Tensor, directions: torch.Tensor, blocks: torch.Tensor, penalty: float
) -> Coupling:
    """Corrects steps that take the classes to be independent.

    Args:
        hessian: (K J, K J) float64, the sum of :func:`whole_hessian`; it is written to
        directions: (d + 1, J) float64
        blocks: (K, J, J) float64, see :class:`Coupling`
        penalty: factor of half the square of each coefficient
    """
    k, j = len(blocks), len(blocks[0])
    # What all classes share changes no probability: any curvature will do
    hessian += (blocks.mean(dim=0) / k).repeat(k, k)
    of_class = range(k)
    hessian.view(k, j, k, j)[of_class, :, of_class] += penalty * directions[:-1].T @ directions[:-1]
    return Coupling(directions, hessian, blocks)


def factor(matrices: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Cholesky factors of symmetric matrices, (..., n, n), whose diagonals are raised for it.

    Sums of float32 may have directions that are a little negative where nothing varies, and of a
    class that is never probable nothing is left.

    Returns:
        the factors, and the matrices that they are of
    """
    import torch

    diagonal = matrices.diagonal(dim1=-2, dim2=-1)
    floor = 1e-7 * diagonal.amax(dim=-1, keepdim=True) + 1e-12
    for _ in range(10):
        raised = matrices.diagonal_scatter(diagonal + floor, dim1=-2, dim2=-1)
        factors, failed = torch.linalg.cholesky_ex(raised)
        if not failed.any():
            break
        floor = floor * 10
    return factors, raised
