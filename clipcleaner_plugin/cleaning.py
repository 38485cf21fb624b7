"""A first cleaning of the labels, before the images' opinion of the score is formed on them."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np

from .fitting import in_order
from .gaussians import GaussianFitter, Gaussians
from .kinds import Kind, find_kinds, split
from .noise_fit import LEAST_KEPT, Fit, fit_noise_model, spread, start_model
from .noise_model import Evidence, NoiseModel
from .offsets import SUPPOSED_NOISE, fit_offsets, gain_of
from .zeroshot import log_softmax

GAUSSIAN_SCALE = 0.2  # densities in hundreds of dimensions are far too sure of themselves
TRUST_EXPONENT, _SHARPNESS = 6, 4
_ROUNDS, _ROUNDS_OF_KINDS = 4, 2
_TRUSTED = 0.25  # trust in language from which on it is right nearly (5/6) as often as the images
_NOT_BY_CHANCE = 10  # labels of a class that are not all wrong
_ENOUGH = 1e-3  # change of the labels, in labels a sample, at which the cleaning ends
_LEAST_ROWS, _ROWS_OF_CLASS = 10_000, 30
_SIDE_BY_SIDE = 2**22  # numbers of a table


@dataclass(frozen=True)
class Sample:
    """Samples that a model with few parameters is fitted to, in place of all.

    Attributes:
        rows: (n,) int, ascending
        weights: (n,) float32 >= 1, how many samples of its given label each stands for
    """

    rows: np.ndarray
    weights: np.ndarray


def draw_sample(labels: np.ndarray, num_classes: int, share: float = 0) -> Sample:
    """Takes at most 10,000 samples, or 30 a class or a share of all where that is more.

    Large classes give way, so that small ones keep all their samples. Members are taken at equal
    distances, which leaves an order by folds and hashes as it is.

    Args:
        labels: (N,) int in [0, K)
        num_classes: K
        share (0): in [0, 1]
    """
    sizes = np.bincount(labels, minlength=num_classes)
    limit = max(_LEAST_ROWS, _ROWS_OF_CLASS * num_classes, int(share * len(labels)))
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
        offsets: (K,) float32, to be added to the logits of language; zeros where they are believed
            as they are
    """

    gaussians: Gaussians
    model: NoiseModel
    offsets: np.ndarray

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
    what they say: see :meth:`_Search.explain`. First the class names are believed as they are.
    Where offsets for them agree far better with the labels, by twice what K parameters cost (BIC),
    and names are then right nearly as often as looks, the labels are explained again with these.
    That is believed if it explains them better by more than chance: offsets move images between
    classes, and could hide wrong labels.

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
    search = _Search(features, language, labels, fold_of, weights, given, fitter, images)
    found, cost = search.explain(np.zeros(num_classes, dtype=np.float32))
    if language is None:
        return search.tell_kinds(found)
    looks, _ = _joint_opinion(Evidence(images, None), labels, weights)
    shares = _by_confusion(looks, labels, start_model(num_classes, GAUSSIAN_SCALE))
    offsets = fit_offsets(language, shares, weights)
    _, trust = _joint_opinion(Evidence(images, language + offsets), labels, weights)
    log_size = np.log(weights.sum())
    gain = gain_of(offsets, language, labels, weights)
    if trust > _TRUSTED and gain > num_classes * log_size:
        other, other_cost = search.explain(offsets)
        if other_cost + 2 * log_size < cost:
            found = other
    return search.tell_kinds(found)


class _Explanation(NamedTuple):
    """What one search came to.

    Attributes:
        gaussians: what the classes look like
        fit: how their labels came about
        shares: (n, K) float32, the probability of each true label
        change: how far these are from those that it began with
    """

    gaussians: Gaussians
    fit: Fit
    shares: np.ndarray
    change: float


