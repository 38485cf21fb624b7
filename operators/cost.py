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

# Beyond this, comparing ids with the store takes longer than one waits for a form
_COUNTED = 20_000


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
            if n <= _COUNTED and _names_itself(options):
                facts.append(f"{_missing(samples, options):,} embeddings to compute")
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


def _missing(samples: SampleCollection, options: dict[str, Any]) -> int:
    from clipcleaner_plugin.embeddings import dataset_store
    from clipcleaner_plugin.models import model_identity

    identity = model_identity(
        options["model"], options["pretrained"], preprocess=options.get("preprocess")
    )
    stored = dataset_store(samples._root_dataset, identity).stamps()
    return sum(sample_id not in stored for sample_id in samples.values("id"))


def _device(options: dict[str, Any]) -> str:
    from clipcleaner_plugin.models import choose_device

    return str(choose_device(options.get("device")))
