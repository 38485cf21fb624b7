"""The advanced half of the form of a run: where embeddings come from, thresholds, speed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import fiftyone as fo
import fiftyone.operators as foo
import fiftyone.operators.types as types
from fiftyone.core.collections import SampleCollection

from clipcleaner_plugin.layout import Layout, field_layout

from .earlier import usual_method
from .forms import input_loading, invalidate
from .options import COMPUTE
from .thresholds import explanations, threshold_slider


def input_advanced(
    ctx: foo.executor.ExecutionContext,
    inputs: types.Object,
    samples: SampleCollection,
    label_field: str,
    earlier: Mapping[str, Any],
) -> None:
    """Adds a switch and, behind it, the options that most users never need.

    Args:
        ctx, inputs: of the form
        samples, label_field: what is worked on
        earlier: values of an earlier run to begin with
    """
    begin = {"advanced": False, **usual_method(), **earlier}
    view = types.SwitchView()
    inputs.bool("advanced", default=begin["advanced"], label="Advanced options", view=view)
    if not ctx.params.get("advanced", False):
        return
    _input_embeddings(ctx, inputs, samples, field_layout(samples, label_field), begin)
    _input_prompts(ctx, inputs, begin.get("class_prompts"))
    _input_method(inputs, begin)
    input_loading(inputs)


def _input_embeddings(
    ctx: foo.executor.ExecutionContext,
    inputs: types.Object,
    samples: SampleCollection,
    layout: Layout,
    begin: Mapping[str, Any],
) -> None:
    view = types.DropdownView()
    view.add_choice(COMPUTE, label="Compute with the model", description="Resumes where it stopped")
    for field in vector_fields(samples, layout):
        view.add_choice(field, label=f"Field {field}")
    for key in _similarity_keys(samples, layout):
        view.add_choice(key, label=f"Similarity index {key}")
    values, default = view.values(), begin.get("embeddings", COMPUTE)
    default = default if default in values else COMPUTE
    inputs.enum("embeddings", values, default=default, label="Image embeddings", view=view)
    if ctx.params.get("embeddings", COMPUTE) == COMPUTE:
        if not layout.objects:
            inputs.bool(
                "store_embeddings",
                default=begin.get("store_embeddings", True),
                label="Write embeddings to a field",
                description="For similarity search and visualization; runs read the store on disk",
            )
    else:
        inputs.bool(
            "use_names",
            default=begin.get("use_names", True),
            label="Compare with the class names",
            description="Needs embeddings of the model above; off = visual evidence alone",
        )


def vector_fields(samples: SampleCollection, layout: Layout) -> list[str]:
    """Returns the fields, or attributes of objects, that can hold embeddings."""
    kinds = (fo.VectorField, fo.ArrayField)
    if not layout.objects:
        return sorted(samples.get_field_schema(ftype=kinds))
    found = samples.get_field_schema(ftype=kinds, flat=True)
    attributes = (path.removeprefix(layout.root) for path in found if path.startswith(layout.root))
    return sorted(name for name in attributes if name != "mask")


def _similarity_keys(samples: SampleCollection, layout: Layout) -> list[str]:
    """The similarity indexes of what has the labels."""
    dataset, wanted = samples._root_dataset, layout.label_field if layout.objects else None
    keys = dataset.list_brain_runs(type="similarity")
    return [k for k in keys if dataset.get_brain_info(k).config.patches_field == wanted]


def _input_prompts(
    ctx: foo.executor.ExecutionContext, inputs: types.Object, proposed: str | None
) -> None:
    """Adds the file of prompts, which is read at once: a run of hours must not end with it."""
    from clipcleaner_plugin.prompts import load_prompt_spec

    prop = inputs.str(
        "class_prompts",
        default=proposed,
        label="Prompts file",
        description="JSON or YAML with templates, descriptors and nicer names of the classes",
    )
    try:
        load_prompt_spec(ctx.params.get("class_prompts") or None)
    except (TypeError, ValueError) as error:
        invalidate(prop, str(error))


def _input_method(inputs: types.Object, begin: Mapping[str, Any]) -> None:
    thresholds = ("theta_cons", "theta_gmm")
    for name in thresholds:
        threshold_slider(inputs, name, default=begin[name])
    inputs.md(explanations(thresholds), name="explanations")
    inputs.float(
        "temperature",
        default=begin["temperature"],
        min=0.001,
        label="Temperature",
        description="Of the zero-shot probabilities behind the clean selection",
    )
    inputs.int(
        "folds",
        default=begin["folds"],
        min=2,
        label="Folds",
        description="The visual model never scores a label that it was fitted on",
    )
    inputs.int("seed", default=begin["seed"], min=0, label="Seed")
