"""Takes a review action back."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import fiftyone.operators as foo
import fiftyone.operators.types as types
from fiftyone.core.collections import SampleCollection

from clipcleaner_plugin.review_log import samples_text

from .forms import block, has_dataset
from .review_form import as_json, review_button, reviewer, show_done, show_preview

if TYPE_CHECKING:
    from clipcleaner_plugin.review_log import ReviewAction

ICON = "/assets/undo.svg"
LABEL = "Undo CLIPCleaner review"
_OFFERED = 20  # actions of a list that one can look through; older ones are searched for


class UndoReview(foo.Operator):
    """Takes the last review action back, or an earlier one."""

    @property
    def config(self) -> foo.OperatorConfig:
        return foo.OperatorConfig(
            name="undo_review",
            label=LABEL,
            description="Take the last review action back, or an earlier one",
            icon=ICON,
            dynamic=True,
            risk_level="medium",
        )

    def resolve_placement(self, ctx: foo.executor.ExecutionContext) -> types.Placement | None:
        return review_button(ctx, types.Places.SAMPLES_GRID_SECONDARY_ACTIONS, LABEL, ICON)

    def resolve_input(self, ctx: foo.executor.ExecutionContext) -> types.Property:
        inputs = types.Object()
        if has_dataset(ctx, inputs):
            _input_action(ctx, inputs)
        view = types.PromptView(label=LABEL, submit_button_label="Undo")
        return types.Property(inputs, view=view)

    def execute(self, ctx: foo.executor.ExecutionContext) -> dict[str, Any]:
        report = self(ctx.dataset, _action(ctx), who=reviewer(ctx))
        count = samples_text(report.count, report.unit)
        left = "".join(f"; {n:,} left, {reason}" for reason, n in report.left.items())
        show_done(ctx, report, f"Undone on {count}{left}")
        return as_json(report)

    def __call__(
        self,
        sample_collection: SampleCollection,
        action: str | None = None,
        *,
        who: str | None = None,
    ) -> Any:
        """Takes an action back.

        Args:
            sample_collection: the dataset, or a view to undo it there alone
            action (None): its id; None = the last one
            who (None): the reviewer, for the audit log

        Returns:
            a ``ReviewReport``
        """
        from clipcleaner_plugin.review import undo_review

        return undo_review(sample_collection, action, who=who)


def _action(ctx: foo.executor.ExecutionContext) -> str | None:
    """Returns the id of the action that the form has shown; None = the last one."""
    chosen: str | None = ctx.params.get("action")
    if not ctx.params.get("find"):
        return chosen
    found = _matching(ctx, _in_force(ctx))
    if not found:
        raise ValueError(f"no review action in force matches {ctx.params['find']!r}")
    return _chosen(ctx, found).id


def _input_action(ctx: foo.executor.ExecutionContext, inputs: types.Object) -> None:
    from clipcleaner_plugin.review import preview_undo

    history = _in_force(ctx)
    if not history:
        block(inputs, "There is nothing to undo", "No review action on this dataset is in force")
        return
    if len(history) > _OFFERED:
        _input_search(inputs, len(history))
    found = _matching(ctx, history)
    if not found:
        block(inputs, "No action matches", "Search for words that the list of actions has")
        return
    view = types.DropdownView()
    for action in found[:_OFFERED]:
        view.add_choice(action.id, label=str(action))
    ids = [action.id for action in found[:_OFFERED]]
    # Not an enum: one that was chosen before a search would be refused, and not say why
    inputs.str("action", default=ids[0], label="Action", view=view)
    if len(found) > _OFFERED:
        inputs.md(f"{len(found) - _OFFERED:,} earlier ones: search for them", name="more")
    chosen = _chosen(ctx, found)
    inputs.md(f"To be undone: {chosen}", name="chosen")
    show_preview(inputs, preview_undo(ctx.dataset, chosen.id), "will be as before")


def _input_search(inputs: types.Object, n: int) -> None:
    description = (
        f"Of {n:,} actions, those that have all of these words: a day (2025-01-31), a time, a "
        "reviewer, what was done, or an id of cc.review_history(dataset)"
    )
    inputs.str("find", label="Search", description=description)


def _in_force(ctx: foo.executor.ExecutionContext) -> list[ReviewAction]:
    from clipcleaner_plugin.review_log import review_history

    return [action for action in review_history(ctx.dataset) if action.undone < action.count]


def _matching(
    ctx: foo.executor.ExecutionContext, history: list[ReviewAction]
) -> list[ReviewAction]:
    words = (ctx.params.get("find") or "").lower().split()
    return [a for a in history if all(word in f"{a} {a.id}".lower() for word in words)]


def _chosen(ctx: foo.executor.ExecutionContext, found: list[ReviewAction]) -> ReviewAction:
    """What was chosen of the actions found; the last of these where it was chosen of others."""
    return next((a for a in found if a.id == ctx.params.get("action")), found[0])
