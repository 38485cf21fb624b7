"""The zero-shot classifier against hand-made numbers and a plain formula."""

from __future__ import annotations

import numpy as np
import pytest

from clipcleaner_plugin.zeroshot import ZeroShot, log_softmax, normalize_rows


def classify(
    images: np.ndarray, texts: list[np.ndarray], temperature: float, prompt_reduce: str = "mean"
) -> np.ndarray:
    return ZeroShot(texts, prompt_reduce).log_probs(images, temperature)


def test_rows_become_unit_vectors_of_float32() -> None:
    rows = normalize_rows(np.array([[3.0, 4.0], [0.0, -2.0]]))
    assert rows.dtype == np.float32
    assert rows == pytest.approx(np.array([[0.6, 0.8], [0.0, -1.0]]))


@pytest.mark.parametrize("scale", [1e-38, 1e-30, 1.0, 1e30, 3e38])
def test_no_scale_is_too_small_or_too_large(scale: float) -> None:
    rows = normalize_rows(np.array([[0.6, 0.8]]) * scale)
    assert rows == pytest.approx(np.array([[0.6, 0.8]]), rel=1e-5)


@pytest.mark.parametrize("bad", [[np.nan, 1], [np.inf, 1], [-np.inf, np.nan], [0, 0], [1e300, 0]])
def test_rows_without_direction_become_nan_and_leave_the_others_alone(bad: list[float]) -> None:
    rows = normalize_rows(np.array([bad, [3, 4]]))
    assert np.isnan(rows[0]).all()
    assert rows[1] == pytest.approx([0.6, 0.8])


def test_two_classes_by_hand() -> None:
    image = np.array([[1.0, 0.0]])
    texts = [np.array([[1.0, 0.0]]), np.array([[0.0, 1.0]])]
    probs = np.exp(classify(image, texts, temperature=0.5))
    assert probs == pytest.approx(np.array([[np.e**2, 1]]) / (np.e**2 + 1))


@pytest.mark.parametrize("reduce", ["mean", "sum"])
@pytest.mark.parametrize("temperature", [0.07, 1.0])
def test_prompts_of_unequal_number_follow_the_formula(reduce: str, temperature: float) -> None:
    rng = np.random.default_rng(0)
    images = normalize_rows(rng.standard_normal((7, 5)))
    texts = [normalize_rows(rng.standard_normal((m, 5))) for m in (1, 4, 2)]
    expected = np.zeros((7, 3))
    for i in range(7):
        for k in range(3):
            terms = [np.exp(float(images[i] @ t) / temperature) for t in texts[k]]
            expected[i, k] = np.mean(terms) if reduce == "mean" else np.sum(terms)
    expected /= expected.sum(axis=1, keepdims=True)
    found = np.exp(classify(images, texts, temperature, reduce))
    assert found == pytest.approx(expected, rel=1e-4)


def test_mean_takes_the_advantage_of_many_prompts_away() -> None:
    image, text = np.array([[1.0, 0.0]]), np.array([[1.0, 0.0]])
    texts = [np.repeat(text, 5, axis=0), np.repeat(text, 8, axis=0)]
    assert np.exp(classify(image, texts, 0.07, "sum")) == pytest.approx(
        np.array([[5 / 13, 8 / 13]])
    )
    assert np.exp(classify(image, texts, 0.07, "mean")) == pytest.approx(np.array([[0.5, 0.5]]))


def test_improbable_classes_keep_a_finite_log_probability() -> None:
    images = np.array([[1.0, 0.0]])
    texts = [np.array([[1.0, 0.0]]), np.array([[-1.0, 0.0], [-1.0, 0.0]])]
    log_probs = classify(images, texts, temperature=1e-3)
    assert np.exp(log_probs[0, 1]) == 0
    assert log_probs[0] == pytest.approx([0, -2000])


def test_a_row_of_nan_gives_a_row_of_nan() -> None:
    images = np.array([[np.nan, np.nan], [1.0, 0.0]])
    log_probs = classify(images, [np.eye(2)[:1], np.eye(2)], 0.07)
    assert np.isnan(log_probs[0]).all()
    assert np.isfinite(log_probs[1]).all()


def test_log_softmax_keeps_dtype_and_sums_to_one() -> None:
    logits = np.array([[1e4, 0.0, -1e4], [1.0, 2.0, 3.0]], dtype=np.float32)
    log_probs = log_softmax(logits)
    assert log_probs.dtype == np.float32
    assert np.isfinite(log_probs).all()
    assert np.exp(log_probs).sum(axis=1) == pytest.approx([1, 1])
