"""The model of given labels: by hand, as a distribution, and what it recovers."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from clipcleaner_plugin.fitting import one_blas_thread
from clipcleaner_plugin.noise_fit import fit_noise_model, spread, start_model
from clipcleaner_plugin.noise_model import Evidence, NoiseModel


def softmax(row: list[float]) -> np.ndarray:
    exp = np.exp(np.array(row))
    return exp / exp.sum()


def model_of(k: int, **changes: object) -> NoiseModel:
    values = {
        "images_scale": 1.0, "language_scale": 1.0, "uniform": 0.1, "lookalike": 0.0,
        "careless": 0.0, "confusion": np.zeros((k, k)), "scattered": np.zeros(k),
        "refuge": np.zeros(k, dtype=bool), "shifts": np.zeros(k),
        "overlap": np.zeros((k, k)),
        "clarities": np.linspace(0, 5, 11),
    }  # fmt: skip
    return NoiseModel(**(values | changes))  # type: ignore[arg-type]


def test_a_label_is_judged_as_by_hand() -> None:
    confusion, overlap = np.zeros((3, 3)), np.zeros((3, 3))
    confusion[0, 1], overlap[0, 1] = 0.3, 0.12
    model = model_of(
        3, images_scale=2.0, language_scale=0.5, lookalike=0.06, careless=0.2, confusion=confusion,
        scattered=np.array([0.08, 0.04, 0.0]), overlap=overlap,
    )  # fmt: skip
    images, language = [1.0, 0.0, -1.0], [0.0, 2.0, -2.0]
    evidence = Evidence(np.array([images], np.float32), np.array([language], np.float32))
    judged = model.judge(evidence, np.array([1]))

    joint = [2.0, 1.0, -3.0]  # 2 * images + 0.5 * language
    p, hard = softmax(joint), softmax([0.7 * u for u in joint])
    plain = 0.9 * p[1] + 0.1 * hard[1]
    nearby = softmax([0.35, -1.05])[0]  # of classes 1 and 2 at .35 of the logits: 0 is the best
    # Of the given clarities, 0 to 5 in steps of a half, 1 (2 - 1) is the third: 2 of 10 are less
    # clear, and no image may be less than exp(-.2) as ambiguous as one a unit less clear
    ambiguous = max(0.8, np.exp(-0.2 * 1.0))
    right = plain * (1 - 0.1 - 0.06 - 0.04 - 0.2 * ambiguous) + 0.1 / 3 * p[1]
    by_lookalike = (0.06 + 0.2 * ambiguous) * nearby * np.array([p[0], 0, p[2]]) / (p[0] + p[2])
    looks_so = 0.12 * p[0] / (p[0] * (0.3 + 0.1 / 3 + 0.08 / 2) + p[2] * 0.1 / 3)
    others = np.array([p[0] * (0.3 + 0.1 / 3 + 0.08 / 2), 0, p[2] * 0.1 / 3]) + by_lookalike
    right, others = right + looks_so * others.sum(), (1 - looks_so) * others
    assert judged.support == pytest.approx([plain], rel=1e-5)
    assert judged.right == pytest.approx([right], rel=1e-5)
    assert judged.others[0] == pytest.approx(others, rel=1e-5)
    assert judged.log_odds == pytest.approx([np.log(right / others.sum())], rel=1e-5)
    assert judged.best_other.tolist() == [0]
    assert judged.likelihood == pytest.approx([right + others.sum()], rel=1e-5)
    assert judged.clarity == pytest.approx([p[0]], rel=1e-5)


def test_a_refuge_explains_its_own_labels_alone() -> None:
    model = model_of(3, scattered=np.array([0.6, 0.03, 0.0]), refuge=np.array([True, False, False]))
    logits = np.array([[2.0, 1.0, -3.0]] * 2, np.float32)
    p = softmax(logits[0].tolist())
    judged = model.judge(Evidence(logits, None), np.array([1, 0]))
    assert judged.clarity == pytest.approx([p[1], p[0]], rel=1e-5)
    hard = softmax((0.7 * logits[0]).tolist())
    plain = 0.9 * p + 0.1 * hard
    of_other = plain[1] * (1 - 0.1 - 0.03) + 0.1 / 3  # none of class 0, which could be any label
    of_own = plain[0] * (1 - 0.1) + 0.1 / 3 + p[1] * 0.03 / 2
    assert judged.likelihood == pytest.approx([of_other, of_own], rel=1e-5)


@pytest.mark.parametrize("gap", [5, 12, 13.8, 16, 20, 60])
def test_clear_images_are_judged_where_other_classes_may_only_look_so(gap: float) -> None:
    confusion = np.zeros((10, 10))
    confusion[1, 0] = 0.2
    logits = np.full((1, 10), -gap - 2, np.float32)
    logits[0, :2] = 0, -gap
    odds = []
    for share in (0.0, 0.75):
        model = model_of(
            10, uniform=0.05, lookalike=0.02, confusion=confusion, overlap=share * confusion
        )
        judged = model.judge(Evidence(logits, None), np.array([0]))
        assert judged.others.min() >= 0 and judged.best_other.tolist() == [1]
        assert judged.right[0] + judged.wrong[0] <= 1 and judged.likelihood[0] <= 1
        odds.append(judged.log_odds[0])
    assert odds[0] < odds[1] < odds[0] + 3


@given(st.integers(2, 6), st.integers(0, 1000))
def test_the_chances_of_all_labels_sum_to_one(k: int, seed: int) -> None:
    random = np.random.default_rng(seed)
    row = random.normal(0, 3, (1, k)).astype(np.float32)
    scattered = np.full(k, random.uniform(0, 0.3))
    confusion = np.full((k, k), 0.1 / (k - 1))
    np.fill_diagonal(confusion, 0)
    model = model_of(
        k, uniform=0.2, lookalike=0.1, careless=0.2, scattered=scattered, confusion=confusion,
        overlap=confusion * random.uniform(0, 1),
    )  # fmt: skip
    judged = model.judge(Evidence(np.repeat(row, k, axis=0), None), np.arange(k))
    assert np.sum(judged.right + judged.wrong) == pytest.approx(1, abs=1e-5)


@given(st.integers(0, 1000), st.floats(0, 0.2), st.floats(0, 0.35), st.floats(0.1, 5))
def test_more_support_for_a_label_never_lowers_its_odds(
    seed: int, uniform: float, careless: float, step: float
) -> None:
    """At any rate where one label in seven of each class, or more, is right."""
    random = np.random.default_rng(seed)
    logits = random.normal(0, 3, (1, 4)).astype(np.float32)
    better = logits.copy()
    better[0, 2] += step
    confusion = random.uniform(0, 0.07, (4, 4))  # of a class at most .21, and .09 scattered
    np.fill_diagonal(confusion, 0)
    scattered = random.uniform(0, 0.09, 4)
    model = model_of(
        4, uniform=uniform, careless=careless, confusion=confusion, scattered=scattered,
        overlap=confusion * random.uniform(0, 1),
    )  # fmt: skip
    odds = [model.judge(Evidence(x, None), np.array([2])).log_odds[0] for x in (logits, better)]
    assert odds[1] >= odds[0] - 1e-5


def noisy_labels(
    k: int, n: int, uniform: float, pairs: float, seed: int = 0
) -> tuple[Evidence, np.ndarray, np.ndarray]:
    """Logits that are calibrated at scale 1, true labels drawn from them, and noise on top."""
    random = np.random.default_rng(seed)
    logits = random.normal(0, 1, (n, k)) + 6 * np.eye(k)[random.integers(0, k, n)]
    probs = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    truth = (np.cumsum(probs, axis=1) < random.random((n, 1))).sum(axis=1)
    labels = truth.copy()
    flipped = random.random(n) < pairs
    labels[flipped] = (truth[flipped] + 1) % k
    drawn = random.random(n) < uniform
    labels[drawn] = random.integers(0, k, drawn.sum())
    return Evidence(logits.astype(np.float32) * 4, None), truth, labels


def fit(evidence: Evidence, labels: np.ndarray, k: int, weight: int = 1) -> NoiseModel:
    """Fits again and again from what was found, as the cleaning does: a fit ends early."""
    model = start_model(k, 0.3)
    with one_blas_thread():
        for _ in range(4):
            weights = np.full(len(labels), weight, np.float32)
            model = fit_noise_model(evidence, labels, weights, spread(model)).model
    return model


@pytest.mark.parametrize("uniform", [0.0, 0.05, 0.4])
def test_uniform_noise_is_measured_and_the_scale_calibrated(uniform: float) -> None:
    evidence, truth, labels = noisy_labels(8, 4000, uniform, 0)
    model = fit(evidence, labels, 8)
    assert model.uniform + model.lookalike == pytest.approx(uniform, abs=0.03)
    assert model.images_scale == pytest.approx(0.25, rel=0.25)  # logits were multiplied by 4
    judged = model.judge(evidence, labels)
    assert judged.others.dtype == np.float32, "half the memory of numpy's default"
    assert model.scattered.max() < 0.02, "no class loses more than the others"
    doubt = model.judge(evidence, labels).doubt
    assert doubt.mean() == pytest.approx(np.mean(labels != truth), abs=0.015)


@pytest.mark.parametrize("weight", [1, 4])
def test_a_class_that_lost_its_labels_to_all_others_is_found(weight: int) -> None:
    evidence, truth, labels = noisy_labels(40, 4000, 0.05, 0)
    random = np.random.default_rng(2)
    lost = (truth == 3) & (random.random(4000) < 0.7)
    labels[lost] = (3 + random.integers(1, 40, lost.sum())) % 40
    model = fit(evidence, labels, 40, weight)
    assert 0.4 < model.scattered[3] < 0.8  # a hundred images, of which some are hard
    assert np.delete(model.scattered, 3).max() < 0.02
    assert model.uniform + model.lookalike == pytest.approx(0.05, abs=0.03)
    assert model.judge(evidence, labels).doubt.mean() == pytest.approx(
        np.mean(labels != truth), abs=0.015
    )


@pytest.mark.parametrize("weight", [1, 4])
def test_what_rows_stand_for_is_no_evidence(weight: int) -> None:
    """A class that lost labels costs its rate alone, and labels surprise as often as were seen."""
    evidence, truth, labels = noisy_labels(40, 4000, 0.05, 0)
    random = np.random.default_rng(2)
    lost = (truth == 3) & (random.random(4000) < 0.7)
    labels[lost] = (3 + random.integers(1, 40, lost.sum())) % 40
    weights = np.full(4000, weight, np.float32)
    with one_blas_thread():
        found = fit_noise_model(evidence, labels, weights, start_model(40, 0.3))
    assert np.count_nonzero(found.model.scattered) == 1 and found.model.confusion.max() < 1e-3
    # And what is left of the doubt whether pairs are habits
    assert found.price == pytest.approx(0.5 * np.log(100), abs=0.4)
    judged = found.model.judge(evidence, labels)
    expected = -np.log(judged.right.astype(np.float64) + judged.wrong).sum()
    assert found.surprise == pytest.approx(expected, rel=0.01)


def test_pair_flips_are_found_in_the_confusion() -> None:
    evidence, truth, labels = noisy_labels(6, 4000, 0, 0.3)
    model = fit(evidence, labels, 6)
    partners = (np.arange(6) + 1) % 6
    assert model.confusion[np.arange(6), partners] == pytest.approx(np.full(6, 0.3), abs=0.07)
    rest = model.confusion.copy()
    rest[np.arange(6), partners] = 0
    assert rest.max() < 0.02
    assert model.judge(evidence, labels).doubt.mean() == pytest.approx(
        np.mean(labels != truth), abs=0.03
    )


def test_how_frequent_classes_are_is_learned_where_it_may_be() -> None:
    evidence, truth, labels = noisy_labels(6, 4000, 0.1, 0)
    assert evidence.images is not None
    more = np.array([1.0, 0, 0, 0, 0, -1.0])
    misled = Evidence(evidence.images + 4 * more.astype(np.float32), None)
    weights = np.ones(4000, np.float32)

    def again_and_again(members: float | None) -> NoiseModel:
        model = start_model(6, 0.25)
        with one_blas_thread():
            for _ in range(20):
                model = fit_noise_model(misled, labels, weights, model, members=members).model
        return model

    fixed, found = again_and_again(None), again_and_again(2)
    assert not fixed.shifts.any()
    assert found.shifts[[0, 5]] == pytest.approx([-1, 1], abs=0.4)
    assert np.abs(again_and_again(1e6).shifts).max() < 0.05
    assert np.abs(again_and_again(200).shifts).max() < 0.7, "in the end, too, not only at first"
    right = [np.mean((m.judge(misled, labels).doubt > 0.5) == (labels != truth))
             for m in (fixed, found)]  # fmt: skip
    assert right[1] > right[0]


def careless_labels(k: int, n: int, chance: float) -> tuple[Evidence, np.ndarray, np.ndarray]:
    """As :func:`noisy_labels`, but the less clear an image, the more often a near miss."""
    evidence, truth, labels = noisy_labels(k, n, 0, 0)
    assert evidence.images is not None
    logits = evidence.images / 4
    random = np.random.default_rng(1)
    order = np.sort(logits, axis=1)
    rank = np.argsort(np.argsort(order[:, -2] - order[:, -1])) / n  # 1: the least clear
    weak = np.exp(0.35 * logits)
    weak[np.arange(n), logits.argmax(axis=1)] = 0
    nearby = (
        np.cumsum(weak / weak.sum(axis=1, keepdims=True), axis=1) < random.random((n, 1))
    ).sum(axis=1)
    flipped = random.random(n) < chance * rank
    labels[flipped] = np.minimum(nearby, k - 1)[flipped]
    return evidence, truth, labels


@pytest.mark.parametrize("chance", [0.0, 0.5])
def test_carelessness_is_told_from_classes_that_overlap(chance: float) -> None:
    evidence, truth, labels = careless_labels(8, 6000, chance)
    start = replace(start_model(8, 0.25), careless=0.2)
    with one_blas_thread():
        # Weaker evidence would explain the labels, too: how strong it is at the least is known
        model = fit_noise_model(evidence, labels, np.ones(6000, np.float32), start, 0.22).model
    assert (model.careless > 0.2) == (chance > 0)
    doubt = model.judge(evidence, labels).doubt
    assert doubt.mean() == pytest.approx(np.mean(labels != truth), abs=0.06)


def test_carelessness_that_is_ruled_out_is_never_supposed() -> None:
    evidence, _, labels = careless_labels(8, 2000, 0.5)
    assert fit(evidence, labels, 8).careless == 0


def test_the_scale_of_the_images_keeps_to_its_bound() -> None:
    evidence, _, labels = noisy_labels(4, 400, 0.2, 0)
    weights = np.ones(400, np.float32)
    with one_blas_thread():
        free = fit_noise_model(evidence, labels, weights, start_model(4, 0.3)).model
        bound = fit_noise_model(evidence, labels, weights, start_model(4, 0.3), 0.5).model
    assert free.images_scale < 0.4
    assert bound.images_scale == pytest.approx(0.5)


def test_a_sample_that_stands_for_several_weighs_as_much() -> None:
    evidence, _, labels = noisy_labels(4, 400, 0.2, 0)
    assert evidence.images is not None
    twice = Evidence(np.repeat(evidence.images, 2, axis=0), None)
    start = spread(start_model(4, 0.3))
    with one_blas_thread():
        a = fit_noise_model(twice, np.repeat(labels, 2), np.ones(800, np.float32), start).model
        b = fit_noise_model(evidence, labels, np.full(400, 2, np.float32), start).model
    doubts = [m.judge(evidence, labels).doubt.mean() for m in (a, b)]
    assert doubts[0] == pytest.approx(doubts[1], abs=0.01)
    assert a.images_scale == pytest.approx(b.images_scale, rel=0.05)
