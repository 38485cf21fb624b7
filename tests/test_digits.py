"""The two halves of the digits: never mixed, never different, rendered for people."""

from __future__ import annotations

import hashlib

import numpy as np
import pytest

from clipcleaner_plugin.digits import load_half, render, split_indices


def test_halves_are_disjoint_complete_and_stratified() -> None:
    (_, labels_a, rows_a), (_, labels_b, rows_b) = load_half("train"), load_half("held-out")
    assert (len(rows_a), len(rows_b)) == (896, 901)
    assert sorted([*rows_a, *rows_b]) == list(range(1797))
    assert (abs(np.bincount(labels_a) - np.bincount(labels_b)) <= 1).all()


def test_the_split_never_changes() -> None:
    """The embedded model was trained on one half: another split would show it its own images."""
    rows = load_half("train")[2].astype("<i8")
    assert hashlib.sha256(rows.tobytes()).hexdigest()[:16] == "b936b6ea34eb1e9c"


def test_no_image_is_in_both_halves_under_another_number() -> None:
    scans_a, scans_b = load_half("train")[0], load_half("held-out")[0]
    distances = np.abs(scans_a[:, None] - scans_b[None]).sum(axis=(2, 3))
    assert distances.min() > 0


def test_unknown_half() -> None:
    with pytest.raises(ValueError, match="choose 'train' or 'held-out'"):
        split_indices(np.zeros(4), "test")  # type: ignore[arg-type]


def test_render_draws_dark_ink_on_white_paper() -> None:
    scan = np.zeros((8, 8))
    scan[2:6, 2:6] = 16
    picture = np.asarray(render(scan))
    assert picture.shape == (64, 64, 3) and picture.dtype == np.uint8
    assert picture[0, 0].tolist() == [255] * 3 and picture[32, 32].tolist() == [0] * 3
