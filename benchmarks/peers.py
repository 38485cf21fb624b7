"""Other ways to find wrong labels, on the same features as ours."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from types import SimpleNamespace

import numpy as np

from benchmarks.settings import Task
from clipcleaner_plugin import LabelScores
from clipcleaner_plugin.evidence import given
from clipcleaner_plugin.logistic import fit_logistic
from clipcleaner_plugin.mixture import fit_mixture
from clipcleaner_plugin.visual import UNSEEN_C, UNSEEN_TOLERANCE, assign_folds, row_hashes
from clipcleaner_plugin.zeroshot import log_softmax, normalize_rows

FOLDS, SEED = 5, 51
NEIGHBOURS = 10
CLIP_SCALE = 100.0
LEAST = 1e-6  # the least probability that the plain fused rule hears of from the images
_BLOCK = 1024  # rows whose similarities to all others are held at a time


@dataclass(frozen=True)
class Found:
    """What a method says: which labels are wrong, and an order of suspicion (lower is worse)."""

    flagged: np.ndarray
    score: np.ndarray


@dataclass(frozen=True)
class Case:
    """A task, and what several methods start from.

    Attributes:
        task: the labels to check
        scores: what ``score_labels`` says of them
        classes: (K',) int, the classes that occur among the given labels
        place: (N,) int in [0, K'), the given labels as positions in ``classes``
        probs: (N, K') float64, out-of-fold probabilities of a logistic regression on the given
            labels
    """

    task: Task
    scores: LabelScores
    classes: np.ndarray
    place: np.ndarray
    probs: np.ndarray


def make_case(task: Task, scores: LabelScores) -> Case:
    """Fits what the peers share.

    Args:
        task: the labels to check, of at least two classes
        scores: what ``score_labels`` says of them
    """
    classes, place = np.unique(task.given, return_inverse=True)
    return Case(task, scores, classes, place, out_of_fold(task.features, place, len(classes)))


def out_of_fold(features: np.ndarray, labels: np.ndarray, num_classes: int) -> np.ndarray:
    """Predicts every sample by a logistic regression (C = 10) that has not seen it.

    Five stratified folds. The only sample of a class is predicted by a model that does not know
    its class, and so gives it no chance.

    Args:
        features: (N, d) float32 unit rows
        labels: (N,) int in [0, K), every one of which occurs
        num_classes: K

    Returns:
        (N, K) float64 probabilities
    """
    folds = np.maximum(assign_folds(row_hashes(features, SEED), labels, FOLDS), 0)
    probs = np.zeros((len(labels), num_classes))
    for fold in range(FOLDS):
        test, train = np.flatnonzero(folds == fold), np.flatnonzero(folds != fold)
        known, place = np.unique(labels[train], return_inverse=True)
        weights = np.ones((1, len(train)), dtype=np.float32)
        model = fit_logistic(
            features[train], place, len(known), weights, UNSEEN_C, UNSEEN_TOLERANCE
        )
        logits = model.logits(0, features[test]).astype(np.float64)
        probs[np.ix_(test, known)] = np.exp(log_softmax(logits))
    return probs


def ours(case: Case) -> Found:
    """The verdict "mislabeled", in the order of the clean score."""
    # The score is a float32, which near 1 runs out of digits; the margin is its log-odds
    return Found(case.scores.verdict == "mislabeled", case.scores.evidence["margin"])


def paper(case: Case) -> Found:
    """All that the paper's rule does not select, in the order of the weakest evidence."""
    evidence = [value for name, value in case.scores.evidence.items() if name != "margin"]
    weakest = np.min([np.nan_to_num(value, nan=1.0) for value in evidence], axis=0)
    return Found(~case.scores.selected, weakest)


def plain_fused(case: Case) -> Found:
    """Both opinions with weight 1/2, and one mixture on the margins of all samples."""
    fused = np.log(np.maximum(case.probs, LEAST))
    if case.task.texts is not None:
        names = normalize_rows(case.task.texts)[case.classes]
        zeroshot = log_softmax(CLIP_SCALE * case.task.features.astype(np.float64) @ names.T)
        fused = (fused + zeroshot) / 2
    margins = margins_of(fused, case.place)
    mixture = fit_mixture(margins, SEED)
    assert mixture is not None
    return Found(mixture.posterior(margins) < 0.5, margins)


def margins_of(log_probs: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Log-odds of the given label against the best other one, (N,) float array."""
    others = log_probs.copy()
    np.put_along_axis(others, labels[:, None], -np.inf, axis=1)
    return given(log_probs, labels) - others.max(axis=1)


def cleanlab(case: Case) -> Found:
    """cleanlab's ``find_label_issues`` and ``get_label_quality_scores``, as they come."""
    from cleanlab.filter import find_label_issues
    from cleanlab.rank import get_label_quality_scores

    flagged = find_label_issues(case.place, case.probs, n_jobs=1)
    return Found(flagged, get_label_quality_scores(case.place, case.probs))


def datalab(case: Case) -> Found:
    """The check for label issues of cleanlab's Datalab, given features.

    Datalab itself asks for the package ``datasets``, in which it keeps what is handed to it; its
    label issue manager, which does the work, needs from it no more than labels and their names.
    """
    from cleanlab.datalab.internal.issue_manager.label import LabelIssueManager

    lab = SimpleNamespace(
        labels=case.place,
        get_info=lambda _: {},
        _label_map={k: str(k) for k in range(len(case.classes))},
    )
    manager = LabelIssueManager(lab)
    manager.find_issues(features=case.task.features)
    issues = manager.issues
    return Found(issues["is_label_issue"].to_numpy(), issues["label_score"].to_numpy())


def neighbours(case: Case) -> Found:
    """Vote of the nearest neighbours, as in SimiFeat (Zhu et al., ICML 2022).

    A label is wrong where another one has more votes; the score is the share of neighbours that
    have the given label.
    """
    votes = neighbour_votes(case.task.features, case.place, len(case.classes), NEIGHBOURS)
    own = given(votes, case.place)
    return Found(own < votes.max(axis=1), own / NEIGHBOURS)


def neighbour_votes(features: np.ndarray, labels: np.ndarray, k: int, count: int) -> np.ndarray:
    """Counts the labels of each sample's nearest neighbours, by cosine, without itself.

    Args:
        features: (N, d) float32 unit rows
        labels: (N,) int in [0, K)
        k: K
        count: number of neighbours, < N

    Returns:
        (N, K) int array
    """
    votes = np.zeros((len(labels), k), dtype=np.int64)
    for start in range(0, len(labels), _BLOCK):
        similar = features[start : start + _BLOCK] @ features.T
        rows = np.arange(len(similar))
        similar[rows, start + rows] = -np.inf
        nearest = np.argpartition(-similar, count - 1, axis=1)[:, :count]
        np.add.at(votes, (start + rows[:, None], labels[nearest]), 1)
    return votes


def confidence(case: Case) -> Found:
    """Wrong is what the images give less than an even chance."""
    own = given(case.probs, case.place)
    return Found(own < 0.5, own)


METHODS: dict[str, Callable[[Case], Found]] = {
    "ours": ours,
    "paper rule": paper,
    "plain fused": plain_fused,
    "cleanlab": cleanlab,
    "Datalab": datalab,
    "kNN": neighbours,
    "confidence": confidence,
}
