"""Plotly figures of a run, the same for notebooks and the App.

They hold lists, not arrays: the App's plotly does not read the packed arrays of Python's.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from .statistics import ClassStatistics
from .tally import BINS
from .views import SETTLED

_GREY = "#8a8f98"
COLORS = {
    "clean": "#2fa866",
    "mislabeled": "#e0483e",
    "uncertain": "#e0a526",
    SETTLED: _GREY,
}
MAX_CLASSES = 30


def score_figure(histogram: Mapping[str, Sequence[int]], unit: str = "sample") -> Any:
    """Histogram of the clean score by verdict.

    The axis is logarithmic, since most scores are near 0 or 1. The bars of a bin share its width:
    of stacked ones no height on such an axis could be read, and those that stand before others
    leave too little of these to be clicked.

    Args:
        histogram: verdict → counts of equal bins from 0 to 1
        unit ("sample"): what is counted
    """
    import plotly.graph_objects as go

    figure = go.Figure()
    centres = [(i + 0.5) / BINS for i in range(BINS)]
    places = _side_by_side([histogram[state] for state in COLORS])
    for (state, color), (offsets, widths) in zip(COLORS.items(), places, strict=True):
        if any(histogram[state]):
            figure.add_bar(
                x=centres,
                y=list(histogram[state]),
                offset=offsets,
                width=widths,
                name=state,
                marker={"color": color},
                hovertemplate="%{y:,} " + state + ", score about %{x:.2f}<extra></extra>",
            )
    most = max(map(max, histogram.values()))
    return figure.update_layout(
        barmode="overlay",  # each bar has a place of its own
        title="Clean score by verdict",
        xaxis={"title": "clean score: probability that the label is right", "range": [0, 1]},
        yaxis={
            "title": f"{unit}s (logarithmic)",
            "type": "log",
            "dtick": 1,
            "range": [math.log10(0.5), math.log10(max(most, 1)) + 0.1],  # one alone has a bar, too
        },
    )


def _side_by_side(rows: Sequence[Sequence[int]]) -> list[tuple[list[float], list[float]]]:
    """Divides every bin among the bars that it has: offsets from its centre and widths, by row."""
    sharing = [max(sum(n > 0 for n in counts), 1) for counts in zip(*rows, strict=True)]
    widths = [1 / BINS / n for n in sharing]
    before, places = [0] * BINS, []
    for row in rows:
        offsets = [n * w - 0.5 / BINS for n, w in zip(before, widths, strict=True)]
        places.append((offsets, widths))
        before = [n + (count > 0) for n, count in zip(before, row, strict=True)]
    return places


def confusion_figure(confusions: Sequence[tuple[str, str, int]]) -> Any:
    """Heat map of given against suggested labels of the mislabeled samples.

    Args:
        confusions: (given, suggested, count); beyond 30 classes the most frequent are shown
    """
    import plotly.graph_objects as go

    weight: dict[str, int] = {}
    for given, suggested, n in confusions:
        weight[given] = weight.get(given, 0) + n
        weight[suggested] = weight.get(suggested, 0) + n
    names = sorted(sorted(weight, key=lambda name: (-weight[name], name))[:MAX_CLASSES])
    place = {name: i for i, name in enumerate(names)}
    counts: list[list[int | None]] = [[None] * len(names) for _ in names]
    for given, suggested, n in confusions:
        if given in place and suggested in place:
            counts[place[given]][place[suggested]] = n
    figure = go.Figure(
        go.Heatmap(
            z=counts,
            x=names,
            y=names,
            colorscale=[[0, "rgba(224, 72, 62, 0.15)"], [1, "rgb(224, 72, 62)"]],
            xgap=1,
            ygap=1,
            colorbar={"thickness": 12, "outlinewidth": 0},
            hovertemplate="%{z:,} × given %{y}, suggested %{x}<extra></extra>",
        )
    )
    # Every name, also where plotly would leave out each second one
    ticks = {"type": "category", "dtick": 1, "tickfont": {"size": 12 if len(names) <= 15 else 10}}
    figure.update_xaxes(title={"text": "suggested label", "standoff": 8}, **ticks)
    title = {"text": "given label", "standoff": 8}
    figure.update_yaxes(title=title, autorange="reversed", **ticks)
    note = confusion_note(confusions)
    more = f" ({note})" if note else ""
    return figure.update_layout(title=f"Mislabeled: given and suggested labels{more}")


def confusion_note(confusions: Sequence[tuple[str, str, int]]) -> str:
    """Says which labels a heat map shows, where it does not show all of them; else nothing."""
    n = len({label for given, suggested, _ in confusions for label in (given, suggested)})
    return f"the {MAX_CLASSES} most frequent of {n:,} labels" if n > MAX_CLASSES else ""


def class_figure(
    classes: Mapping[str, ClassStatistics],
    words: Mapping[str, float | None],
    unit: str = "sample",
) -> Any:
    """Bars by given class: share mislabeled; how often its name is language's choice; count.

    Args:
        classes: given label → statistics; the 30 with the largest share mislabeled are shown
        words: class → how often the names choose it where it is probably right; None = unknown
        unit ("sample"): what is counted
    """
    import plotly.graph_objects as go

    def noisiest(name: str) -> tuple[float, str]:
        return -classes[name].mislabeled / classes[name].count, name

    names = sorted(classes, key=noisiest)[:MAX_CLASSES]
    shown = [classes[name] for name in names]
    figure = go.Figure()
    columns: tuple[tuple[str, str, list[Any], str], ...] = (
        ("mislabeled", COLORS["mislabeled"], [c.mislabeled / c.count for c in shown], ".1%"),
        ("words agree", "#4c8dd6", [words.get(name) for name in names], ".0%"),
        (f"{unit}s", _GREY, [c.count for c in shown], ","),
    )
    for i, (title, color, values, text) in enumerate(columns):
        figure.add_bar(
            x=values,
            y=names,
            orientation="h",
            name=title,
            marker={"color": color},
            xaxis=f"x{i + 1}",
            texttemplate="%{x:" + text + "}",
            insidetextfont={"color": "white"},
            hovertemplate="%{y}: %{x:" + text + "} " + title + "<extra></extra>",
        )
        axis = {
            "domain": [0.345 * i, 0.345 * i + 0.31],
            "title": {"text": title, "standoff": 4, "font": {"size": 14}},
            "side": "top",
            "showticklabels": False,
            "showgrid": False,
            "zeroline": False,
            "range": [0, 1 if title == "words agree" else max(values, default=0) or 1],
        }
        figure.update_layout({f"xaxis{i + 1}": axis})
    figure.update_yaxes(type="category", autorange="reversed", showgrid=False, automargin=True)
    figure.update_layout(showlegend=False, bargap=0.15)
    note = class_note(classes)
    more = f" ({note})" if note else ""
    return figure.update_layout(title=f"By given label{more}")


def class_note(classes: Mapping[str, ClassStatistics]) -> str:
    """Says which classes the bars are of, where they are not of all of them; else nothing."""
    n = len(classes)
    if n <= MAX_CLASSES:
        return ""
    return f"the {MAX_CLASSES} of {n:,} classes with the largest share mislabeled"
