"""Opens the panel beside the grid, where a click in it shows its samples at once."""

from __future__ import annotations

from typing import Any

import fiftyone.operators as foo
import fiftyone.operators.types as types

ICON = "/assets/panel.svg"
PANEL = "clipcleaner"


class OpenPanel(foo.Operator):
    """Opens the panel."""

    @property
    def config(self) -> foo.OperatorConfig:
        return foo.OperatorConfig(
            name="open_panel",
            label="Open CLIPCleaner panel",
            description="A run in numbers and pictures, beside the samples",
            icon=ICON,
            risk_level="low",
        )

    def resolve_placement(self, ctx: foo.executor.ExecutionContext) -> types.Placement:
        return types.Placement(
            types.Places.SAMPLES_GRID_SECONDARY_ACTIONS,
            types.Button(label="Open CLIPCleaner panel", icon=ICON, prompt=False),
        )

    def execute(self, ctx: foo.executor.ExecutionContext) -> dict[str, Any]:
        beside_grid(ctx)
        return {}


def beside_grid(ctx: foo.executor.ExecutionContext) -> Any:
    """Makes the message that opens the panel to the right of the grid, if it is not open."""
    return ctx.ops.open_panel(PANEL, layout="horizontal")
