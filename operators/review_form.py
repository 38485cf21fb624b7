"""Pieces of form about reviews: what is decided about, and what would come of it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import fiftyone.operators as foo
import fiftyone.operators.types as types
from fiftyone.core.collections import SampleCollection

from .forms import block

if TYPE_CHECKING:
    from clipcleaner_plugin.review_log import ReviewReport

_SHOWN_PAIRS = 12


class Target(NamedTuple):
    """The samples that a review action is about.

    Attributes:
        samples: as a view
        chosen: whether the user picked them one by one; then decisions may be replaced
        words: what they are, for a sentence
    """

    samples: SampleCollection
    chosen: bool
    words: str


def review_button(
    ctx: foo.executor.ExecutionContext, place: types.Places, label: str, icon: str
) -> types.Placement | None:
    """Returns the button of a review operator; None where there is nothing to review yet."""
    from clipcleaner_plugin.runs import list_runs

    if ctx.dataset is None or not list_runs(ctx.dataset):
        return None
    return types.Placement(place, types.Button(label=label, icon=icon, prompt=True))


def review_target(ctx: foo.executor.ExecutionContext) -> Target:
    """Returns the sample that is open, else the selected ones, else the current view."""
    if ctx.current_sample:
        return Target(ctx.dataset.select(ctx.current_sample), True, "the sample that is open")
    if ctx.selected:
        n = len(ctx.selected)
        words = "1 selected sample" if n == 1 else f"{n:,} selected samples"
        return Target(ctx.dataset.select(ctx.selected), True, words)
    n = ctx.view.count()
    words = "no sample" if n == 0 else "1 sample" if n == 1 else f"all {n:,} samples"
    return Target(ctx.view, False, f"{words} of the current view")


def show_target(inputs: types.Object, target: Target) -> None:
    """Says what the form is about; a view that nobody selected is said with emphasis."""
    if target.chosen:
        inputs.md(f"This is about **{target.words}**.", name="target")
        return
    warning = types.Warning(
        label=f"Nothing is selected: this is about {target.words}",
        description="Select samples in the grid to decide about those alone",
    )
    inputs.view("target", warning)


def show_preview(inputs: types.Object, report: ReviewReport, would: str) -> None:
    """Shows what would come of an action; blocks the form where it is nothing."""
    left = [f"{n:,} {reason}" for reason, n in report.left.items()]
    if not report.count:
        block(inputs, "There is nothing to do here", "; ".join(left) or "There are no samples")
        return
    inputs.md(preview_text(report, would), name="preview")


def preview_text(report: ReviewReport, would: str) -> str:
    """Writes a report as Markdown: the count, pairs of labels, what is left."""
    count = "1 sample" if report.count == 1 else f"{report.count:,} samples"
    parts = [f"**{count}** {would}:"]
    shown = report.changes[:_SHOWN_PAIRS]
    if all(old == new for old, new, _ in shown):
        table = ["| Label | Samples |", "|---|---|"]
        table += [f"| {_name(old)} | {n:,} |" for old, _, n in shown]
    else:
        table = ["| Label now | New label | Samples |", "|---|---|---|"]
        table += [f"| {_name(old)} | {_name(new)} | {n:,} |" for old, new, n in shown]
    parts.append("\n".join(table))
    more = report.changes[_SHOWN_PAIRS:]
    if more:
        parts.append(f"and {sum(n for *_, n in more):,} samples in {len(more):,} other pairs")
    left = [f"{n:,} {reason}" for reason, n in report.left.items()]
    if left:
        parts.append(f"Left as they are: {'; '.join(left)}.")
    return "\n\n".join(parts)


def show_done(ctx: foo.executor.ExecutionContext, report: ReviewReport, text: str) -> None:
    """Makes the App show what has changed, and says it."""
    # The first decision on a label field adds a field, which the sidebar knows only after this
    ctx.ops.reload_dataset()
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
