"""The paper's rule once more, written from its text with scikit-learn: slow, plain, independent.

Of what the project mends it shares only what the two could not be compared without: the fill takes
the best, a mixture has one threshold, and its random start sees the scores in ascending order.
"""

from __future__ import annotations

import numpy as np
from sklearn.linear_model import LogisticRegression
from sklearn.mixture import GaussianMixture


def select_by_the_book(
    images: np.ndarray,
    labels: np.ndarray,
    texts: list[np.ndarray],
    *,
    theta_gmm: float = 0.5,
    theta_cons: float = 0.8,
    temperature: float = 0.07,
    average_prompts: bool = True,
    seed: int = 51,
) -> np.ndarray:
    """Selects samples; every class of the list must have samples, every row be finite."""
    images = _unit(images)
    n, k = len(images), len(texts)
    zeroshot = np.zeros((n, k))
    for c in range(k):
        similarities = np.exp(images @ _unit(np.atleast_2d(texts[c])).T / temperature)
        zeroshot[:, c] = similarities.mean(1) if average_prompts else similarities.sum(1)
    zeroshot /= zeroshot.sum(axis=1, keepdims=True)
    model = LogisticRegression(C=1.0, class_weight="balanced", max_iter=100_000, tol=1e-8)
    visual = model.fit(images, labels).predict_proba(images)

    selected = np.ones(n, dtype=bool)
    losses = []
    for probs in (zeroshot, visual):
        loss = np.log([probs[i, labels[i]] for i in range(n)])
        consistency = np.array([probs[i, labels[i]] / probs[i].max() for i in range(n)])
        selected &= consistency >= theta_cons
        for c in range(k):
            members = labels == c
            low, high = loss[members].min(), loss[members].max()
            loss[members] = (loss[members] - low) / (high - low)
            selected[members] &= _clean(loss[members], theta_gmm, seed)
        losses.append(loss)

    sizes = [int(selected[labels == c].sum()) for c in range(k)]
    n_min = min([size for size in sizes if size > 0], default=1)
    for c in range(k):
        if sizes[c] == 0:
            members = np.flatnonzero(labels == c)
            best_first = members[np.argsort(-losses[0][members])]
            selected[best_first[: max(n_min, n // k**2)]] = True
    return selected


def _clean(scores: np.ndarray, theta: float, seed: int) -> np.ndarray:
    mixture = GaussianMixture(n_components=2, random_state=seed)
    mixture.fit(np.sort(scores).reshape(-1, 1))
    means = mixture.means_.ravel()
    posterior = mixture.predict_proba(scores.reshape(-1, 1))[:, means.argmax()]
    between = scores[(scores >= means.min()) & (scores <= means.max()) & (posterior >= theta)]
    threshold = between.min() if len(between) else means.max()
    return scores >= threshold


def _unit(rows: np.ndarray) -> np.ndarray:
    rows = np.asarray(rows, dtype=np.float64)
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)
