"""Minimising a smooth convex function: L-BFGS, one evaluation at a time."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

MEMORY = 10  # pairs of steps that the curvature is remembered by
_TRIALS = 20  # along one line, before rounding is taken to be all that is left
_ROUNDING = 1e-6  # of the value, computed in float32: a rise by less is none


class Descent:
    """One minimisation, driven from outside, so that several can share each pass over the data.

    Evaluate the function at :attr:`trial`, hand what was found to :meth:`observe`, until
    :attr:`done`. The step along a line is judged by its slope (the function is convex), since near
    the minimum its values differ by less than float32 resolves.

    Attributes:
        trial: the point to evaluate next
        point: the best one so far
        done: whether there is nothing more to gain
        converged: whether the stopping rule was met
        steps: number of evaluations
    """

    def __init__(
        self,
        start: torch.Tensor,
        length: Callable[[torch.Tensor], float],
        tolerance: float,
        max_steps: int,
    ) -> None:
        """Starts at a point.

        Args:
            start: float64 tensor
            length: of a step
            tolerance: distance from the minimum, in the same measure, to stop at
            max_steps: evaluations to stop after
        """
        self.point = self.trial = start
        self.done = self.converged = False
        self.steps = 0
        self._length = length
        self._tolerance = tolerance
        self._max_steps = max_steps
        # Steps, the change of the gradient by each, the same divided, and 1 / (step * change)
        self._pairs: deque[tuple[torch.Tensor, torch.Tensor, torch.Tensor, float]] = deque(
            maxlen=MEMORY
        )
        self._scale = 1.0
        self._value = float("inf")
        self._gradient: torch.Tensor | None = None
        self._divided = start
        self._direction, self._slope = start, 0.0
        self._step, self._trials = 1.0, 0
        self._low, self._low_slope = 0.0, 0.0
        self._high: float | None = None
        self._high_slope = 0.0

    def observe(self, value: float, gradient: torch.Tensor, divided: torch.Tensor) -> None:
        """Takes the function's value and gradient at :attr:`trial`, and sets the next one.

        Args:
            value: of the function
            gradient: float64 tensor
            divided: the gradient, divided by one and the same estimate of the Hessian
        """
        self.steps += 1
        if self._gradient is None or self._accepts(value, gradient):
            self._move(value, gradient, divided)
        if self.steps >= self._max_steps:
            self.done = True
        if not self.done:
            self.trial = self.point + self._step * self._direction

    def _move(self, value: float, gradient: torch.Tensor, divided: torch.Tensor) -> None:
        if self._gradient is not None:
            step, change = self._step * self._direction, gradient - self._gradient
            self._remember(step, change, divided - self._divided)
        self.point, self._value = self.trial, value
        self._gradient, self._divided = gradient, divided
        # The steps so far tell how curved the function really is
        self.converged = self._scale * self._length(divided) <= self._tolerance
        self.done = self.converged
        self._direction = -self._inverse_hessian_times(gradient, divided)
        self._slope = _dot(self._direction, gradient)
        if not self._slope < 0:  # rounding has eaten the curvature
            self.done = True
        self._step, self._trials = 1.0, 0
        self._low, self._low_slope = 0.0, self._slope
        self._high = None

    def _accepts(self, value: float, gradient: torch.Tensor) -> bool:
        """Judges the step; where it is too long or too short, sets another."""
        slope = _dot(self._direction, gradient)
        self._trials += 1
        risen = not value <= self._value + _ROUNDING * abs(self._value)
        too_long = risen or slope > -0.9 * self._slope
        too_short = slope < 0.9 * self._slope
        if not (too_long or too_short):
            return True
        if self._trials == _TRIALS:
            self.done = True
            return False
        if too_long:
            self._high, self._high_slope = self._step, slope
        else:
            self._low, self._low_slope = self._step, slope
        self._step = self._next_step()
        return False

    def _next_step(self) -> float:
        """Where the slope, taken for a straight line, is zero; well within what is known."""
        low, high = self._low, self._high
        if high is None:
            rise = self._low_slope - self._slope
            wanted = -low * self._slope / rise if rise > 0 else 10 * low
            return min(max(wanted, 2 * low), 10 * low)
        wanted = (low + high) / 2
        if self._high_slope > 0:
            wanted = low + (high - low) * self._low_slope / (self._low_slope - self._high_slope)
        margin = 0.1 * (high - low)
        return min(max(wanted, low + margin), high - margin)

    def _remember(self, step: torch.Tensor, change: torch.Tensor, divided: torch.Tensor) -> None:
        product, bend = _dot(step, change), _dot(change, divided)
        if product > 0 and bend > 0:  # as in every convex function, but for rounding
            self._pairs.append((step.float(), change.float(), divided.float(), 1 / product))
            # Smoothed: it swings about 1 where the division is by nearly the Hessian
            self._scale = math.sqrt(self._scale * product / bend)

    def _inverse_hessian_times(self, gradient: torch.Tensor, divided: torch.Tensor) -> torch.Tensor:
        """The two loops of L-BFGS (Nocedal and Wright, Numerical Optimization, algorithm 7.4).

        Between them it divides by the Hessian that it begins with. What is left of the gradient
        there is a sum of gradients that have been divided before.
        """
        rest, result = gradient.clone(), divided.clone()
        shares = []
        for step, change, change_divided, inverse in reversed(self._pairs):
            share = inverse * _dot(step, rest)
            shares.append(share)
            rest.add_(change, alpha=-share)
            result.add_(change_divided, alpha=-share)
        result.mul_(self._scale)
        for (step, change, _, inverse), share in zip(self._pairs, reversed(shares), strict=True):
            result.add_(step, alpha=share - inverse * _dot(change, result))
        return result


def _dot(a: torch.Tensor, b: torch.Tensor) -> float:
    return float((a * b).sum())
