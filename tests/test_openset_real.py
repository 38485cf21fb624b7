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
