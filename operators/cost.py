"""What a form promises: how many samples, how many embeddings are missing, on which device."""

from __future__ import annotations

import os
from typing import Any

import fiftyone.operators as foo
import fiftyone.operators.types as types
from fiftyone.core.collections import SampleCollection

from clipcleaner_plugin.model_names import TINY_CLIP

from .forms import block
from .options import COMPUTE, in_force, library_options, needs_tag

# Beyond these, comparing ids with the store takes longer than one waits for a form
_COUNTED_SAMPLES = 20_000
_COUNTED_VECTORS = 100_000


def input_cost(
    ctx: foo.executor.ExecutionContext, inputs: types.Object, samples: SampleCollection
) -> None:
    """Adds a line with the number of samples, of missing embeddings, and the device.

    Blocks the form where there is no such model. A server's first form waits a few seconds for the
    model library; the run would wait for it anyway.
    """
    n = samples.count()
    facts = ["1 sample" if n == 1 else f"{n:,} samples"]
    if in_force(ctx.params).get("embeddings", COMPUTE) == COMPUTE:
        options = library_options(ctx)
        try:
            if _names_itself(options):
                facts += _to_compute(samples, n, options)
            facts.append(f"on {_device(options)}")
        except ValueError as error:
            block(inputs, "This model cannot be used", str(error))
            return
    notice = types.Notice(
        label=", ".join(facts),
        description="Closing or reloading the page stops a run; what is computed by then is kept",
    )
    inputs.view("cost", notice)


def _names_itself(options: dict[str, Any]) -> bool:
    """Whether the identity is known without reading large files or asking the network."""
    model, weights = options["model"], options["pretrained"]
    return model == TINY_CLIP or (needs_tag(model) and os.sep not in (weights or ""))


def _to_compute(samples: SampleCollection, n: int, options: dict[str, Any]) -> list[str]:
    """How many embeddings are missing, as far as that can be said at once; else nothing."""
    from clipcleaner_plugin.embeddings import dataset_store
    from clipcleaner_plugin.models import model_identity

    identity = model_identity(
        options["model"], options["pretrained"], preprocess=options.get("preprocess")
    )
    dataset = samples._root_dataset
    store = dataset_store(dataset, identity)
    rows = store.rows()
    if rows == 0:
        return [f"{n:,} embeddings to compute"]
    if n <= _COUNTED_SAMPLES and rows <= _COUNTED_VECTORS:
        stored = store.listed_ids()
        return [f"{sum(i not in stored for i in samples.values('id')):,} embeddings to compute"]
    if n == dataset.count():
        return [f"about {max(n - rows, 0):,} embeddings to compute"]
    return []


def _device(options: dict[str, Any]) -> str:
    from clipcleaner_plugin.models import choose_device

    return str(choose_device(options.get("device")))
