"""The parts of the panel, from top to bottom: run, summary, tabs, a figure or the thresholds."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import fiftyone.operators.types as types

from clipcleaner_plugin.review_log import samples_text

from .forms import dropdown
from .panel_runs import RunState
from .thresholds import THETAS, change_text, explanations, thetas_text, threshold_slider

if TYPE_CHECKING:
    from clipcleaner_plugin.results import CLIPCleanerResults
    from clipcleaner_plugin.rules import NoiseRate
    from clipcleaner_plugin.statistics import RunStatistics

Handler = Callable[..., Any]

TABS = {
    "scores": "Scores",
    "confusions": "Confusions",
    "classes": "Classes",
    "thresholds": "Thresholds",
}
# The operators' names, and what their buttons say
REVIEW = {
    "accept_suggestions": "Accept suggestions",
    "confirm_labels": "Confirm",
    "drop": "Drop",
    "undo_review": "Undo",
}
_WHAT = {
    "scores": (
        "How probable it is that a label is right. The axis is logarithmic; bars of the same score "
        "stand side by side. Click one to see what it counts."
    ),
    "confusions": (
        "Labels that look wrong: what they are called (rows) and what they look like (columns). "
        "Click a cell to see what it counts."
    ),
    "classes": (
        "**Mislabeled**: share of a class that looks wrong. **Words agree**: how often the class "
        "name alone would be chosen for what probably belongs to the class, whatever its label; "
        "little means that the name says nothing to the model, and prompts would help. Click a bar "
        "to see what it counts; of *words agree*, all that probably belongs to the class."
    ),
    "thresholds": (
        "Move a slider to see what it would change. Nothing is changed until you apply it, and "
        "then no image or model is needed."
    ),
}
_SHOWN_NAMES = 8
# Wide enough for any panel, high enough for the figure to be read
_HEIGHTS = {"scores": 340, "confusions": 400}


def add_run_choice(panel: types.Object, state: RunState, on_change: Handler) -> None:
    """Adds the choice of the run, where there are several."""
    if len(state.keys) > 1:
        view = dropdown(state.keys)
        panel.enum("run", state.keys, label="Run", on_change=on_change, view=view)


def add_empty(panel: types.Object, state: RunState, on_start: Handler, on_delete: Handler) -> None:
    """Says why there is nothing to see, and offers what helps."""
    panel.md(state.problem or "", name="problem")
    buttons = panel.h_stack("ways_out", gap=2)
    if state.can_start:
        label = "Find wrong labels" if state.key is None else "Apply again"
        buttons.btn("start", label=label, variant="contained", on_click=on_start)
    if state.key is not None:
        buttons.btn("delete", label="Delete run", variant="outlined", on_click=on_delete)


def add_summary(
    panel: types.Object,
    results: CLIPCleanerResults,
    statistics: RunStatistics,
    on_show: Handler,
    on_more: Handler,
) -> None:
    """Adds the result in a sentence, and a button for the samples of each verdict."""
    from clipcleaner_plugin.views import KINDS

    panel.md(_sentences(results, statistics), name="summary")
    buttons = panel.h_stack("verdicts", gap=1)
    for kind in ("mislabeled", "uncertain", "clean", "unscorable", "reviewed", "open_set"):
        n = statistics.in_views[kind]
        if n:
            buttons.btn(
                kind,
                label=f"{KINDS[kind].label} {n:,}",
                variant="contained" if kind == "mislabeled" else "outlined",
                on_click=on_show,
                params={"kind": kind},
            )
    buttons.btn("more", label="More views", variant="outlined", on_click=on_more)


def _sentences(results: CLIPCleanerResults, statistics: RunStatistics) -> str:
    config, wrong = results.config, statistics.counts["mislabeled"]
    total, decided = sum(statistics.verdicts.values()), statistics.decided
    reviewed = f" **{decided:,}** {'is' if decided == 1 else 'are'} reviewed." if decided else ""
    how = f"run `{results.key}` on `{config.label_field}`"
    how += f" with {config.model}" if config.model else ""
    return (
        f"#### {wrong:,} of {total:,} labels {'still ' * bool(decided)}look wrong\n"
        f"Estimated noise rate **{_percent(statistics.noise)}**.{reviewed} "
        f"From {how}.\n" + "".join(f"\n⚠ {text}\n" for text in _warnings(results))
    )


def _warnings(results: CLIPCleanerResults) -> list[str]:
    """What to know before trusting the run, names to rewrite first."""
    warnings = list(results.record["warnings"])
    names = [f"`{name}`" for name, row in results.class_report().items() if row.rewrite]
    if not names:
        return warnings[:3]
    shown = ", ".join(names[:_SHOWN_NAMES])
    more = f" and {len(names) - _SHOWN_NAMES} more" if len(names) > _SHOWN_NAMES else ""
    text = (
        f"Class names that mean little to the model: {shown}{more}. Apply again with prompts that "
        "describe these classes in other words."
    )
    # The last one says the same to those who read it in Python
    return [text, *warnings[:-1][:2]]


def _percent(noise: NoiseRate) -> str:
    if not noise.count:
        return "unknown"
    return f"{noise.rate:.1%} ({noise.low:.1%} to {noise.high:.1%})"


def add_count(panel: types.Object, on_count: Handler) -> None:
    """Says that the numbers are of before a change, and offers to count again."""
    panel.md("⚠ Samples have changed since these numbers were counted.", name="changed")
    panel.btn("count", label="Count again", variant="outlined", on_click=on_count)


def add_added(panel: types.Object, added: int, on_start: Handler) -> None:
    """Says that the run does not have all samples, and offers to make it again."""
    text = (
        f"⚠ {samples_text(added)} of the dataset {'is' if added == 1 else 'are'} not in this run. "
    )
    text += "Applied again, it embeds new images alone, and keeps what was decided."
    panel.md(text, name="added")
    panel.btn("again", label="Apply again", variant="outlined", on_click=on_start)


def add_review(panel: types.Object, on_review: Handler) -> None:
    """Adds the review actions: those above the grid fold away where the panel is beside it."""
    panel.md("Review what is selected in the grid, or all that it shows:", name="about_review")
    buttons = panel.h_stack("review", gap=1)
    for action, label in REVIEW.items():
        params = {"action": action}
        buttons.btn(action, label=label, variant="outlined", on_click=on_review, params=params)


def add_tabs(panel: types.Object, tab: str, statistics: RunStatistics, on_change: Handler) -> None:
    """Adds the tabs, and what the chosen one shows, in words."""
    view = types.TabsView()
    for name, label in TABS.items():
        view.add_choice(name, label=label)
    panel.str("tab", view=view, on_change=on_change)
    panel.md(_WHAT[tab] + _note(tab, statistics), name=f"about_{tab}")


def _note(tab: str, statistics: RunStatistics) -> str:
    """What is to be known of this run's figure, beside what is always said."""
    from clipcleaner_plugin.plots import class_note, confusion_note

    if tab == "scores" and statistics.counts["settled"]:
        return " *Settled*: reviewed, and so in the list of no verdict any more."
    notes = {
        "confusions": confusion_note(statistics.confusions),
        "classes": class_note(statistics.classes),
    }
    note = notes.get(tab)
    return f" Shown are {note}." if note else ""


