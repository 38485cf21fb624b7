"""Pieces of form that several operators share: what to work on, which run, which model."""

from __future__ import annotations

from collections.abc import Callable

import fiftyone as fo
import fiftyone.operators as foo
import fiftyone.operators.types as types
from fiftyone.core.collections import SampleCollection

from clipcleaner_plugin.model_names import TINY_CLIP

from .options import DEFAULT_MODEL, DEFAULT_TAG, needs_tag

# Suggestions only: every architecture and tag that open_clip knows can be typed in
MODELS: dict[str, tuple[str, ...]] = {
    "ViT-B-32": ("openai", "laion2b_s34b_b79k", "datacomp_xl_s13b_b90k"),
    "ViT-B-16": ("openai", "laion2b_s34b_b88k", "datacomp_xl_s13b_b90k"),
    "ViT-L-14": ("openai", "laion2b_s32b_b82k", "datacomp_xl_s13b_b90k"),
    "ViT-L-14-336": ("openai",),
    "ViT-H-14": ("laion2b_s32b_b79k",),
    "RN50": ("openai", "cc12m"),
    "ViT-B-16-SigLIP": ("webli",),
    TINY_CLIP: (),
}


def input_target(
    ctx: foo.executor.ExecutionContext, inputs: types.Object
) -> SampleCollection | None:
    """Adds the choice of dataset, current view or selected samples, where there is one.

    The input is named here, not left to FiftyOne: versions before 1.22 add none by themselves.

    Returns:
        the collection chosen at the moment; None, with a warning that blocks the form, if it is
        nothing that the library works on
    """
    from clipcleaner_plugin.targets import check_images

    if not has_dataset(ctx, inputs):
        return None
    samples = ctx.dataset
    if ctx.view._is_generated:
        _input_dataset_alone(inputs)
    else:
        # FiftyOne would choose the current view, which after a run is what the run found
        # mislabeled: applying again would then replace that run by one of those samples alone
        inputs.view_target(ctx, default_target="SELECTED_SAMPLES" if ctx.selected else "DATASET")
        samples = ctx.target_view()
    try:
        check_images(samples)
    except ValueError as error:
        block(inputs, "CLIPCleaner cannot work on these samples", str(error))
        return None
    return samples


def _input_dataset_alone(inputs: types.Object) -> None:
    """Says that patches in the grid are not meant; FiftyOne would offer nothing else."""
    view = types.RadioGroup()
    text = "All of its samples, whatever patches the grid shows"
    view.add_choice("DATASET", label="Dataset", description=text)
    inputs.enum("view_target", ["DATASET"], default="DATASET", label="Target view", view=view)


def has_dataset(ctx: foo.executor.ExecutionContext, inputs: types.Object) -> bool:
    """Returns whether a dataset is open; blocks the form where none is."""
    if ctx.dataset is None:
        block(inputs, "No dataset is open", "Open one and try again")
        return False
    return True


def input_label_field(
    ctx: foo.executor.ExecutionContext,
    inputs: types.Object,
    samples: SampleCollection,
    proposed: str | None = None,
) -> str | None:
    """Adds the choice of the labels to examine; blocks the form where there are none.

    Args:
        ctx, inputs: of the form
        samples: what is worked on
        proposed (None): the field to begin with; None = "ground_truth", or the first one

    Returns:
        the chosen field, None where there is none
    """
    from clipcleaner_plugin.layout import field_layout
    from clipcleaner_plugin.targets import check_stored_labels, unfit_labels

    fields = label_fields(samples)
    if not fields:
        needed = "CLIPCleaner examines a Classification or a Detections field; add one first"
        block(
            inputs,
            "This dataset has no labels to examine",
            ". ".join([needed, *unfit_labels(samples)]),
        )
        return None
    default = next((name for name in (proposed, "ground_truth") if name in fields), fields[0])
    prop = inputs.enum(
        "label_field",
        fields,
        default=default,
        required=True,
        label="Label field",
        description="The labels to examine",
        view=dropdown(fields),
    )
    chosen = ctx.params.get("label_field") or default
    if chosen not in fields:
        return None
    try:
        check_stored_labels(samples, field_layout(samples, chosen))
    except ValueError as error:
        invalidate(prop, str(error))
    return chosen


def input_padding(inputs: types.Object, proposed: float | None = None) -> None:
    """Adds how much of the image around an object belongs to it; ``proposed`` to begin with."""
    inputs.float(
        "alpha",
        default=proposed or 0.0,
        min=-0.9,
        label="Padding",
        description="How much each box grows before it is cut out: 0.2 = by 20 % a side's length",
    )


def patches_field(ctx: foo.executor.ExecutionContext, key: str) -> str | None:
    """Returns the field whose objects a run has examined; None = it has examined samples."""
    field: str | None = ctx.dataset.get_brain_info(key).config.patches_field
    return field


def label_fields(samples: SampleCollection, objects: bool = True) -> list[str]:
    """Returns the fields whose labels can be examined, those aside that runs have written.

    Args:
        samples: a dataset or view
        objects (True): whether fields of objects are among them
    """
    kinds = [fo.Classification, *([fo.Detections] if objects else [])]
    fields = samples.get_field_schema(embedded_doc_type=kinds)
    return sorted(set(fields) - _written(samples._root_dataset))


