"""Describes a run: what it found, and with which model and parameters."""

from __future__ import annotations

from typing import Any

import fiftyone.operators as foo
import fiftyone.operators.types as types
from fiftyone.core.collections import SampleCollection

from .forms import input_run


class GetRunInfo(foo.Operator):
    """Describes a run."""

    @property
    def config(self) -> foo.OperatorConfig:
        return foo.OperatorConfig(
            name="get_run_info",
            label="Get CLIPCleaner run info",
            description="What a run found, and with which model and parameters",
            icon="info",
            dynamic=True,
            risk_level="low",
        )

    def resolve_input(self, ctx: foo.executor.ExecutionContext) -> types.Property:
        inputs = types.Object()
        input_run(ctx, inputs)
        view = types.PromptView(label="Get CLIPCleaner run info", submit_button_label="Show")
        return types.Property(inputs, view=view)

    def execute(self, ctx: foo.executor.ExecutionContext) -> dict[str, Any]:
        return self(ctx.dataset, ctx.params["key"])

    def __call__(
        self, sample_collection: SampleCollection, key: str = "clipcleaner"
    ) -> dict[str, Any]:
        """Returns what is known of a run.

        Args:
            sample_collection: the dataset, or a view of it
            key ("clipcleaner"): the run
        """
        from clipcleaner_plugin.runs import get_run_info

        return get_run_info(sample_collection, key)
