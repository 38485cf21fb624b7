"""MixFix's pieces against numbers worked by hand, and what an epoch draws."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from training.mixfix import (
    draw,
    initial_set,
    mix,
    mixup_lambda,
    next_set,
    oversample,
    soft_cross_entropy,
)
from training.parallel import World
from training.plan import Plan, epoch_subset, plain_batches, plan_epoch

CPU = torch.device("cpu")


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def test_oversampling_repeats_small_classes_evenly() -> None:
    # Class 0 has five samples, class 1 two (2 + 2 + one of them again), class 3 one
    labels = np.array([0, 1, 0, 0, 3, 0, 1, 0])
    counts = np.bincount(oversample(labels, rng()), minlength=8)
    assert counts[[0, 2, 3, 5, 7]].tolist() == [1] * 5
    assert sorted(counts[[1, 6]].tolist()) == [2, 3]
    assert counts[4] == 5


@given(st.lists(st.integers(0, 5), min_size=1, max_size=40), st.integers(0, 3))
def test_oversampling_gives_every_class_the_size_of_the_largest(labels: list[int], s: int) -> None:
    drawn = np.array(labels)[oversample(np.array(labels), rng(s))]
    present, counts = np.unique(drawn, return_counts=True)
    assert present.tolist() == sorted(set(labels))
    assert set(counts.tolist()) == {max(labels.count(k) for k in set(labels))}


def test_oversampling_draws_the_repeated_part_at_random() -> None:
    labels = np.array([0, 0, 0, 1, 1])
    again = {tuple(np.bincount(oversample(labels, rng(s)))[3:]) for s in range(20)}
    assert again == {(1, 2), (2, 1)}


def test_drawing_goes_pass_after_pass() -> None:
    members, labels = np.array([10, 20, 30]), np.array([0, 0, 1])
    drawn = draw(members, labels, 8, False, rng())
    assert len(drawn) == 8
    assert sorted(drawn[:3]) == sorted(drawn[3:6]) == [10, 20, 30]
    # Balanced: a pass is 2 of class 0 and sample 30 twice
    assert sorted(draw(members, labels, 4, True, rng())) == [10, 20, 30, 30]
    with pytest.raises(ValueError, match="no sample to draw"):
        draw(members[:0], labels[:0], 4, True, rng())


def test_lambda_is_at_least_a_half() -> None:
    source = rng()
    drawn = [mixup_lambda(1.0, source) for _ in range(2000)]
    assert min(drawn) >= 0.5 and max(drawn) <= 1
    # max(l, 1 − l) of a uniform l is uniform in [0.5, 1]
    assert abs(np.mean(drawn) - 0.75) < 0.02
    # Beta(4, 4) lies closer to a half, Beta(.5, .5) farther away
    means = [np.mean([mixup_lambda(b, source) for _ in range(2000)]) for b in (4.0, 0.5)]
    assert means[0] < 0.7 < 0.78 < means[1]


def test_mixing_by_hand() -> None:
    own, partner = torch.tensor([[1.0, 0.0]]), torch.tensor([[0.0, 1.0]])
    assert mix(own, partner, 0.75).tolist() == [[0.75, 0.25]]
    assert mix(torch.tensor([200.0]), torch.tensor([100.0]), 0.5).tolist() == [150.0]


def test_soft_cross_entropy_by_hand() -> None:
    # softmax(log 3, 0) = (.75, .25); (0, 0) gives halves
    logits = torch.tensor([[math.log(3), 0.0], [0.0, 0.0]])
    targets = torch.tensor([[0.5, 0.5], [1.0, 0.0]])
    first = -0.5 * (math.log(0.75) + math.log(0.25))
    second = math.log(2)
    assert float(soft_cross_entropy(logits, targets)) == pytest.approx((first + second) / 2)
    weighted = soft_cross_entropy(logits, targets, torch.tensor([0.0, 3.0]))
    assert float(weighted) == pytest.approx(3 * second / 2)


def test_soft_cross_entropy_of_one_hot_targets_is_torchs() -> None:
    torch.manual_seed(0)
    logits, labels = torch.randn(6, 4), torch.tensor([0, 1, 2, 3, 0, 1])
    hard = torch.nn.functional.cross_entropy(logits, labels)
    soft = soft_cross_entropy(logits, torch.nn.functional.one_hot(labels, 4).float())
    assert float(soft) == pytest.approx(float(hard), rel=1e-6)


def test_the_rule_of_absorbing_and_relabelling_by_hand() -> None:
    #                      agree   agree   differ  differ  sel.    sel.    sel.    none
    given_labels = np.array([0, 0, 0, 0, 1, 1, 1, 0])
    selected = np.array([False, False, False, False, True, True, True, False])
    predicted = np.array([0, 0, 1, 1, 1, 0, 0, -1])
    confidence = np.array([0.7, 0.69, 0.9, 0.89, 0.1, 0.9, 0.89, 1.0], dtype=np.float64)
    found = next_set(given_labels, selected, predicted, confidence, 0.7, 0.9)
    assert found.absorbed.tolist() == [True] + [False] * 7
    assert found.relabelled.tolist() == [False, False, True, False, False, True, False, False]
    assert found.members.tolist() == [True, False, True, False, True, True, True, False]
    # A confident prediction relabels a sample of the selection too; the others keep their label
    assert found.labels.tolist() == [0, 0, 1, 0, 1, 0, 1, 0]


def test_the_rule_looks_at_the_labels_as_given() -> None:
    labels, nobody = np.array([0]), np.array([False])
    first = next_set(labels, nobody, np.array([1]), np.array([0.95]), 0.8, 0.8)
    assert first.labels.tolist() == [1] and first.relabelled.tolist() == [True]
    # The same prediction again still differs from the given label; a weak one drops the sample
    again = next_set(labels, nobody, np.array([1]), np.array([0.95]), 0.8, 0.8)
    assert again.relabelled.tolist() == [True] and again.absorbed.tolist() == [False]
    weak = next_set(labels, nobody, np.array([1]), np.array([0.5]), 0.8, 0.8)
    assert weak.members.tolist() == [False] and weak.labels.tolist() == [0]


def test_the_first_set_is_the_selection() -> None:
    first = initial_set(np.array([2, 0]), np.array([True, False]))
    assert first.members.tolist() == [True, False] and first.labels.tolist() == [2, 0]
    assert not first.absorbed.any() and not first.relabelled.any()


def make_plan(epoch: int = 0, seed: int = 1) -> Plan:
    members = np.arange(100, 130)
    options = {"balanced": True, "beta": 1.0, "seed": seed, "epoch": epoch}
    return plan_epoch(members, members % 3, 5, 8, **options)  # type: ignore[arg-type]


def test_a_plan_depends_on_seed_and_epoch_alone() -> None:
    plan, same = make_plan(), make_plan()
    for name, value in vars(plan).items():
        assert np.array_equal(value, vars(same)[name])
        assert not np.array_equal(value, vars(make_plan(epoch=1))[name])
        assert not np.array_equal(value, vars(make_plan(seed=2))[name])
    assert plan.indices.shape == plan.seeds.shape == plan.partners.shape == (5, 8)
    assert np.sort(plan.partners, axis=1).tolist() == [list(range(8))] * 5
    assert len(np.unique(plan.seeds)) == 40, "each draw is augmented in its own way"


@settings(max_examples=10)
@given(st.sampled_from([1, 2, 4, 8]))
def test_ranks_together_get_the_batches_of_one_process(size: int) -> None:
    plan = make_plan()
    whole = plan.batches(World(0, 1, CPU))
    parts = [plan.batches(World(rank, size, CPU)) for rank in range(size)]
    joined = [[item for part in parts for item in part[step]] for step in range(5)]
    assert joined == whole
    assert [[i for i, _ in batch] for batch in whole] == plan.indices.tolist()


def test_an_epoch_may_look_at_a_part_of_the_samples() -> None:
    train = np.arange(50, 150)
    assert epoch_subset(train, 0, 1, 0) is train
    first, second = (epoch_subset(train, 30, 1, epoch) for epoch in (0, 1))
    assert len(np.unique(first)) == 30 and set(first) <= set(train)
    assert not np.array_equal(first, second)
    assert np.array_equal(first, epoch_subset(train, 30, 1, 0))


def test_plain_batches_keep_the_order() -> None:
    assert plain_batches(np.array([7, 8, 9]), 2) == [[(7, -1), (8, -1)], [(9, -1)]]
