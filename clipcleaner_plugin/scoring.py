"""Scores given labels: two classifiers from one frozen CLIP, four evidences, one verdict."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from . import rules
from .evidence import consistency_scores, given, loss_scores
from .fusion import Fused, Fusion, fit_fusion, fuse
from .inputs import Inputs, check_arrays, check_options, check_trusted
from .mixture import sigmoid
from .openset import foreign_probability
from .opinions import Opinions, form_opinions

if TYPE_CHECKING:
    import torch

logger = logging.getLogger(__name__)

EVIDENCE = ("zeroshot_loss", "zeroshot_consistency", "visual_loss", "visual_consistency", "margin")


@dataclass(frozen=True)
class LabelScores:
    """What :func:`score_labels` found, one entry a sample.

    Attributes:
        clean_score: (N,) float32 in [0, 1], the probability that the given label is right; NaN
            where unscorable
        verdict: (N,) of "clean", "mislabeled", "uncertain" or "unscorable"
        suggested_label: (N,) int, the most probable label (the given one, where it is); -1 where
            unscorable
        suggested_confidence: (N,) float32 in [0, 1], its probability, low where the image probably
            belongs to none of the classes; NaN where unscorable
        selected: (N,) bool, the selection of the paper's rule
        evidence: (N,) float32 arrays, higher is cleaner, NaN where there is none:
            ``zeroshot_loss``, ``zeroshot_consistency``, ``visual_loss`` and
            ``visual_consistency`` in [0, 1], and ``margin``, the log-odds that the given label is
            right, of which ``clean_score`` is the probability
        language_label: (N,) int, the first choice of the class names alone; -1 where none
        language_confidence: (N,) float32 in [0, 1], its calibrated probability; NaN where none
        visual_label: (N,) int, the first choice of a classifier that has not seen the sample; -1
            where none
        visual_confidence: (N,) float32 in [0, 1], its calibrated probability; NaN where none
        given_confidence: (N,) float32 in [0, 1], the probability of the given label by both, before
            it is weighed how labels go wrong; NaN where unscorable
        open_set: (N,) bool, images that probably belong to none of the classes; see
            :func:`clipcleaner_plugin.openset.foreign_probability`
        language_weight: share of language in the fused opinion, in [0, 1]
        warnings: what to know of this result, in sentences
    """

    clean_score: np.ndarray
    verdict: np.ndarray
    suggested_label: np.ndarray
    suggested_confidence: np.ndarray
    selected: np.ndarray
    evidence: dict[str, np.ndarray]
    language_label: np.ndarray
    language_confidence: np.ndarray
    visual_label: np.ndarray
    visual_confidence: np.ndarray
    given_confidence: np.ndarray
    open_set: np.ndarray
    language_weight: float
    warnings: tuple[str, ...]


def score_labels(
    image_features: np.ndarray,
    labels: np.ndarray,
    text_features: np.ndarray | Sequence[np.ndarray] | None = None,
    *,
    num_classes: int | None = None,
    theta_gmm: float = 0.5,
    theta_cons: float = 0.8,
    temperature: float = 0.07,
    prompt_reduce: str = "mean",
    folds: int = 5,
    seed: int = 51,
    device: str | torch.device | None = None,
    trusted: np.ndarray | None = None,
    visual_features: np.ndarray | None = None,
) -> LabelScores:
    """Scores how likely each given label is right, and suggests a better one.

    Two classifiers are made from the features of one frozen CLIP: a zero-shot one from the text
    features and a logistic regression on the given labels. Their evidence is used twice. The rule
    of the paper (Feng et al., "CLIPCleaner: Cleaning Noisy Labels with CLIP", ACM MM 2024) selects
    a pure training set: see :func:`clipcleaner_plugin.rules.select_paper`. For the review of
    mistakes both opinions are fused by a model of how labels go wrong, which says how probable it
    is that a label is right: see :mod:`clipcleaner_plugin.noise_model`.

    The result depends on the content of the rows, not on their order, and is the same to the bit
    on repetition, on any number of cores of one machine. A row that cannot be scored costs nothing
    but itself.

    Memory: besides its input, of which only scaled blocks are copied, the function holds one
    float32 copy of the image features and about 450 bytes a sample; a table of samples and classes
    exists for blocks of rows only. See docs/scaling.md for the formula.

    Args:
        image_features: (N, d) real array of any scale; a row that is not finite, or zero, stands
            for a missing image
        labels: (N,) int array in [0, K); -1 where there is no label
        text_features (None): (K, d) real array of any scale, or K arrays of shape (m_k, d), one
            row a prompt; None for visual evidence only
        num_classes (None): K; default: as many as text features, else the largest label + 1
        theta_gmm (0.5): the paper's rule: posterior that a loss score needs, in [0, 1]
        theta_cons (0.8): the paper's rule: consistency that is needed, in [0, 1]
        temperature (0.07): the paper's rule: temperature of the zero-shot classifier, > 0
        prompt_reduce ("mean"): "mean" over the prompts of a class; "sum", as in the paper's code,
            favours classes with more prompts
        folds (5): number of parts that the visual opinion of the fused score is made in, each
            by a model that has not seen it, >= 2
        seed (51): seeds folds and mixtures, in [0, 2**32)
        device (None): torch device to fit on; None is CUDA where it is at hand, else the CPU. CPU
            and CUDA differ by rounding. On MPS, which lacks float64, the CPU is used
        trusted (None): (N,) bool array, labels that somebody vouches for: where they can be scored,
            they are clean with score 1, and suggested
        visual_features (None): (N, e) real array of any scale, by which the images are compared
            with each other instead, from a model that sees more than CLIP; a row that is not
            finite, or zero, stands for a missing image

    Returns:
        the scores, with one entry for each of the N samples

    Raises:
        TypeError, ValueError: if an argument is not as above; the text names it
    """
    check_options(
        theta_gmm=theta_gmm,
        theta_cons=theta_cons,
        temperature=temperature,
        prompt_reduce=prompt_reduce,
        folds=folds,
        seed=seed,
    )
    inputs = check_arrays(image_features, labels, text_features, num_classes, visual_features)
    vouched = None if trusted is None else check_trusted(trusted, len(inputs.labels))
    opinions = form_opinions(inputs, prompt_reduce, folds, seed, scoring_device(device))
    scores = score_opinions(inputs, opinions, theta_gmm, theta_cons, temperature, seed)
    return scores if vouched is None else _trust(scores, inputs.labels, vouched)


def scoring_device(device: str | torch.device | None) -> torch.device:
    """Finds the device to fit on; see :func:`score_labels`."""
    import torch

    from .models import choose_device

    if device is None:
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    chosen = choose_device(device)
    return chosen if chosen.type == "cuda" else torch.device("cpu")


def score_opinions(
    inputs: Inputs,
    opinions: Opinions,
    theta_gmm: float,
    theta_cons: float,
    temperature: float,
    seed: int,
) -> LabelScores:
    """Turns opinions into scores and verdicts; see :func:`score_labels` for the arguments."""
    warnings = _warnings(inputs, opinions)
    for text in warnings:
        logger.warning("%s", text)
    if len(opinions.rows) == 0:
        return _nothing_scored(len(inputs.labels), warnings)

    def column(values: np.ndarray, missing: float) -> np.ndarray:
        """Puts values of the scorable rows into their places among all."""
        out = np.full(len(inputs.labels), missing, dtype=values.dtype)
        out[opinions.rows] = values
        return out

    found = _paper_evidence(opinions, temperature)
    fusion = fit_fusion(opinions)
    fused = _fused(opinions, fusion)
    evidence = {name: column(values, np.nan) for name, values in found.items()}
    evidence["margin"] = column(fused.log_odds, np.nan)
    selected = rules.select_paper(
        evidence, inputs.labels, inputs.num_classes, theta_gmm, theta_cons, seed
    )
    score = column(sigmoid(fused.log_odds).astype(np.float32), np.nan)
    suggestion = column(fused.suggested, -1)
    foreign = foreign_probability(fused.clarity, fused.likelihood, inputs.num_classes)
    return LabelScores(
        clean_score=score,
        verdict=rules.verdicts(evidence, inputs.labels, suggestion, score, selected),
        suggested_label=suggestion,
        suggested_confidence=column(fused.confidence * (1 - foreign), np.nan),
        selected=selected,
        evidence=evidence,
        language_label=column(fused.language_label, -1),
        language_confidence=column(fused.language_confidence, np.nan),
        visual_label=column(fused.visual_label, -1),
        visual_confidence=column(fused.visual_confidence, np.nan),
        given_confidence=column(fused.support, np.nan),
        open_set=column(foreign > 0.5, False),
        language_weight=fusion.language_weight,
        warnings=warnings,
    )


def _trust(scores: LabelScores, labels: np.ndarray, trusted: np.ndarray) -> LabelScores:
    """Takes the scorable labels that are trusted for right; the evidence stays as it was found."""
    sure = trusted & np.isfinite(scores.clean_score)
    one = np.float32(1)
    return replace(
        scores,
        clean_score=np.where(sure, one, scores.clean_score),
        verdict=np.where(sure, "clean", scores.verdict),
        suggested_label=np.where(sure, labels, scores.suggested_label),
        suggested_confidence=np.where(sure, one, scores.suggested_confidence),
        selected=scores.selected | sure,
        open_set=scores.open_set & ~sure,
    )


def _paper_evidence(opinions: Opinions, temperature: float) -> dict[str, np.ndarray]:
    """The four evidences of the paper, (n,) float32; NaN where a classifier has no opinion."""
    blocks = list(opinions.each_block(partial(_look, temperature=temperature)))
    evidence = {name: np.concatenate([block[name] for block in blocks]) for name in blocks[0]}
    for name in set(rules.LOSSES) & set(evidence):
        evidence[name] = loss_scores(evidence[name], opinions.labels)
    nothing = np.full(len(opinions.labels), np.nan, dtype=np.float32)
    return dict.fromkeys(rules.LOSSES + rules.CONSISTENCIES, nothing) | evidence


def _look(opinions: Opinions, block: slice, temperature: float) -> dict[str, np.ndarray]:
    """The evidences of a block, losses not yet scaled; without those of a missing classifier."""
    labels = opinions.labels[block]
    columns = {}
    tables = {"zeroshot": opinions.zeroshot(block, temperature), "visual": opinions.seen(block)}
    for name, log_probs in tables.items():
        if log_probs is not None:
            columns[f"{name}_loss"] = given(log_probs, labels)
            columns[f"{name}_consistency"] = consistency_scores(log_probs, labels)
    return columns


def _fused(opinions: Opinions, fusion: Fusion) -> Fused:
    """What both opinions together make of every given label."""
    blocks = list(opinions.each_block(partial(fuse, fusion=fusion)))
    names = [field.name for field in fields(Fused)]
    return Fused(*(np.concatenate([getattr(block, name) for block in blocks]) for name in names))


def no_label_text(missing: int, total: int, unit: str = "sample") -> str:
    """Says how many have no label."""
    return f"{missing} of {total} {unit}s have no label and are unscorable"


def _warnings(inputs: Inputs, opinions: Opinions) -> tuple[str, ...]:
    """What a user should know of a result, in sentences."""
    labels, n = inputs.labels, len(inputs.labels)
    has_image, has_label = inputs.has_image, labels >= 0
    verdict = "are unscorable" if inputs.text_features is None else "are judged by language alone"
    out = []
    if not has_image.all():
        out.append(
            f"{np.sum(~has_image)} of {n} samples have no usable image features (NaN, infinite "
            "or all zero) and are unscorable"
        )
    if not has_label.all():
        out.append(no_label_text(int(np.sum(~has_label)), n))
    if inputs.num_classes == 1:
        out.append("There is only one class, so that no label can be wrong: nothing was scored")
    elif len(np.unique(labels[has_image & has_label])) == 1:
        out.append(f"All labels are of one class: the samples {verdict}")
    elif opinions.lonely:
        out.append(
            f"{opinions.lonely} samples belong to classes that have only one different image; "
            f"they {verdict}"
        )
    return tuple(out)


def _nothing_scored(n: int, warnings: tuple[str, ...]) -> LabelScores:
    """The result where there is no sample with an image, a label and a choice of classes."""
    nothing = np.full(n, np.nan, dtype=np.float32)
    return LabelScores(
        clean_score=nothing,
        verdict=np.full(n, "unscorable"),
        suggested_label=np.full(n, -1),
        suggested_confidence=nothing.copy(),
        selected=np.zeros(n, dtype=bool),
        evidence={name: nothing.copy() for name in EVIDENCE},
        language_label=np.full(n, -1),
        language_confidence=nothing.copy(),
        visual_label=np.full(n, -1),
        visual_confidence=nothing.copy(),
        given_confidence=nothing.copy(),
        open_set=np.zeros(n, dtype=bool),
        language_weight=0.0,
        warnings=warnings,
    )
