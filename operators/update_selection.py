"""Gives the samples of a run new verdicts under other thresholds, from what is stored."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import fiftyone as fo
import fiftyone.operators as foo
import fiftyone.operators.types as types
from fiftyone.core.collections import SampleCollection

from .forms import block, run_form
from .thresholds import THETAS, change_text, explanations, thetas_text, threshold_slider

LABEL = "Update CLIPCleaner selection"


class UpdateSelection(foo.Operator):
    """Gives new verdicts under other thresholds."""

    @property
    def config(self) -> foo.OperatorConfig:
        return foo.OperatorConfig(
            name="update_selection",
            label=LABEL,
            description="New verdicts under other thresholds, without images or model",
            icon="tune",
            dynamic=True,
            allow_delegated_execution=True,
            risk_level="medium",
        )

    def resolve_input(self, ctx: foo.executor.ExecutionContext) -> types.Property:
        return run_form(ctx, LABEL, "Apply", _input_thetas)

    def execute(self, ctx: foo.executor.ExecutionContext) -> dict[str, Any]:
        given = {name: ctx.params.get(name) for name in THETAS}
        found = reselect(ctx.dataset, ctx.params["key"], given)
        if not ctx.delegated:
            ctx.ops.reload_dataset()
            ctx.ops.notify(found["headline"], variant="success")
        return found

    def __call__(
        self,
        sample_collection: SampleCollection,
        key: str = "clipcleaner",
        **thetas: float,
    ) -> dict[str, int]:
        """Gives new verdicts.

        Args:
            sample_collection: the dataset, or a view of it
            key ("clipcleaner"): the run
            **thetas: as in ``CLIPCleanerResults.reselect``

        Returns:
            the new counts by verdict
        """
        from clipcleaner_plugin.runs import load_results

        return load_results(sample_collection, key).reselect(**thetas)


def reselect(dataset: fo.Dataset, key: str, thetas: Mapping[str, float | None]) -> dict[str, Any]:
    """Applies thresholds to a run and says what has changed.

    Args:
        dataset: the dataset
        key: the run
        thetas: ``{name: value}``; None = as it was

    Returns:
        ``headline`` and ``counts`` by verdict, as JSON values
    """
    from clipcleaner_plugin.runs import load_results

    results = load_results(dataset, key)
    before = results.counts()
    counts = results.reselect(**thetas)
    changes = (
        f"{verdict} {counts[verdict]:,} ({counts[verdict] - before[verdict]:+,})"
        for verdict in ("mislabeled", "uncertain", "clean")
    )
    headline = f"Thresholds {thetas_text(results.thetas)}: {', '.join(changes)}"
    return {"key": key, "headline": headline, "counts": counts}


def _input_thetas(ctx: foo.executor.ExecutionContext, inputs: types.Object, key: str) -> None:
    from clipcleaner_plugin.decisions import reviewed_fields
    from clipcleaner_plugin.reselection import Thetas, preview_evidence
    from clipcleaner_plugin.runs import load_results

    try:
        results = load_results(ctx.dataset, key)
    except ValueError as error:
        block(inputs, "This run has no thresholds to change", str(error))
        return
    now = results.thetas._asdict()
    for name in THETAS:
        threshold_slider(inputs, name, default=now[name])
    given = {name: ctx.params.get(name) for name in THETAS}
    thetas = Thetas(**{name: now[name] if v is None else v for name, v in given.items()})
    evidence = preview_evidence(results)
    reviewed = results.layout.label_field in reviewed_fields(ctx.dataset)
    then = evidence.counts(thetas)
    text = change_text(results.counts(), then, evidence.is_whole, reviewed)
    inputs.md(text, name="change")
    inputs.md(explanations(), name="explanations")
    former = results.former_thetas
    if former is not None:
        inputs.md(f"Before the last change: {thetas_text(former)}", name="former")
