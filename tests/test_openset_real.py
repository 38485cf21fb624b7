"""Images of left-out classes among real ones: the benchmark's task on Caltech-101."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from benchmarks.data import load_caltech
from benchmarks.openset import make_task
from clipcleaner_plugin import score_labels


def test_foreign_images_are_flagged_and_no_others(shared_data: Path) -> None:
    caltech = load_caltech(shared_data)
    task = make_task(caltech, 0.05, 0.0, seed=0)
    assert len(task.texts) == 42 and 0.049 < np.mean(task.foreign) < 0.051
    assert not set(map(bytes, task.features[task.foreign])) & set(
        map(bytes, task.features[~task.foreign])
    )
    found = score_labels(task.features, task.given, task.texts).open_set
    assert np.mean(task.foreign[found]) > 0.8 and np.mean(found[task.foreign]) > 0.7
    own = ~task.foreign
    alone = score_labels(task.features[own], task.given[own], task.texts)
    assert np.mean(alone.open_set) < 0.01


def test_foreign_images_are_told_from_labels_that_are_drawn_at_random(shared_data: Path) -> None:
    """Without class names, and a fifth of the labels of the other images are wrong."""
    task = make_task(load_caltech(shared_data), 0.2, 0.2, seed=0)
    found = score_labels(task.features, task.given, num_classes=len(task.texts)).open_set
    assert np.mean(task.foreign[found]) > 0.85 and np.mean(found[task.foreign]) > 0.75


def test_what_is_less_typical_of_its_class_is_not_of_no_class(shared_data: Path) -> None:
    """A tenth of the classes lose labels, all that look the least like them, few that do most."""
    caltech = load_caltech(shared_data)
    random = np.random.RandomState(1)
    k, given = len(caltech.texts), caltech.labels.copy()
    for label in random.permutation(k)[: k // 10].tolist():
        members = np.flatnonzero(caltech.labels == label)
        typical = caltech.features[members] @ caltech.features[members].mean(axis=0)
        rank = np.argsort(np.argsort(typical)) / len(members)
        lost = members[random.random_sample(len(members)) < 1 - 0.8 * rank]
        given[lost] = (label + random.randint(1, k, len(lost))) % k
    found = score_labels(caltech.features, given, caltech.texts)
    assert np.mean(found.open_set) < 0.01
    wrong = given != caltech.labels
    assert np.mean(found.suggested_confidence[wrong] > 0.5) > 0.9
