"""Multinomial logistic regression, several models in each pass over the rows, on any device."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from .descent import Descent
from .fitting import in_order, one_blas_thread

if TYPE_CHECKING:
    import torch

MAX_PASSES = 2000
# Numbers in a block of logits, on the CPU about what a core's cache holds. Fixed, like all that
# sets the size of a block: the sums have the same bits on any number of cores.
_BLOCK = {"cpu": 2**20, "cuda": 2**26}
_ROWS_OF_BLOCK = {"cpu": (256, 8192), "cuda": (1024, 2**17)}
_ROWS_OF_COVARIANCE = 8192  # more would not make a better preconditioner

Reduce = Callable[["torch.Tensor"], "torch.Tensor"]
_fitter: ContextVar[Callable[[dict[str, Any]], Logistic] | None] = ContextVar(
    "fitter", default=None
)


@dataclass(frozen=True)
class Logistic:
    """Models of :func:`fit_logistic`, one entry each.

    Attributes:
        coefficients: (M, K, d) float32
        intercepts: (M, K) float32
        converged: (M,) bool
        passes: number of passes over the rows that the fit took
    """

    coefficients: np.ndarray
    intercepts: np.ndarray
    converged: np.ndarray
    passes: int

    def logits(self, model: int, features: np.ndarray) -> np.ndarray:
        """What one model says of some rows: their log-probabilities, up to a constant a row.

        Args:
            model: in [0, M)
            features: (n, d) float32

        Returns:
            (n, K) float32
        """
        return features @ self.coefficients[model].T + self.intercepts[model]


@contextmanager
def fitted_by(fitter: Callable[[dict[str, Any]], Logistic]) -> Iterator[None]:
    """Within it, a function gets the arguments of :func:`fit_logistic` and fits in its place.

    It may call it in turn, with ``reduce``: so processes share a fit.
    """
    token = _fitter.set(fitter)
    try:
        yield
    finally:
        _fitter.reset(token)


def fit_logistic(
    features: np.ndarray,
    labels: np.ndarray,
    num_classes: int,
    weights: np.ndarray,
    c: Sequence[float],
    tolerance: Sequence[float],
    *,
    doubts: tuple[np.ndarray, np.ndarray] | None = None,
    init: Logistic | None = None,
    device: torch.device | str = "cpu",
    reduce: Reduce | None = None,
) -> Logistic:
    """Fits M models to the same rows, each with its own weights and strength of the penalty.

    Model ``m`` minimises scikit-learn's objective, ``sum_i w_mi loss_i + |W|^2 / (2 C_m)``: the
    loss is the cross-entropy of a softmax, the intercepts are free. For two classes scikit-learn
    fits one logit, whose penalty is twice that of the same model written as a softmax; so does this
    function.

    All models advance together, so that one pass over the rows serves them all; where rows in which
    a model has no weight lie together, they cost it nothing. L-BFGS runs in coordinates in which
    the Hessian at zero, ``Cov(x) / K + penalty``, is the identity: on features of CLIP that takes a
    quarter of the passes. The logits exist for one block of rows at a time. Data is float32, sums
    over blocks are float64. On one machine the result has the same bits on repetition and on any
    number of cores.

    Args:
        features: (N, d) float32, of about unit rows
        labels: (N,) int in [0, K)
        num_classes: K >= 2, each with weight in every model
        weights: (M, N) float32 >= 0
        c: M inverse strengths of the penalty, > 0
        tolerance: M distances to stop at: how far the logits of a class, root mean square over the
            rows, are still from their optimum, by the quadratic model
        doubts (None): another label for each row, (N,) int in [0, K), and the share of the row's
            weight that goes to it, (M, N) float32 in [0, 1]
        init (None): models to start from, M of them; default: zero
        device ("cpu"): torch device, CPU or CUDA
        reduce (None): where the rows are spread over processes, sums a tensor over all of them;
            every process then returns the same models

    Returns:
        the models; one that has not converged within ``MAX_PASSES`` is the best found
    """
    import torch

    fitter = _fitter.get()
    if fitter is not None and reduce is None:
        return fitter(
            {
                "features": features,
                "labels": labels,
                "num_classes": num_classes,
                "weights": weights,
                "c": c,
                "tolerance": tolerance,
                "doubts": doubts,
                "init": init,
                "device": device,
            }
        )
    with one_blas_thread(), torch.no_grad():
        reduce = reduce or (lambda tensor: tensor)
        rows = _Rows(features, labels, num_classes, weights, doubts, torch.device(device), reduce)
        spectrum = rows.spectrum()
        spaces = [
            # Twice the penalty for two classes: see above
            _Space((2 if num_classes == 2 else 1) / (c_m * total), num_classes, *spectrum)
            for c_m, total in zip(c, rows.totals.tolist(), strict=True)
        ]
        descents = [
            Descent(space.start(init, m), space.distance, tolerance[m], MAX_PASSES)
            for m, space in enumerate(spaces)
        ]
        passes = 0
        while active := [m for m, descent in enumerate(descents) if not descent.done]:
            trials = in_order(lambda m: spaces[m].plain(descents[m].trial), active)
            found = rows.evaluate(dict(zip(active, trials, strict=True)))
            list(in_order(partial(_advance, spaces, descents), found.items()))
            passes += 1
        models = torch.stack([s.plain(d.point) for s, d in zip(spaces, descents, strict=True)])
    models = models.float().cpu()
    return Logistic(
        models[:, :, :-1].contiguous().numpy(),
        models[:, :, -1].contiguous().numpy(),
        np.array([descent.converged for descent in descents]),
        passes,
    )


def _advance(
    spaces: list[_Space], descents: list[Descent], found: tuple[int, tuple[float, torch.Tensor]]
) -> None:
    """Hands to one model's descent what was found at its trial point."""
    m, (value, gradient) = found
    descents[m].observe(*spaces[m].penalised(descents[m].trial, value, gradient))


