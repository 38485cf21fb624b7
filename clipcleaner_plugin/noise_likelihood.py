"""How well a noise model explains given labels, and where its shared numbers should go."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from .noise_model import (
    HARD_SCALE,
    HARD_SHARE,
    LEAST_RIGHT,
    LOOKALIKE_SCALE,
    NEVER,
    SMALLEST,
    Evidence,
)
from .tables import on_all_cores

if TYPE_CHECKING:
    import torch

_BLOCK = 1 << 18  # numbers of a table; to hand over a smaller one takes as long as the work


@dataclass(frozen=True)
class _Block:
    """Some samples. They run along the last axis: over the classes between, a softmax is fast.

    Attributes:
        tables: (K, n) float32 logits of the images and of language; None where there are none
        given: (1, n) int64 given labels
        confused: (K, n) float32 chance of each class to be taken for the given label
        unconfused: (n,) float32 chance that the class of the given label isn't taken for another
        unclear: (n,) float32 ambiguity
        weights: (n,) float32
    """

    tables: tuple[torch.Tensor | None, torch.Tensor | None]
    given: torch.Tensor
    confused: torch.Tensor
    unconfused: torch.Tensor
    unclear: torch.Tensor
    weights: torch.Tensor


class Surprise:
    """The negative log-likelihood of given labels by :class:`.NoiseModel`, with its gradient.

    A function of what all classes share. The gradient is written out: automatic differentiation
    would keep a dozen N x K tables, and takes twice as long. Blocks of samples are worked on
    by all cores, and their sums added in order.

    Args:
        evidence: of n samples
        labels: (n,) int in [0, K), their given labels
        weights: (n,) float32 > 0, how many samples each stands for
        confusion: (K, K) chances, :attr:`.NoiseModel.mistaken`
        ambiguity: (n,) float32 in [0, 1]
        shifts: (K,) to be added to the joint logits
    """

    def __init__(
        self,
        evidence: Evidence,
        labels: np.ndarray,
        weights: np.ndarray,
        confusion: np.ndarray,
        ambiguity: np.ndarray,
        shifts: np.ndarray,
    ) -> None:
        import torch

        self._shifts = torch.from_numpy(shifts.astype(np.float32))[:, None]
        self._blocks = list(_blocks(evidence, labels, weights, confusion, ambiguity))

    def __call__(
        self, images_scale: float, language_scale: float, chances: np.ndarray
    ) -> tuple[float, np.ndarray, np.ndarray]:
        """Evaluates it.

        Args:
            images_scale: > 0
            language_scale: > 0
            chances: (3,) uniform, lookalike, careless

        Returns:
            the value, its (2,) gradient by the scales, and its (3,) gradient by the chances
        """
        scales = (images_scale, language_scale)

        def surprise(block: _Block) -> np.ndarray:
            return _surprise(block, scales, self._shifts, chances.tolist())

        total = np.sum(on_all_cores(surprise, self._blocks), axis=0)
        return float(total[0]), total[1:3], total[3:]


def _blocks(
    evidence: Evidence,
    labels: np.ndarray,
    weights: np.ndarray,
    confusion: np.ndarray,
    ambiguity: np.ndarray,
) -> Iterator[_Block]:
    import torch

    of_class, given_by = 1 - confusion.sum(axis=1), confusion.T.astype(np.float32)
    size = max(_BLOCK // len(confusion), 1)
    for start in range(0, len(labels), size):
        rows = slice(start, start + size)
        images, language = (
            None if table is None else torch.from_numpy(np.ascontiguousarray(table[rows].T))
            for table in (evidence.images, evidence.language)
        )
        yield _Block(
            (images, language),
            torch.from_numpy(labels[rows].astype(np.int64))[None],
            torch.from_numpy(np.ascontiguousarray(given_by[labels[rows]].T)),
            torch.from_numpy(of_class[labels[rows]].astype(np.float32)),
            torch.from_numpy(ambiguity[rows]),
            torch.from_numpy(weights[rows]),
        )


def _surprise(
    block: _Block, scales: tuple[float, float], shifts: torch.Tensor, chances: list[float]
) -> np.ndarray:
    """Returns value and gradient, (6,) float64."""
    import torch

    uniform, lookalike, careless = chances
    given, unclear = block.given, block.unclear
    behind = _behind(block, scales, shifts)
    hard, hard_sum, hard_given = _softmax(behind * -HARD_SCALE, given)
    others = torch.nn.functional.threshold(behind, 0, -NEVER)  # all but the most probable
    others = (others.amin(dim=0) - others).mul_(LOOKALIKE_SCALE)
    weak, weak_sum, nearby = _softmax(others, given)
    sharp, sharp_sum, sharp_given = _softmax(behind.neg_(), given)
    plain = (1 - HARD_SHARE) * sharp_given + HARD_SHARE * hard_given
    right = block.unconfused - uniform - lookalike - careless
    of_plain = right.clamp_min(LEAST_RIGHT) + careless * (1 - unclear)
    of_nearby = lookalike + careless * unclear
    taken = (sharp * block.confused).sum(dim=0) / sharp_sum
    total = of_plain * plain + uniform / len(behind) + taken + of_nearby * nearby
    possible = total.clamp_min(SMALLEST)
    value = -(block.weights * possible.log()).sum(dtype=torch.float64)

    # The derivative by the logits: p_k (d_ky - p_y) of each softmax that the given label y is read
    # from, and p_k (c_ky - sum p c) of what the confusion c takes
    each = -block.weights / possible * (total >= SMALLEST)
    sharper = (1 - HARD_SHARE) * of_plain * sharp_given
    harder = HARD_SHARE * HARD_SCALE * of_plain * hard_given
    weaker = LOOKALIKE_SCALE * of_nearby * nearby
    by_logits = sharp.mul_((block.confused - (taken + sharper)).mul_(each / sharp_sum))
    by_logits -= hard.mul_(each * harder / hard_sum)
    by_logits -= weak.mul_(each * weaker / weak_sum)
    by_logits.scatter_add_(0, given, (each * (sharper + harder + weaker))[None])
    by_scales = [
        0.0 if table is None else float(torch.dot(by_logits.ravel(), table.ravel()))
        for table in block.tables
    ]
    by_right = -plain * (right >= LEAST_RIGHT)
    by_chances = (1 / len(sharp), nearby, unclear * nearby + (1 - unclear) * plain)
    return np.array(
        [
            float(value),
            *by_scales,
            *(float((each * (by_right + by)).sum(dtype=torch.float64)) for by in by_chances),
        ]
    )


def _behind(block: _Block, scales: tuple[float, float], shifts: torch.Tensor) -> torch.Tensor:
    """How far the logits of classes are behind the highest, (K, n) float32 >= 0."""
    logits: torch.Tensor | None = None
    for scale, table in zip(scales, block.tables, strict=True):
        if table is not None:
            logits = scale * table if logits is None else logits.add_(table, alpha=scale)
    assert logits is not None
    logits += shifts
    return logits.amax(dim=0) - logits


def _softmax(
    logits: torch.Tensor, given: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """A softmax before it is divided by its sums, those, and the given labels' probabilities.

    It takes the place of the logits, which are at most 0.
    """
    terms = logits.exp_()
    sums = terms.sum(dim=0)
    return terms, sums, terms.gather(0, given)[0] / sums
