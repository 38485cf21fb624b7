"""What images look like: classes as Gaussians with one covariance, judged from other folds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

SHRINKAGE = 0.3  # of the covariance towards a multiple of the identity
# The mean of few images lies too far from everything, by the noise in it. This share of that is
# taken back: all of it lets small classes draw images of large ones.
_BIAS = 0.5
_UNSEEN = -100.0  # logit of a class that a model has never seen


@dataclass(frozen=True)
class Gaussians:
    """Linear discriminants of Gaussian classes, one set a fold, each from the other folds.

    Attributes:
        mean: (d,) float32, to be taken from the rows
        coefficients: (F, K + E, d) float32
        intercepts: (F, K + E) float32
        kinds: (E,) int in [0, K), the classes that the last E Gaussians are further kinds of
    """

    mean: np.ndarray
    coefficients: np.ndarray
    intercepts: np.ndarray
    kinds: np.ndarray

    def logits(self, features: np.ndarray, fold_of: np.ndarray) -> np.ndarray:
        """Log-density of each class, up to a constant a row, by models that did not see the row.

        Args:
            features: (n, d) float32
            fold_of: (n,) int; a negative fold has no model

        Returns:
            (n, K) float32, at most 0; rows of zeros where there is no model
        """
        table = self.of_each(features, fold_of)
        logits = table[:, : table.shape[1] - len(self.kinds)]
        # The better of a class's kinds: their sum would favour a class for having many
        for place, of in enumerate(self.kinds, start=logits.shape[1]):
            np.maximum(logits[:, of], table[:, place], out=logits[:, of])
        return np.ascontiguousarray(logits)

    def of_each(self, features: np.ndarray, fold_of: np.ndarray) -> np.ndarray:
        """The same of every Gaussian by itself, (n, K + E) float32."""
        table = np.zeros((len(features), self.intercepts.shape[1]), dtype=np.float32)
        for fold in range(len(self.coefficients)):
            rows = np.flatnonzero(fold_of == fold)
            if len(rows):
                logits = (features[rows] - self.mean) @ self.coefficients[fold].T
                logits += self.intercepts[fold]
                table[rows] = logits - logits.max(axis=1, keepdims=True)
        return table


class GaussianFitter:
    """Fits :class:`Gaussians` to the same rows again and again, with other labels."""

    def __init__(self, features: np.ndarray, fold_of: np.ndarray, weights: np.ndarray) -> None:
        """Sums up what does not depend on the labels.

        Args:
            features: (n, d) float32
            fold_of: (n,) int in [-1, F); rows of fold -1 take part in every model
            weights: (n,) float32 > 0, how many samples each row stands for
        """
        self._mean = np.average(features, axis=0, weights=weights).astype(np.float32)
        self._x = features - self._mean
        self._w = weights[:, None]
        folds = range(int(fold_of.max(initial=-1)) + 1)
        # Rows of fold -1 come last and are in no fold
        self._rows = [np.flatnonzero(fold_of == fold) for fold in (*folds, -1)]
        self._scatter = [
            (self._x[r].T @ (self._x[r] * self._w[r])).astype(float) for r in self._rows
        ]
        self._total = [float(weights[r].sum(dtype=np.float64)) for r in self._rows]

    def fit(
        self, shares: np.ndarray, kinds: Sequence[int] = (), *, bias: float = _BIAS
    ) -> Gaussians:
        """Fits the models.

        Args:
            shares: (n, K + E) float32, the probability of each Gaussian for each row
            kinds (()): the classes that the last E are further kinds of
            bias (0.5): share that is taken back of what the noise in a mean costs its class

        Returns:
            the models
        """
        weighted = shares * self._w
        sizes = [weighted[r].sum(axis=0, dtype=np.float64) for r in self._rows]
        sums = [(weighted[r].T @ self._x[r]).astype(np.float64) for r in self._rows]
        fitted = []
        for fold in range(len(self._rows) - 1):
            rest = [i for i in range(len(self._rows)) if i != fold]
            fitted.append(
                _discriminants(
                    np.sum([sizes[i] for i in rest], axis=0),
                    np.sum([sums[i] for i in rest], axis=0),
                    np.sum([self._scatter[i] for i in rest], axis=0),
                    sum(self._total[i] for i in rest),
                    bias,
                )
            )
        coefficients, intercepts = zip(*fitted, strict=True)
        of = np.asarray(kinds, dtype=np.int64)
        return Gaussians(self._mean, np.stack(coefficients), np.stack(intercepts), of)


def _discriminants(
    sizes: np.ndarray, sums: np.ndarray, scatter: np.ndarray, total: float, bias: float
) -> tuple[np.ndarray, np.ndarray]:
    """Coefficients (K + E, d) and intercepts (K + E,) of Gaussian classes with the same prior."""
    from scipy.linalg import cho_solve, lapack

    d = len(scatter)
    means = sums / np.maximum(sizes, 1e-6)[:, None]
    within = (scatter - (means * sizes[:, None]).T @ means) / max(total, 1.0)
    level = max(float(np.trace(within)) / d, 1e-8)
    covariance = (1 - SHRINKAGE) * within + SHRINKAGE * level * np.eye(d)
    factor = np.linalg.cholesky(covariance)
    coefficients = cho_solve((factor, True), means.T).T
    # The trace of covariance^-1 within, from that of the inverse, the squares of its factor's
    inverse, _ = lapack.dtrtri(factor, lower=1)
    of_within = (d - SHRINKAGE * level * float(np.square(inverse).sum())) / (1 - SHRINKAGE)
    noise = of_within / np.maximum(sizes, 0.5)
    intercepts = -0.5 * np.einsum("kd,kd->k", means, coefficients) + 0.5 * bias * noise
    unseen = sizes < 0.5
    coefficients[unseen], intercepts[unseen] = 0, _UNSEEN
    return coefficients.astype(np.float32), intercepts.astype(np.float32)