@dataclass(frozen=True)
class _Search:
    """The search for an explanation of given labels; see :func:`clean_labels` for the arguments.

    Attributes:
        given: (n, K) float32, 1 at the given labels
        images: (n, K) float32 logits of Gaussians that are fitted to the given labels
    """

    features: np.ndarray
    language: np.ndarray | None
    labels: np.ndarray
    fold_of: np.ndarray
    weights: np.ndarray
    given: np.ndarray
    fitter: GaussianFitter
    images: np.ndarray

    def explain(self, offsets: np.ndarray) -> tuple[Cleaning, float]:
        """Finds the better of two explanations.

        Noise with a structure, such as pair flips, has two: classes that overlap, or clear classes
        and wrong labels. So it is begun from the given labels, and from what language and images
        together hold the most probable, once boldly, with the confusion of classes that this
        implies, and once mildly, with some weight to the labels. These two are believed only if
        they explain the labels better, also than the first does without its caution: it always
        mixes the given labels back in, so that hard images of overlapping classes are not drawn
        over to their neighbours one after the other. They have to earn the price of their pairs
        (BIC), too, unless language, which has not seen the labels, is trusted.

        Args:
            offsets: (K,) float32, to be added to the logits of language

        Returns:
            the explanation, and its negative log-likelihood with the price of its pairs of classes
        """
        language = None if self.language is None else self.language + offsets
        opinion, trust = _joint_opinion(Evidence(self.images, language), self.labels, self.weights)
        price = 0 if trust > _TRUSTED else 1

        def once(shares: np.ndarray, model: NoiseModel, caution: float) -> _Explanation:
            gaussians = self.fitter.fit((1 - caution) * shares + caution * self.given)
            evidence = Evidence(gaussians.logits(self.features, self.fold_of), language)
            fit = fit_noise_model(evidence, self.labels, self.weights, model)
            posterior = _posterior(fit.model, evidence, self.labels)
            return _Explanation(gaussians, fit, posterior, _distance(posterior, shares))

        def alternate(found: _Explanation, caution: float) -> _Explanation:
            for _ in range(_ROUNDS - 1):
                if found.change < _ENOUGH:
                    break
                found = once(found.shares, spread(found.fit.model), caution)
            return found

        def cost(found: _Explanation) -> float:
            return found.fit.surprise + price * found.fit.price

        start = start_model(self.given.shape[1], GAUSSIAN_SCALE)
        bold = _start_from(opinion, self.labels, self.weights, start)
        bold_shares = _by_confusion(opinion, self.labels, bold)
        mild_shares = _by_labels(opinion, self.labels)
        mild = _start_from(mild_shares, self.labels, self.weights, start)
        beginnings = [(self.given, start, 0.5), (bold_shares, bold, 0.0)]
        if _distance(bold_shares, mild_shares) >= _ENOUGH:  # unless the opinion has no doubts
            beginnings.append((mild_shares, mild, 0.0))
        # Side by side they need three times the memory
        apply = in_order if self.given.size <= _SIDE_BY_SIDE else map
        first = list(apply(lambda beginning: once(*beginning), beginnings))
        cautions = (caution for _, _, caution in beginnings)
        believed, *begun = apply(lambda task: alternate(*task), zip(first, cautions, strict=True))
        better = [f for f in begun if cost(f) < cost(believed) and not self._denies_a_class(f)]
        if better:
            best = min(better, key=cost)
            if cost(best) < cost(alternate(first[0], 0.0)):
                believed = best
        cleaning = Cleaning(believed.gaussians, believed.fit.model, offsets)
        return cleaning, believed.fit.surprise + believed.fit.price

    def tell_kinds(self, found: Cleaning) -> Cleaning:
        """Explains the labels again, if classes of several kinds are found: see find_kinds."""
        language = None if self.language is None else self.language + found.offsets
        kinds: list[Kind] = []
        for _ in range(_ROUNDS_OF_KINDS):
            evidence = Evidence(found.gaussians.logits(self.features, self.fold_of), language)
            shares = _posterior(found.model, evidence, self.labels)
            more = find_kinds(
                self.fitter, self.features, language, self.labels, self.fold_of, self.weights,
                shares, found.model, kinds,
            )  # fmt: skip
            if not more:
                break
            kinds += more
            gaussians = self.fitter.fit(split(shares, kinds), [kind.of for kind in kinds])
            evidence = Evidence(gaussians.logits(self.features, self.fold_of), language)
            fit = fit_noise_model(evidence, self.labels, self.weights, spread(found.model))
            found = replace(found, gaussians=gaussians, model=fit.model)
        return found

    def _denies_a_class(self, found: _Explanation) -> bool:
        """Whether all labels of a class are said to be wrong, as misleading names would have it."""
        sizes = self.weights @ self.given
        kept = self.weights @ (self.given * found.shares)
        return bool(np.any((kept < LEAST_KEPT * sizes) & (sizes >= _NOT_BY_CHANCE)))


