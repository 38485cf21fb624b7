"""What the panel can show of a run, or why it cannot."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import fiftyone as fo
import fiftyone.operators as foo

from .forms import label_fields

if TYPE_CHECKING:
    from clipcleaner_plugin.results import CLIPCleanerResults
    from clipcleaner_plugin.statistics import RunStatistics


@dataclass(frozen=True)
class RunState:
    """A run as the panel sees it at the moment.

    Attributes:
        keys: the runs of the dataset
        key: the one that is shown; None where there is none
        results, statistics: of that run; None where it cannot be shown
        current: whether the statistics are those of the samples as they are now
        added: samples of the dataset that a run on all of it does not have
        problem: why nothing can be shown; None where something can
        can_start: whether a run on this dataset is possible
    """

    keys: list[str]
    key: str | None
    results: CLIPCleanerResults | None = None
    statistics: RunStatistics | None = None
    current: bool = True
    added: int = 0
    problem: str | None = None
    can_start: bool = True


def current_run(ctx: foo.executor.ExecutionContext) -> str | None:
    """Returns the run that was chosen, if it still exists; else the latest one."""
    if ctx.dataset is None:
        return None
    from clipcleaner_plugin.runs import list_runs

    keys = list_runs(ctx.dataset)
    chosen = ctx.panel.state.run
    if chosen in keys:
        return chosen
    return max(keys, key=lambda key: ctx.dataset.get_brain_info(key).timestamp, default=None)


def run_state(ctx: foo.executor.ExecutionContext) -> RunState:
    """Reads what there is to show of the chosen run."""
    if ctx.dataset is None:
        return RunState([], None, problem="No dataset is open.", can_start=False)
    from clipcleaner_plugin.kept_statistics import recent_statistics
    from clipcleaner_plugin.runs import list_runs, load_results
    from clipcleaner_plugin.targets import unfit_labels

    keys, key = sorted(list_runs(ctx.dataset)), current_run(ctx)
    if key is None:
        refusal = _refusal(ctx)
        if refusal is not None:
            problem = f"**CLIPCleaner cannot work on these samples.** {refusal}."
            return RunState(keys, None, problem=problem, can_start=False)
        if not label_fields(ctx.dataset):
            unfit = (f"* {text}" for text in unfit_labels(ctx.dataset))
            problem = "\n".join([_NO_LABELS, *unfit])
            return RunState(keys, None, problem=problem, can_start=False)
        return RunState(keys, None, problem=_NO_RUN)
    try:
        results = load_results(ctx.dataset, key)
    except ValueError:
        return RunState(keys, key, problem=_problem(ctx, key))
    missing = [name for name in ("verdict", "score") if not _has(ctx, results.field(name))]
    if missing or not _has(ctx, str(results.config.label_field)):
        return RunState(keys, key, problem=_problem(ctx, key))
    recent = recent_statistics(results)
    return RunState(keys, key, results, *recent, added=_added(ctx, results, recent.statistics))


def _refusal(ctx: foo.executor.ExecutionContext) -> str | None:
    """Why no run is possible on the dataset, nor on the view, such as one slice of groups."""
    from clipcleaner_plugin.targets import check_images

    refusals = []
    for samples in (ctx.dataset, ctx.view):
        try:
            check_images(samples)
        except ValueError as error:
            refusals.append(str(error))
        else:
            return None
    return refusals[0]


def _added(
    ctx: foo.executor.ExecutionContext, results: CLIPCleanerResults, statistics: RunStatistics
) -> int:
    """Samples that came after a run; of objects and of runs on a view, nobody can tell."""
    examined = ctx.dataset.load_brain_view(results.key)
    in_view = isinstance(examined, fo.DatasetView) and examined._stages
    if results.layout.objects or in_view:
        return 0
    there = ctx.dataset._sample_collection.estimated_document_count()
    return max(there - sum(statistics.verdicts.values()), 0)


def _has(ctx: foo.executor.ExecutionContext, field: str) -> bool:
    return ctx.dataset.has_sample_field(field)


def _problem(ctx: foo.executor.ExecutionContext, key: str) -> str:
    config = ctx.dataset.get_brain_info(key).config
    if not _has(ctx, str(config.label_field)):
        return (
            f"**The labels of run {key!r} are gone.** It examined the field "
            f"{config.label_field!r}, which this dataset does not have any more. Delete the run."
        )
    if ctx.dataset.load_brain_results(key) is not None:
        return (
            f"**The fields of run {key!r} were deleted.** Apply it again under the same key, or "
            "delete what is left of it. Embeddings that were computed are kept."
        )
    return (
        f"**Run {key!r} did not finish,** or is being made at the moment. Apply it again under the "
        "same key: it goes on where it stopped. Or delete it."
    )


_NO_LABELS = """
**This dataset has no labels to examine.** CLIPCleaner examines the labels of a
`Classification` field, one label an image, or of the boxes of a `Detections` field. Add one first.
"""
_NO_RUN = """
**No run yet.** CLIPCleaner asks one frozen CLIP about every label twice: does the *name* of the
class fit the image, and does the image *look* like others of its class? Where both doubt it, the
label is probably wrong. Nothing is trained on your images, and no label is changed.
"""
