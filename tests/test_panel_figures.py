"""The figures of the panel: what they count, and what a click on them shows."""

from __future__ import annotations

import itertools

import fiftyone as fo
import numpy as np
import pytest
from noisy_features import CLASSES, Maker, Noisy
from panel_at_work import Panel, shown

import clipcleaner_plugin as cc
from clipcleaner_plugin.plots import COLORS, score_figure
from clipcleaner_plugin.tally import BINS

pytestmark = pytest.mark.usefixtures("plugin")


@pytest.fixture
def noisy(dataset: Maker) -> fo.Dataset:
    made = Noisy(dataset)
    made.apply(key="run")
    return made.dataset


@pytest.fixture
def of_many_classes(dataset: Maker) -> fo.Dataset:
    """A run of 31 classes, in each of which one label is wrong."""
    k, rng = 31, np.random.default_rng(0)
    true = np.arange(k * 12) % k
    centres = np.eye(k, 40)
    given = true.copy()
    given[:k] = (true[:k] + 1) % k
    made = dataset(
        [
            fo.Sample(f"/{i}.jpg", ground_truth=fo.Classification(label=f"class {g:02}"))
            for i, g in enumerate(given)
        ]
    )
    vectors = centres[true] + 0.05 * rng.normal(size=(len(true), 40))
    texts = {f"class {i:02}": centres[i : i + 1] for i in range(k)}
    cc.apply_clipcleaner(made, key="run", embeddings=vectors, text_features=texts)
    return made


def opened(dataset: fo.Dataset, tab: str) -> Panel:
    panel = Panel(dataset)
    panel.send("on_load")
    panel.open(tab)
    return panel


@pytest.mark.parametrize("tab", ["scores", "confusions", "classes"])
def test_every_figure_reaches_the_app_as_plain_lists(noisy: fo.Dataset, tab: str) -> None:
    panel = Panel(noisy)
    panel.send("on_load")
    panel.state["tab"] = tab
    panel.send("on_input")
    figure = panel.parts[f"plot_{tab}"]["view"]
    assert "template" not in figure["layout"], "the App has colors of its own"
    for trace in figure["data"]:
        for axis in "xyz":
            assert isinstance(trace.get(axis, []), list | tuple)


def test_a_run_whose_labels_were_cleared_has_empty_figures(noisy: fo.Dataset) -> None:
    noisy.clear_sample_field("ground_truth")
    panel = Panel(noisy)
    panel.send("on_load")
    for tab in ("scores", "confusions", "classes"):
        panel.state["tab"] = tab
        panel.send("on_input")
    assert len(panel.parts["plot_classes"]["view"]["data"][0]["y"]) == 0


def test_the_bars_of_the_classes_are_those_of_the_statistics(noisy: fo.Dataset) -> None:
    results = cc.load_results(noisy, "run")
    mislabeled, words, counts = opened(noisy, "classes").bars("classes")
    classes, report = results.statistics().classes, results.class_report()
    order = sorted(classes, key=lambda k: (-classes[k].mislabeled / classes[k].count, k))
    for bars in (mislabeled, words, counts):
        assert list(bars["y"]) == order
    assert mislabeled["x"] == [classes[k].mislabeled / classes[k].count for k in order]
    assert words["x"] == [report[k].words for k in order] != mislabeled["x"]
    assert counts["x"] == [classes[k].count for k in order]

    # and what anyone would count
    given, verdict = noisy.values(["ground_truth.label", "run_verdict"])
    of_class = {k: [v for g, v in zip(given, verdict, strict=True) if g == k] for k in CLASSES}
    assert dict(zip(order, counts["x"], strict=True)) == {k: len(v) for k, v in of_class.items()}
    assert dict(zip(order, mislabeled["x"], strict=True)) == {
        k: v.count("mislabeled") / len(v) for k, v in of_class.items()
    }
    assert counts["name"] == "samples" and counts["texttemplate"] == "%{x:,}"


def test_wrong_labels_do_not_speak_against_the_name_of_a_class(dataset: Maker) -> None:
    made = Noisy(dataset, wrong=0)
    labels = made.dataset.values("trusted.label")
    given = ["cat" if label == "dog" else label for label in labels]
    dogs = [i for i, label in enumerate(labels) if label == "dog"]
    for i in dogs[::4]:  # some are left, so that it is a class
        given[i] = "dog"
    made.dataset.set_values("ground_truth.label", given)
    results = made.apply(key="run")
    cats = results.statistics().classes["cat"]
    assert cats.words < 0.65 and 50 < cats.mislabeled < cats.count, "half of them are wrong"
    _, words, _ = opened(made.dataset, "classes").bars("classes")
    assert dict(zip(words["y"], words["x"], strict=True))["cat"] > 0.95
    assert dict(zip(words["y"], words["x"], strict=True))["dog"] > 0.95


