"""Decides about samples: accepts suggestions, confirms labels, drops samples."""

from __future__ import annotations

from typing import Any

import fiftyone.operators as foo
import fiftyone.operators.types as types
from fiftyone.core.collections import SampleCollection

from clipcleaner_plugin.review_log import samples_text

from .forms import block, invalidate, run_form, suggestions
from .review_form import (
    as_json,
    review_button,
    review_target,
    reviewer,
    show_done,
    show_preview,
    show_target,
)


class _Decide(foo.Operator):
    """What the three actions share; not an operator itself."""

    kind: str
    label: str
    description: str
    icon: str
    submit: str
    would: str
    done: str
    place = types.Places.SAMPLES_GRID_SECONDARY_ACTIONS

    @property
    def config(self) -> foo.OperatorConfig:
        in_modal = self.place == types.Places.SAMPLES_VIEWER_ACTIONS
        return foo.OperatorConfig(
            name=f"{self.kind}_in_modal" if in_modal else self.kind,
            label=self.label,
            description=self.description,
            icon=self.icon,
            dynamic=True,
            unlisted=in_modal,
            risk_level="medium",
        )

    def resolve_placement(self, ctx: foo.executor.ExecutionContext) -> types.Placement | None:
        return review_button(ctx, self.place, self.label, self.icon)

    def resolve_input(self, ctx: foo.executor.ExecutionContext) -> types.Property:
        return run_form(ctx, self.label, self.submit, self._input_decision)

    def execute(self, ctx: foo.executor.ExecutionContext) -> dict[str, Any]:
        target = review_target(ctx, ctx.params["key"])
        options = {**self._options(ctx, target.chosen), "overwrite": target.chosen}
        report = self(target.samples, ctx.params["key"], who=reviewer(ctx), **options)
        show_done(ctx, report, f"{samples_text(report.count, report.unit)} {self.done}")
        return as_json(report)

    def __call__(
        self, sample_collection: SampleCollection, key: str = "clipcleaner", **options: Any
    ) -> Any:
        """Decides about samples.

        Args:
            sample_collection: a dataset or view
            key ("clipcleaner"): the run
            **options: as in the function of :mod:`clipcleaner_plugin` that has the operator's name

        Returns:
            a ``ReviewReport``
        """
        from clipcleaner_plugin import review

        return getattr(review, self.kind)(sample_collection, key, **options)

    def _input_decision(
        self, ctx: foo.executor.ExecutionContext, inputs: types.Object, key: str
    ) -> None:
        from clipcleaner_plugin.review import preview_review

        try:
            target = review_target(ctx, key)
        except ValueError as error:
            block(inputs, "This view cannot be reviewed", str(error))
            return
        show_target(inputs, target)
        label = self._input_options(ctx, inputs, key, target.chosen)
        options = {**self._options(ctx, target.chosen), "overwrite": target.chosen}
        try:
            report = preview_review(target.samples, self.kind, key, **options)
        except ValueError as error:
            if label is None:
                block(inputs, "This run cannot be reviewed", str(error))
            else:
                invalidate(label, str(error))
            return
        show_preview(inputs, report, self.would)

    def _input_options(
        self, ctx: foo.executor.ExecutionContext, inputs: types.Object, key: str, chosen: bool
    ) -> types.Property | None:
        """Adds what only one action has; returns the input that may hold a bad value."""
        return None

    def _options(self, ctx: foo.executor.ExecutionContext, chosen: bool) -> dict[str, Any]:
        return {}


class AcceptSuggestions(_Decide):
    """Replaces labels by the suggested ones, or by one that the user chooses."""

    kind = "accept_suggestions"
    label = "Accept suggested labels"
    description = "Replace labels by what CLIPCleaner suggests, or by a label that you choose"
    icon = "/assets/accept.svg"
    submit = "Relabel"
    would = "will get a new label"
    done = 'relabeled. "Undo CLIPCleaner review" takes it back'

    def _input_options(
        self, ctx: foo.executor.ExecutionContext, inputs: types.Object, key: str, chosen: bool
    ) -> types.Property | None:
        from clipcleaner_plugin.runs import load_results

        try:
            results = load_results(ctx.dataset, key)
        except ValueError:
            return None  # the preview says so
        prop = inputs.str(
            "label",
            label="New label",
            description=f"Empty = what the run suggests for each {results.layout.unit}",
            view=suggestions(results.record["classes"]),
        )
        if not chosen and not ctx.params.get("label"):
            inputs.float(
                "min_confidence",
                default=0.0,
                min=0.0,
                max=1.0,
                label="Confidence",
                view=types.SliderView(min=0, max=1, step=0.01, value_precision=2),
            )
            inputs.md("Suggestions that are less sure than this are left.", name="confidence")
        return prop if ctx.params.get("label") else None

    def _options(self, ctx: foo.executor.ExecutionContext, chosen: bool) -> dict[str, Any]:
        label = ctx.params.get("label")
        if label:
            return {"label": label}
        return {} if chosen else {"min_confidence": ctx.params.get("min_confidence") or None}


class ConfirmLabels(_Decide):
    """Records that labels are right."""

    kind = "confirm_labels"
    label = "Confirm labels"
    description = "The labels are right: CLIPCleaner never flags them again"
    icon = "/assets/confirm.svg"
    submit = "Confirm"
    would = "will be confirmed, not to be flagged again"
    done = 'confirmed. "Undo CLIPCleaner review" takes it back'


class Drop(_Decide):
    """Marks samples for exclusion."""

    kind = "drop"
    label = "Drop from training"
    description = "Mark samples for exclusion from later runs and exports; nothing is deleted"
    icon = "/assets/drop.svg"
    submit = "Drop"
    would = "will be left out of later runs and exports"
    done = 'dropped. "Undo CLIPCleaner review" takes it back'


# FiftyOne gives an operator one place. The same three for the sample that is open:


class AcceptInModal(AcceptSuggestions):
    """Replaces the label of the sample that is open."""

    place = types.Places.SAMPLES_VIEWER_ACTIONS


class ConfirmInModal(ConfirmLabels):
    """Confirms the label of the sample that is open."""

    place = types.Places.SAMPLES_VIEWER_ACTIONS


class DropInModal(Drop):
    """Drops the sample that is open."""

    place = types.Places.SAMPLES_VIEWER_ACTIONS
