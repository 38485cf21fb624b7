"""Shows samples of a run: of one verdict, class or pair of labels, or those worth a look."""

from __future__ import annotations

from difflib import get_close_matches
from typing import Any

import fiftyone as fo
import fiftyone.operators as foo
import fiftyone.operators.types as types
from fiftyone.core.collections import SampleCollection

from .forms import block, invalidate, run_form, suggestions
from .showing import ALL, run_view, show_samples

ICON = "/assets/verdicts.svg"


class LoadView(foo.Operator):
    """Loads samples of a run into the App."""

    @property
    def config(self) -> foo.OperatorConfig:
        return foo.OperatorConfig(
            name="load_view",
            label="Load CLIPCleaner view",
            description="Show samples of a run by verdict, class, or pair of labels",
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
        return run_form(ctx, "Load CLIPCleaner view", "Load", _input_choice)

    def execute(self, ctx: foo.executor.ExecutionContext) -> dict[str, Any]:
        key, kind = ctx.params["key"], ctx.params.get("kind") or "mislabeled"
        labels = {name: ctx.params.get(name) or None for name in ("given", "suggested")}
        show_samples(ctx, key, kind, **labels)
        return {"key": key, "kind": kind, **labels}

    def __call__(
        self,
        sample_collection: SampleCollection,
        key: str = "clipcleaner",
        kind: str = "mislabeled",
        given: str | None = None,
        suggested: str | None = None,
    ) -> fo.DatasetView:
        """Returns the view that the App would show.

        Args:
            sample_collection: the dataset, or a view of it
            key ("clipcleaner"): the run
            kind ("mislabeled"): a kind of view, as in ``CLIPCleanerResults.view``, or "all"
            given (None): the given label
            suggested (None): the suggested label
        """
        return run_view(sample_collection, key, kind, given=given, suggested=suggested)


def _input_choice(ctx: foo.executor.ExecutionContext, inputs: types.Object, key: str) -> None:
    from clipcleaner_plugin.kept_statistics import recent_statistics
    from clipcleaner_plugin.runs import load_results
    from clipcleaner_plugin.views import Kind, kinds_of

    try:
        results = load_results(ctx.dataset, key)
    except ValueError as error:
        block(inputs, "This run cannot be shown", str(error))
        return
    recent, unit = recent_statistics(results), results.layout.unit
    counts = {**recent.statistics.in_views, ALL: sum(recent.statistics.verdicts.values())}
    kinds = {**kinds_of(ctx.dataset, results.config), ALL: Kind("All", f"Every {unit} of the run")}
    view = types.RadioGroup()
    for name, kind in kinds.items():
        counted = recent.current and name in counts
        label = f"{kind.label} ({counts[name]:,})" if counted else kind.label
        view.add_choice(name, label=label, description=kind.description)
    inputs.enum(
        "kind",
        view.values(),
        default="mislabeled",
        required=True,
        label=f"{unit.capitalize()}s to show",
        view=view,
    )
    classes = results.record["classes"]
    known = {*classes, *recent.statistics.classes}  # labels that were edited since, too
    for name, label in (("given", "Given label"), ("suggested", "Suggested label")):
        prop = inputs.str(
            name,
            label=f"{label} (any)",
            description=f"Only {unit}s with this label",
            view=suggestions(classes),
        )
        typed = ctx.params.get(name)
        if typed and typed not in known:
            close = get_close_matches(typed, known, n=3)
            hint = f"; close ones: {', '.join(close)}" if close else ""
            invalidate(prop, f"The run knows no label {typed!r}{hint}")
