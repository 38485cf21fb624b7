"""Pieces of form about reviews: what is decided about, and what would come of it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import fiftyone.operators as foo
import fiftyone.operators.types as types
from fiftyone.core.collections import SampleCollection

from clipcleaner_plugin.review_log import samples_text

from .forms import block

if TYPE_CHECKING:
    from clipcleaner_plugin.layout import Layout
    from clipcleaner_plugin.review_log import ReviewReport

_SHOWN_PAIRS = 12


class Target(NamedTuple):
    """The samples, or objects, that a review action is about.

    Attributes:
        samples: as a view
        chosen: whether the user picked them one by one; then decisions may be replaced
        words: what they are, for a sentence
        nothing: what the user has not done, where they are not chosen
    """

    samples: SampleCollection
    chosen: bool
    words: str
    nothing: str = "Nothing is selected"


def review_button(
    ctx: foo.executor.ExecutionContext, place: types.Places, label: str, icon: str
) -> types.Placement | None:
    """Returns the button of a review operator; None where there is nothing to review yet."""
    from clipcleaner_plugin.runs import list_runs

    if ctx.dataset is None or not list_runs(ctx.dataset):
        return None
    return types.Placement(place, types.Button(label=label, icon=icon, prompt=True))


def review_target(ctx: foo.executor.ExecutionContext, key: str) -> Target:
    """Returns what is open, else what is selected, else the current view.

    Args:
        ctx: the execution context
        key: the run; where it is about objects, these are meant

    Raises:
        ValueError: if the current view does not show what the run is about
    """
    from clipcleaner_plugin.layout import layout_of
    from clipcleaner_plugin.review_decision import check_reviewable

    layout = layout_of(ctx.dataset.get_brain_info(key).config)
    check_reviewable(ctx.view, layout)
    in_patches, unit = ctx.view._is_generated, layout.unit
    if layout.objects and not in_patches:
        return _objects_in_samples(ctx, layout)
    base = ctx.view if in_patches else ctx.dataset
    if ctx.current_sample:
        return Target(base.select(ctx.current_sample), True, f"the {unit} that is open")
    if ctx.selected:
        words = samples_text(len(ctx.selected), f"selected {unit}")
        return Target(base.select(ctx.selected), True, words)
    return Target(ctx.view, False, f"{_all(ctx.view.count(), unit)} of the current view")


def _objects_in_samples(ctx: foo.executor.ExecutionContext, layout: Layout) -> Target:
    """The selected objects; else those that are shown of the samples open, selected or in view."""
    field = layout.label_field
    chosen = [label["label_id"] for label in ctx.selected_labels if label["field"] == field]
    if chosen:
        objects = ctx.dataset.select_labels(ids=chosen, fields=field)
        return Target(objects, True, samples_text(len(chosen), "selected object"))
    samples, where = ctx.view, "the current view"
    if ctx.current_sample:
        samples, where = ctx.view.select(ctx.current_sample), "the sample that is open"
    elif ctx.selected:
        samples = ctx.view.select(ctx.selected)
        where = samples_text(len(ctx.selected), "selected sample")
    words = f"{_all(samples.count(layout.array), 'object')} of {where}"
    return Target(samples, False, words, "No single object is selected")


def _all(n: int, unit: str) -> str:
    return f"no {unit}" if n == 0 else f"1 {unit}" if n == 1 else f"all {n:,} {unit}s"


def show_target(inputs: types.Object, target: Target) -> None:
    """Says what the form is about; a view that nobody selected is said with emphasis."""
    if target.chosen:
        inputs.md(f"This is about **{target.words}**.", name="target")
        return
    warning = types.Warning(
        label=f"{target.nothing}: this is about {target.words}",
        description="Select samples or objects to decide about those alone",
    )
    inputs.view("target", warning)


def show_preview(inputs: types.Object, report: ReviewReport, would: str) -> None:
    """Shows what would come of an action; blocks the form where it is nothing."""
    left = [f"{n:,} {reason}" for reason, n in report.left.items()]
    if not report.count:
        block(
            inputs, "There is nothing to do here", "; ".join(left) or f"There are no {report.unit}s"
        )
        return
    inputs.md(preview_text(report, would), name="preview")


def preview_text(report: ReviewReport, would: str) -> str:
    """Writes a report as Markdown: the count, pairs of labels, what is left."""
    unit = report.unit
    parts = [f"**{samples_text(report.count, unit)}** {would}:"]
    shown = report.changes[:_SHOWN_PAIRS]
    if all(old == new for old, new, _ in shown):
        table = [f"| Label | {unit.capitalize()}s |", "|---|---|"]
        table += [f"| {_name(old)} | {n:,} |" for old, _, n in shown]
    else:
        table = [f"| Label now | New label | {unit.capitalize()}s |", "|---|---|---|"]
        table += [f"| {_name(old)} | {_name(new)} | {n:,} |" for old, new, n in shown]
    parts.append("\n".join(table))
    more = report.changes[_SHOWN_PAIRS:]
    if more:
        parts.append(f"and {sum(n for *_, n in more):,} {unit}s in {len(more):,} other pairs")
    left = [f"{n:,} {reason}" for reason, n in report.left.items()]
    if left:
        parts.append(f"Left as they are: {'; '.join(left)}.")
    return "\n\n".join(parts)


def show_done(ctx: foo.executor.ExecutionContext, report: ReviewReport, text: str) -> None:
    """Makes the App show what has changed, and says it."""
    # The first decision on a label field adds a field, which the sidebar knows only after this
    ctx.ops.reload_dataset()
    if report.unit == "object":
        if ctx.view._is_generated:
            ctx.view.reload()  # FiftyOne keeps patches as they were
        ctx.ops.reload_samples()
        ctx.ops.clear_selected_labels()
    ctx.ops.clear_selected_samples()
    ctx.ops.notify(text, variant="success" if report.count else "warning")


def reviewer(ctx: foo.executor.ExecutionContext) -> str | None:
    """Returns the App's user, where it has users; None = the user of the operating system."""
    user: Any = getattr(ctx, "user", None)
    if user is None:
        return None
    return next((v for v in (user.email, user.name, user.id) if v), None)


def as_json(report: ReviewReport) -> dict[str, Any]:
    """Returns a report as an operator's result."""
    return {
        "action": report.action,
        "count": report.count,
        "changes": [list(change) for change in report.changes],
        "left": report.left,
    }


def _name(label: str | None) -> str:
    # A bar would end the cell of the table
    return "*no label*" if label is None else label.replace("|", "\\|")