def add_plot(
    panel: types.Object,
    tab: str,
    results: CLIPCleanerResults,
    statistics: RunStatistics,
    on_click: Handler,
) -> None:
    """Adds the figure of a tab; it is part of the layout, so that no event carries it back."""
    from clipcleaner_plugin.plots import class_figure, confusion_figure, score_figure

    unit = results.layout.unit
    if tab == "confusions" and not statistics.confusions:
        panel.md("No label looks wrong: there is nothing to compare.", name="nothing")
        return
    if tab == "scores":
        figure = score_figure(statistics.histogram, unit)
        margin = {"t": 8, "l": 60, "r": 8, "b": 56}
        figure.update_layout(showlegend=True, legend={"orientation": "h", "x": 0, "y": 1.14})
    elif tab == "confusions":
        figure = confusion_figure(statistics.confusions)
        margin = {"t": 8, "l": 8, "r": 0, "b": 8}
    else:
        figure = class_figure(statistics.classes, results.word_shares(statistics), unit)
        margin = {"t": 32, "l": 8, "r": 8, "b": 8}
    figure.update_layout(title=None, margin=margin, dragmode=False)
    parts = figure.to_plotly_json()
    parts["layout"].pop("template", None)  # the App has its own colors, dark or light
    height = _HEIGHTS.get(tab) or 50 + 26 * len(parts["data"][0]["y"])
    panel.plot(
        f"plot_{tab}",
        data=list(parts["data"]),
        layout=parts["layout"],
        config={"displayModeBar": False, "scrollZoom": False},
        on_click=on_click,
        height=height,
    )


def add_thresholds(
    panel: types.Object,
    results: CLIPCleanerResults,
    counts: dict[str, int],
    reviewed: bool,
    chosen: dict[str, float],
    handlers: dict[str, Handler],
) -> None:
    """Adds what the sliders would change, the buttons to do it or to take it back, and the sliders.

    Args:
        panel: what to add to
        results: the run
        counts: of its labels by verdict, as they are now
        reviewed: whether reviewed labels are among these
        chosen: the values of the sliders; each has its own name in the panel's state
        handlers: "change", "apply", "reset" and "restore"
    """
    from clipcleaner_plugin.reselection import Thetas, preview_evidence

    thetas, now = Thetas(**chosen), results.thetas
    changed = thetas != now
    evidence = preview_evidence(results)
    text = change_text(counts, evidence.counts(thetas), evidence.is_whole, reviewed)
    panel.md(f"##### {text}", name="change")
    buttons = panel.h_stack("decide", gap=2)
    buttons.btn(
        "apply",
        label="Apply",
        variant="contained",
        disabled=not changed,
        on_click=handlers["apply"],
    )
    if changed:
        buttons.btn("reset", label="Reset", variant="outlined", on_click=handlers["reset"])
    former = results.former_thetas
    if former is not None and former != now:
        buttons.btn(
            "restore",
            label="Back to " + thetas_text(former),
            variant="outlined",
            on_click=handlers["restore"],
            params={"thetas": former._asdict()},
        )
    for name in THETAS:
        threshold_slider(panel, name, on_change=handlers["change"])
    panel.md(explanations(), name="explanations")
