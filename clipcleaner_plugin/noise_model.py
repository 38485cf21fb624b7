"""How given labels come about: from the true one, or wrong in one of several ways."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from .zeroshot import log_softmax

# Of the right labels one in ten is of an image that is less clear than most, and counts as if its
# evidence were weaker. Without them a few hard images would pass for noise.
HARD_SHARE, HARD_SCALE = 0.1, 0.7
# Where people mistake an image, far-off classes are less rare than the calibrated opinion says
LOOKALIKE_SCALE = 0.35
SMALLEST, NEVER = 1e-30, -1e9
LEAST_RIGHT = 1e-3  # the least chance of a right label
_STEEPEST = 0.2


@dataclass(frozen=True)
class Evidence:
    """What is known of some samples before their labels are asked.

    Attributes:
        images: (n, K) float32 logits by the images; zeros where they say nothing. None without
        language: (n, K) float32 logits by the class names, or None
    """

    images: np.ndarray | None
    language: np.ndarray | None

    def __getitem__(self, rows: np.ndarray | slice) -> Evidence:
        tables = (None if t is None else t[rows] for t in (self.images, self.language))
        return Evidence(*tables)


@dataclass(frozen=True)
class NoiseModel:
    """The probability of a given label, and of the true one behind it.

    The true label ``k`` has the probability ``p(k) = softmax(b g + a l + s)_k``, of logits ``g``
    of the images and ``l`` of language. The given label ``y`` is then

    - right, ``y = k``, where nothing of the following happened;
    - any label, with the chance ``uniform``;
    - any other label, with the chance ``scattered[k]``, if class ``k`` loses more than the others;
    - the label that class ``k`` is taken for, with the chance ``confusion[k, y]``;
    - a label that suits the image next to the best, with the chance ``lookalike`` times the rank
      of the image by ambiguity: 0 for the clearest of all, 1 for the least clear.

    That is the class-conditional noise of Natarajan et al. ("Learning with Noisy Labels", NeurIPS
    2013) with a sparse matrix, beside noise that depends on the image.

    Attributes:
        images_scale: ``b`` > 0
        language_scale: ``a`` > 0
        uniform: in [0, 1]
        lookalike: in [0, 1]
        careless: in [0, 1]
        confusion: (K, K) float64 >= 0 with zeros on the diagonal
        scattered: (K,) float64 >= 0; with a row of the confusion, at most 0.8 in sum, once fitted
        refuge: (K,) bool, classes that images of none are taken for
        shifts: (K,) float64 ``s``, how much more frequent classes are than their evidence says
        overlap: (K, K) float64, the part of the confusion that is none: images of the other class
            that look like this one, whose label is right
        clarities: (Q,) float64, quantiles of how clear images are, ascending; by the fit
    """

    images_scale: float
    language_scale: float
    uniform: float
    lookalike: float
    careless: float
    confusion: np.ndarray
    scattered: np.ndarray
    refuge: np.ndarray
    shifts: np.ndarray
    overlap: np.ndarray
    clarities: np.ndarray = field(default_factory=lambda: np.zeros(1))

    @property
    def mistaken(self) -> np.ndarray:
        """(K, K) float64 chance of each class to get each other label by confusion or scattered."""
        k = len(self.confusion)
        chances = self.confusion + self.scattered[:, None] / (k - 1)
        np.fill_diagonal(chances, 0)
        return chances

    @property
    def right(self) -> np.ndarray:
        """(K,) chance that a label of each true class is right, where no look-alike is at hand."""
        habits = self.confusion.sum(axis=1) + self.scattered
        wrong = self.uniform + self.lookalike + self.careless + habits
        return np.maximum(1 - wrong, LEAST_RIGHT)

    def ambiguity(self, clear: np.ndarray) -> np.ndarray:
        """About the rank of images by ambiguity, (n,) float32 in [0, 1], 1 for the least clear.

        Args:
            clear: (n,) by :func:`clarity`

        Its logarithm changes by at most 0.2 per unit of clarity: support for a label makes an image
        less clear as long as another label is ahead, and may not lower its odds by that.
        """
        at, slope = self.clarities, _STEEPEST * (self.clarities - self.clarities[0])
        log_rank = np.log(np.linspace(1, SMALLEST, len(at)))
        log_rank = np.maximum.accumulate(log_rank + slope) - slope
        return np.interp(clear, at, np.exp(log_rank)).astype(np.float32)

    def logits(self, evidence: Evidence) -> np.ndarray:
        """Both opinions as one, (n, K) float32."""
        parts = []
        if evidence.images is not None:
            parts.append(np.float32(self.images_scale) * evidence.images)
        if evidence.language is not None:
            parts.append(np.float32(self.language_scale) * evidence.language)
        logits = sum(parts[1:], start=parts[0])
        logits += self.shifts.astype(np.float32)
        return logits

    def judge(self, evidence: Evidence, labels: np.ndarray) -> Judgement:
        """Finds out how the given labels of some samples came about.

        Args:
            evidence: of n samples
            labels: (n,) int in [0, K), their given labels

        Returns:
            the probabilities
        """
        logits = self.logits(evidence)
        rows, k = np.arange(len(labels)), logits.shape[1]
        sharp = np.exp(log_softmax(logits))
        given = sharp[rows, labels]
        plain = (1 - HARD_SHARE) * given
        plain += HARD_SHARE * np.exp(log_softmax(logits * np.float32(HARD_SCALE)))[rows, labels]
        nearby = lookalikes(logits)
        ambiguity = self.ambiguity(clarity(logits))
        right = plain * (self.right[labels] + self.careless * (1 - ambiguity))
        # A row of :attr:`mistaken` each: blocks need no table of all pairs of classes
        habits = (self.confusion.T[labels] + self.scattered / (k - 1)).astype(np.float32)
        habits[rows, labels] = 0
        others = sharp * (habits + self.uniform / k)
        # A label drawn at random that happens to be the true one is right
        right += others[rows, labels]
        others[rows, labels] = 0
        # The share of mistakes that are none. Near misses have the same, or else a label that suits
        # its image better, and so is a likelier near miss, could lose what counts as right
        looks_so = (sharp * self.overlap.T[labels].astype(np.float32)).sum(axis=1)
        looks_so /= np.maximum(others.sum(axis=1), SMALLEST)
        looks_so = np.minimum(looks_so, 1)
        remaining = sharp.copy()
        remaining[rows, labels] = 0
        remaining /= np.maximum(remaining.sum(axis=1, keepdims=True), SMALLEST)
        by_looks = (self.lookalike + self.careless * ambiguity) * nearby[rows, labels]
        others += by_looks[:, None] * remaining
        right += others.sum(axis=1) * looks_so
        others *= (1 - looks_so)[:, None]
        wrong = others.sum(axis=1, dtype=np.float64)
        clear = np.maximum(sharp.max(axis=1, where=~self.refuge, initial=0), given)
        right, wrong = np.maximum(right, SMALLEST), np.maximum(wrong, SMALLEST)
        lost = np.where(self.refuge, self.scattered, 0).astype(np.float32)
        by_refuges = (sharp @ lost - given * lost[labels]) / (k - 1) - plain * lost[labels]
        return Judgement(right, wrong, others, plain, clear, right + wrong - by_refuges)


@dataclass(frozen=True)
class Judgement:
    """Of n given labels.

    Attributes:
        right: (n,) joint probability of the given label and that it is right
        wrong: (n,) joint probability of the given label and that it is wrong
        others: (n, K) the same for each other true label; zero at the given one
        support: (n,) probability of the given label before noise is thought of
        clarity: (n,) the same of the most probable label; a refuge counts if it is the given one
        likelihood: (n,) about the probability of the given label, if refuges had scattered none
    """

    right: np.ndarray
    wrong: np.ndarray
    others: np.ndarray
    support: np.ndarray
    clarity: np.ndarray
    likelihood: np.ndarray

    @property
    def log_odds(self) -> np.ndarray:
        """(n,) float32 log-odds that the given label is right."""
        return (np.log(self.right) - np.log(self.wrong)).astype(np.float32)

    @property
    def doubt(self) -> np.ndarray:
        """(n,) float32 probability that the given label is wrong."""
        return (self.wrong / (self.right + self.wrong)).astype(np.float32)

    @property
    def best_other(self) -> np.ndarray:
        """(n,) int, the most probable true label but the given one."""
        return self.others.argmax(axis=1)


def clarity(logits: np.ndarray) -> np.ndarray:
    """How far the best class is ahead of the second best, (n,) float32."""
    best = np.partition(logits, logits.shape[1] - 2, axis=1)[:, -2:]
    return best[:, 1] - best[:, 0]


def lookalikes(logits: np.ndarray) -> np.ndarray:
    """What an image may be taken for: the softmax of weakened logits without the best class."""
    weak = logits * np.float32(LOOKALIKE_SCALE)
    weak[weak >= weak.max(axis=1, keepdims=True)] = NEVER
    return np.exp(log_softmax(weak))
