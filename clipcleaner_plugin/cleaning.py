"""A first cleaning of the labels, before the images' opinion of the score is formed on them."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from .gaussians import GaussianFitter, Gaussians
from .noise_fit import LEAST_CONFUSED, fit_noise_model, spread, start_model
from .noise_model import Evidence, NoiseModel
from .offsets import fit_offsets
from .zeroshot import log_softmax

GAUSSIAN_SCALE = 0.2  # densities in hundreds of dimensions are far too sure of themselves
TRUST_EXPONENT, _SHARPNESS = 6, 4
_SUPPOSED_NOISE = 0.2  # share of labels taken for arbitrary before anything is known
_ROUNDS = 4
_MANY_MORE = 1.5  # times as many images that look like a class, as have its label
_ENOUGH = 1e-3  # change of the labels, in labels a sample, at which the cleaning ends
_LEAST_ROWS, _ROWS_OF_CLASS = 10_000, 30


@dataclass(frozen=True)
class Sample:
    """Samples that a model with few parameters is fitted to, in place of all.

    Attributes:
        rows: (n,) int, ascending
        weights: (n,) float32 >= 1, how many samples of its given label each stands for
    """

    rows: np.ndarray
    weights: np.ndarray


def draw_sample(labels: np.ndarray, num_classes: int) -> Sample:
    """Takes at most 10,000 samples, or 30 a class where that is more.

    Large classes give way, so that small ones keep all their samples. Members are taken at equal
    distances, which leaves an order by folds and hashes as it is.

    Args:
        labels: (N,) int in [0, K)
        num_classes: K
    """
    sizes = np.bincount(labels, minlength=num_classes)
    limit = max(_LEAST_ROWS, _ROWS_OF_CLASS * num_classes)
    cap = _level(sizes, limit)
    taken = np.minimum(sizes, cap)
    order = np.argsort(labels, kind="stable")
    rank = np.arange(len(labels)) - np.repeat(np.cumsum(sizes) - sizes, sizes)
    n, m = sizes[labels[order]], taken[labels[order]]
    # Of n members the ranks at which rank * m / n reaches another whole number: m of them
    chosen = (rank * m) // n != ((rank - 1) * m) // n
    rows = np.sort(order[chosen])
    weights = (sizes / np.maximum(taken, 1))[labels[rows]].astype(np.float32)
    return Sample(rows, weights)


def _level(sizes: np.ndarray, limit: int) -> int:
    """The largest cap on the classes' sizes with which they sum to no more than ``limit``."""
    if sizes.sum() <= limit:
        return int(sizes.max(initial=1))
    low, high = 1, int(sizes.max())
    while low + 1 < high:
        middle = (low + high) // 2
        low, high = (middle, high) if np.minimum(sizes, middle).sum() <= limit else (low, middle)
    return low


@dataclass(frozen=True)
class Cleaning:
    """What the first cleaning found.

    Attributes:
        gaussians: what the classes look like
        model: how their labels came about
        offsets: (K,) float32, to be added to the logits of language
    """

    gaussians: Gaussians
    model: NoiseModel
    offsets: np.ndarray

    def opinion(self, features: np.ndarray, fold_of: np.ndarray) -> np.ndarray:
        """Calibrated logits of the images by their looks alone, (n, K) float32."""
        logits = self.gaussians.logits(features, fold_of)
        return np.float32(self.model.images_scale) * logits + self.model.prior

    def doubts(
        self,
        features: np.ndarray,
        language: np.ndarray | None,
        labels: np.ndarray,
        fold_of: np.ndarray,
    ) -> tuple[np.ndarray, np.ndarray]:
        """Another label for every row of a block, and how probable it is that the given is wrong.

        Args:
            features: (n, d) float32
            language: (n, K) float32 logits of language, or None
            labels: (n,) int in [0, K)
            fold_of: (n,) int

        Returns:
            (n,) int labels and (n,) float32 in [0, 1]; 0 where no model may judge the row
        """
        if language is not None:
            language = language + self.offsets
        evidence = Evidence(self.gaussians.logits(features, fold_of), language)
        judged = self.model.judge(evidence, labels)
        return judged.best_other, np.where(fold_of < 0, 0, judged.doubt).astype(np.float32)


