"""Trains a network on what a run has cleaned, in a worker, and loads its predictions."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import fiftyone as fo
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
from .forms import dropdown, input_run, input_target, invalidate, patches_field
from .options import delegate_call
from .running import Report, run_delegated

_OF_TRAINER = ("recipe", "preset", "epochs", "batch_size", "seed")


class TrainOnCleaned(foo.Operator):
    """Exports a bundle, trains on it, and writes the predictions to a field.

    For workers only: a process that the App's server starts ends with the server.
    """

    @property
    def config(self) -> foo.OperatorConfig:
        return foo.OperatorConfig(
            name="train_on_cleaned",
            label="Train on CLIPCleaner run",
            description="Train a network on the clean selection and load its predictions",
            icon="model_training",
            dynamic=True,
            allow_immediate_execution=False,
            allow_delegated_execution=True,
            default_choice_to_delegated=True,
            risk_level="medium",
        )

    def resolve_input(self, ctx: foo.executor.ExecutionContext) -> types.Property:
        inputs = types.Object()
        key = input_run(ctx, inputs)
        if key is not None and input_target(ctx, inputs) is not None:
            _input_training(inputs)
            folder = input_folder(ctx, inputs, key)
            input_media(ctx, inputs, key, "symlink", ("copy", "symlink", "reference"))
            input_split(inputs)
            input_trusted(ctx, inputs, key)
            _input_field(ctx, inputs)
            _show_commands(ctx, inputs, key, folder)
        return types.Property(inputs, view=types.View(label="Train on CLIPCleaner run"))

    def resolve_run_name(self, ctx: foo.executor.ExecutionContext) -> str:
        return f"Training on {ctx.params['key']} ({ctx.params.get('recipe') or 'mixfix'})"

    def execute(self, ctx: foo.executor.ExecutionContext) -> dict[str, Any]:
        return run_delegated(ctx, lambda report: _train(ctx, report))

    def resolve_output(self, ctx: foo.executor.ExecutionContext) -> types.Property:
        outputs = types.Object()
        outputs.str("headline", label="Result")
        outputs.str("field", label="Predictions")
        outputs.str("run_dir", label="Folder")
        return types.Property(outputs, view=types.View(label="Training"))

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
        """Trains on the samples of a run, or queues that.

        Args:
            sample_collection: a dataset or view
            key ("clipcleaner"): the run
            export_dir (None): the folder of the bundle
            delegate (False): whether to queue the operation instead
            delegation_target (None): the orchestrator to queue it on
            **options: as in :func:`clipcleaner_plugin.train_on_cleaned`

        Returns:
            a ``TrainingReport``; a ``fiftyone.operators.executor.ExecutionResult`` if delegated
        """
        from clipcleaner_plugin.launch import train_on_cleaned as function

        options = {"key": key, "export_dir": export_dir, **options}
        if delegate:
            return delegate_call(
                self.uri, function, sample_collection, options, delegation_target, queued
            )
        return function(sample_collection, **options)


def _train(ctx: foo.executor.ExecutionContext, report: Report) -> dict[str, Any]:
    from clipcleaner_plugin.launch import train_on_cleaned

    options = {**export_options(ctx), **_of_trainer(ctx.params)}
    options.setdefault("export_dir", default_folder(ctx, ctx.params["key"]))
    if ctx.params.get("trainer_args"):
        options["trainer_args"] = tuple(ctx.params["trainer_args"])
    if ctx.params.get("prediction_field"):
        options["prediction_field"] = ctx.params["prediction_field"]
    done = train_on_cleaned(ctx.target_view(), progress=report, **options)
    return {
        "headline": str(done),
        "field": done.predictions.field,
        "run_dir": done.run_dir,
        "results": done.predictions.results,
    }


def _of_trainer(params: Mapping[str, Any]) -> dict[str, Any]:
    return {name: params[name] for name in _OF_TRAINER if params.get(name) not in (None, "")}


def _input_training(inputs: types.Object) -> None:
    from clipcleaner_plugin.trainer import DEFAULT_SEED, presets, recipes

    view = types.DropdownView()
    for name, description in recipes().items():
        view.add_choice(name, label=name, description=description)
    inputs.enum("recipe", list(recipes()), default="mixfix", label="Recipe", view=view)
    inputs.enum(
        "preset",
        presets(),
        default="auto",
        label="Preset",
        description="Network and settings; auto = chosen by image size, classes and samples",
        view=dropdown(presets()),
    )
    inputs.int("epochs", min=1, label="Epochs", description="Empty = those of the preset")
    inputs.int("batch_size", min=2, label="Batch size", description="Empty = that of the preset")
    inputs.int("seed", default=DEFAULT_SEED, min=0, label="Seed")


def _input_field(ctx: foo.executor.ExecutionContext, inputs: types.Object) -> None:
    from clipcleaner_plugin.predictions import DEFAULT_FIELD, check_prediction_field

    prop = inputs.str(
        "prediction_field",
        default=DEFAULT_FIELD,
        label="Prediction field",
        description="A new field, or one with earlier predictions, which are replaced",
    )
    try:
        check_prediction_field(ctx.dataset, ctx.params.get("prediction_field") or DEFAULT_FIELD)
    except ValueError as error:
        invalidate(prop, str(error))


def _show_commands(
    ctx: foo.executor.ExecutionContext, inputs: types.Object, key: str, folder: str
) -> None:
    """Shows the same in shell commands: all there is where no worker can be asked."""
    from clipcleaner_plugin.launch import command_lines
    from clipcleaner_plugin.predictions import DEFAULT_FIELD
    from clipcleaner_plugin.trainer import TrainerOptions

    try:
        options = TrainerOptions(**_of_trainer(ctx.params))
    except ValueError:
        return  # the input concerned says so
    field = ctx.params.get("prediction_field") or DEFAULT_FIELD
    objects = patches_field(ctx, key)
    media = "copy" if objects else ctx.params.get("media") or "symlink"
    lines = command_lines(
        ctx.dataset.name,
        key,
        folder,
        options,
        field,
        media=media,
        split=ctx.params.get("split") or "tags",
        trusted_field=ctx.params.get("trusted_field"),
        patches_field=objects,
    )
    if getattr(fo.config, "allow_legacy_orchestrators", True):
        text = "Scheduled work needs a worker: `fiftyone delegated launch`. Or, in a terminal:"
    else:
        text = (
            "This App cannot schedule work (for that, start it with "
            "`FIFTYONE_ALLOW_LEGACY_ORCHESTRATORS=true`). In a terminal instead:"
        )
    # No block of code: the App does not wrap its lines
    inputs.md("\n\n".join([text, *(f"`{line}`" for line in lines)]), name="commands")
