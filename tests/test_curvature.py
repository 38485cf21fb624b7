"""The curvature of the loss: the blocks of its Hessian, and what a step is measured by."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch

from clipcleaner_plugin import coupling, curvature
from clipcleaner_plugin.coupling import leading
from clipcleaner_plugin.curvature import at_model, at_zero
from clipcleaner_plugin.fitting import one_blas_thread
from clipcleaner_plugin.logistic_rows import Rows, Team

N, K, D, PENALTY = 300, 4, 6, 1e-3


def problem() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Rows, their weights, and a model that is unsure of many of them."""
    random = torch.Generator().manual_seed(0)
    rows = torch.randn(N, D, generator=random)
    model = torch.randn(K, D + 1, generator=random, dtype=torch.float64)
    return rows, torch.rand(N, generator=random), model


def loss(model: torch.Tensor, rows: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
    """The mean loss of labels, which the Hessian does not depend on, and the penalty."""
    logits = rows.double() @ model[:, :-1].T + model[:, -1]
    labels = torch.arange(len(rows)) % len(model)
    each = torch.nn.functional.cross_entropy(logits, labels, reduction="none")
    penalty = PENALTY / 2 * (model[:, :-1] ** 2).sum()
    return (weights * each).sum() / weights.sum() + penalty


def hessian_blocks(
    model: torch.Tensor, rows: torch.Tensor, weights: torch.Tensor
) -> list[torch.Tensor]:
    """One block a class, (d + 1, d + 1), by automatic differentiation."""
    whole = torch.autograd.functional.hessian(lambda m: loss(m, rows, weights), model)
    return [whole[k, :, k] for k in range(len(model))]


def rows_of(features: torch.Tensor, weights: torch.Tensor | None = None) -> Rows:
    """Rows of one model, of any labels."""
    if weights is None:
        weights = torch.ones(len(features))
    labels = np.zeros(len(features), dtype=np.int64)
    device = torch.device("cpu")
    return Rows(features.numpy(), labels, K, weights[None].numpy(), None, device, Team())


def moments_of(features: torch.Tensor) -> torch.Tensor:
    with one_blas_thread():
        return rows_of(features).moments()


def centred(steps: torch.Tensor) -> torch.Tensor:
    """Steps, (…, K, d + 1), without what they have in common."""
    return steps - steps.mean(dim=-2, keepdim=True)


def test_moments_keep_what_little_varies() -> None:
    rows, _, _ = problem()
    rows = (1e-3 * rows + 1).float()
    x = torch.cat([rows, torch.ones(N, 1)], dim=1).double()
    found, expected = moments_of(rows), x.T @ x / N
    assert torch.allclose(found, expected, atol=1e-7)
    spread = [m[:-1, :-1] - m[:-1, -1].outer(m[:-1, -1]) for m in (found, expected)]
    assert torch.allclose(*spread, rtol=1e-3, atol=1e-9)


def test_at_a_model_it_is_newtons_step_of_each_class(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(curvature, "_LEAST_DOUBT", 0)
    rows, weights, model = problem()
    gradients = torch.randn(3, K, D + 1, generator=torch.Generator().manual_seed(1)).double()
    with one_blas_thread():
        moments = moments_of(rows)
        shape = at_model(model, rows_of(rows, weights), moments, PENALTY)
        along = leading(moments)  # where the classes are not taken alone
        gradients -= gradients @ along @ along.T
        found = shape.divide(gradients)
    blocks = torch.stack(hessian_blocks(model, rows, weights))
    expected = torch.linalg.solve(blocks, gradients[..., None])[..., 0]
    assert torch.allclose(found, centred(expected), rtol=1e-3, atol=1e-2)


@pytest.mark.parametrize("most_rows", [N, N // 2])
def test_along_the_leading_directions_it_is_newtons_step_of_all_classes(
    most_rows: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(coupling, "_DIRECTIONS", D + 1)  # all that there are
    monkeypatch.setattr(coupling, "_MOST_ROWS", most_rows)
    monkeypatch.setattr(coupling, "_ROWS_OF_BLOCK", 5)
    rows, weights, model = problem()
    rows[1::2], weights[1::2] = rows[::2], weights[::2].clone()  # half of them tell it all
    gradients = torch.randn(3, K, D + 1, generator=torch.Generator().manual_seed(1)).double()
    with one_blas_thread():
        shape = at_model(model, rows_of(rows, weights), moments_of(rows), PENALTY)
        found = shape.divide(centred(gradients))
    whole = torch.autograd.functional.hessian(lambda m: loss(m, rows, weights), model)
    size = K * (D + 1)
    inverse = torch.linalg.pinv(whole.reshape(size, size), hermitian=True)
    expected = (centred(gradients).reshape(3, size) @ inverse).view_as(found)
    assert torch.allclose(found, centred(expected), rtol=1e-3, atol=1e-2)


@pytest.mark.parametrize("directions", [2, D + 1])
def test_an_approximate_hessian_is_symmetric_and_positive(
    directions: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(coupling, "_DIRECTIONS", directions)
    rows, weights, model = problem()
    size = K * (D + 1)
    each = torch.eye(size, dtype=torch.float64).view(size, K, D + 1)
    with one_blas_thread():
        shape = at_model(20 * model, rows_of(rows, weights), moments_of(rows), PENALTY)
        inverse = shape.divide(centred(each)).view(size, size)
    assert torch.allclose(inverse, inverse.T, rtol=1e-3, atol=1e-3 * float(inverse.abs().max()))
    values = torch.linalg.eigvalsh(inverse / 2 + inverse.T / 2)
    assert values[0] > -1e-6 * values[-1]  # zero along what all classes share
    assert values[D + 1] > 1e-6 * values[-1]


@pytest.mark.parametrize("parts", [(150, 150), (7, 293), (300, 0)])
def test_processes_find_the_curvature_of_all_rows(
    parts: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    rows, weights, model = problem()
    gradients = centred(torch.randn(2, K, D + 1, generator=torch.Generator().manual_seed(1)))
    barrier, given, found = threading.Barrier(2), [None, None], [None, None]
    this = threading.local()

    def leading_here(moments: torch.Tensor) -> torch.Tensor:
        """Devices differ in the signs of eigenvectors."""
        directions = leading(moments)
        return directions if this.rank == 0 else directions * directions[1].sign()

    def process(rank: int) -> None:
        def all_of(tensor: torch.Tensor) -> list[torch.Tensor]:
            given[rank] = tensor
            barrier.wait()
            both = list(given)
            barrier.wait()
            return both

        this.rank = rank
        team = Team(rank == 0, lambda tensor: sum(all_of(tensor)), lambda tensor: all_of(tensor)[0])
        own = slice(0, parts[0]) if rank == 0 else slice(parts[0], None)
        labels, shares = np.zeros(parts[rank], dtype=np.int64), weights[None, own].numpy()
        part = Rows(rows[own].numpy(), labels, K, shares, None, torch.device("cpu"), team)
        shape = at_model(model, part, moments, PENALTY)
        found[rank] = shape and shape.divide(gradients.double())

    with one_blas_thread():
        moments = moments_of(rows)
        expected = at_model(model, rows_of(rows, weights), moments, PENALTY)
        monkeypatch.setattr(curvature, "leading", leading_here)
        with ThreadPoolExecutor(2) as pool:
            list(pool.map(process, range(2)))
        steps = expected.divide(gradients.double())
    assert torch.allclose(found[0], steps, rtol=1e-3, atol=1e-4)
    assert found[1] is None  # the leader alone goes by it


def test_of_very_many_classes_each_is_taken_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(coupling, "_DIRECTIONS", D + 1)
    monkeypatch.setattr(curvature, "_LEAST_DOUBT", 0)
    rows, weights, model = problem()
    gradient = torch.randn(1, K, D + 1, generator=torch.Generator().manual_seed(1)).double()

    def step(most_columns: int) -> torch.Tensor:
        monkeypatch.setattr(coupling, "_MOST_COLUMNS", most_columns)
        with one_blas_thread():
            shape = at_model(model, rows_of(rows, weights), moments_of(rows), PENALTY)
            return shape.divide(gradient)

    blocks = torch.stack(hessian_blocks(model, rows, weights))
    alone = centred(torch.linalg.solve(blocks, gradient[0, ..., None])[..., 0])
    assert torch.allclose(step(K * (D + 1) - 1)[0], alone, rtol=1e-3, atol=1e-2)
    assert not torch.allclose(step(K * (D + 1))[0], alone, rtol=0.1, atol=0.1)


def test_rows_that_are_sure_count_together(monkeypatch: pytest.MonkeyPatch) -> None:
    rows, weights, model = problem()
    gradient = torch.randn(1, K, D + 1, generator=torch.Generator().manual_seed(1)).double()

    def step() -> torch.Tensor:
        with one_blas_thread():
            shape = at_model(model, rows_of(rows, weights), moments_of(rows), PENALTY)
            return shape.divide(gradient)

    exact = step()
    monkeypatch.setattr(curvature, "_MOST_ROWS", N // 2)
    near = step()
    monkeypatch.setattr(curvature, "_LEAST_DOUBT", 1)  # none by itself
    far = step()
    assert 0 < (near - exact).norm() < (far - exact).norm()


def test_at_zero_it_is_the_hessian_there() -> None:
    rows, _, _ = problem()
    zero = torch.zeros(K, D + 1).double()
    gradient = torch.randn(1, K, D + 1, generator=torch.Generator().manual_seed(1)).double()
    found = at_zero(moments_of(rows), K, PENALTY).divide(gradient)
    blocks = hessian_blocks(zero, rows, torch.ones(N))
    # p (1 - p) is 1/K (1 - 1/K): the coupling of the classes makes up for the rest
    expected = torch.linalg.solve(blocks[0] * K / (K - 1), gradient[0].T).T
    assert torch.allclose(found[0], centred(expected), rtol=0.05, atol=0.05)


def test_the_length_of_a_step_is_what_it_does_to_logits() -> None:
    rows, _, model = problem()
    change = rows.double() @ model[:, :-1].T + model[:, -1]
    expected = change.square().mean(dim=0).sqrt().max()
    found = at_zero(moments_of(rows), K, PENALTY).length(model)
    assert found == pytest.approx(float(expected), rel=1e-4)
