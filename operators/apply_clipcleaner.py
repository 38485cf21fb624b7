"""Finds the wrong labels of a dataset, a view or the selected samples."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import fiftyone.operators as foo
import fiftyone.operators.types as types
from fiftyone.core.collections import SampleCollection

from .forms import input_label_field, input_loading, input_model, input_target, is_run, key_problem
from .options import delegate_call, loading_options, model_options, run_options
from .running import guarded, run_delegated, stream
from .showing import show_verdict

ICON = "/assets/clipcleaner.svg"


class ApplyCLIPCleaner(foo.Operator):
    """Scores every label and finds the wrong ones."""

    @property
    def config(self) -> foo.OperatorConfig:
        return foo.OperatorConfig(
            name="apply_clipcleaner",
            label="Apply CLIPCleaner",
            description="Find wrong labels with one frozen CLIP: scores, verdicts, suggested labels",
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
        if input_label_field(ctx, inputs, samples) is not None:
            input_model(ctx, inputs)
            _input_key(ctx, inputs)
            input_loading(inputs)
        return types.Property(inputs, view=types.View(label="Apply CLIPCleaner"))

    def resolve_run_name(self, ctx: foo.executor.ExecutionContext) -> str:
        label_field = ctx.params.get("label_field") or "ground_truth"
        return f"CLIPCleaner on {label_field} with {model_options(ctx.params)['model']}"

    def execute(self, ctx: foo.executor.ExecutionContext) -> dict[str, Any] | Iterator[Any]:
        if ctx.delegated:
            return run_delegated(ctx, lambda progress: _apply(ctx, progress))
        return guarded(ctx, "CLIPCleaner", self._steps(ctx))

    def _steps(self, ctx: foo.executor.ExecutionContext) -> Iterator[Any]:
        result = yield from stream(ctx, lambda progress: _apply(ctx, progress))
        yield ctx.ops.reload_dataset()
        yield from show_verdict(ctx, result["key"], "mislabeled")
        yield ctx.ops.set_progress(label="Done", progress=1)
        yield ctx.ops.notify(result["headline"], variant="success")

    def __call__(
        self,
        sample_collection: SampleCollection,
        label_field: str = "ground_truth",
        key: str = "clipcleaner",
        *,
        delegate: bool = False,
        delegation_target: str | None = None,
        **options: Any,
    ) -> Any:
        """Finds wrong labels, or queues that.

        Args:
            sample_collection: a dataset or view
            label_field ("ground_truth"): a Classification field
            key ("clipcleaner"): the name of the run
            delegate (False): whether to queue the operation instead
            delegation_target (None): the orchestrator to queue it on
            **options: as in :func:`clipcleaner_plugin.apply_clipcleaner`

        Returns:
            a ``CLIPCleanerResults``; a ``fiftyone.operators.executor.ExecutionResult`` if delegated
        """
        options = {"label_field": label_field, "key": key, **options}
        if delegate:
            return delegate_call(self.uri, sample_collection, options, delegation_target)
        from clipcleaner_plugin.apply import apply_clipcleaner

        return apply_clipcleaner(sample_collection, **options)


def _apply(ctx: foo.executor.ExecutionContext, progress: Any) -> dict[str, Any]:
    from clipcleaner_plugin.apply import apply_clipcleaner

    results = apply_clipcleaner(
        ctx.target_view(),
        progress=progress,
        **model_options(ctx.params),
        **run_options(ctx.params),
        **loading_options(ctx),
    )
    return {"key": results.key, "headline": results.headline()}


def _input_key(ctx: foo.executor.ExecutionContext, inputs: types.Object) -> None:
    key = ctx.params.get("key") or "clipcleaner"
    problem = key_problem(ctx, key)
    prop = inputs.str(
        "key",
        default="clipcleaner",
        required=True,
        label="Key",
        description="The name of this run; its fields and saved views begin with it",
    )
    if problem:
        prop.invalid = True
        prop.error_message = problem
    elif is_run(ctx, key):
        inputs.view(
            "replaces",
            types.Warning(
                label=f"There is a run {key!r} already",
                description="Executing replaces its scores, verdicts and views",
            ),
        )
