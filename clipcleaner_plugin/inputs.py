"""Checks what users hand to ``score_labels``, once; behind it everything is well-formed."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from numbers import Integral, Real
from typing import Any

import numpy as np

from .zeroshot import REDUCTIONS, normalize_rows

_BLOCK = 8192  # rows


@dataclass(frozen=True)
class Inputs:
    """Arrays that fit together.

    Attributes:
        image_features: (N, d) real array as it was given; see :func:`unit_rows`
        visual_features: (N, e) real array as it was given, for the visual opinion; the same object
            where there are no others
        has_image: (N,) bool: the rows of features are usable
        labels: (N,) int64 in [-1, K)
        text_features: K float32 arrays (m_k, d) of unit rows, or None
        num_classes: K >= 0
    """

    image_features: np.ndarray
    visual_features: np.ndarray
    has_image: np.ndarray
    labels: np.ndarray
    text_features: list[np.ndarray] | None
    num_classes: int


def unit_rows(features: np.ndarray, rows: np.ndarray | slice) -> np.ndarray:
    """Copies some rows of features, scaled to unit length.

    Args:
        features: (N, d) real array
        rows: (n,) int, or a slice

    Returns:
        (n, d) float32; NaN rows where there is no image
    """
    return normalize_rows(features[rows])


def check_arrays(
    image_features: Any,
    labels: Any,
    text_features: Any,
    num_classes: Any,
    visual_features: Any = None,
) -> Inputs:
    """Checks and normalises the data of ``score_labels``; see there for the arguments.

    Returns:
        the data; that of the images is not copied

    Raises:
        TypeError, ValueError: if they are malformed or do not fit together
    """
    images = _check_features(image_features, "image_features")
    visual = images
    if visual_features is not None:
        visual = _check_features(visual_features, "visual_features")
        if len(visual) != len(images):
            raise ValueError(
                f"visual_features and image_features must have one row a sample, found "
                f"{len(visual)} and {len(images)}"
            )
    given = np.asarray(labels)
    if given.ndim != 1:
        raise ValueError(f"labels must have the shape (N,), found {given.shape}")
    if given.size and given.dtype.kind not in "iu":
        raise TypeError(
            f"labels must be integers (indices of classes, -1 for none), found {given.dtype}"
        )
    if len(given) != len(images):
        raise ValueError(
            f"labels and image_features must have one row a sample, found {len(given)} labels "
            f"and {len(images)} rows of features"
        )
    texts = None
    if text_features is not None:
        texts = _check_texts(text_features, images.shape[1])
    k = _check_num_classes(num_classes, given, texts)
    wrong = np.flatnonzero((given < -1) | (given >= k))
    if len(wrong):
        raise ValueError(
            f"labels[{wrong[0]}] is {given[wrong[0]]}: labels must lie in [0, {k}), since there "
            f"are {k} classes, or be -1 for none ({len(wrong)} of {len(given)} do not)"
        )
    has_image = np.empty(len(images), dtype=bool)
    for start in range(0, len(images), _BLOCK):
        rows = slice(start, start + _BLOCK)
        has_image[rows] = np.isfinite(unit_rows(images, rows)[:, 0])
        if visual is not images:
            has_image[rows] &= np.isfinite(unit_rows(visual, rows)[:, 0])
    return Inputs(images, visual, has_image, given.astype(np.int64), texts, k)


def check_trusted(trusted: Any, n: int) -> np.ndarray:
    """Checks the mask of trusted labels of ``score_labels``; see there.

    Raises:
        TypeError, ValueError: if it is no (n,) bool array
    """
    mask = np.asarray(trusted)
    if mask.shape != (n,):
        raise ValueError(f"trusted must have the shape ({n},), found {mask.shape}")
    if mask.dtype != bool:
        raise TypeError(f"trusted must be a bool array, found {mask.dtype}")
    return mask


def check_options(
    *,
    theta_gmm: float,
    theta_cons: float,
    temperature: float,
    prompt_reduce: str,
    folds: int,
    seed: int,
) -> None:
    """Checks the options of ``score_labels``; see there for the arguments.

    Raises:
        TypeError, ValueError: if one is not of its type or out of its range
    """
    for name, theta in (("theta_gmm", theta_gmm), ("theta_cons", theta_cons)):
        if not 0 <= _real(theta, name) <= 1:
            raise ValueError(f"{name} must lie in [0, 1], found {theta}")
    if not 0 < _real(temperature, "temperature") < math.inf:
        raise ValueError(f"temperature must be > 0 and finite, found {temperature}")
    if prompt_reduce not in REDUCTIONS:
        raise ValueError(
            f"prompt_reduce must be one of {', '.join(REDUCTIONS)}, found {prompt_reduce!r}"
        )
    if _integer(folds, "folds") < 2:
        raise ValueError(f"folds must be >= 2, found {folds}")
    check_seed(seed)


def check_seed(seed: Any) -> int:
    """Returns the seed of a draw.

    Raises:
        TypeError, ValueError: if it is no int, or out of the range of numpy's generators
    """
    if not 0 <= _integer(seed, "seed") < 2**32:
        raise ValueError(f"seed must lie in [0, 2**32), found {seed}")
    return int(seed)


def _check_features(features: Any, name: str) -> np.ndarray:
    array = _real_array(features, name)
    if array.ndim != 2 or array.shape[1] == 0:
        raise ValueError(f"{name} must have the shape (N, d), d >= 1, found {array.shape}")
    return array


def _check_num_classes(num_classes: Any, labels: np.ndarray, texts: list[np.ndarray] | None) -> int:
    if num_classes is None:
        return len(texts) if texts is not None else int(labels.max(initial=-1)) + 1
    k = _integer(num_classes, "num_classes")
    if k < 0:
        raise ValueError(f"num_classes must be >= 0, found {k}")
    if texts is not None and len(texts) != k:
        raise ValueError(
            f"text_features must have one entry a class: num_classes is {k}, "
            f"found {len(texts)} entries"
        )
    return k


def _check_texts(text_features: Any, dim: int) -> list[np.ndarray]:
    if hasattr(text_features, "__array__"):
        text_features = np.asarray(text_features)
        if text_features.ndim not in (2, 3):
            raise ValueError(
                "text_features must be an array (K, d) or a list of K arrays (m_k, d), "
                f"found the shape {text_features.shape}"
            )
    elif isinstance(text_features, (str, bytes)) or not isinstance(text_features, Sequence):
        raise TypeError(
            "text_features must be an array (K, d) or a list of K arrays (m_k, d), "
            f"found {type(text_features).__name__}"
        )
    texts = []
    for k, entry in enumerate(text_features):
        where = f"text_features[{k}]"
        rows = np.atleast_2d(_real_array(entry, where))
        if rows.ndim != 2 or len(rows) == 0:
            raise ValueError(
                f"{where} must have the shape (d,) or (m, d), m >= 1, found {rows.shape}"
            )
        if rows.shape[1] != dim:
            raise ValueError(
                f"{where} has {rows.shape[1]} dimensions, image_features has {dim}; "
                "both must come from the same model"
            )
        unit = normalize_rows(rows)
        if not np.isfinite(unit).all():
            raise ValueError(f"{where} holds NaN, infinity or a row of zeros")
        texts.append(unit)
    return texts


def _real_array(value: Any, where: str) -> np.ndarray:
    try:
        array = np.asarray(value)
    except ValueError as error:  # rows of unequal length
        raise ValueError(f"{where} must be a rectangular array: {error}") from error
    if array.dtype.kind not in "fiu":
        raise TypeError(f"{where} must be real numbers, found {array.dtype}")
    return array


def _real(value: Any, name: str) -> float:
    if isinstance(value, bool) or not isinstance(value, Real):
        raise TypeError(f"{name} must be a number, found {type(value).__name__}: {value!r}")
    return float(value)


def _integer(value: Any, name: str) -> int:
    if isinstance(value, bool) or not isinstance(value, Integral):
        raise TypeError(f"{name} must be an int, found {type(value).__name__}: {value!r}")
    return int(value)