def clean_labels(
    features: np.ndarray,
    language: np.ndarray | None,
    labels: np.ndarray,
    fold_of: np.ndarray,
    weights: np.ndarray,
    num_classes: int,
) -> Cleaning:
    """Finds clean classes and the noise in their labels together, by expectation maximisation.

    The Gaussians are fitted to labels that the noise model has cleaned, and the noise model to
    what they say: see :meth:`_Search.explain`. A class with few labels may be small, or may have
    lost its labels to others. Small is believed first. Where many more images look like a class
    than have its label, the labels are explained again as if all classes were equally frequent.
    That is believed if it explains them better, at a price of two parameters for each such class
    less (BIC).

    Call it within :func:`clipcleaner_plugin.fitting.one_blas_thread`.

    Args:
        features: (n, d) float32
        language: (n, K) float32 logits of language, or None
        labels: (n,) int in [0, K)
        fold_of: (n,) int in [-1, F)
        weights: (n,) float32 > 0, how many samples each row stands for
        num_classes: K >= 2

    Returns:
        the classes and the noise
    """
    given = np.zeros((len(labels), num_classes), dtype=np.float32)
    given[np.arange(len(labels)), labels] = 1
    fitter = GaussianFitter(features, fold_of, weights)
    images = fitter.fit(given).logits(features, fold_of)
    even = np.zeros(1, dtype=np.float32)
    looks = np.exp(log_softmax(np.float32(_calibrate(images, labels, weights, even)) * images))
    offsets = np.zeros(num_classes, dtype=np.float32)
    if language is not None:
        offsets = fit_offsets(language, _true_shares(looks, labels, None), weights, offsets)
    search = _Search(features, language, labels, fold_of, weights, given, fitter, images, offsets)
    sizes = weights @ given
    as_labeled = np.log((sizes + 1) / (sizes + 1).sum()).astype(np.float32)
    found, cost = search.explain(as_labeled)
    lost = np.sum(weights @ looks > _MANY_MORE * (sizes + LEAST_CONFUSED))
    if lost:
        other, other_cost = search.explain(even)
        if other_cost < cost + lost * np.log(weights.sum()):
            return other
    return found


@dataclass(frozen=True)
class _Search:
    """The search for an explanation of given labels; see :func:`clean_labels` for the arguments.

    Attributes:
        given: (n, K) float32, 1 at the given labels
        images: (n, K) float32 logits of Gaussians that are fitted to the given labels
        offsets: (K,) float32, to be added to the logits of language at the start
    """

    features: np.ndarray
    language: np.ndarray | None
    labels: np.ndarray
    fold_of: np.ndarray
    weights: np.ndarray
    given: np.ndarray
    fitter: GaussianFitter
    images: np.ndarray
    offsets: np.ndarray

    def explain(self, prior: np.ndarray) -> tuple[Cleaning, float]:
        """Finds the better of two explanations.

        Noise with a structure, such as pair flips, has two: classes that overlap, or clear classes
        and wrong labels. So it is begun twice, from the given labels, and from what language and
        images together hold the most probable, with the confusion of classes that this implies.
        The second is believed only if it explains the labels better at its own cost (BIC), also
        than the first does without its caution: the first always mixes the given labels back in,
        so that hard images of overlapping classes are not drawn over to their neighbours one after
        the other.

        Args:
            prior: (K,) float32, what makes classes as frequent as they are, to begin with; or (1,):
                all are equally frequent

        Returns:
            the explanation, and its negative log-likelihood and price
        """
        opinion, trust = _joint_opinion(
            Evidence(self.images, self._words(self.offsets)), self.labels, self.weights, prior
        )
        price = 0 if trust > 0.5 else 1
        start = replace(start_model(self.given.shape[1], GAUSSIAN_SCALE), prior=prior)
        careful = self._alternate(self.given, start, 0.5, price)
        supposed = _start_from(opinion, self.labels, self.weights, start)
        shares = _true_shares(opinion, self.labels, supposed)
        bold = self._alternate(shares, supposed, 0.0, price)
        if bold[1] >= careful[1] or bold[1] >= self._alternate(self.given, start, 0.0, price)[1]:
            return careful
        return bold

    def _words(self, offsets: np.ndarray) -> np.ndarray | None:
        return None if self.language is None else self.language + offsets

    def _alternate(
        self, shares: np.ndarray, model: NoiseModel, caution: float, price: float
    ) -> tuple[Cleaning, float]:
        """Fits Gaussians and noise model in turn, from the probabilities of the true labels."""
        offsets = self.offsets
        for turn in range(_ROUNDS):
            gaussians = self.fitter.fit((1 - caution) * shares + caution * self.given)
            if turn and self.language is not None:
                offsets = fit_offsets(self.language, shares, self.weights, offsets)
            looks = gaussians.logits(self.features, self.fold_of)
            evidence = Evidence(looks, self._words(offsets))
            begin = spread(model) if turn else model
            fit = fit_noise_model(evidence, self.labels, self.weights, begin)
            before, shares = shares, _posterior(fit.model, evidence, self.labels)
            model = fit.model
            if np.abs(shares - before).sum() < _ENOUGH * len(self.labels):
                break
        return Cleaning(gaussians, model, offsets), fit.surprise + price * fit.price


