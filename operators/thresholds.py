"""The three thresholds in words, as sliders, and what a change of them would do."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import fiftyone.operators.types as types

if TYPE_CHECKING:
    from clipcleaner_plugin.reselection import Thetas

# In the order in which they are shown: short name, and what the threshold does
THETAS = {
    "theta_score": (
        "Score",
        "a label is mislabeled below this clean score. Lower: fewer are flagged, and surer errors",
    ),
    "theta_cons": (
        "Consistency",
        "a clean label is at least this probable beside the best one, by words and by looks. "
        "Higher: fewer, purer clean labels",
    ),
    "theta_gmm": (
        "Posterior",
        "a clean label belongs this surely to the better part of its class, by words and by "
        "looks. Higher: fewer, purer clean labels",
    ),
}


def threshold_slider(parent: types.Object, name: str, **more: Any) -> None:
    """Adds the slider of one threshold.

    Args:
        parent: what to add to
        name: one of :data:`THETAS`
        **more: of the property, such as ``default`` or ``on_change``
    """
    view = types.SliderView(label_position="left", label=THETAS[name][0], value_precision=2)
    parent.float(name, min=0, max=1, view=view, **more)


def explanations(names: Iterable[str] = THETAS) -> str:
    """Says what these thresholds do, as Markdown."""
    return "\n".join("* **{}**: {}".format(*THETAS[name]) for name in names)


def thetas_text(thetas: Thetas) -> str:
    """Names the thresholds in the order of the sliders."""
    return " / ".join(f"{getattr(thetas, name):.2f}" for name in THETAS)


def change_text(now: dict[str, int], then: dict[str, int], exact: bool, reviewed: bool) -> str:
    """Writes counts by verdict as they are and as they would be, as Markdown.

    Args:
        now, then: counts by verdict
        exact: whether ``then`` is; else it was estimated from a part of the samples
        reviewed: whether reviewed labels are among them, which is then said: the panel's
            other numbers are of labels that wait for a review
    """
    about = "" if exact else "about "
    parts = []
    for verdict in ("mislabeled", "uncertain", "clean"):
        change = then[verdict] - now[verdict]
        after = f" → **{about}{then[verdict]:,}** ({change:+,})" if change else ""
        parts.append(f"{verdict} {now[verdict]:,}{after}")
    text = ", ".join(parts).capitalize()
    return f"{text}, reviewed labels included" if reviewed else text
