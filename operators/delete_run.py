"""Deletes a run with all that it wrote."""

from __future__ import annotations

from typing import Any

import fiftyone.operators as foo
import fiftyone.operators.types as types
from fiftyone.core.collections import SampleCollection

from .forms import run_form


class DeleteRun(foo.Operator):
    """Deletes a run after saying what goes with it."""

    @property
    def config(self) -> foo.OperatorConfig:
        return foo.OperatorConfig(
            name="delete_run",
            label="Delete CLIPCleaner run",
            description="Delete a run together with its fields and saved views",
            icon="delete",
            dynamic=True,
            risk_level="high",
        )

    def resolve_input(self, ctx: foo.executor.ExecutionContext) -> types.Property:
        return run_form(ctx, "Delete CLIPCleaner run", "Delete", _input_warning)

    def execute(self, ctx: foo.executor.ExecutionContext) -> dict[str, Any]:
        key = ctx.params["key"]
        self(ctx.dataset, key)
        ctx.ops.reload_dataset()
        ctx.ops.notify(f"Deleted {key}", variant="success")
        return {"key": key}

    def __call__(self, sample_collection: SampleCollection, key: str) -> None:
        """Deletes a run.

        Args:
            sample_collection: the dataset, or a view of it
            key: the run
        """
        from clipcleaner_plugin.runs import delete_run

        delete_run(sample_collection, key)


def _input_warning(ctx: foo.executor.ExecutionContext, inputs: types.Object, key: str) -> None:
    from clipcleaner_plugin.brain import vector_fields_of
    from clipcleaner_plugin.fields import result_fields
    from clipcleaner_plugin.layout import layout_of
    from clipcleaner_plugin.views import saved_view_names

    config = ctx.dataset.get_brain_info(key).config
    written = [*result_fields(layout_of(config)), *vector_fields_of(ctx.dataset, key, config)]
    fields = [field for field in written if ctx.dataset.has_sample_field(field)]
    views = [name for name in saved_view_names(key) if ctx.dataset.has_saved_view(name)]
    goes = [f"the {len(fields)} fields {', '.join(fields)}"] if fields else []
    goes += [f"the {len(views)} saved views {', '.join(views)}"] if views else []
    goes.append("embeddings on disk that no other run uses")
    warning = types.Warning(
        label=f"Deletes the run {key!r}; this cannot be undone",
        description=f"With it: {'; '.join(goes)}. Your labels stay.",
    )
    inputs.view("warning", warning)