class _Rows:
    """The rows of this process: sums over them, block by block, and over all processes."""

    def __init__(
        self,
        features: np.ndarray,
        labels: np.ndarray,
        num_classes: int,
        weights: np.ndarray,
        doubts: tuple[np.ndarray, np.ndarray] | None,
        device: torch.device,
        reduce: Reduce,
    ) -> None:
        import torch

        self._reduce, self._device, self._k = reduce, device, num_classes
        self._weights = torch.from_numpy(weights)
        self.totals = reduce(self._weights.sum(dim=1, dtype=torch.float64))
        size, (least, most) = _BLOCK[device.type], _ROWS_OF_BLOCK[device.type]
        block = min(max(size // (len(weights) * num_classes), least), most)
        starts = range(0, len(features), block)
        slices = [slice(start, start + block) for start in starts]
        self._blocks = [(rows, np.flatnonzero(weights[:, rows].any(axis=1))) for rows in slices]
        self._x, self._y = torch.from_numpy(features), torch.from_numpy(labels)
        self._doubts = None if doubts is None else tuple(map(torch.from_numpy, doubts))
        if device.type == "cuda" and features.nbytes < torch.cuda.mem_get_info(device)[0] / 2:
            self._x = self._x.to(device)  # otherwise block by block, in every pass

    def spectrum(self) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Mean, (d,), and eigenvalues and -vectors, (d,) and (d, d), of the rows' covariance.

        They are taken from a part of the rows: they shape the path to the minimum, not the minimum.
        """
        import torch

        n = self._reduce(torch.tensor([float(len(self._x))], dtype=torch.float64)).item()
        some = self._x[:: math.ceil(n / _ROWS_OF_COVARIANCE)]
        count = self._reduce(torch.tensor([float(len(some))], dtype=torch.float64)).item()
        mean = self._reduce(some.sum(dim=0, dtype=torch.float64).cpu()) / count
        centred = some - mean.to(some)
        covariance = self._reduce((centred.T @ centred).double().cpu()) / count
        values, vectors = torch.linalg.eigh(covariance)
        values = values.clamp_min(0)
        return mean.to(self._device), values.to(self._device), vectors.to(self._device)

    def evaluate(self, models: dict[int, torch.Tensor]) -> dict[int, tuple[float, torch.Tensor]]:
        """Mean loss and its gradient for some models, in one pass over the rows.

        Args:
            models: (K, d + 1) float64 by number: coefficients and, in the last column, intercepts

        Returns:
            for each its value and its gradient, (K, d + 1) float64
        """
        import torch

        d = self._x.shape[1]
        places = {m: place for place, m in enumerate(models)}
        losses = torch.zeros(len(models), dtype=torch.float64, device=self._device)
        sums = torch.zeros(len(models), self._k, d + 1, dtype=torch.float64, device=self._device)
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
        losses, sums = self._reduce(losses), self._reduce(sums)
        totals = self.totals.tolist()
        return {m: (float(losses[i]) / totals[m], sums[i] / totals[m]) for m, i in places.items()}

    def _block(
        self, task: tuple[slice, tuple[int, ...], torch.Tensor]
    ) -> tuple[tuple[int, ...], torch.Tensor, torch.Tensor]:
        """Loss, (m,), and gradient, (m, K, d + 1), summed over the rows of one block."""
        import torch

        rows, models, stack = task
        x, y = self._x[rows].to(self._device), self._y[rows].to(self._device)
        weights = self._weights[list(models), rows].to(self._device)
        m, n = weights.shape
        # Rows run along the last axis: over the classes between, a softmax is many times faster
        logits = torch.addmm(stack[:, -1:], stack[:, :-1], x.T).view(m, self._k, n)
        log_probs = torch.log_softmax(logits, dim=1)
        shares = [(y, torch.ones_like(weights))]
        if self._doubts is not None:
            other, share = self._doubts[0][rows], self._doubts[1][list(models), rows]
            other, share = other.to(self._device), share.to(self._device)
            shares = [(y, 1 - share), (other, share)]
        fit = torch.zeros_like(weights)
        for of_label, share in shares:
            fit += share * log_probs.gather(1, of_label.expand(m, 1, n))[:, 0]
        loss = -(weights * fit).sum(dim=1, dtype=torch.float64)
        residuals = log_probs.exp_()
        for of_label, share in shares:
            residuals.scatter_add_(1, of_label.expand(m, 1, n), -share[:, None])
        residuals *= weights[:, None]
        gradient = (residuals.view(m * self._k, n) @ x).view(m, self._k, -1)
        return models, loss, torch.cat([gradient, residuals.sum(dim=2, keepdim=True)], dim=2)


class _Space:
    """Coordinates of one model in which the Hessian at zero is about the identity.

    Rows are centred, which parts the intercepts from the coefficients, turned into the axes of
    their covariance, and scaled.
    """

    def __init__(
        self,
        penalty: float,
        num_classes: int,
        mean: torch.Tensor,
        variances: torch.Tensor,
        axes: torch.Tensor,
    ) -> None:
        self._penalty, self._k, self._mean = penalty, num_classes, mean
        self._axes, self._variances = axes, variances
        self._scale = (variances / num_classes + penalty).rsqrt()

    def start(self, init: Logistic | None, model: int) -> torch.Tensor:
        """The point of a given model, (K, d + 1) float64, or zero."""
        import torch

        if init is None:
            return torch.zeros(self._k, len(self._mean) + 1, dtype=torch.float64).to(self._mean)
        w = torch.from_numpy(init.coefficients[model]).to(self._mean)
        b = torch.from_numpy(init.intercepts[model]).to(self._mean) + w @ self._mean
        return torch.cat([(w @ self._axes) / self._scale, b[:, None] / math.sqrt(self._k)], dim=1)

    def plain(self, point: torch.Tensor) -> torch.Tensor:
        """Coefficients and intercepts, (K, d + 1), of a point."""
        import torch

        w = (point[:, :-1] * self._scale) @ self._axes.T
        b = point[:, -1] * math.sqrt(self._k) - w @ self._mean
        return torch.cat([w, b[:, None]], dim=1)

    def penalised(
        self, point: torch.Tensor, value: float, gradient: torch.Tensor
    ) -> tuple[float, torch.Tensor]:
        """Adds the penalty to a value, and to its gradient, which is brought to these axes."""
        import torch

        turned = point[:, :-1] * self._scale
        intercepts = gradient[:, -1:]
        by_w = (gradient[:, :-1] - intercepts * self._mean) @ self._axes + self._penalty * turned
        value += self._penalty / 2 * float((turned * turned).sum())
        return value, torch.cat([by_w * self._scale, intercepts * math.sqrt(self._k)], dim=1)

    def distance(self, gradient: torch.Tensor) -> float:
        """How far the logits are from their optimum, where the Hessian is the identity."""
        spread = (self._variances * self._scale**2 * gradient[:, :-1] ** 2).sum(dim=1)
        return float((spread + self._k * gradient[:, -1] ** 2).max().sqrt())
