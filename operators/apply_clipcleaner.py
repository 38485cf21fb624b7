"""Finds the wrong labels of a dataset, a view or the selected samples."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import fiftyone.operators as foo
import fiftyone.operators.types as types
from fiftyone.core.collections import SampleCollection

from clipcleaner_plugin.layout import holds_objects

from .class_notes import add_class_notes
from .cost import input_cost
from .earlier import begin_with_earlier_run
from .forms import (
    input_label_field,
    input_model,
    input_padding,
    input_target,
    invalidate,
    is_run,
    key_problem,
)
from .method_form import input_advanced
from .open_panel import beside_grid
from .options import delegate_call, embeddings_options, library_options
from .running import Report, guarded, run_delegated, stream
from .showing import show_samples

ICON = "/assets/clipcleaner.svg"
DEFAULT_KEY = "clipcleaner"


class ApplyCLIPCleaner(foo.Operator):
    """Scores every label and finds the wrong ones."""

    @property
    def config(self) -> foo.OperatorConfig:
        return foo.OperatorConfig(
            name="apply_clipcleaner",
            label="Apply CLIPCleaner",
            description="Find wrong labels with one frozen CLIP: scores, verdicts, suggestions",
            icon=ICON,
            dynamic=True,
            execute_as_generator=True,
            allow_delegated_execution=True,
            risk_level="medium",
        )

    def resolve_placement(self, ctx: foo.executor.ExecutionContext) -> types.Placement:
        return types.Placement(
            types.Places.SAMPLES_GRID_SECONDARY_ACTIONS,
            types.Button(label="Find wrong labels with CLIPCleaner", icon=ICON, prompt=True),
        )

    def resolve_input(self, ctx: foo.executor.ExecutionContext) -> types.Property:
        inputs = types.Object()
        samples = input_target(ctx, inputs)
        if samples is not None:
            with begin_with_earlier_run(ctx, ctx.params.get("again") or DEFAULT_KEY) as earlier:
                _input_run(ctx, inputs, samples, earlier)
        return types.Property(inputs, view=types.View(label="Apply CLIPCleaner"))

    def resolve_run_name(self, ctx: foo.executor.ExecutionContext) -> str:
        options = library_options(ctx)
        label_field = options.get("label_field") or options.get("patches_field", "ground_truth")
        return f"CLIPCleaner on {label_field} with {options['model']}"

    def execute(self, ctx: foo.executor.ExecutionContext) -> dict[str, Any] | Iterator[Any]:
        if ctx.delegated:
            return run_delegated(ctx, lambda report: _apply(ctx, report))
        return guarded(ctx, "CLIPCleaner", self._steps(ctx))

    def _steps(self, ctx: foo.executor.ExecutionContext) -> Iterator[Any]:
        result = yield from stream(ctx, lambda report: _apply(ctx, report))
        yield ctx.ops.reload_dataset()
        yield beside_grid(ctx)
        if result["counts"]["mislabeled"]:
            yield from show_samples(ctx, result["key"], "mislabeled")
        yield ctx.ops.set_progress(label="Done", progress=1)
        yield ctx.ops.notify(result["headline"], variant="success")
        for warning in result["warnings"]:
            yield ctx.ops.notify(warning, variant="warning")

    def resolve_output(self, ctx: foo.executor.ExecutionContext) -> types.Property:
        outputs = types.Object()
        outputs.str("key", label="Key")
        outputs.str("headline", label="Result")
        outputs.list("warnings", types.String(), label="Warnings")
        return types.Property(outputs, view=types.View(label="CLIPCleaner"))

    def __call__(
        self,
        sample_collection: SampleCollection,
        label_field: str | None = None,
        key: str = DEFAULT_KEY,
        *,
        delegate: bool = False,
        delegation_target: str | None = None,
        **options: Any,
    ) -> Any:
        """Finds wrong labels, or queues that.

        Args:
            sample_collection: a dataset or view
            label_field (None): a Classification or Detections field; None = "ground_truth"
            key ("clipcleaner"): the name of the run
            delegate (False): whether to queue the operation instead
            delegation_target (None): the orchestrator to queue it on
            **options: as in :func:`clipcleaner_plugin.apply_clipcleaner`

        Returns:
            a ``CLIPCleanerResults``; a ``fiftyone.operators.executor.ExecutionResult`` if delegated
        """
        from clipcleaner_plugin.apply import apply_clipcleaner as function

        options = {"label_field": label_field, "key": key, **options}
        if delegate:
            # The form must name it
            options["label_field"] = label_field or options.get("patches_field") or "ground_truth"
            return delegate_call(self.uri, function, sample_collection, options, delegation_target)
        return function(sample_collection, **options)


def _apply(ctx: foo.executor.ExecutionContext, report: Report) -> dict[str, Any]:
    from clipcleaner_plugin.apply import apply_clipcleaner

    options = {**library_options(ctx), **embeddings_options(ctx.params)}
    results = apply_clipcleaner(ctx.target_view(), progress=report, **options)
    return {
        "key": results.key,
        "headline": results.headline(),
        "counts": results.counts(),
        "warnings": results.record["warnings"],
    }


def _input_run(
    ctx: foo.executor.ExecutionContext,
    inputs: types.Object,
    samples: SampleCollection,
    earlier: dict[str, Any],
) -> None:
    """Adds what a run is made with, beginning with the values of an earlier one."""
    label_field = input_label_field(ctx, inputs, samples, earlier.get("label_field"))
    if label_field is None:
        return
    if holds_objects(samples, label_field):
        input_padding(inputs, earlier.get("alpha"))
    classes = add_class_notes(inputs, samples, label_field, ctx.params)
    input_model(ctx, inputs, earlier.get("model"), earlier.get("pretrained"))
    _input_key(ctx, inputs)
    input_advanced(ctx, inputs, samples, label_field, earlier)
    input_cost(ctx, inputs, samples, label_field, classes)


def _input_key(ctx: foo.executor.ExecutionContext, inputs: types.Object) -> None:
    prop = inputs.str(
        "key",
        default=DEFAULT_KEY,
        required=True,
        label="Key",
        description="The name of this run; its fields and saved views begin with it",
    )
    key = ctx.params.get("key") or DEFAULT_KEY
    problem = key_problem(ctx, key)
    if problem:
        invalidate(prop, problem)
    elif is_run(ctx, key):
        warning = types.Warning(
            label=f"There is a run {key!r} already",
            description=(
                "Executing replaces its scores, verdicts, thresholds and views. Review decisions "
                "and embeddings are kept: only those of new or changed images are computed"
            ),
        )
        inputs.view("replaces", warning)
