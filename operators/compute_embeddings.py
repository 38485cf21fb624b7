"""Computes CLIP embeddings ahead of a run."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import fiftyone as fo
import fiftyone.operators as foo
import fiftyone.operators.types as types
from fiftyone.core.collections import SampleCollection

from .cost import input_cost
from .forms import dropdown, input_loading, input_model, input_padding, input_target
from .options import delegate_call, library_options
from .running import Report, guarded, run_delegated, stream


class ComputeEmbeddings(foo.Operator):
    """Computes CLIP embeddings ahead of a run, resuming where an earlier one stopped."""

    @property
    def config(self) -> foo.OperatorConfig:
        return foo.OperatorConfig(
            name="compute_embeddings",
            label="Compute CLIP embeddings",
            description="Compute the image embeddings that CLIPCleaner needs, ahead of a run",
            icon="/assets/embeddings.svg",
            dynamic=True,
            execute_as_generator=True,
            allow_delegated_execution=True,
            risk_level="medium",
        )

    def resolve_input(self, ctx: foo.executor.ExecutionContext) -> types.Property:
        inputs = types.Object()
        samples = input_target(ctx, inputs)
        if samples is not None:
            patches_field = _input_objects(ctx, inputs, samples)
            input_model(ctx, inputs)
            if patches_field is None:
                inputs.str(
                    "embeddings_field",
                    label="Embeddings field",
                    description="Optional vector field to fill, beside the store on disk",
                )
            input_loading(inputs)
            input_cost(ctx, inputs, samples, patches_field)
        return types.Property(inputs, view=types.View(label="Compute CLIP embeddings"))

    def resolve_run_name(self, ctx: foo.executor.ExecutionContext) -> str:
        return f"CLIP embeddings with {library_options(ctx)['model']}"

    def execute(self, ctx: foo.executor.ExecutionContext) -> dict[str, Any] | Iterator[Any]:
        if ctx.delegated:
            return run_delegated(ctx, lambda report: _compute(ctx, report))
        return guarded(ctx, "Computing embeddings", self._steps(ctx))

    def _steps(self, ctx: foo.executor.ExecutionContext) -> Iterator[Any]:
        result = yield from stream(ctx, lambda report: _compute(ctx, report))
        yield ctx.ops.reload_dataset()
        yield ctx.ops.set_progress(label="Done", progress=1)
        variant = "warning" if result["failed"] else "success"
        yield ctx.ops.notify(_sentence(result), variant=variant)

    def resolve_output(self, ctx: foo.executor.ExecutionContext) -> types.Property:
        outputs = types.Object()
        outputs.int("computed", label="Computed")
        outputs.int("reused", label="There already")
        outputs.int("failed", label="Unreadable images")
        return types.Property(outputs, view=types.View(label="CLIP embeddings"))

    def __call__(
        self,
        sample_collection: SampleCollection,
        *,
        delegate: bool = False,
        delegation_target: str | None = None,
        **options: Any,
    ) -> Any:
        """Computes the embeddings, or queues that.

        Args:
            sample_collection: a dataset or view
            delegate (False): whether to queue the operation instead
            delegation_target (None): the orchestrator to queue it on
            **options: as in :func:`clipcleaner_plugin.compute_embeddings`

        Returns:
            an ``EmbeddingReport``; a ``fiftyone.operators.executor.ExecutionResult`` if delegated
        """
        from clipcleaner_plugin.embeddings import compute_embeddings as function

        if delegate:
            return delegate_call(self.uri, function, sample_collection, options, delegation_target)
        return function(sample_collection, **options)


def _input_objects(
    ctx: foo.executor.ExecutionContext, inputs: types.Object, samples: SampleCollection
) -> str | None:
    """Adds the choice between whole images and the objects of a field, where there is one."""
    fields = sorted(samples.get_field_schema(embedded_doc_type=fo.Detections))
    if not fields:
        return None
    inputs.enum(
        "patches_field",
        fields,
        label="Objects of (none: whole images)",
        description="Embeds the part of the image within the box of each object",
        view=dropdown(fields),
    )
    chosen = ctx.params.get("patches_field")
    if chosen in fields:
        input_padding(inputs)
        return str(chosen)
    return None


def _compute(ctx: foo.executor.ExecutionContext, report: Report) -> dict[str, Any]:
    from clipcleaner_plugin.embeddings import compute_embeddings

    options = library_options(ctx)
    # Of an object, only the store has the vectors; the input is gone then, its value is not
    shown = "patches_field" not in options
    embeddings_field = ctx.params.get("embeddings_field") if shown else None
    done = compute_embeddings(
        ctx.target_view(),
        embeddings_field=embeddings_field or None,
        progress=report,
        **options,
    )
    return {
        "computed": int(done.computed),
        "reused": int(done.reused),
        "failed": len(done.failures),
    }


def _sentence(result: dict[str, Any]) -> str:
    text = f"{result['computed']:,} embeddings computed, {result['reused']:,} were there already"
    return text + (f", {result['failed']:,} images could not be read" if result["failed"] else "")
