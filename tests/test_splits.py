"""Splits: drawn by class, by the seed; tags without a database."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clipcleaner_plugin.splits import FRACTIONS, assign_splits, stratified


@given(
    st.lists(st.sampled_from("abcdefgh"), max_size=200),
    st.integers(0, 9),
    st.sampled_from([FRACTIONS, {"train": 0.5, "test": 0.5}, {"train": 1 / 3, "val": 2 / 3}]),
)
def test_a_draw_keeps_the_shares_of_every_label(
    labels: list[str], seed: int, fractions: dict[str, float]
) -> None:
    shares = {name: fractions.get(name, 0.0) for name in ("train", "val", "test")}
    splits = stratified(labels, shares, seed)
    assert splits == stratified(labels, shares, seed)
    count = Counter(zip(labels, splits, strict=True))
    for label, n in Counter(labels).items():
        assert count[label, "train"] >= 1
        for name, share in shares.items():
            assert abs(count[label, name] - share * n) <= 3
            assert share or not count[label, name]


def test_a_draw_depends_on_the_seed_and_hits_the_shares_as_a_whole() -> None:
    labels = [f"rare-{i // 3}" for i in range(900)]
    splits = stratified(labels, FRACTIONS, 1)
    assert splits != stratified(labels, FRACTIONS, 2)
    assert Counter(splits)["val"] == pytest.approx(90, abs=2)


def test_fractions_and_tags_without_a_database() -> None:
    splits = assign_splits(["a", "b"], ["x", "x"], [["val"], []], fractions={"test": 1})
    assert splits == ["val", "test"]


@pytest.mark.parametrize("fractions", [[0.7, 0.3], {"train": "all"}, {"train": float("nan")}])
def test_fractions_of_another_type_are_named(fractions: Any) -> None:
    with pytest.raises(TypeError, match=r"^fractions"):
        assign_splits(["a"], ["x"], [[]], fractions=fractions)
