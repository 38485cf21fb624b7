"""What the App shows of a run: samples in the grid with the labels that explain them."""

from __future__ import annotations

from typing import Any

import fiftyone as fo
import fiftyone.operators as foo
from fiftyone.core.collections import SampleCollection

ALL = "all"


def run_view(
    samples: SampleCollection, key: str, kind: str | None, **choice: Any
) -> fo.DatasetView:
    """Returns samples of a run, most suspicious first.

    Args:
        samples: the dataset, or a view of it
        key: the run
        kind: a kind of view, "all" or None
        **choice: as in ``CLIPCleanerResults.view``

    Raises:
        ValueError: if there is no such run, it did not finish, or it has no such view
    """
    from clipcleaner_plugin.runs import load_results

    return load_results(samples, key).view(None if kind == ALL else kind, **choice)


def show_samples(
    ctx: foo.executor.ExecutionContext, key: str, kind: str | None, **choice: Any
) -> list[Any]:
    """Makes the messages that load samples of a run and switch on the fields that explain them.

    Args:
        ctx: the execution context
        key, kind, **choice: as in :func:`run_view`

    Returns:
        messages for the App; a generator operator yields them, another one need not
    """
    view = run_view(ctx.dataset, key, kind, **choice)
    # Not by the name of the saved view: the App knows only those that were there when it was opened
    return [ctx.ops.set_view(view=view), ctx.ops.set_active_fields(explaining_fields(ctx, key))]


def explaining_fields(ctx: foo.executor.ExecutionContext, key: str) -> list[str]:
    """Returns the given label, the suggested one, and the score: what one compares.

    The reason is not among them: it is longer than most thumbnails are wide. An open sample shows
    it all the same.
    """
    from clipcleaner_plugin.layout import layout_of

    layout = layout_of(ctx.dataset.get_brain_info(key).config)
    if layout.objects:
        patch = layout.in_patches  # with the label field, its label is shown
        return [layout.label_field, patch.suggested, patch.result("score")]
    return [layout.label_field, layout.result("suggestion"), layout.result("score")]


def verdict_counts(dataset: fo.Dataset, key: str) -> dict[str, int]:
    """Counts the samples or objects of a run by verdict as they are now.

    What is to be reviewed comes first.
    """
    from clipcleaner_plugin.layout import layout_of

    field = layout_of(dataset.get_brain_info(key).config).result("verdict")
    if not dataset.has_sample_field(field):
        return {}
    counts = dataset.count_values(field)
    order = ("mislabeled", "uncertain", "clean", "unscorable")
    return {verdict: counts[verdict] for verdict in order if verdict in counts}
