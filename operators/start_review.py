"""Draws a random sample of a run to review, so that the run can be measured."""

from __future__ import annotations

from typing import Any

import fiftyone as fo
import fiftyone.operators as foo
import fiftyone.operators.types as types
from fiftyone.core.collections import SampleCollection

from clipcleaner_plugin.layout import layout_of
from clipcleaner_plugin.review_log import samples_text

from .forms import block, run_form
from .review_form import reviewer
from .showing import explaining_fields

LABEL = "Start CLIPCleaner review"
_DEFAULT = 200
_HOW = (
    "Draws labels at random, half of them flagged, in random order. Confirm the right labels and "
    "replace the wrong ones, as many as you like; **CLIPCleaner review report** then says what "
    "share of the list is wrong, and what share of the rest."
)


class StartReview(foo.Operator):
    """Draws a random sample and shows it."""

    @property
    def config(self) -> foo.OperatorConfig:
        return foo.OperatorConfig(
            name="start_review",
            label=LABEL,
            description="Draw a random sample to review, which measures how good a run is",
            icon="casino",
            dynamic=True,
            risk_level="low",
        )

    def resolve_input(self, ctx: foo.executor.ExecutionContext) -> types.Property:
        return run_form(ctx, LABEL, "Draw", _input_sample)

    def execute(self, ctx: foo.executor.ExecutionContext) -> dict[str, Any]:
        key = ctx.params["key"]
        options = {name: ctx.params[name] for name in ("n", "seed") if ctx.params.get(name)}
        view = self(ctx.dataset, key, who=reviewer(ctx), **options)
        ctx.ops.set_view(view=view)
        ctx.ops.set_active_fields(explaining_fields(ctx, key))
        n, unit = len(view), layout_of(ctx.dataset.get_brain_info(key).config).unit
        ctx.ops.notify(
            f"{samples_text(n, unit)} to review, kept as the view {key!r}: review sample"
        )
        return {"key": key, "samples": n}

    def __call__(
        self, sample_collection: SampleCollection, key: str = "clipcleaner", **options: Any
    ) -> fo.DatasetView:
        """Draws a sample.

        Args:
            sample_collection: the dataset, or a view of it
            key ("clipcleaner"): the run
            **options: as in :func:`clipcleaner_plugin.start_review`
        """
        from clipcleaner_plugin.review_sample import start_review

        return start_review(sample_collection, key, **options)


def _input_sample(ctx: foo.executor.ExecutionContext, inputs: types.Object, key: str) -> None:
    from clipcleaner_plugin.runs import load_results

    try:
        results = load_results(ctx.dataset, key)
    except ValueError as error:
        block(inputs, "This run cannot be reviewed", str(error))
        return
    inputs.md(_HOW, name="how")
    inputs.int(
        "n",
        default=_DEFAULT,
        min=2,
        max=10_000,
        required=True,
        label=f"Number of {results.layout.unit}s",
    )
    inputs.int("seed", default=51, min=0, label="Seed")
    if results.config.review_sample:
        warning = types.Warning(
            label="A sample of this run was drawn before",
            description="Drawing replaces it; what was decided stays",
        )
        inputs.view("replaces", warning)
