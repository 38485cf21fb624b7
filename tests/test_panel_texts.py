"""What the panel says in words: the noise rate, and which labels its thresholds count."""

from __future__ import annotations

import re

import fiftyone as fo
import pytest
from noisy_features import Noisy
from operators_at_work import form
from panel_at_work import Panel

import clipcleaner_plugin as cc

pytestmark = pytest.mark.usefixtures("plugin")


def opened(dataset: fo.Dataset, tab: str = "scores") -> Panel:
    panel = Panel(dataset)
    panel.send("on_load")
    panel.open(tab)
    return panel


def test_the_noise_rate_stands_with_its_interval(noisy: Noisy) -> None:
    summary = opened(noisy.dataset).said("summary")
    found = re.search(r"rate \*\*([\d.]+)% \(([\d.]+)% to ([\d.]+)%\)\*\*", summary)
    assert found is not None, summary
    rate, low, high = map(float, found.groups())
    scores = noisy.dataset.values("clipcleaner_score")
    assert rate == pytest.approx(100 * (1 - sum(scores) / len(scores)), abs=0.06)
    assert low < rate < high and low < 100 * 40 / 240 < high, "40 of 240 labels are wrong"
    assert high - low == pytest.approx(2 * 1.96 * (1 / 6 * 5 / 6 / 240) ** 0.5 * 100, rel=0.2)


def test_counts_of_the_thresholds_say_that_reviewed_labels_are_among_them(noisy: Noisy) -> None:
    said = "reviewed labels included"
    assert said not in opened(noisy.dataset, "thresholds").said("change")
    assert said not in form("update_selection", noisy.dataset)["change"]["default"]
    results = cc.load_results(noisy.dataset)
    results.drop(results.mislabeled_view()[:4])
    panel = opened(noisy.dataset, "thresholds")
    assert "36 of 240 labels still look wrong" in panel.said("summary")
    for text in (
        panel.said("change"), form("update_selection", noisy.dataset)["change"]["default"]
    ):  # fmt: skip
        assert "Mislabeled 40, uncertain" in text and text.endswith(said)
    cc.undo_review(noisy.dataset)
    assert said not in opened(noisy.dataset, "thresholds").said("change")
