"""The advanced half of the form of a run: where embeddings come from, thresholds, speed."""

from __future__ import annotations

import fiftyone as fo
import fiftyone.operators as foo
import fiftyone.operators.types as types
from fiftyone.core.collections import SampleCollection

from clipcleaner_plugin.layout import Layout, field_layout

from .forms import input_loading
from .options import COMPUTE


def input_advanced(
    ctx: foo.executor.ExecutionContext,
    inputs: types.Object,
    samples: SampleCollection,
    label_field: str,
) -> None:
    """Adds a switch and, behind it, the options that most users never need."""
    inputs.bool("advanced", default=False, label="Advanced options", view=types.SwitchView())
    if not ctx.params.get("advanced", False):
        return
    _input_embeddings(ctx, inputs, samples, field_layout(samples, label_field))
    _input_method(inputs)
    input_loading(inputs)


def _input_embeddings(
    ctx: foo.executor.ExecutionContext,
    inputs: types.Object,
    samples: SampleCollection,
    layout: Layout,
) -> None:
    view = types.DropdownView()
    view.add_choice(COMPUTE, label="Compute with the model", description="Resumes where it stopped")
    for field in vector_fields(samples, layout):
        view.add_choice(field, label=f"Field {field}")
    for key in _similarity_keys(samples, layout):
        view.add_choice(key, label=f"Similarity index {key}")
    inputs.enum("embeddings", view.values(), default=COMPUTE, label="Image embeddings", view=view)
    if ctx.params.get("embeddings", COMPUTE) == COMPUTE:
        if not layout.objects:
            inputs.bool(
                "store_embeddings",
                default=True,
                label="Write embeddings to a field",
                description="For similarity search and visualization; runs read the store on disk",
            )
    else:
        inputs.bool(
            "use_names",
            default=True,
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


def _input_method(inputs: types.Object) -> None:
    inputs.str(
        "class_prompts",
        label="Prompts file",
        description="JSON or YAML with templates, descriptors and nicer names of the classes",
    )
    _slider(
        inputs, "theta_gmm", 0.5, "Loss threshold",
        "Posterior that both loss scores must reach to be clean",
    )  # fmt: skip
    _slider(
        inputs, "theta_cons", 0.8, "Consistency threshold",
        "Value that both consistency scores must reach to be clean",
    )  # fmt: skip
    inputs.float(
        "temperature",
        default=0.07,
        min=0.001,
        label="Temperature",
        description="Of the zero-shot probabilities behind the clean selection",
    )
    inputs.int(
        "folds",
        default=5,
        min=2,
        label="Folds",
        description="The visual model never scores a label that it was fitted on",
    )
    inputs.int("seed", default=51, min=0, label="Seed")


def _slider(inputs: types.Object, name: str, default: float, label: str, description: str) -> None:
    inputs.float(
        name,
        default=default,
        min=0,
        max=1,
        label=label,
        description=description,
        view=types.SliderView(label_position="top", value_precision=2),
    )
