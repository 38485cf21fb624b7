"""Multinomial logistic regression, several models in each pass over the rows, on any device."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from .curvature import Curvature, at_model, at_zero, can_hold
from .descent import Descent
from .fitting import in_order, one_blas_thread
from .logistic_rows import Rows, Team

if TYPE_CHECKING:
    import torch

logger = logging.getLogger(__name__)

MAX_PASSES = 2000
_PILOT_TOLERANCE = 0.05

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
        passes: number of passes over the rows that the fit took, beside those of its pilot
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

    It may call it in turn, with ``team``: so processes share a fit.
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
    c: float,
    tolerance: float,
    *,
    doubts: tuple[np.ndarray, np.ndarray] | None = None,
    pilot: np.ndarray | None = None,
    device: torch.device | str = "cpu",
    team: Team | None = None,
) -> Logistic:
    """Fits M models to the same rows, each with its own weights.

    Model ``m`` minimises scikit-learn's objective, ``sum_i w_mi loss_i + |W|^2 / (2 C)``: the
    loss is the cross-entropy of a softmax, the intercepts are free. For two classes scikit-learn
    fits one logit, whose penalty is twice that of the same model written as a softmax; so does this
    function.

    All models advance together, so that one pass over the rows serves them all; where rows in which
    a model has no weight lie together, they cost it nothing. The logits exist for one block of rows
    at a time. Data is float32, sums over blocks are float64. On one machine the result has the same
    bits on repetition and on any number of cores.

    L-BFGS begins with the Hessian at zero, ``E[x x'] / K + penalty``: on features of CLIP that
    takes a quarter of scikit-learn's passes. With a pilot, a model of some of the rows, it begins
    there, with nearly the Hessian: that takes a quarter to half of those.

    Args:
        features: (N, d) float32, of about unit rows
        labels: (N,) int in [0, K)
        num_classes: K >= 2, each with weight in every model
        weights: (M, N) float32 >= 0
        c: inverse strength of the penalty, > 0
        tolerance: distance to stop at: how far the logits of a class, root mean square over the
            rows, are still from their optimum, by the quadratic model
        doubts (None): another label for each row, (N,) int in [0, K), and the share of the row's
            weight that goes to it, (N,) float32 in [0, 1]
        pilot (None): (N,) float32 >= 0, how many rows each stands for in the pilot, 0 where it is
            not in it; all classes are. The models should be much alike
        device ("cpu"): torch device, CPU or CUDA; where its memory is too small, the CPU, unless
            there is a team
        team (None): the processes that the rows are spread over, each of which calls this with its
            own rows and returns the same models

    Returns:
        the models; one that has not converged within ``MAX_PASSES`` is the best found
    """
    import torch

    if team is None and (fitter := _fitter.get()):
        return fitter(
            {
                "features": features,
                "labels": labels,
                "num_classes": num_classes,
                "weights": weights,
                "c": c,
                "tolerance": tolerance,
                "doubts": doubts,
                "pilot": pilot,
                "device": device,
            }
        )

    def fit(device: torch.device | str, team: Team) -> Logistic:
        with one_blas_thread(), torch.no_grad():
            on = torch.device(device)
            rows = Rows(features, labels, num_classes, weights, doubts, on, team)
            return _fit(rows, c, tolerance, pilot)

    if team is not None:
        return fit(device, team)
    try:
        return fit(device, Team())
    except torch.cuda.OutOfMemoryError as error:
        logger.warning("The logistic regression goes on on the CPU, more slowly: %s", error)
    return fit("cpu", Team())


def _fit(rows: Rows, c: float, tolerance: float, pilot: np.ndarray | None) -> Logistic:
    """Does with rows what :func:`fit_logistic` does."""
    import torch

    k, moments = rows.num_classes, rows.moments()
    d = len(moments) - 1
    # Twice the penalty for two classes, see fit_logistic
    penalties = [(2 if k == 2 else 1) / (c * total) for total in rows.totals.tolist()]
    start = torch.zeros(k, d + 1, dtype=torch.float64, device=moments.device)
    curvature = at_zero(moments, k, penalties[0])
    if pilot is not None:
        chosen = np.flatnonzero(pilot)
        mean = rows.weights.numpy()[:, chosen].mean(axis=0) * pilot[chosen]
        some = rows.part(chosen, mean[None])
        [start], _, _ = _descend(some, start, curvature, penalties[:1], _PILOT_TOLERANCE)
        if can_hold(k, d):
            curvature = at_model(start, some, moments, penalties[0]) or curvature
    models, converged, passes = _descend(rows, start, curvature, penalties, tolerance)
    stack = torch.stack(models).float().cpu()
    return Logistic(
        stack[:, :, :-1].contiguous().numpy(),
        stack[:, :, -1].contiguous().numpy(),
        np.array(converged),
        passes,
    )


def _descend(
    rows: Rows,
    start: torch.Tensor,
    curvature: Curvature,
    penalties: Sequence[float],
    tolerance: float,
) -> tuple[list[torch.Tensor], list[bool], int]:
    """Fits one model for each penalty, all from one start.

    Returns:
        the models, (K, d + 1) float64: coefficients and, in the last column, intercepts; whether
        each has converged; and the number of passes
    """
    import torch

    descents = [Descent(start, curvature.length, tolerance, MAX_PASSES) for _ in penalties]

    def advance(found: tuple[int, float, torch.Tensor, torch.Tensor]) -> None:
        m, value, gradient, divided = found
        # Views would keep what was found for all models
        descents[m].observe(value, gradient.clone(), divided.clone())

    passes, team = 0, rows.team
    while active := _places(team.agree(torch.tensor([int(not d.done) for d in descents]))):
        trials = {m: team.agree(descents[m].trial) for m in active}
        values, gradients = rows.evaluate(trials)
        passes += 1
        if not team.leads:
            continue
        for place, m in enumerate(active):
            w = trials[m][:, :-1]
            values[place] += penalties[m] / 2 * float((w * w).sum())
            gradients[place, :, :-1] += penalties[m] * w
        divided = curvature.divide(gradients)
        list(in_order(advance, zip(active, values, gradients, divided, strict=True)))
    converged = team.agree(torch.tensor([int(d.converged) for d in descents]))
    return [team.agree(d.point) for d in descents], converged.bool().tolist(), passes


def _places(flags: torch.Tensor) -> list[int]:
    return flags.nonzero()[:, 0].tolist()
