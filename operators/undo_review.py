"""Takes a review action back."""

from __future__ import annotations

from typing import Any

import fiftyone.operators as foo
import fiftyone.operators.types as types
from fiftyone.core.collections import SampleCollection

from clipcleaner_plugin.review_log import samples_text

from .forms import block, has_dataset
from .review_form import as_json, review_button, reviewer, show_done, show_preview

ICON = "/assets/undo.svg"
LABEL = "Undo CLIPCleaner review"
_OFFERED = 20


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
        report = self(ctx.dataset, ctx.params.get("action"), who=reviewer(ctx))
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


def _input_action(ctx: foo.executor.ExecutionContext, inputs: types.Object) -> None:
    from clipcleaner_plugin.review import preview_undo
    from clipcleaner_plugin.review_log import review_history

    history = [a for a in review_history(ctx.dataset) if a.undone < a.count]
    if not history:
        block(inputs, "There is nothing to undo", "No review action on this dataset is in force")
        return
    offered = history[:_OFFERED]
    view = types.DropdownView()
    for action in offered:
        view.add_choice(action.id, label=str(action))
    ids = [action.id for action in offered]
    inputs.enum("action", ids, default=ids[0], label="Action", view=view)
    if len(history) > len(offered):
        inputs.md(f"{len(history) - len(offered):,} earlier ones: `cc.review_history(dataset)`")
    chosen = ctx.params.get("action")
    chosen = chosen if chosen in ids else ids[0]
    show_preview(inputs, preview_undo(ctx.dataset, chosen), "will be as before")
