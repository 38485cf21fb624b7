"""Renames a run with its fields and saved views."""

from __future__ import annotations

from typing import Any

import fiftyone.operators as foo
import fiftyone.operators.types as types
from fiftyone.core.collections import SampleCollection

from .forms import invalidate, key_problem, run_form


class RenameRun(foo.Operator):
    """Renames a run."""

    @property
    def config(self) -> foo.OperatorConfig:
        return foo.OperatorConfig(
            name="rename_run",
            label="Rename CLIPCleaner run",
            description="Rename a run together with its fields and saved views",
            icon="edit",
            dynamic=True,
            risk_level="medium",
        )

    def resolve_input(self, ctx: foo.executor.ExecutionContext) -> types.Property:
        return run_form(ctx, "Rename CLIPCleaner run", "Rename", _input_new_key)

    def execute(self, ctx: foo.executor.ExecutionContext) -> dict[str, Any]:
        key, new_key = ctx.params["key"], ctx.params["new_key"]
        self(ctx.dataset, key, new_key)
        ctx.ops.reload_dataset()
        ctx.ops.notify(f"Renamed {key} to {new_key}", variant="success")
        return {"key": key, "new_key": new_key}

    def __call__(self, sample_collection: SampleCollection, key: str, new_key: str) -> None:
        """Renames a run.

        Args:
            sample_collection: the dataset, or a view of it
            key: the run
            new_key: its new key
        """
        from clipcleaner_plugin.runs import rename_run

        rename_run(sample_collection, key, new_key)


def _input_new_key(ctx: foo.executor.ExecutionContext, inputs: types.Object, key: str) -> None:
    prop = inputs.str(
        "new_key",
        required=True,
        label="New key",
        description="Fields and saved views of the run are named after it",
    )
    problem = _problem(ctx, ctx.params.get("new_key"))
    if problem:
        invalidate(prop, problem)


def _problem(ctx: foo.executor.ExecutionContext, new_key: str | None) -> str | None:
    if not new_key:
        return None  # not typed yet: "required" says so
    if new_key in ctx.dataset.list_brain_runs():
        return f"There is a brain run {new_key!r} already"
    return key_problem(ctx, new_key)
