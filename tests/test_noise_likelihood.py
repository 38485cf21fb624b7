"""The noise model's likelihood and its gradient, beside automatic differentiation and the model."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from clipcleaner_plugin import noise_likelihood
from clipcleaner_plugin.fitting import one_blas_thread
from clipcleaner_plugin.noise_likelihood import Surprise
from clipcleaner_plugin.noise_model import (
    HARD_SCALE,
    HARD_SHARE,
    LEAST_RIGHT,
    LOOKALIKE_SCALE,
    NEVER,
    Evidence,
    NoiseModel,
    clarity,
)

N, K = 500, 7


@pytest.fixture(scope="module")
def case() -> dict[str, np.ndarray]:
    random = np.random.RandomState(0)
    confusion = random.rand(K, K) * (random.rand(K, K) < 0.4) / K
    np.fill_diagonal(confusion, 0)
    return {
        "images": (4 * random.standard_normal((N, K))).astype(np.float32),
        "language": (2 * random.standard_normal((N, K))).astype(np.float32),
        "labels": random.randint(0, K, N),
        "weights": (1 + random.rand(N)).astype(np.float32),
        "confusion": confusion,
        "ambiguity": random.rand(N).astype(np.float32),
        "shifts": random.standard_normal(K),
    }


def by_autograd(case: dict[str, np.ndarray], point: list[float]) -> tuple[float, np.ndarray]:
    """The formula of :class:`NoiseModel` in float64, differentiated by torch."""
    numbers = torch.tensor(point, dtype=torch.float64, requires_grad=True)
    b, a, uniform, lookalike, careless = numbers
    t = {name: torch.from_numpy(np.asarray(value)) for name, value in case.items()}
    logits = b * t["images"].double() + a * t["language"].double() + t["shifts"]
    rows, y = torch.arange(N), t["labels"]
    sharp = torch.softmax(logits, dim=1)
    hard = torch.softmax(logits * HARD_SCALE, dim=1)[rows, y]
    plain = (1 - HARD_SHARE) * sharp[rows, y] + HARD_SHARE * hard
    top = logits == logits.amax(dim=1, keepdim=True)
    nearby = torch.softmax((logits * LOOKALIKE_SCALE).masked_fill(top, NEVER), dim=1)[rows, y]
    unconfused = (1 - t["confusion"].sum(dim=1))[y]
    right = (unconfused - uniform - lookalike - careless).clamp_min(LEAST_RIGHT)
    unclear = t["ambiguity"].double()
    total = right * plain + uniform / K + (sharp * t["confusion"].T[y]).sum(dim=1)
    total = total + lookalike * nearby
    total = total + careless * (unclear * nearby + (1 - unclear) * plain)
    loss = -(t["weights"].double() * total.log()).sum()
    loss.backward()
    assert numbers.grad is not None
    return float(loss.detach()), numbers.grad.numpy()


@pytest.mark.parametrize("block", [1 << 17, 20 * K])
@pytest.mark.parametrize(
    "point",
    [
        [0.3, 0.2, 0.1, 0.1, 0.05],
        [1.0, 0.01, 0.02, 0.3, 0.0],
        [0.1, 1.5, 0.5, 0.2, 0.29],  # so that some classes have no right labels left
    ],
)
def test_value_and_gradient(
    case: dict[str, np.ndarray], point: list[float], block: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(noise_likelihood, "_BLOCK", block)
    evidence = Evidence(case["images"], case["language"])
    rest = (case[name] for name in ("labels", "weights", "confusion", "ambiguity", "shifts"))
    with one_blas_thread():
        found = Surprise(evidence, *rest)(point[0], point[1], np.array(point[2:]))
    value, gradient = by_autograd(case, point)
    assert found[0] == pytest.approx(value, rel=1e-6)
    np.testing.assert_allclose(np.concatenate(found[1:]), gradient, rtol=1e-4, atol=1e-2)


def test_it_is_the_likelihood_of_the_model(case: dict[str, np.ndarray]) -> None:
    """What a model judges possible sums, over right and wrong, to what is measured here."""
    evidence = Evidence(case["images"], None)
    scattered = np.linspace(0, 0.1, K)
    model = NoiseModel(
        images_scale=0.3,
        language_scale=1.0,
        uniform=0.1,
        lookalike=0.1,
        careless=0.05,
        confusion=case["confusion"],
        scattered=scattered,
        refuge=scattered > 1,
        shifts=case["shifts"],
        overlap=0.4 * case["confusion"],
        clarities=np.linspace(0, 1, 9),
    )
    judged = model.judge(evidence, case["labels"])
    likelihood = np.log(judged.right.astype(np.float64) + judged.wrong) @ case["weights"]
    ambiguity = model.ambiguity(clarity(model.logits(evidence)))
    with one_blas_thread():
        value, by_scales, _ = Surprise(
            evidence, case["labels"], case["weights"], model.mistaken, ambiguity, case["shifts"]
        )(0.3, 1.0, np.array([0.1, 0.1, 0.05]))
    assert value == pytest.approx(-likelihood, rel=1e-5)
    assert by_scales[1] == 0, "there is no language"


def test_far_off_classes_do_not_make_it_infinite(case: dict[str, np.ndarray]) -> None:
    evidence = Evidence(1000 * case["images"], None)
    rest = (case[name] for name in ("labels", "weights", "confusion", "ambiguity", "shifts"))
    with one_blas_thread():
        value, by_scales, by_chances = Surprise(evidence, *rest)(10, 1.0, np.array([0.0, 0.1, 0.1]))
    assert np.isfinite([value, *by_scales, *by_chances]).all()