def _distance(shares: np.ndarray, others: np.ndarray) -> float:
    """How far two tables of probabilities are apart, in labels a sample."""
    return float(np.abs(shares - others).sum()) / len(shares)


def _posterior(model: NoiseModel, evidence: Evidence, labels: np.ndarray) -> np.ndarray:
    """Probability of each true label, (n, K) float32."""
    judged = model.judge(evidence, labels)
    shares = judged.others
    shares[np.arange(len(labels)), labels] = judged.right
    shares /= shares.sum(axis=1, keepdims=True)
    return shares


def _joint_opinion(
    evidence: Evidence, labels: np.ndarray, weights: np.ndarray
) -> tuple[np.ndarray, float]:
    """What both opinions hold probable, each trusted by a power of its agreement with the labels.

    Wrong labels that do not depend on the image lower both agreements by the same factor, so that
    their ratio compares how often the two are *right*; those with a structure mislead the images
    only. The power turns a clear lead into a decision. Sharpened, since a model of wrong labels is
    less sure than it should be.

    Returns:
        (n, K) float32 probabilities, and the trust in language, in [0, 1]
    """
    assert evidence.images is not None
    images = log_softmax(np.float32(_calibrate(evidence.images, labels, weights)) * evidence.images)
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


def _calibrate(logits: np.ndarray, labels: np.ndarray, weights: np.ndarray) -> float:
    """The scale of logits that explains the given labels best, if a fifth of them is arbitrary."""
    from scipy.optimize import minimize_scalar

    rows, k = np.arange(len(labels)), logits.shape[1]

    def cost(scale: float) -> float:
        probs = np.exp(log_softmax(np.float32(scale) * logits)[rows, labels].astype(np.float64))
        mixed = np.log((1 - SUPPOSED_NOISE) * probs + SUPPOSED_NOISE / k)
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


def _by_labels(opinion: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Probability of each true label by half an opinion's log-odds, if a fifth is arbitrary."""
    any_label = np.float32(SUPPOSED_NOISE / opinion.shape[1])
    return _weighted(np.sqrt(opinion), labels, 1 - SUPPOSED_NOISE, any_label)


def _by_confusion(opinion: np.ndarray, labels: np.ndarray, model: NoiseModel) -> np.ndarray:
    """Probability of each true label by an opinion and the confusion of classes."""
    any_label = np.float32(SUPPOSED_NOISE / opinion.shape[1])
    wrong = model.confusion.T[labels].astype(np.float32) + any_label
    return _weighted(opinion, labels, model.right[labels], wrong)


def _weighted(
    opinion: np.ndarray,
    labels: np.ndarray,
    right: float | np.ndarray,
    wrong: np.float32 | np.ndarray,
) -> np.ndarray:
    """An opinion times how probable it is that a label is right or, for other classes, wrong."""
    rows = np.arange(len(labels))
    shares = opinion * wrong
    shares[rows, labels] = opinion[rows, labels] * right
    return shares / shares.sum(axis=1, keepdims=True)
