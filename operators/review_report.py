"""Says how good a run is, by the decisions on its review sample, and sets the threshold by it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import fiftyone.operators as foo
import fiftyone.operators.types as types
from fiftyone.core.collections import SampleCollection

from clipcleaner_plugin.review_log import samples_text

from .forms import block, run_form
from .thresholds import change_text
from .update_selection import reselect

if TYPE_CHECKING:
    from clipcleaner_plugin.review_sample import ReviewMeasurement
    from clipcleaner_plugin.rules import NoiseRate

LABEL = "CLIPCleaner review report"
_DEFAULT = 0.8


class GetReviewReport(foo.Operator):
    """Shows the measured precision of a run."""

    @property
    def config(self) -> foo.OperatorConfig:
        return foo.OperatorConfig(
            name="review_report",
            label=LABEL,
            description="What share of the flagged labels is wrong, measured on a reviewed sample",
            icon="fact_check",
            dynamic=True,
            risk_level="medium",
        )

    def resolve_input(self, ctx: foo.executor.ExecutionContext) -> types.Property:
        button = "Set threshold" if ctx.params.get("apply") else "Show"
        return run_form(ctx, LABEL, button, _input_threshold)

    def execute(self, ctx: foo.executor.ExecutionContext) -> dict[str, Any]:
        key = ctx.params["key"]
        found = self(ctx.dataset, key)
        text = report_text(found)
        if ctx.params.get("apply"):
            threshold = found.threshold(ctx.params.get("precision") or _DEFAULT)
            if threshold is not None:
                changed = reselect(ctx.dataset, key, {"theta_score": threshold})
                text += f"\n\n{changed['headline']}"
                ctx.ops.reload_dataset()
        return {"key": key, "report": text}

    def resolve_output(self, ctx: foo.executor.ExecutionContext) -> types.Property:
        outputs = types.Object()
        outputs.md(ctx.results["report"], name="report")
        return types.Property(outputs, view=types.View(label=f"Run {ctx.results['key']}"))

    def __call__(
        self, sample_collection: SampleCollection, key: str = "clipcleaner"
    ) -> ReviewMeasurement:
        """Measures a run.

        Args:
            sample_collection: the dataset, or a view of it
            key ("clipcleaner"): the run
        """
        from clipcleaner_plugin.review_sample import review_report

        return review_report(sample_collection, key)


def report_text(found: ReviewMeasurement) -> str:
    """Writes a measurement as Markdown."""
    rest = found.drawn - found.decided - found.dropped
    progress = f"**{found.decided:,} of {samples_text(found.drawn, found.unit)} decided**"
    progress += f", {found.dropped:,} dropped" if found.dropped else ""
    progress += f", {rest:,} to go" if rest else ""
    rows = [
        ("flagged as mislabeled", found.flagged, found.precision),
        ("not flagged", found.unflagged, found.missed),
    ]
    table = [
        "| Labels | Number | Share that is wrong | 95 % interval | Reviewed |",
        "|---|" + "---|" * 4,
    ]
    table += [
        f"| {name} | {size:,} | {_percent(rate.rate, rate)} | {_interval(rate)} | {rate.count:,} |"
        for name, size, rate in rows
    ]
    text = f"{progress}.\n\n" + "\n".join(table)
    if found.missed.count:
        about, low, high = found.missed_labels
        text += f"\n\nMissed: about {about:,.0f} wrong labels ({low:,.0f} to {high:,.0f})."
    return text


def _interval(rate: NoiseRate) -> str:
    return f"{_percent(rate.low, rate)} to {_percent(rate.high, rate)}" if rate.count else ""


def _percent(value: float, rate: NoiseRate) -> str:
    return f"{value:.1%}" if rate.count else "not known yet"


def _input_threshold(ctx: foo.executor.ExecutionContext, inputs: types.Object, key: str) -> None:
    from clipcleaner_plugin.review_sample import review_report

    try:
        found = review_report(ctx.dataset, key)
    except ValueError as error:
        block(inputs, "This run has not been measured", str(error))
        return
    inputs.md(report_text(found), name="report")
    if not found.decided:
        return
    inputs.bool(
        "apply",
        default=False,
        label="Set the threshold of the run by this measurement",
        view=types.CheckboxView(),
    )
    if not ctx.params.get("apply"):
        return
    inputs.float(
        "precision",
        default=_DEFAULT,
        min=0.05,
        max=1.0,
        label="Share",
        view=types.SliderView(min=0.05, max=1, step=0.05, value_precision=2),
    )
    precision = ctx.params.get("precision") or _DEFAULT
    threshold = found.threshold(precision)
    if threshold is None:
        block(inputs, "No threshold reaches this share", "Not even the lowest scores do")
    else:
        share = f"at least {precision:.0%} are wrong, by this measurement"
        text = f"Labels with a clean score below **{threshold:.3f}** will be flagged: {share}."
        inputs.md(text, name="threshold")
        inputs.md(_change(ctx, key, threshold), name="change")


def _change(ctx: foo.executor.ExecutionContext, key: str, threshold: float) -> str:
    """What the threshold would change: a small step of the score may be many labels."""
    from clipcleaner_plugin.reselection import preview_evidence
    from clipcleaner_plugin.runs import load_results

    results = load_results(ctx.dataset, key)
    evidence = preview_evidence(results)
    then = evidence.counts(results.thetas._replace(theta_score=threshold))
    return change_text(results.counts(), then, evidence.is_whole, reviewed=True)
