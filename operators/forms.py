"""Pieces of the operators' forms."""

from __future__ import annotations

from typing import Any

import fiftyone as fo
import fiftyone.operators as foo
import fiftyone.operators.types as types
from fiftyone.core.collections import SampleCollection

# Suggestions only: every architecture and tag that open_clip knows can be typed in
MODELS = {
    "tiny-clip-digits": (),
    "ViT-B-32": ("openai", "laion2b_s34b_b79k", "datacomp_xl_s13b_b90k"),
    "ViT-B-16": ("openai", "laion2b_s34b_b88k", "datacomp_xl_s13b_b90k"),
    "ViT-L-14": ("openai", "laion2b_s32b_b82k", "datacomp_xl_s13b_b90k"),
    "ViT-L-14-336": ("openai",),
    "ViT-H-14": ("laion2b_s32b_b79k",),
    "RN50": ("openai", "cc12m"),
    "ViT-B-16-SigLIP": ("webli",),
}
DEFAULT_MODEL = "ViT-B-32"
DEFAULT_TAG = "openai"


def needs_tag(model: str) -> bool:
    """Returns whether the weights are named by a tag, beside the architecture."""
    return model != "tiny-clip-digits" and not model.startswith("hf-hub:")


def input_target(ctx: foo.executor.ExecutionContext, inputs: types.Object) -> SampleCollection:
    """Adds the choice of dataset, current view or selected samples, where there is one.

    Named in the form, and not left to FiftyOne, because versions before 1.22 add no choice by themselves.

    Returns:
        the collection that is chosen at the moment
    """
    inputs.view_target(ctx)
    return ctx.target_view()


def input_label_field(
    ctx: foo.executor.ExecutionContext, inputs: types.Object, samples: SampleCollection
) -> str | None:
    """Adds the choice of a Classification field; a warning that blocks the form where there is none.

    Returns:
        the chosen field, None where there is none to choose
    """
    fields = label_fields(samples)
    if not fields:
        block(
            inputs,
            "This dataset has no classification labels",
            "CLIPCleaner examines the labels of a Classification field; add one first",
        )
        return None
    default = "ground_truth" if "ground_truth" in fields else fields[0]
    chosen = ctx.params.get("label_field") or default
    inputs.enum(
        "label_field",
        fields,
        default=default,
        required=True,
        label="Label field",
        description="The labels to examine",
        view=_choices(types.DropdownView, fields),
    )
    return chosen if chosen in fields else None


def label_fields(samples: SampleCollection) -> list[str]:
    """Returns the Classification fields of the samples, those aside that runs have written."""
    from clipcleaner_plugin.fields import result_fields
    from clipcleaner_plugin.runs import list_runs

    written = {f for key in list_runs(samples._root_dataset) for f in result_fields(key)}
    fields = samples.get_field_schema(embedded_doc_type=fo.Classification)
    return sorted(set(fields) - written)


def input_model(ctx: foo.executor.ExecutionContext, inputs: types.Object) -> None:
    """Adds the choice of the CLIP and of its weights."""
    view = types.AutocompleteView(allow_user_input=True)
    for name in MODELS:
        view.add_choice(name, label=name)
    inputs.str(
        "model",
        default=DEFAULT_MODEL,
        required=True,
        label="Model",
        description=(
            "An open_clip architecture, hf-hub:org/name, or the path of a local checkpoint on the "
            "machine that runs this. tiny-clip-digits knows handwritten digits only, and needs no download"
        ),
        view=view,
    )
    model = ctx.params.get("model") or DEFAULT_MODEL
    if not needs_tag(model):
        return
    tags = types.AutocompleteView(allow_user_input=True)
    for tag in MODELS.get(model, ()):
        tags.add_choice(tag, label=tag)
    inputs.str(
        "pretrained",
        default=DEFAULT_TAG,
        label="Weights",
        description="An open_clip tag, or the path of a local checkpoint file of this architecture",
        view=tags,
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
        description="For delegated runs; immediate ones decode in the App's own process",
    )


def input_run(
    ctx: foo.executor.ExecutionContext, inputs: types.Object, name: str = "key"
) -> str | None:
    """Adds the choice of an existing run; a warning that blocks the form where there is none.

    Returns:
        the chosen key, None where there is none to choose
    """
    from clipcleaner_plugin.runs import list_runs

    keys = sorted(list_runs(ctx.dataset))
    if not keys:
        block(inputs, "This dataset has no CLIPCleaner runs yet", 'Use "Apply CLIPCleaner" first')
        return None
    inputs.enum(
        name,
        keys,
        default=keys[0],
        required=True,
        label="Run",
        description="The key of a CLIPCleaner run",
        view=_choices(types.DropdownView, keys),
    )
    chosen = ctx.params.get(name) or keys[0]
    return chosen if chosen in keys else None


def key_problem(ctx: foo.executor.ExecutionContext, key: str) -> str | None:
    """Returns why a run cannot have this key, None if it can; an own run of the same key may be there."""
    if not key.isidentifier():
        return "Letters, digits and '_' only, not beginning with a digit"
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
    prop.invalid = True
    prop.error_message = f"{label}. {description}"


def _choices(view_type: type[types.Choices], values: list[str]) -> types.Choices:
    view = view_type()
    for value in values:
        view.add_choice(value, label=value)
    return view
