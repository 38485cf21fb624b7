"""Pair flips on CLIP's own features: in all classes, nearly half; in a few of many classes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from benchmarks.data import load_caltech
from clipcleaner_plugin.noise import draw_noise
from clipcleaner_plugin.scoring import score_labels


@pytest.mark.parametrize("few", [False, True])
def test_pair_flips_are_found_where_names_mean_something(few: bool, shared_data: Path) -> None:
    caltech = load_caltech(shared_data)
    k = len(caltech.texts)
    pairs = [(10, 11), (20, 21), (30, 31), (40, 41)] if few else None
    given = draw_noise(caltech.labels, k, "asymmetric", 0.4, 0, pairs)
    found = score_labels(caltech.features, given, caltech.texts).verdict == "mislabeled"
    wrong = given != caltech.labels
    assert np.mean(found[wrong]) > 0.95
    assert np.mean(wrong[found]) > 0.95