def test_of_a_run_without_a_report_the_words_are_asked_about_the_labels(noisy: fo.Dataset) -> None:
    results = cc.load_results(noisy, "run")
    del results.record["class_report"]
    results.save()
    panel = opened(noisy, "classes")
    _, words, _ = panel.bars("classes")
    classes = results.statistics().classes
    assert words["x"] == [classes[k].words for k in words["y"]]
    asked = panel.send("on_class", y="cat", trace_idx=1)
    assert len(shown(noisy, asked)) == classes["cat"].count


def test_a_run_without_class_names_has_no_opinion_of_them(dataset: Maker) -> None:
    made = Noisy(dataset)
    made.apply(key="run", text_features=None, model=None)
    _, words, _ = opened(made.dataset, "classes").bars("classes")
    assert words["x"] == [None] * 3


def test_a_click_on_words_agree_shows_what_they_were_asked_about(noisy: fo.Dataset) -> None:
    panel, report = opened(noisy, "classes"), cc.load_results(noisy, "run").class_report()
    for name in CLASSES:
        found = shown(noisy, panel.send("on_class", y=name, trace_idx=1))
        assert found.distinct("run_suggestion.label") == [name]
        assert len(found) == report[name].judged


def test_every_bar_of_the_scores_shows_what_it_counts(noisy: fo.Dataset) -> None:
    results = cc.load_results(noisy, "run")
    results.confirm_labels(results.mislabeled_view()[:4])
    results.confirm_labels(results.clean_view()[:3])
    results.drop(results.clean_view()[10:12])
    panel = opened(noisy, "scores")
    assert "*Settled*: reviewed" in panel.said("about_scores")
    found = panel.bars("scores")
    assert sum(sum(bars["y"]) for bars in found) == 240, "each label in one bar"
    names = [bars["name"] for bars in found]
    assert {"clean", "mislabeled", "settled"} <= set(names)
    assert sum(found[names.index("settled")]["y"]) == 6
    for bars in found:
        for place in np.flatnonzero(bars["y"]):
            asked = panel.send("on_score", idx=int(place), trace=bars["name"])
            assert len(shown(noisy, asked)) == bars["y"][place], (bars["name"], place)


def test_bars_on_a_logarithmic_axis_stand_side_by_side(noisy: fo.Dataset) -> None:
    # A bar that is no higher than another of its bin, or just as high, can be clicked all over
    tied = [0] * BINS
    tied[3], tied[9] = 1, 7
    figure = score_figure({**dict.fromkeys(COLORS, tied), "clean": [1] * BINS})
    spans = [
        (x + offset, x + offset + width)
        for bars in figure.data
        for x, y, offset, width in zip(bars.x, bars.y, bars.offset, bars.width, strict=True)
        if y
    ]
    assert len(spans) == BINS + 2 * (len(COLORS) - 1)
    spans.sort()
    for (_, end), (start, _) in itertools.pairwise(spans):
        assert start == pytest.approx(end), "neither a gap nor an overlap"
    assert (spans[0][0], spans[-1][1]) == (0, 1)

    panel = opened(noisy, "scores")
    layout, found = panel.parts["plot_scores"]["view"]["layout"], panel.bars("scores")
    assert layout["barmode"] == "overlay" and "logarithmic" in layout["yaxis"]["title"]["text"]
    low, high = layout["yaxis"]["range"]
    assert low < 0 and 10**high > max(max(bars["y"]) for bars in found)
    assert all("offset" in bars for bars in found)
    assert "Settled" not in panel.said("about_scores")


def test_a_figure_that_does_not_show_all_classes_says_so(
    of_many_classes: fo.Dataset, noisy: fo.Dataset
) -> None:
    pairs = cc.load_results(of_many_classes, "run").confusions()
    assert len({label for *pair, _ in pairs for label in pair}) == 31
    for tab, said in (
        ("confusions", "Shown are the 30 most frequent of 31 labels."),
        ("classes", "Shown are the 30 of 31 classes with the largest share mislabeled."),
    ):
        panel = opened(of_many_classes, tab)
        assert said in panel.said(f"about_{tab}")
        assert len(panel.bars(tab)[0]["y"]) == 30
        assert "Shown are" not in opened(noisy, tab).said(f"about_{tab}")
