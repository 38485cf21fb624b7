"""A first cleaning of the labels, before the images' opinion of the score is formed on them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np

from .beginnings import by_confusion, by_labels, calibrated, joint_opinion, start_from
from .displaced import LEADS, with_places
from .fitting import in_order
from .gaussians import GaussianFitter, Gaussians
from .habits import LEAST_KEPT
from .kinds import Kind, find_kinds, split
from .labeled import Labeled
from .noise_fit import Fit, fit_noise_model, spread, start_model
from .noise_model import Evidence, NoiseModel
from .offsets import SUPPOSED_NOISE, fit_offsets, gain_of
from .refuges import find_refuges
from .tables import by_rows

GAUSSIAN_SCALE = 0.2  # densities in hundreds of dimensions are far too sure of themselves
_ROUNDS, _ROUNDS_FROM_AFAR, _ROUNDS_OF_KINDS = 4, 12, 2
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


def clean_labels(rows: Labeled, num_classes: int) -> Cleaning:
    """Finds clean classes and the noise in their labels together, by expectation maximisation.

    The Gaussians are fitted to labels that the noise model has cleaned, and the noise model to
    what they say: see :meth:`_Search.explain`. First the class names are believed as they are.
    Where offsets for them agree far better with the labels, by twice what K parameters cost (BIC),
    and names are then right nearly as often as looks, the labels are explained again with these.
    That is believed if it explains them better by more than chance: offsets move images between
    classes, and could hide wrong labels. Then classes that another has taken the place of are given
    it back, and classes of several kinds are told: see :func:`.with_places`, :func:`.find_kinds`.

    Call it within :func:`clipcleaner_plugin.fitting.one_blas_thread`.

    Args:
        rows: n of them
        num_classes: K >= 2

    Returns:
        the classes and the noise
    """
    labels, language, weights = rows.labels, rows.language, rows.weights
    given = np.zeros((len(labels), num_classes), dtype=np.float32)
    given[np.arange(len(labels)), labels] = 1
    fitter = GaussianFitter(rows.features, rows.fold_of, weights)
    images = calibrated(fitter.fit(given).logits(rows.features, rows.fold_of), rows)
    search = _Search(rows, given, fitter, images)
    found, offsets = search.explain(), np.zeros(num_classes, dtype=np.float32)
    if language is not None:
        looks, _ = joint_opinion(images, None, rows)
        shares = by_confusion(looks, labels, start_model(num_classes, GAUSSIAN_SCALE))
        fitted = fit_offsets(language, shares, weights)
        with_offsets = replace(search, rows=replace(rows, language=language + fitted))
        _, trust = joint_opinion(images, with_offsets.rows.language, rows)
        gain = gain_of(fitted, language, labels, weights) * len(labels) / weights.sum()
        if trust > _TRUSTED and gain > num_classes * np.log(len(labels)):
            other = with_offsets.explain()
            if search.is_better(other, found):
                search, found, offsets = with_offsets, other, fitted
    found = search.tell_kinds(search.give_back_places(found))
    model = found.fit.model
    refuge = find_refuges(rows, images, found.shares, model.scattered)
    return Cleaning(found.gaussians, replace(model, refuge=refuge), offsets)


class _Explanation(NamedTuple):
    """What one search came to.

    Attributes:
        gaussians: what the classes look like
        fit: how their labels came about
        shares: (n, K) float32, the probability of each true label
        change: how far these are from those that it began with
        caution: share of the given labels in what the Gaussians were fitted to
    """

    gaussians: Gaussians
    fit: Fit
    shares: np.ndarray
    change: float
    caution: float


@dataclass(frozen=True)
class _Search:
    """The search for an explanation of given labels.

    Attributes:
        rows: n of them
        given: (n, K) float32, 1 at the given labels
        images: (n, K) float32 log-probabilities by Gaussians that are fitted to the given labels
    """

    rows: Labeled
    given: np.ndarray
    fitter: GaussianFitter
    images: np.ndarray

    def explain(self) -> _Explanation:
        """Finds the best of three explanations.

        Noise with a structure, such as pair flips, has two: classes that overlap, or clear classes
        and wrong labels. So it is begun from the given labels, and from what language and images
        together hold the most probable, once boldly, with the confusion of classes that this
        implies, and once mildly, with some weight to the labels. These two are believed only if
        they explain the labels better, also than the first does without its caution: it always
        mixes the given labels back in, so that hard images of overlapping classes are not drawn
        over to their neighbours one after the other. They have to earn the price of their pairs,
        too. Where language is trusted, which has not seen the labels, it counts as well how far the
        true labels that are found are what it expects: noise that follows what images look like is
        explained just as well by looks that have learned it.
        """
        labels, weights = self.rows.labels, self.rows.weights
        opinion, trust = joint_opinion(self.images, self.rows.language, self.rows)

        words = None
        if self.rows.language is not None and trust > _TRUSTED:
            words = np.exp(calibrated(self.rows.language, self.rows))

        def cost(found: _Explanation) -> float:
            return found.fit.cost + (0.0 if words is None else self._contradiction(found, words))

        start = start_model(self.given.shape[1], GAUSSIAN_SCALE)
        bold = start_from(opinion, labels, weights, start)
        bold_shares = by_confusion(opinion, labels, bold)
        mild_shares = by_labels(opinion, labels)
        mild = start_from(mild_shares, labels, weights, start)
        beginnings = [(self.given, start, 0.5), (bold_shares, bold, 0.0)]
        if _distance(bold_shares, mild_shares) >= _ENOUGH:  # unless the opinion has no doubts
            beginnings.append((mild_shares, mild, 0.0))
        # Side by side they need three times the memory
        apply = in_order if self.given.size <= _SIDE_BY_SIDE else map
        first = list(apply(lambda beginning: self._once(*beginning), beginnings))
        believed, *begun = apply(self._alternate, first)
        better = [f for f in begun if cost(f) < cost(believed) and not self._denies_a_class(f)]
        if better:
            best = min(better, key=cost)
            if cost(best) < cost(self._alternate(first[0]._replace(caution=0.0))):
                believed = best
        return believed

    def give_back_places(self, found: _Explanation) -> _Explanation:
        """Explains the labels from where displaced classes have their places, if that is better."""
        start = start_model(self.given.shape[1], GAUSSIAN_SCALE)
        for lead in LEADS:
            looks = found.gaussians.logits(self.rows.features, self.rows.fold_of)
            shares = with_places(self.rows, looks, found.shares, lead)
            if shares is None:
                continue
            model = start_from(shares, self.rows.labels, self.rows.weights, start)
            other = self._alternate(self._once(shares, model, 0.0), _ROUNDS_FROM_AFAR)
            if self.is_better(other, found):
                found = other
        return found

    def tell_kinds(self, found: _Explanation) -> _Explanation:
        """Explains the labels again, if classes of several kinds are found.

        It need not explain them better by the noise model: that may do as well with wrong labels.
        """
        kinds: list[Kind] = []
        for _ in range(_ROUNDS_OF_KINDS):
            more = find_kinds(self.fitter, self.rows, found.shares, found.fit.model, kinds)
            if not more:
                break
            kinds += more
            found = self._once(found.shares, spread(found.fit.model), found.caution, kinds)
        return found

    def is_better(self, other: _Explanation, found: _Explanation) -> bool:
        """Whether another explanation is better by more than chance."""
        return other.fit.cost + 2 * float(np.log(len(self.given))) < found.fit.cost

    def _once(
        self,
        shares: np.ndarray,
        model: NoiseModel,
        caution: float,
        kinds: Sequence[Kind] = (),
    ) -> _Explanation:
        """Fits Gaussians to shares, to a part of ``caution`` the given ones, and a noise model."""
        mixed = (1 - caution) * shares + caution * self.given
        gaussians = self.fitter.fit(split(mixed, kinds), [kind.of for kind in kinds])
        rows = self.rows
        evidence = Evidence(gaussians.logits(rows.features, rows.fold_of), rows.language)
        fit = fit_noise_model(evidence, rows.labels, rows.weights, model)
        posterior = _posterior(fit.model, evidence, rows.labels)
        return _Explanation(gaussians, fit, posterior, _distance(posterior, shares), caution)

    def _alternate(self, found: _Explanation, rounds: int = _ROUNDS) -> _Explanation:
        """Goes on until little changes."""
        for _ in range(rounds - 1):
            if found.change < _ENOUGH:
                break
            found = self._once(found.shares, spread(found.fit.model), found.caution)
        return found

    def _contradiction(self, found: _Explanation, words: np.ndarray) -> float:
        """How little the words expect the true labels that are found, in nats."""
        expected = (found.shares * words).sum(axis=1, dtype=np.float64)
        expected = (1 - SUPPOSED_NOISE) * expected + SUPPOSED_NOISE / words.shape[1]
        return -float(np.average(np.log(expected), weights=self.rows.weights)) * len(words)

    def _denies_a_class(self, found: _Explanation) -> bool:
        """Whether all labels of a class are said to be wrong, as misleading names would have it."""
        sizes = self.rows.weights @ self.given
        kept = self.rows.weights @ (self.given * found.shares)
        return bool(np.any((kept < LEAST_KEPT * sizes) & (sizes >= _NOT_BY_CHANCE)))


def _distance(shares: np.ndarray, others: np.ndarray) -> float:
    """How far two tables of probabilities are apart, in labels a sample."""
    return float(np.abs(shares - others).sum()) / len(shares)


def _posterior(model: NoiseModel, evidence: Evidence, labels: np.ndarray) -> np.ndarray:
    """Probability of each true label, (n, K) float32."""
    # Classes that keep half of the labels of others come to look like these, and then keep them all
    decided = replace(model, overlap=np.zeros_like(model.overlap))
    shares = np.empty((len(labels), len(model.confusion)), dtype=np.float32)

    def judge(block: slice) -> None:
        judged = decided.judge(evidence[block], labels[block])
        table = judged.others
        table[np.arange(len(table)), labels[block]] = judged.right
        shares[block] = table / table.sum(axis=1, keepdims=True)

    by_rows(judge, *shares.shape)
    return shares
