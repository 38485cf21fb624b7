"""One opinion from two: calibrated against the given labels, noise and all."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial

import numpy as np

from .cleaning import Sample, draw_sample
from .fitting import one_blas_thread
from .noise_fit import Fit, fit_noise_model, spread
from .noise_model import Evidence, NoiseModel
from .opinions import LANGUAGE_TEMPERATURE, Opinions
from .visual import UNSEEN_C
from .zeroshot import log_softmax

REGRESSION_SCALE = 1.5  # regularised and out of fold, logistic regression is less sure than right
# Where it seems to be about as sure as right, its classes overlap more than those of right labels
# do, and labels are taken for careless: nothing else tells ambiguous images that are labeled wrong
# from images that are hard. Right labels had 1.3 at the least, with features drowned in noise. It
# holds while the samples say less of a coefficient than the penalty does; with more of them the
# regression is as sure as right by itself, and nothing is taken for careless.
SOFT_SCALE, LEAST_SCALE = 1.3, 1.7
_MOST_INFORMATION = 1.0
_FAINT = 0.05  # scale of language that hardly says a thing
_SUPPOSED_CARELESS = 0.2
# The penalty draws classes together, the more the less the samples say, and so how frequent they
# seem. Rows of a class that keep shifts small, see fit_noise_model:
_MEMBERS = 25.0  # times the square of the information
VISUAL_FLOOR = 1e-6  # what the visual model gives to a class that it has never seen


@dataclass(frozen=True)
class Fusion:
    """How far to trust each opinion, together and alone.

    Attributes:
        model: of both opinions together
        language_alone: scale that calibrates the logits of language alone
        images_alone: scale that calibrates those of the images alone
        language_weight: share of language in the spread of the joint logits, in [0, 1]
    """

    model: NoiseModel
    language_alone: float
    images_alone: float
    language_weight: float


@dataclass(frozen=True)
class Fused:
    """What both opinions make of n given labels.

    Attributes:
        log_odds: (n,) float32 log-odds that the given label is right
        suggested: (n,) int, the given label where it is probably right, else the best other
        confidence: (n,) float32 in [0, 1], probability of the suggested label
        support: (n,) float32 in [0, 1], probability of the given label before noise is thought of
        clarity: (n,) float32 in [0, 1], the same of the most probable label, and
        likelihood: (n,) float32 in [0, 1], how probable the noise model holds the given label, both
            without what only refuges explain: see :class:`.Judgement`
        language_label: (n,) int, the first choice of language; -1 where it is not asked
        language_confidence: (n,) float32 in [0, 1], its probability by language alone, or NaN
        visual_label: (n,) int, the first choice of the images; -1 where they say nothing
        visual_confidence: (n,) float32 in [0, 1], its probability by the images alone, or NaN
    """

    log_odds: np.ndarray
    suggested: np.ndarray
    confidence: np.ndarray
    support: np.ndarray
    clarity: np.ndarray
    likelihood: np.ndarray
    language_label: np.ndarray
    language_confidence: np.ndarray
    visual_label: np.ndarray
    visual_confidence: np.ndarray


def fit_fusion(opinions: Opinions) -> Fusion:
    """Fits the noise model to the given labels, with both opinions and with each alone.

    Args:
        opinions: of at least one sample
    """
    with one_blas_thread():
        sample = draw_sample(opinions.labels, opinions.num_classes)
        evidence = gather_evidence(opinions, sample.rows, _words(opinions, sample.rows))
        joint, alone = _fit_all(opinions, sample, evidence)
    model = joint.model
    spread_of = {
        "images": 0.0 if evidence.images is None else model.images_scale * _spread(evidence.images),
        "language": (
            0.0 if evidence.language is None else model.language_scale * _spread(evidence.language)
        ),
    }
    both = spread_of["images"] + spread_of["language"]
    return Fusion(
        model,
        alone["language"].model.language_scale if "language" in alone else 0.0,
        alone["images"].model.images_scale if "images" in alone else 0.0,
        spread_of["language"] / both if both else 0.0,
    )


def _fit_all(opinions: Opinions, sample: Sample, evidence: Evidence) -> tuple[Fit, dict[str, Fit]]:
    """Fits the noise model with both opinions, and with each that there is alone."""
    labels = opinions.labels[sample.rows]
    nothing = np.zeros(opinions.num_classes)
    start = spread(replace(opinions.noise, images_scale=REGRESSION_SCALE, shifts=nothing))
    fit = partial(fit_noise_model, labels=labels, weights=sample.weights)
    alone: dict[str, Fit] = {}
    # Without images the names are all there is: what they say may not follow the labels
    least, members = 0.0, None
    if evidence.language is not None:
        alone["language"] = fit(Evidence(None, evidence.language), start=start)
    if evidence.images is not None:
        images = Evidence(evidence.images, None)
        alone["images"] = fit(images, start=start)
        is_soft = alone["images"].model.images_scale < SOFT_SCALE
        information = _information(opinions, sample.rows)
        members = _MEMBERS * information**2
        if is_soft and information < _MOST_INFORMATION:
            start, least = replace(start, careless=_SUPPOSED_CARELESS), LEAST_SCALE
            alone["images"] = fit(images, start=start, least_images_scale=least)
    fit = partial(fit, evidence, least_images_scale=least, members=members, fine=True)
    joint = fit(start=start)
    if len(alone) == 2 and joint.cost > alone["images"].cost:
        # Names that mislead are in the way of an explanation that needs none
        start = spread(replace(alone["images"].model, language_scale=_FAINT))
        joint = min(joint, fit(start=start), key=lambda found: found.cost)
    return joint, alone


def _information(opinions: Opinions, rows: np.ndarray) -> float:
    """What the samples say of a coefficient of the regression, as a multiple of its penalty.

    The mean curvature of the loss where all K classes are as probable, ``N / K (1 - 1 / K)`` times
    the variance of a feature, which is taken from some rows, by that of the penalty, ``1 / C``.
    """
    k = opinions.num_classes
    variance = float(opinions.visual_features[rows].var(axis=0, dtype=np.float64).mean())
    return UNSEEN_C * len(opinions.labels) / k * (1 - 1 / k) * variance


def _words(opinions: Opinions, rows: np.ndarray | slice) -> np.ndarray | None:
    """What the class names say of some rows, as they are: (n, K) float32 logits, or None."""
    return opinions.zeroshot(rows, LANGUAGE_TEMPERATURE)


def gather_evidence(
    opinions: Opinions, rows: np.ndarray | slice, words: np.ndarray | None
) -> Evidence:
    """The logits of both opinions for some rows, those of ``words`` with the offsets of the names.

    A class that the images' model has never seen gets ``VISUAL_FLOOR``, since its lack of samples
    is no proof against it; a row on which it has no opinion is all zeros.
    """
    images = None
    if opinions.images is not None:
        images = opinions.unseen(rows)
        images = np.maximum(images, np.float32(np.log(VISUAL_FLOOR)))
        images[np.isnan(images[:, 0])] = 0
    return Evidence(images, None if words is None else words + opinions.offsets)


def fuse(opinions: Opinions, block: slice, fusion: Fusion) -> Fused:
    """Judges the given labels of a block of rows."""
    labels = opinions.labels[block]
    words = _words(opinions, block)
    evidence = gather_evidence(opinions, block, words)
    judged = fusion.model.judge(evidence, labels)
    doubt = judged.doubt
    wrong = doubt > 0.5
    other = judged.best_other
    joint = judged.right + judged.wrong
    best = judged.others[np.arange(len(labels)), other] / joint
    silent = None if evidence.images is None else np.all(evidence.images == 0, axis=1)
    # By the names as they are, so that those which mislead are found
    language = _first_choice(words, fusion.language_alone, None, len(labels))
    images = _first_choice(evidence.images, fusion.images_alone, silent, len(labels))
    return Fused(
        judged.log_odds,
        np.where(wrong, other, labels),
        np.where(wrong, best, 1 - doubt).astype(np.float32),
        judged.support.astype(np.float32),
        judged.clarity,
        judged.likelihood.astype(np.float32),
        *language,
        *images,
    )


def _first_choice(
    logits: np.ndarray | None, scale: float, silent: np.ndarray | None, n: int
) -> tuple[np.ndarray, np.ndarray]:
    """The first choice of one opinion alone, and its probability."""
    if logits is None:
        return np.full(n, -1), np.full(n, np.nan, dtype=np.float32)
    log_probs = log_softmax(np.float32(scale) * logits)
    choice = logits.argmax(axis=1)
    confidence = np.exp(log_probs[np.arange(n), choice])
    if silent is not None:
        choice[silent], confidence[silent] = -1, np.nan
    return choice, confidence


def _spread(logits: np.ndarray) -> float:
    """How far the logits of a row lie apart, on average."""
    return float(np.mean(logits.std(axis=1), dtype=np.float64))
