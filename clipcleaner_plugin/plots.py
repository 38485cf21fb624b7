"""Plotly figures of a run, the same for notebooks and the App."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from .rules import NoiseRate

COLORS = {"clean": "#2e9e5b", "uncertain": "#d9a514", "mislabeled": "#d3403a"}
_BINS = np.linspace(0, 1, 41)
_MAX_CLASSES = 40


def score_figure(score: np.ndarray, verdict: np.ndarray) -> Any:
    """Histogram of the clean score, stacked by verdict.

    Args:
        score: (N,) float array in [0, 1]; NaN is left out
        verdict: (N,) array of str
    """
    import plotly.graph_objects as go

    figure = go.Figure()
    for name, color in COLORS.items():
        values = score[(verdict == name) & np.isfinite(score)]
        counts, _ = np.histogram(values, bins=_BINS)
        figure.add_bar(
            x=(_BINS[:-1] + _BINS[1:]) / 2, y=counts, name=name, marker_color=color, width=_BINS[1]
        )
    return figure.update_layout(
        barmode="stack",
        bargap=0,
        title="Clean score by verdict",
        xaxis_title="clean score (probability that the label is right)",
        yaxis_title="samples",
        yaxis_type="log",
    )


def confusion_figure(confusions: Sequence[tuple[str, str, int]]) -> Any:
    """Heat map of given against suggested labels of the mislabeled samples.

    Args:
        confusions: (given, suggested, count); beyond 40 classes the most frequent are shown
    """
    import plotly.graph_objects as go

    weight: dict[str, int] = {}
    for given, suggested, n in confusions:
        weight[given] = weight.get(given, 0) + n
        weight[suggested] = weight.get(suggested, 0) + n
    names = sorted(sorted(weight, key=lambda name: (-weight[name], name))[:_MAX_CLASSES])
    place = {name: i for i, name in enumerate(names)}
    counts = np.zeros((len(names), len(names)), dtype=int)
    for given, suggested, n in confusions:
        if given in place and suggested in place:
            counts[place[given], place[suggested]] = n
    figure = go.Figure(go.Heatmap(z=counts, x=names, y=names, colorscale="Reds"))
    figure.update_xaxes(type="category", title="suggested label")
    figure.update_yaxes(type="category", title="given label", autorange="reversed")
    return figure.update_layout(title="Mislabeled samples: given and suggested label")


def class_figure(rates: Mapping[str, NoiseRate]) -> Any:
    """Estimated noise rate by given class, noisiest first, with 95 % intervals.

    Args:
        rates: ``{class: rate}``; the 40 noisiest are shown
    """
    import plotly.graph_objects as go

    scored = {name: rate for name, rate in rates.items() if rate.count}
    names = sorted(scored, key=lambda name: (-scored[name].rate, name))[:_MAX_CLASSES]
    shown = [scored[name] for name in names]
    figure = go.Figure(
        go.Bar(
            x=names,
            y=[r.rate for r in shown],
            error_y={
                "type": "data",
                "array": [r.high - r.rate for r in shown],
                "arrayminus": [r.rate - r.low for r in shown],
            },
            marker_color=COLORS["mislabeled"],
        )
    )
    figure.update_xaxes(type="category")
    return figure.update_layout(
        title="Estimated noise rate by given label", yaxis_tickformat=".0%", yaxis_range=[0, 1]
    )
