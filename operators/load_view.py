"""Shows the samples of one verdict."""

from __future__ import annotations

from typing import Any

import fiftyone as fo
import fiftyone.operators as foo
import fiftyone.operators.types as types
from fiftyone.core.collections import SampleCollection

from .forms import input_run
from .showing import ALL, run_view, show_verdict, verdict_counts

ICON = "/assets/verdicts.svg"
CHOICES = {
    "mislabeled": ("Mislabeled", "Labels that are probably wrong, most suspicious first"),
    "uncertain": ("Uncertain", "Neither clearly right nor clearly wrong"),
    "clean": ("Clean", "Labels that words and looks both support"),
    "unscorable": ("Unscorable", "No label, no readable image, or nothing to compare with"),
    ALL: ("All", "Every sample of the run, most suspicious first"),
}


class LoadView(foo.Operator):
    """Loads the samples of a run that have one verdict into the App."""

    @property
    def config(self) -> foo.OperatorConfig:
        return foo.OperatorConfig(
            name="load_view",
            label="Load CLIPCleaner view",
            description="Show the samples that a run found mislabeled, uncertain or clean",
            icon=ICON,
            dynamic=True,
            risk_level="low",
        )

    def resolve_placement(self, ctx: foo.executor.ExecutionContext) -> types.Placement:
        return types.Placement(
            types.Places.SAMPLES_GRID_SECONDARY_ACTIONS,
            types.Button(label="Load CLIPCleaner view", icon=ICON, prompt=True),
        )

    def resolve_input(self, ctx: foo.executor.ExecutionContext) -> types.Property:
        inputs = types.Object()
        key = input_run(ctx, inputs)
        if key is not None:
            _input_verdict(inputs, verdict_counts(ctx.dataset, key))
        view = types.PromptView(label="Load CLIPCleaner view", submit_button_label="Load")
        return types.Property(inputs, view=view)

    def execute(self, ctx: foo.executor.ExecutionContext) -> dict[str, Any]:
        key, verdict = ctx.params["key"], ctx.params.get("verdict") or "mislabeled"
        show_verdict(ctx, key, verdict)
        return {"key": key, "verdict": verdict}

    def __call__(
        self,
        sample_collection: SampleCollection,
        key: str = "clipcleaner",
        verdict: str = "mislabeled",
    ) -> fo.DatasetView:
        """Returns the view that the App would show.

        Args:
            sample_collection: the dataset, or a view of it
            key ("clipcleaner"): the run
            verdict ("mislabeled"): mislabeled, clean, uncertain, unscorable or all
        """
        return run_view(sample_collection, key, verdict)


def _input_verdict(inputs: types.Object, counts: dict[str, int]) -> None:
    view = types.RadioGroup()
    for verdict, (label, description) in CHOICES.items():
        n = sum(counts.values()) if verdict == ALL else counts.get(verdict, 0)
        view.add_choice(verdict, label=f"{label} ({n:,})", description=description)
    inputs.enum(
        "verdict",
        list(CHOICES),
        default="mislabeled",
        required=True,
        label="Samples to show",
        view=view,
    )
