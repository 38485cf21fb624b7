"""Computes CLIP embeddings ahead of a run."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import fiftyone.operators as foo
import fiftyone.operators.types as types
from fiftyone.core.collections import SampleCollection

from .forms import input_loading, input_model, input_target
from .options import delegate_call, loading_options, model_options
from .running import guarded, run_delegated, stream


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
        input_target(ctx, inputs)
        input_model(ctx, inputs)
        inputs.str(
            "embeddings_field",
            label="Embeddings field",
            description="Optional vector field to fill, beside the store on disk that runs read",
        )
        input_loading(inputs)
        return types.Property(inputs, view=types.View(label="Compute CLIP embeddings"))

    def resolve_run_name(self, ctx: foo.executor.ExecutionContext) -> str:
        return f"CLIP embeddings with {model_options(ctx.params)['model']}"

    def execute(self, ctx: foo.executor.ExecutionContext) -> dict[str, Any] | Iterator[Any]:
        if ctx.delegated:
            return run_delegated(ctx, lambda progress: _compute(ctx, progress))
        return guarded(ctx, "Computing embeddings", self._steps(ctx))

    def _steps(self, ctx: foo.executor.ExecutionContext) -> Iterator[Any]:
        result = yield from stream(ctx, lambda progress: _compute(ctx, progress))
        yield ctx.ops.reload_dataset()
        yield ctx.ops.set_progress(label="Done", progress=1)
        yield ctx.ops.notify(_sentence(result), variant="warning" if result["failed"] else "success")

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
        if delegate:
            return delegate_call(self.uri, sample_collection, options, delegation_target)
        from clipcleaner_plugin.embeddings import compute_embeddings

        return compute_embeddings(sample_collection, **options)


def _compute(ctx: foo.executor.ExecutionContext, progress: Any) -> dict[str, Any]:
    from clipcleaner_plugin.embeddings import compute_embeddings

    report = compute_embeddings(
        ctx.target_view(),
        embeddings_field=ctx.params.get("embeddings_field") or None,
        progress=progress,
        **model_options(ctx.params),
        **loading_options(ctx),
    )
    return {
        "computed": int(report.computed),
        "reused": int(report.reused),
        "failed": len(report.failures),
    }


def _sentence(result: dict[str, Any]) -> str:
    text = f"{result['computed']:,} embeddings computed, {result['reused']:,} were there already"
    return text + (f", {result['failed']:,} images could not be read" if result["failed"] else "")
