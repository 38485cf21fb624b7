"""What a form promises: samples, missing embeddings, the device, and a rough time."""

from __future__ import annotations

import os
from typing import Any

import fiftyone.operators as foo
import fiftyone.operators.types as types
from fiftyone.core.collections import SampleCollection

from clipcleaner_plugin.layout import Layout, field_layout
from clipcleaner_plugin.model_names import TINY_CLIP
from clipcleaner_plugin.review_log import samples_text

from .forms import block
from .options import COMPUTE, in_force, library_options, needs_tag

# Beyond these, comparing ids with the store takes longer than one waits for a form
_COUNTED_SAMPLES = 20_000
_COUNTED_VECTORS = 100_000


def input_cost(
    ctx: foo.executor.ExecutionContext,
    inputs: types.Object,
    samples: SampleCollection,
    field: str | None,
) -> None:
    """Adds a line with the number of samples or objects, of missing embeddings, and the device.

    Blocks the form where there is no such model. A server's first form waits a few seconds for the
    model library; the run would wait for it anyway.
    """
    layout = field_layout(samples, field or "")
    n = samples.count(layout.array) if layout.objects else samples.count()
    facts = [samples_text(n, layout.unit)]
    if in_force(ctx.params).get("embeddings", COMPUTE) == COMPUTE:
        try:
            facts += _work(samples, layout, n, library_options(ctx))
        except ValueError as error:
            block(inputs, "This model cannot be used", str(error))
            return
    notice = types.Notice(
        label=", ".join(facts),
        description="Closing or reloading the page stops a run; what is computed by then is kept",
    )
    inputs.view("cost", notice)


def _work(samples: SampleCollection, layout: Layout, n: int, options: dict[str, Any]) -> list[str]:
    """What there is to compute, where, and how long it takes, as far as that can be said."""
    device = _device(options)
    if not _names_itself(options):
        return [f"on {device}"]
    from clipcleaner_plugin.models import model_identity
    from clipcleaner_plugin.speeds import known_speed

    identity = model_identity(
        options["model"], options["pretrained"], preprocess=options.get("preprocess")
    )
    facts = [f"on {device}"]
    missing, exact = _missing(samples, layout, n, identity)
    if missing is None:
        return facts
    words = samples_text(missing, "embedding")
    facts.insert(0, f"{'' if exact else 'about '}{words} to compute")
    speed = known_speed(identity, device)
    if speed is not None and missing:
        facts.append(f"about {duration(missing / speed)} at the speed of the last run")
    return facts


def duration(seconds: float) -> str:
    """Says a rough time as one would: "40 seconds", "3 minutes", "2 hours"."""
    for unit, length in (("day", 86_400), ("hour", 3_600), ("minute", 60)):
        if seconds >= 1.5 * length:
            return f"{round(seconds / length):,} {unit}s"
    n = max(round(seconds), 1)
    return "1 second" if n == 1 else f"{n} seconds"


def _names_itself(options: dict[str, Any]) -> bool:
    """Whether the identity is known without reading large files or asking the network."""
    model, weights = options["model"], options["pretrained"]
    return model == TINY_CLIP or (needs_tag(model) and os.sep not in (weights or ""))


def _missing(
    samples: SampleCollection, layout: Layout, n: int, identity: str
) -> tuple[int | None, bool]:
    """How many embeddings are missing, None if that takes too long; and whether it is exact."""
    from clipcleaner_plugin.embeddings import dataset_store
    from clipcleaner_plugin.targets import read_items

    dataset = samples._root_dataset
    store = dataset_store(dataset, identity)
    rows = store.rows()
    if rows == 0:
        return n, True
    if n <= _COUNTED_SAMPLES and rows <= _COUNTED_VECTORS:
        stored = store.listed_ids()
        return sum(i not in stored for i in read_items(samples, layout).ids), True
    if not layout.objects and n == dataset.count():
        return max(n - rows, 0), False
    return None, False


def _device(options: dict[str, Any]) -> str:
    from clipcleaner_plugin.models import choose_device

    return str(choose_device(options.get("device")))