def _posterior(model: NoiseModel, evidence: Evidence, labels: np.ndarray) -> np.ndarray:
    """Probability of each true label, (n, K) float32."""
    judged = model.judge(evidence, labels)
    shares = judged.others
    shares[np.arange(len(labels)), labels] = judged.right
    shares /= shares.sum(axis=1, keepdims=True)
    return shares


def _joint_opinion(
    evidence: Evidence, labels: np.ndarray, weights: np.ndarray, prior: np.ndarray
) -> tuple[np.ndarray, float]:
    """What both opinions hold probable, each trusted by a power of its agreement with the labels.

    The images know how frequent the classes are, or a small class with many labels of a large one
    would keep them. Sharpened, since a model of wrong labels is less sure than it should be.

    Wrong labels that do not depend on the image lower both agreements by the same factor, so that
    their ratio compares how often the two are *right*; those with a structure mislead the images
    only. The power turns a clear lead into a decision.

    Returns:
        (n, K) float32 probabilities, and the trust in language, in [0, 1]
    """
    assert evidence.images is not None
    scale = np.float32(_calibrate(evidence.images, labels, weights, prior))
    images = log_softmax(scale * evidence.images + prior)
    joint, trust = images, 0.0
    if evidence.language is not None:
        language = log_softmax(evidence.language)
        right = [
            float(np.average(table.argmax(axis=1) == labels, weights=weights))
            for table in (language, images)
        ]
        best = max(*right, 1e-9)  # divided by it, no power runs out of digits
        by_language, by_images = ((share / best) ** TRUST_EXPONENT for share in right)
        trust = by_language / (by_language + by_images) if by_language + by_images else 0.5
        joint = np.float32(trust) * language + np.float32(1 - trust) * images
    return np.exp(log_softmax(_SHARPNESS * joint)), trust


def _calibrate(
    logits: np.ndarray, labels: np.ndarray, weights: np.ndarray, prior: np.ndarray
) -> float:
    """The scale of logits that explains the given labels best, if a fifth of them is arbitrary."""
    from scipy.optimize import minimize_scalar

    rows, k = np.arange(len(labels)), logits.shape[1]

    def cost(scale: float) -> float:
        log_probs = log_softmax(np.float32(scale) * logits + prior)[rows, labels]
        probs = np.exp(log_probs.astype(np.float64))
        mixed = np.log((1 - _SUPPOSED_NOISE) * probs + _SUPPOSED_NOISE / k)
        return -float((weights * mixed).sum())

    found = minimize_scalar(cost, bounds=(0.01, 1), method="bounded", options={"xatol": 0.01})
    return float(found.x)


def _start_from(
    opinion: np.ndarray, labels: np.ndarray, weights: np.ndarray, start: NoiseModel
) -> NoiseModel:
    """The confusion of classes that lies in an opinion of the images, (n, K), and their labels."""
    k = opinion.shape[1]
    counts = np.zeros((k, k))
    np.add.at(counts, labels, opinion * weights[:, None])
    counts = counts.T
    sizes = counts.sum(axis=1)
    np.fill_diagonal(counts, 0)
    confusion = np.maximum(counts - 1.5, 0) / np.maximum(sizes, 1)[:, None]
    confusion *= np.minimum(1, 0.8 / np.maximum(confusion.sum(axis=1), 1e-9))[:, None]
    return replace(start, confusion=confusion)


def _true_shares(opinion: np.ndarray, labels: np.ndarray, model: NoiseModel | None) -> np.ndarray:
    """Probability of each true label, (n, K) float32, by an opinion and the confusion, if any."""
    rows, any_label = np.arange(len(labels)), np.float32(_SUPPOSED_NOISE / opinion.shape[1])
    right = 1 - _SUPPOSED_NOISE if model is None else model.right[labels]
    wrong = any_label if model is None else model.mistakes.T[labels] + any_label
    shares = opinion * wrong
    shares[rows, labels] = opinion[rows, labels] * right
    return shares / shares.sum(axis=1, keepdims=True)
