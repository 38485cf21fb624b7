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
from clipcleaner_plugin.rough_times import guess_scoring, guess_speed

from .forms import block
from .options import COMPUTE, in_force, library_options, needs_tag

# Beyond these, comparing ids with the store takes longer than one waits for a form
_COUNTED_SAMPLES = 20_000
_COUNTED_VECTORS = 100_000
_LONG = 10  # seconds
_USUAL_DIM = 512  # of vectors that are given, which nobody has looked at yet


def input_cost(
    ctx: foo.executor.ExecutionContext,
    inputs: types.Object,
    samples: SampleCollection,
    field: str | None,
    classes: int = 0,
) -> None:
    """Adds a line with samples or objects, missing embeddings, the device, and a rough time.

    Blocks the form where there is no such model. A server's first form waits a few seconds for the
    model library; the run would wait for it anyway.

    Args:
        ctx, inputs: of the form
        samples: what is worked on
        field: the label field of a run, or the field of the objects to embed; None = samples
        classes (0): how many the run compares; 0 = it is no run
    """
    layout = field_layout(samples, field or "")
    n = samples.count(layout.array) if layout.objects else samples.count()
    facts = [samples_text(n, layout.unit)]
    if in_force(ctx.params).get("embeddings", COMPUTE) == COMPUTE:
        try:
            facts += _work(samples, layout, n, library_options(ctx), classes)
        except ValueError as error:
            block(inputs, "This model cannot be used", str(error))
            return
    else:
        facts += _rough_time(0, None, guess_scoring(n, _USUAL_DIM, classes, _device({})))
    notice = types.Notice(
        label=", ".join(facts),
        description="Closing or reloading the page stops a run; what is computed by then is kept",
    )
    inputs.view("cost", notice)


def _work(
    samples: SampleCollection, layout: Layout, n: int, options: dict[str, Any], classes: int
) -> list[str]:
    """What there is to compute, where, and how long it takes, as far as that can be said."""
    device = _device(options)
    if not _names_itself(options):
        return [f"on {device}"]
    from clipcleaner_plugin.model_source import resolve
    from clipcleaner_plugin.speeds import known_speed

    source = resolve(options["model"], options["pretrained"], options.get("preprocess"))
    missing, exact = _missing(samples, layout, n, source.identity)
    if missing is None:
        return [f"on {device}"]
    words = samples_text(missing, "embedding")
    facts = [f"{'' if exact else 'about '}{words} to compute", f"on {device}"]
    scoring = guess_scoring(n, source.config["embed_dim"], classes, device) if classes else 0.0
    speed = known_speed(source.identity, device)
    if speed is not None and missing:
        time = duration(missing / speed + scoring)
        return [*facts, f"about {time} at the speed of the last run"]
    return facts + _rough_time(missing, guess_speed(source.config["vision_cfg"], device), scoring)


def _rough_time(missing: int, speed: float | None, scoring: float) -> list[str]:
    """A guess in words; nothing where a part is unknown, or all is done in a moment."""
    if missing and speed is None:
        return []
    seconds = scoring + (missing / speed if speed else 0.0)
    return [f"roughly {duration(seconds)}"] if missing or seconds >= _LONG else []


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
