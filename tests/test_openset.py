"""Images of no class: found by labels that nothing explains, and not where there are none."""

from __future__ import annotations

import numpy as np
import pytest

from clipcleaner_plugin.openset import foreign_probability

K = 20


def draw(
    honest: int, foreign: int, noise: float = 0.0, k: int = K, seed: int = 0
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(confidence, likelihood of the given label, foreign): honest confidences, labels drawn."""
    rng = np.random.default_rng(seed)
    c = np.concatenate([rng.beta(6, 1, honest), rng.beta(2, 3, foreign)])
    c = np.maximum(c, 1 / k + 0.01)
    is_foreign = np.arange(honest + foreign) >= honest
    agrees = rng.random(len(c)) < np.where(is_foreign, 1 / k, (1 - noise) * c + noise / k)
    rest = (1 - c) / (k - 1)
    likelihood = (1 - noise) * np.where(agrees, c, rest) + noise / k
    return c.astype(np.float32), likelihood.astype(np.float32), is_foreign


@pytest.mark.parametrize("noise", [0.0, 0.3])
def test_the_share_of_foreign_images_is_estimated(noise: float) -> None:
    for share in (500, 2500):
        confidence, likelihood, foreign = draw(10_000, share, noise)
        found = foreign_probability(confidence, likelihood, K)
        assert found.dtype == np.float32 and found.shape == (len(foreign),)
        assert found.min() >= 0 and found.max() <= 1
        assert found.mean() == pytest.approx(foreign.mean(), rel=0.3)
        assert np.mean(foreign[found > 0.5]) > 0.7


def test_the_probability_is_calibrated() -> None:
    confidence, likelihood, foreign = draw(20_000, 4000, 0.2)
    found = foreign_probability(confidence, likelihood, K)
    for low in (0.1, 0.3, 0.5):
        bin_ = (found >= low) & (found < low + 0.2)
        assert bin_.sum() > 100
        assert np.mean(foreign[bin_]) == pytest.approx(np.mean(found[bin_]), abs=0.12)


@pytest.mark.parametrize("noise", [0.0, 0.2, 0.5])
@pytest.mark.parametrize("k", [2, 5, 20])
def test_hard_images_and_wrong_labels_are_not_foreign(noise: float, k: int) -> None:
    for seed in range(3):
        confidence, likelihood, _ = draw(2000, 0, noise, k, seed)
        assert np.mean(foreign_probability(confidence, likelihood, k) > 0.5) < 0.01


def test_sure_evidence_is_never_foreign() -> None:
    confidence, likelihood, foreign = draw(10_000, 1000, noise=0.05)
    confidence[:300] = 0.999  # wrong labels, of images that the models are sure of
    likelihood[:300] = 0.05 / K
    found = foreign_probability(confidence, likelihood, K)
    assert found[:300].max() < 0.5 < np.median(found[foreign])


def test_extreme_values_and_few_samples() -> None:
    for n in (1, 2, 50):
        for c, known in ((1, 1), (1, 0), (0, 0), (0.5, 0.5)):
            found = foreign_probability(np.full(n, c, float), np.full(n, known, float), 2)
            assert np.isfinite(found).all()
    assert len(foreign_probability(np.zeros(0), np.zeros(0), 3)) == 0


def test_many_samples_are_judged_by_a_fit_to_a_part() -> None:
    confidence, likelihood, foreign = draw(600_000, 30_000, 0.1)
    found = foreign_probability(confidence, likelihood, K)
    assert found.mean() == pytest.approx(foreign.mean(), rel=0.1)
    assert np.mean(foreign[found > 0.5]) > 0.7


def test_the_order_of_the_samples_plays_no_part_but_by_rounding() -> None:
    confidence, likelihood, _ = draw(3000, 300)
    order = np.random.default_rng(1).permutation(3300)
    found = foreign_probability(confidence, likelihood, K)
    again = foreign_probability(confidence[order], likelihood[order], K)
    np.testing.assert_allclose(again, found[order], atol=1e-3)
    np.testing.assert_array_equal(found, foreign_probability(confidence, likelihood, K))
