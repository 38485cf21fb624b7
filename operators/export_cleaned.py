"""Exports what a run has cleaned: a bundle to train on, or the clean samples in other formats."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import fiftyone.operators as foo
import fiftyone.operators.types as types
from fiftyone.core.collections import SampleCollection

from .export_form import (
    default_folder,
    export_options,
    input_folder,
    input_media,
    input_split,
    input_trusted,
    queued,
)
from .forms import input_run, input_target, invalidate
from .options import delegate_call
from .running import Report, guarded, run_delegated, stream

_OWN = ("dataset_name", "labels", "min_confidence", "seed")


class ExportCleaned(foo.Operator):
    """Exports the samples of a run, to train on."""

    @property
    def config(self) -> foo.OperatorConfig:
        return foo.OperatorConfig(
            name="export_cleaned",
            label="Export CLIPCleaner run",
            description="Write a training bundle, or clean samples as folders, table or dataset",
            icon="file_download",
            dynamic=True,
            execute_as_generator=True,
            allow_delegated_execution=True,
            risk_level="medium",
        )

    def resolve_input(self, ctx: foo.executor.ExecutionContext) -> types.Property:
        inputs = types.Object()
        key = input_run(ctx, inputs)
        if key is not None and input_target(ctx, inputs) is not None:
            form = _input_format(ctx, inputs)
            if form == "dataset":
                _input_dataset_name(ctx, inputs)
            else:
                input_folder(ctx, inputs, key)
                several = ("copy", "symlink") + (("reference",) if form != "image_tree" else ())
                input_media(ctx, inputs, key, "copy", several)
            if form == "bundle":
                input_trusted(ctx, inputs, key)
            else:
                _input_labels(ctx, inputs)
            input_split(inputs)
        return types.Property(inputs, view=types.View(label="Export CLIPCleaner run"))

    def resolve_run_name(self, ctx: foo.executor.ExecutionContext) -> str:
        return f"Export of {ctx.params['key']}"

    def execute(self, ctx: foo.executor.ExecutionContext) -> dict[str, Any] | Iterator[Any]:
        if ctx.delegated:
            return run_delegated(ctx, lambda report: _export(ctx, report))
        return guarded(ctx, "Export", self._steps(ctx))

    def _steps(self, ctx: foo.executor.ExecutionContext) -> Iterator[Any]:
        result = yield from stream(ctx, lambda report: _export(ctx, report))
        yield ctx.ops.set_progress(label="Done", progress=1)
        variant = "warning" if result["left_out"] else "success"
        yield ctx.ops.notify(result["headline"], variant=variant)

    def resolve_output(self, ctx: foo.executor.ExecutionContext) -> types.Property:
        outputs = types.Object()
        outputs.str("path", label="Where")
        outputs.str("headline", label="Result")
        return types.Property(outputs, view=types.View(label="Export"))

    def __call__(
        self,
        sample_collection: SampleCollection,
        key: str = "clipcleaner",
        export_dir: str | None = None,
        *,
        delegate: bool = False,
        delegation_target: str | None = None,
        **options: Any,
    ) -> Any:
        """Exports the samples of a run, or queues that.

        Args:
            sample_collection: a dataset or view
            key ("clipcleaner"): the run
            export_dir (None): the folder to write
            delegate (False): whether to queue the operation instead
            delegation_target (None): the orchestrator to queue it on
            **options: as in :func:`clipcleaner_plugin.export_cleaned`

        Returns:
            an ``ExportReport``; a ``fiftyone.operators.executor.ExecutionResult`` if delegated
        """
        from clipcleaner_plugin.export import export_cleaned as function

        options = {"key": key, "export_dir": export_dir, **options}
        if delegate:
            return delegate_call(
                self.uri, function, sample_collection, options, delegation_target, queued
            )
        return function(sample_collection, **options)


def _export(ctx: foo.executor.ExecutionContext, report: Report) -> dict[str, Any]:
    from clipcleaner_plugin.export import export_cleaned

    done = export_cleaned(ctx.target_view(), progress=report, **_options(ctx))
    return {
        "path": done.path,
        "headline": str(done),
        "splits": done.splits,
        "left_out": len(done.left_out),
    }


def _options(ctx: foo.executor.ExecutionContext) -> dict[str, Any]:
    """Returns the library's arguments; the App also sends what the chosen format has hidden."""
    params = ctx.params
    form = params.get("format") or "bundle"
    options = {name: params[name] for name in _OWN if params.get(name) not in (None, "")}
    options = {**export_options(ctx), **options}
    used = {"key", "split", "fractions", "seed", "overwrite"}
    used |= {"dataset_name"} if form == "dataset" else {"export_dir", "export_media"}
    used |= {"trusted_field"} if form == "bundle" else {"labels", "min_confidence"}
    if form != "dataset":
        options.setdefault("export_dir", default_folder(ctx, params["key"]))
    return {"format": form, **{name: v for name, v in options.items() if name in used}}


def _input_format(ctx: foo.executor.ExecutionContext, inputs: types.Object) -> str:
    from clipcleaner_plugin.export import FORMATS

    view = types.DropdownView()
    labels = ("Training bundle", "Image folders", "CSV table", "FiftyOne dataset")
    for (name, description), label in zip(FORMATS.items(), labels, strict=True):
        view.add_choice(name, label=label, description=description)
    inputs.enum("format", list(FORMATS), default="bundle", label="Format", view=view)
    chosen = ctx.params.get("format") or "bundle"
    return chosen if chosen in FORMATS else "bundle"


def _input_dataset_name(ctx: foo.executor.ExecutionContext, inputs: types.Object) -> None:
    from clipcleaner_plugin.export_dataset import check_dataset_name

    prop = inputs.str("dataset_name", required=True, label="Name of the new dataset")
    name = ctx.params.get("dataset_name")
    if not name:
        return  # not typed yet: "required" says so
    inputs.bool("overwrite", default=False, label="Replace an earlier export of this name")
    try:
        check_dataset_name(name, bool(ctx.params.get("overwrite")))
    except ValueError as error:
        invalidate(prop, str(error))


def _input_labels(ctx: foo.executor.ExecutionContext, inputs: types.Object) -> None:
    view = types.RadioGroup()
    view.add_choice("given", label="Clean samples with their labels")
    view.add_choice(
        "suggested",
        label="Also mislabeled samples, with the suggested label",
        description="Where the suggestion is confident enough",
    )
    inputs.enum("labels", ["given", "suggested"], default="given", label="Labels", view=view)
    if ctx.params.get("labels") == "suggested":
        inputs.float(
            "min_confidence",
            default=0.8,
            min=0,
            max=1,
            label="Confidence",
            description="That a suggestion must have to become the label",
            view=types.SliderView(label_position="top", value_precision=2),
        )
