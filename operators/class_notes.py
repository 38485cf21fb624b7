"""What a form says of the classes of a label field, before a run is made of it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import fiftyone as fo
import fiftyone.operators.types as types
from fiftyone.core.collections import SampleCollection

from clipcleaner_plugin.layout import field_layout
from clipcleaner_plugin.memory import Last, content_state

from .options import COMPUTE, in_force

_last: Last[dict[str | None, int]] = Last()


def add_class_notes(
    inputs: types.Object, samples: SampleCollection, label_field: str, params: Mapping[str, Any]
) -> int:
    """Warns of class lists that do not fit, and returns the number of classes."""
    from clipcleaner_plugin.class_list import class_list_warnings

    counts = _label_counts(samples, label_field)
    params = in_force(params)
    computed = params.get("embeddings", COMPUTE) == COMPUTE
    with_names = (computed or params.get("use_names", True)) and not params.get("class_prompts")
    for i, warning in enumerate(class_list_warnings(counts, with_names)):
        inputs.view(f"class_note_{i}", types.Warning(label=warning))
    return sum(name is not None for name in counts)


def _label_counts(samples: SampleCollection, label_field: str) -> dict[str | None, int]:
    """Counts the labels; a form is made anew at every change, so the counts stay in memory."""
    stages = str(samples._serialize()) if isinstance(samples, fo.DatasetView) else ""
    state = content_state(samples._root_dataset), stages, label_field
    return _last.get(state, lambda: samples.count_values(field_layout(samples, label_field).given))
