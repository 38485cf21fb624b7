"""What score_labels takes, and how it refuses the rest."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from feature_clusters import flip, make_clusters

from clipcleaner_plugin.scoring import score_labels


@pytest.mark.parametrize("kind", [np.float16, np.float32, np.float64, np.int64])
def test_any_real_features(kind: type) -> None:
    data = make_clusters(40, 2, spread=0.1)
    images = (data.images * 100).astype(kind)
    found = score_labels(images, data.truth.astype(np.int8), (data.texts * 100).astype(kind))
    assert found.suggested_label.tolist() == data.truth.tolist()


def test_text_features_in_every_form() -> None:
    data = make_clusters(100, 3)
    labels = flip(data.truth, 3, 0.2)
    expected = score_labels(data.images, labels, data.texts)
    for texts in (list(data.texts), [row[None] for row in data.texts], data.texts[:, None]):
        found = score_labels(data.images, labels, texts, num_classes=3)
        assert np.array_equal(found.clean_score, expected.clean_score)
        assert np.array_equal(found.selected, expected.selected)


GOOD: dict[str, Any] = {
    "image_features": np.eye(4, 5),
    "labels": np.array([0, 1, 0, 1]),
    "text_features": np.eye(2, 5),
}


@pytest.mark.parametrize(
    ("change", "error", "text"),
    [
        ({"image_features": np.ones(4)}, ValueError, r"image_features.*\(N, d\).*\(4,\)"),
        ({"image_features": np.ones((4, 0))}, ValueError, r"image_features.*\(4, 0\)"),
        ({"image_features": [[1], [1, 2]]}, ValueError, "image_features must be a rectangular"),
        ({"image_features": np.full((4, 5), "a")}, TypeError, "image_features.*real.*<U1"),
        ({"image_features": np.ones((4, 5), complex)}, TypeError, "image_features.*complex128"),
        ({"image_features": np.ones((4, 5), bool)}, TypeError, "image_features.*bool"),
        ({"image_features": np.ones((3, 5))}, ValueError, "4 labels and 3 rows"),
        ({"labels": np.zeros((4, 1), int)}, ValueError, r"labels.*\(4, 1\)"),
        ({"labels": np.array([0.0, 1, 0, 1])}, TypeError, "labels must be integers.*float64"),
        ({"labels": ["a", "b", "a", "b"]}, TypeError, "labels must be integers"),
        ({"labels": np.array([0, 1, 2, 3])}, ValueError, r"labels\[2\] is 2.*\[0, 2\).*2 of 4"),
        ({"labels": np.array([0, -2, 0, 1])}, ValueError, r"labels\[1\] is -2"),
        ({"text_features": np.eye(2, 4)}, ValueError, r"text_features\[0\] has 4.*has 5"),
        ({"text_features": np.ones(5)}, ValueError, r"text_features.*\(5,\)"),
        (
            {"text_features": [np.ones(5), np.zeros((0, 5))]},
            ValueError,
            r"text_features\[1\].*m >=",
        ),
        ({"text_features": [np.ones(5), np.zeros(5)]}, ValueError, r"text_features\[1\].*zeros"),
        ({"text_features": np.full((2, 5), np.nan)}, ValueError, r"text_features\[0\].*NaN"),
        ({"text_features": {"cat": np.ones(5)}}, TypeError, "text_features.*dict"),
        ({"text_features": "cat"}, TypeError, "text_features.*str"),
        ({"num_classes": 3}, ValueError, "num_classes is 3, found 2"),
        ({"num_classes": 2.0}, TypeError, "num_classes must be an int.*float"),
        ({"num_classes": -1, "text_features": None}, ValueError, "num_classes must be >= 0"),
        ({"theta_gmm": 1.1}, ValueError, r"theta_gmm must lie in \[0, 1\], found 1.1"),
        ({"theta_gmm": np.nan}, ValueError, "theta_gmm"),
        ({"theta_cons": -0.1}, ValueError, "theta_cons"),
        ({"theta_cons": "high"}, TypeError, "theta_cons must be a number.*'high'"),
        ({"theta_cons": True}, TypeError, "theta_cons"),
        ({"temperature": 0}, ValueError, "temperature must be > 0"),
        ({"temperature": np.inf}, ValueError, "temperature"),
        ({"prompt_reduce": "max"}, ValueError, "prompt_reduce.*mean, sum.*'max'"),
        ({"folds": 1}, ValueError, "folds must be >= 2, found 1"),
        ({"folds": 2.5}, TypeError, "folds must be an int"),
        ({"seed": -1}, ValueError, "seed"),
        ({"seed": 2**32}, ValueError, "seed"),
        ({"device": "gpu9"}, ValueError, "device=.gpu9. is no torch device"),
    ],
)
def test_bad_arguments_are_named(change: dict[str, Any], error: type[Exception], text: str) -> None:
    with pytest.raises(error, match=text):
        score_labels(**{**GOOD, **change})


def test_the_good_arguments_are_good() -> None:
    score_labels(**GOOD)
    score_labels(**{**GOOD, "num_classes": np.int64(2), "seed": np.int32(5), "theta_gmm": 1})
