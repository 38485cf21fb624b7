"""The cleaned samples as a FiftyOne dataset of their own; the images stay where they are."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterable, Sequence
from itertools import islice
from typing import TYPE_CHECKING, Any

import fiftyone as fo
import fiftyone.core.utils as fou
from fiftyone import ViewField as F
from fiftyone.core.collections import SampleCollection

from .export_rows import Row
from .fields import VERDICTS, write_object_rows, write_values
from .layout import Layout
from .splits import SPLITS, split_of_tags
from .targets import read_items

if TYPE_CHECKING:
    from .results import CLIPCleanerResults

# Key of Dataset.info by which an export is known; only such a dataset is ever replaced
ORIGIN = "clipcleaner_export"

# Ids in one request; MongoDB refuses those of more than 16 MB
_CHUNK = 50_000


def check_dataset_name(name: str | None, overwrite: bool) -> str:
    """Returns the name of the dataset to make.

    Raises:
        ValueError: if there is none, or it is taken by a dataset that may not be replaced
    """
    if not name:
        raise ValueError("format='dataset' needs dataset_name, the name of the new dataset")
    if not fo.dataset_exists(name):
        return name
    if ORIGIN not in fo.load_dataset(name).info:
        raise ValueError(
            f"there is a dataset {name!r} that no export made: it is left alone; choose another "
            "dataset_name"
        )
    if not overwrite:
        raise ValueError(
            f"there is an earlier export named {name!r}; overwrite=True replaces it, or choose "
            "another dataset_name"
        )
    return name


def make_dataset(
    samples: SampleCollection,
    results: CLIPCleanerResults,
    rows: Sequence[Row],
    name: str,
    origin: dict[str, Any],
    use_splits: bool,
    progress: bool | Callable[..., Any] | None,
) -> fo.Dataset:
    """Clones the samples of the rows with all their fields, under the labels of the rows.

    Of the objects of a sample it keeps those of the rows.

    The dataset gets its name, and becomes persistent, when all of it is there.

    Args:
        samples: where the rows come from
        results: the run
        rows: what to keep; their splits become tags
        name: of the new dataset; an earlier one of this name goes
        origin: where it comes from, for its ``info``
        use_splits: whether the splits become tags
        progress: as in FiftyOne
    """
    layout = results.layout
    made = _examined(samples, layout).clone(f"{name}-unfinished-{uuid.uuid4().hex[:8]}")
    try:
        kept = {row.sample_id: row.split for row in rows}
        tags = dict(zip(*made.values(["id", "tags"]), strict=True))
        unwanted = [sample_id for sample_id in tags if sample_id not in kept]
        with fou.ProgressBar(total=len(tags), progress=progress) as bar:
            for part in _chunks(unwanted, _CHUNK):
                made.delete_samples(part)
                bar.update(len(part))
            if layout.objects:
                _keep_objects(made, layout, rows)
            else:
                relabelled = {row.id: row.label for row in rows if row.relabelled}
                write_values(made, layout.given, relabelled)
            if use_splits:
                write_values(made, "tags", {i: _tags(tags[i], s) for i, s in kept.items()})
            bar.update(len(kept))
        made.info = {**made.info, ORIGIN: origin}
        made.save()
        _take_name(made, name)
    except BaseException:
        fo.delete_dataset(made.name)
        raise
    return made


def _examined(samples: SampleCollection, layout: Layout) -> SampleCollection:
    """The samples that a run has examined, or objects of them."""
    examined = F(layout.at("").result("verdict")).is_in(list(VERDICTS))
    if layout.objects:
        examined = F(layout.array).filter(examined).length() > 0
    return samples.match(examined)


def _keep_objects(made: fo.Dataset, layout: Layout, rows: Sequence[Row]) -> None:
    """Deletes the objects that have no row, and gives the others their labels."""
    kept = {row.id for row in rows}
    unwanted = (i for i in read_items(made, layout).ids if i not in kept)
    for part in _chunks(unwanted, _CHUNK):
        made.delete_labels(ids=part, fields=layout.label_field)
    relabelled = ((r.sample_id, r.id, {layout.given: r.label}) for r in rows if r.relabelled)
    write_object_rows(made, layout.array, relabelled)


def _take_name(made: fo.Dataset, name: str) -> None:
    """An earlier dataset of the name goes last: a kill in between loses neither."""
    earlier = fo.load_dataset(name) if fo.dataset_exists(name) else None
    if earlier is not None:
        earlier.name = f"{name}-replaced-{uuid.uuid4().hex[:8]}"
    made.name = name
    made.persistent = True
    if earlier is not None:
        earlier.delete()


def _tags(tags: Iterable[str], split: str) -> list[str]:
    """Puts one split among the tags in the place of others."""
    return [tag for tag in tags if tag not in SPLITS and split_of_tags("", [tag]) is None] + [split]


def _chunks(items: Iterable[str], size: int) -> Iterable[list[str]]:
    iterator = iter(items)
    while part := list(islice(iterator, size)):
        yield part
