"""Describes a run: what it found, and with which model and parameters."""

from __future__ import annotations

from typing import Any

import fiftyone.operators as foo
import fiftyone.operators.types as types
from fiftyone.core.collections import SampleCollection

from .forms import input_run
from .showing import verdict_counts

LABEL = "Get CLIPCleaner run info"

# Parameters that come first in the report, and those that say nothing to a user
_FIRST = ("label_field", "model", "pretrained", "model_identity", "embeddings_field")
_LEFT_OUT = ("method", "prefix")


class GetRunInfo(foo.Operator):
    """Describes a run."""

    @property
    def config(self) -> foo.OperatorConfig:
        return foo.OperatorConfig(
            name="get_run_info",
            label=LABEL,
            description="What a run found, and with which model and parameters",
            icon="info",
            dynamic=True,
            risk_level="low",
        )

    def resolve_input(self, ctx: foo.executor.ExecutionContext) -> types.Property:
        inputs = types.Object()
        input_run(ctx, inputs)
        view = types.PromptView(label=LABEL, submit_button_label="Show")
        return types.Property(inputs, view=view)

    def execute(self, ctx: foo.executor.ExecutionContext) -> dict[str, Any]:
        key = ctx.params["key"]
        return {**self(ctx.dataset, key), "counts": verdict_counts(ctx.dataset, key)}

    def resolve_output(self, ctx: foo.executor.ExecutionContext) -> types.Property:
        outputs = types.Object()
        outputs.md(report(ctx.results), name="report")
        return types.Property(outputs, view=types.View(label=f"Run {ctx.results['key']}"))

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


def report(info: dict[str, Any]) -> str:
    """Writes the facts of a run as Markdown.

    Args:
        info: as :func:`clipcleaner_plugin.get_run_info` returns it, with ``counts`` by verdict
    """
    record = info["record"]
    if record is None:
        found = "**This run did not finish.** Apply it again under the same key, or delete it."
    else:
        found = "\n\n".join(
            [
                _table(("Verdict", "Labels"), info["counts"].items()),
                _sentences(record),
                *(f"**Note:** {text}" for text in record["warnings"]),
            ]
        )
    parameters = _ordered(info["parameters"])
    made = {"created": info["timestamp"], "fiftyone": info["fiftyone_version"]}
    rows = [(name, _words(value)) for name, value in {**parameters, **made}.items()]
    return f"{found}\n\n{_table(('Parameter', 'Value'), rows)}"


def _sentences(record: dict[str, Any]) -> str:
    rate, low, high = record["noise_rate"][:3]
    noise = "unknown" if rate is None else f"{rate:.1%} ({low:.1%} to {high:.1%})"
    text = (
        f"Estimated noise rate {noise}, of {record['samples']:,} labels in "
        f"{len(record['classes']):,} classes, computed in {record['seconds']:.1f} s."
    )
    if record.get("open_set"):
        text += f" {record['open_set']:,} images seem to belong to none of the classes."
    reasons = (f"{n:,} × {reason}" for reason, n in record["unscorable"].items())
    return text + (f" Unscorable: {'; '.join(reasons)}." if record["unscorable"] else "")


def _ordered(parameters: dict[str, Any]) -> dict[str, Any]:
    given = {name: value for name, value in parameters.items() if value is not None}
    first = {name: given.pop(name) for name in _FIRST if name in given}
    return first | {name: value for name, value in given.items() if name not in _LEFT_OUT}


def _words(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{name} {item}" for name, item in value.items())
    return f"`{value}`"


def _table(head: tuple[str, str], rows: Any) -> str:
    lines = [f"| {head[0]} | {head[1]} |", "|---|---|"]
    return "\n".join(lines + [f"| {name} | {value} |" for name, value in rows])