def text_attributes(dataset: fo.Dataset, patches_field: str) -> list[str]:
    """Returns the attributes of objects that may be labels, those aside that FiftyOne, runs and
    reviews have written."""
    from clipcleaner_plugin.layout import Layout

    layout = Layout(patches_field, objects=True)
    texts = set(dataset.get_field_schema(ftype=fo.StringField, flat=True)) - _written(dataset)
    texts -= {layout.given, layout.review, f"{layout.root}mask_path"}
    names = [path.removeprefix(layout.root) for path in texts if path.startswith(layout.root)]
    return sorted(name for name in names if "." not in name)


def _written(dataset: fo.Dataset) -> set[str]:
    """What the runs of a dataset have written."""
    from clipcleaner_plugin.fields import result_fields
    from clipcleaner_plugin.layout import layout_of
    from clipcleaner_plugin.runs import list_runs

    configs = [dataset.get_brain_info(key).config for key in list_runs(dataset)]
    return {field for config in configs for field in result_fields(layout_of(config))}


def input_model(
    ctx: foo.executor.ExecutionContext,
    inputs: types.Object,
    model: str | None = None,
    pretrained: str | None = None,
) -> None:
    """Adds the choice of the CLIP and of its weights.

    Args:
        ctx, inputs: of the form
        model, pretrained (None): to begin with; None = the defaults
    """
    inputs.str(
        "model",
        default=model or DEFAULT_MODEL,
        label="Model",
        description=(
            "An open_clip architecture, hf-hub:org/name, or a local checkpoint's path. "
            f"{TINY_CLIP} comes with the plugin, for handwritten digits"
        ),
        view=suggestions(list(MODELS)),
    )
    chosen = ctx.params.get("model") or DEFAULT_MODEL
    if needs_tag(chosen):
        inputs.str(
            "pretrained",
            default=pretrained or DEFAULT_TAG,
            label="Weights",
            description="An open_clip tag, or a local checkpoint's path",
            view=suggestions(list(MODELS.get(chosen, ()))),
        )


def input_loading(inputs: types.Object) -> None:
    """Adds the options that concern speed only."""
    inputs.int(
        "batch_size",
        min=1,
        label="Batch size",
        description="Images per forward pass; empty = chosen by device",
    )
    inputs.int(
        "num_workers",
        min=0,
        label="Decoding processes",
        description="Of scheduled runs; others decode in the App's own process",
    )


def input_run(ctx: foo.executor.ExecutionContext, inputs: types.Object) -> str | None:
    """Adds the choice of an existing run; blocks the form where there is none.

    Returns:
        the chosen key, None where there is none
    """
    from clipcleaner_plugin.runs import list_runs

    if not has_dataset(ctx, inputs):
        return None
    keys = sorted(list_runs(ctx.dataset))
    if not keys:
        block(inputs, "This dataset has no CLIPCleaner runs yet", 'Use "Apply CLIPCleaner" first')
        return None
    inputs.enum(
        "key",
        keys,
        default=keys[0],
        required=True,
        label="Run",
        view=dropdown(keys),
    )
    chosen = ctx.params.get("key") or keys[0]
    return chosen if chosen in keys else None


def run_form(
    ctx: foo.executor.ExecutionContext,
    label: str,
    button: str,
    fill: Callable[[foo.executor.ExecutionContext, types.Object, str], None],
) -> types.Property:
    """Makes a form about an existing run.

    Args:
        ctx: the execution context
        label: its title
        button: the label of the button that executes it
        fill: adds the inputs that follow the choice of the run; called with its key
    """
    inputs = types.Object()
    key = input_run(ctx, inputs)
    if key is not None:
        fill(ctx, inputs, key)
    view = types.PromptView(label=label, submit_button_label=button)
    return types.Property(inputs, view=view)


def key_problem(ctx: foo.executor.ExecutionContext, key: str) -> str | None:
    """Returns why no run can have this key; None if one can, or one has it already."""
    if not key.isidentifier() or key.startswith("_"):
        return "Letters, digits and '_' only, beginning with a letter"
    if key in ctx.dataset.list_brain_runs() and not is_run(ctx, key):
        return f"{key!r} is the key of another brain run; choose another one"
    return None


def is_run(ctx: foo.executor.ExecutionContext, key: str) -> bool:
    """Returns whether the dataset has a CLIPCleaner run of this key."""
    from clipcleaner_plugin.runs import list_runs

    return key in list_runs(ctx.dataset)


def block(inputs: types.Object, label: str, description: str) -> None:
    """Adds a warning with which the form cannot be executed."""
    prop = inputs.view("blocked", types.Warning(label=label, description=description))
    invalidate(prop, f"{label}: {description}")


def invalidate(prop: types.Property, reason: str) -> None:
    """Marks an input as wrong, with the reason beside it."""
    prop.invalid = True
    prop.error_message = reason


def dropdown(values: list[str]) -> types.DropdownView:
    """Returns a dropdown of these values."""
    view = types.DropdownView()
    for value in values:
        view.add_choice(value, label=value)
    return view


def suggestions(values: list[str]) -> types.AutocompleteView:
    """Returns a text input that proposes these values and takes others."""
    view = types.AutocompleteView(allow_user_input=True)
    for value in values:
        view.add_choice(value, label=value)
    return view
