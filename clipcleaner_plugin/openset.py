"""Images that belong to none of the classes, told by little evidence and a label without reason."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from scipy.optimize import OptimizeResult

_CLIP = 1e-6  # of a probability, so that its logarithm is finite
_STEEPEST, _NEVER = 5.0, -30.0
_ERROR = (-12.0, 0.0)  # logits of the chance of an error that the noise model does not know
_MOST_ROWS = 200_000  # to fit three numbers to; every second, third, ... of more
_STARTS = ((-4.0, 1.0), (-2.0, 0.5))


def foreign_probability(
    confidence: np.ndarray, likelihood: np.ndarray, num_classes: int
) -> np.ndarray:
    """Finds out how probable it is that an image belongs to none of the classes.

    Evidence is low on both sides where no class reaches a large probability by language and looks
    together: the maximum softmax probability of Hendrycks & Gimpel ("A Baseline for Detecting
    Misclassified and Out-of-Distribution Examples", ICLR 2017), which here comes from models that
    have not seen the image. Low alone proves nothing: hard images of the classes have it too. But
    theirs is honest, a class with probability .4 being the given label four times in ten, while
    the label of a foreign image has nothing to do with what the models say. So the given labels
    are explained as a mixture: with the chance ``s``, which depends on the confidence ``c``,

        log(s / (1 - s)) = u + v log((1 - c) / c),  v >= 0,

    an image is foreign and its label any of the K. Otherwise its label is any of the K with a small
    chance ``e``, which does not depend on ``c``, so that wrong labels of clear images are not taken
    for foreign ones; or else it has the likelihood that the noise model gives it. The uniform
    component for outliers is that of Banfield & Raftery ("Model-Based Gaussian and Non-Gaussian
    Clustering", Biometrics 1993). ``u``, ``v`` and ``e`` are fitted by maximum likelihood, and
    believed if they explain the labels better than ``e`` alone at their cost (BIC); if not, nothing
    is foreign.

    Args:
        confidence: (n,) float in [0, 1], the largest probability of a class before noise is
            thought of, out-of-fold and calibrated; but that of a class that images of none are
            taken for, which is not honest (:mod:`.refuges`), counts for its own labels alone
        likelihood: (n,) float in [0, 1], the probability of the given label by the noise model,
            without the labels that such a class seems to have lost
        num_classes: K >= 2

    Returns:
        (n,) float32 in [0, 1], the probability that the image is foreign, given its label
    """
    n, any_label = len(confidence), 1 / num_classes
    if not n:
        return np.zeros(0, dtype=np.float32)
    step = -(-n // _MOST_ROWS)
    point = _fit(*_checked(confidence[::step], likelihood[::step]), any_label)
    if point is None:
        return np.zeros(n, dtype=np.float32)
    share, known, _ = _parts(point, *_checked(confidence, likelihood), any_label)
    return (share * any_label / (known + share * (any_label - known))).astype(np.float32)


def _checked(confidence: np.ndarray, likelihood: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Log-odds that no class is right, and the likelihoods, float64 with finite logarithms."""
    c = np.clip(confidence.astype(np.float64), _CLIP, 1 - _CLIP)
    return np.log1p(-c) - np.log(c), np.maximum(likelihood.astype(np.float64), _CLIP)


def _parts(
    point: np.ndarray, doubt: np.ndarray, likely: np.ndarray, any_label: float
) -> tuple[np.ndarray, np.ndarray, float]:
    """For logit of ``e``, ``u`` and ``v``: ``s``, likelihoods of images of the classes, ``e``."""
    error = _sigmoid(point[0])
    share = _sigmoid(point[1] + point[2] * doubt)
    return share, likely + error * (any_label - likely), error


def _fit(doubt: np.ndarray, likely: np.ndarray, any_label: float) -> np.ndarray | None:
    """The most likely logit of ``e``, ``u`` and ``v``; None where nothing is foreign."""
    from scipy.optimize import minimize

    def cost(point: np.ndarray) -> tuple[float, np.ndarray]:
        share, known, error = _parts(point, doubt, likely, any_label)
        total = known + share * (any_label - known)
        slope = (known - any_label) * share * (1 - share) / total
        rise = (likely - any_label) * (1 - share) / total
        # No dot product: how it rounds depends on the number of cores
        gradient = [error * (1 - error) * rise.sum(), slope.sum(), (slope * doubt).sum()]
        return -np.log(total).sum(), np.array(gradient)

    def best(start: tuple[float, ...], bounds: list[tuple[float, float]]) -> OptimizeResult:
        return minimize(cost, start, jac=True, method="L-BFGS-B", bounds=bounds)

    none = best((-5.0, _NEVER, 0.0), [_ERROR, (_NEVER, _NEVER), (0.0, 0.0)])
    some = min(
        (best((-5.0, *start), [_ERROR, (_NEVER, 5.0), (0.0, _STEEPEST)]) for start in _STARTS),
        key=lambda found: found.fun,
    )
    gain = none.fun - some.fun
    return some.x if gain > np.log(len(doubt)) else None  # half the logarithm for each parameter


def _sigmoid(x: Any) -> Any:
    return 0.5 * (1 + np.tanh(0.5 * x))
