"""The life of a run after it was made: list, load, describe, rename, delete."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import fiftyone as fo
from fiftyone.core.collections import SampleCollection

from .brain import check_key_name, embeddings_field_name
from .fields import result_fields
from .layout import layout_of
from .locks import one_writer

if TYPE_CHECKING:
    from .results import CLIPCleanerResults


def list_runs(samples: SampleCollection) -> list[str]:
    """Returns the keys of the CLIPCleaner runs of a dataset."""
    return samples.list_brain_runs(method="clipcleaner")


def load_results(samples: SampleCollection, key: str = "clipcleaner") -> CLIPCleanerResults:
    """Loads the results of an earlier run.

    Raises:
        ValueError: if there is no such run, it did not finish, or another process made it since
            the dataset was loaded
    """
    _check_run(samples, key)
    results = _stored_results(samples._root_dataset, key)
    if results is None:
        raise ValueError(
            f"run {key!r} did not finish; apply it again under the same key (embeddings that were "
            "computed are kept), or delete it"
        )
    if not samples._root_dataset.has_sample_field(results.field("score")):
        raise ValueError(
            f"run {key!r} was made by another process, and this one does not know its fields yet: "
            "call dataset.reload() first"
        )
    return results


def get_run_info(samples: SampleCollection, key: str = "clipcleaner") -> dict[str, Any]:
    """Returns what is known of a run, as JSON values: parameters, model, counts, noise rate, time.

    Raises:
        ValueError: if there is no such run
    """
    _check_run(samples, key)
    dataset = samples._root_dataset
    results = _stored_results(dataset, key)
    info = dataset.get_brain_info(key)
    return {
        "key": key,
        "timestamp": info.timestamp.isoformat() if info.timestamp else None,
        "fiftyone_version": info.version,
        "finished": results is not None,
        "parameters": info.config.parameters(),
        "record": results.record if results is not None else None,
    }


@one_writer
def rename_run(samples: SampleCollection, key: str, new_key: str) -> None:
    """Renames a run with its fields and saved views.

    Raises:
        ValueError: if there is no such run, it is being written, or the new name is taken or not a
            valid name
    """
    _check_run(samples, key)
    dataset: fo.Dataset = samples._root_dataset
    check_key_name(new_key)
    if new_key in dataset.list_brain_runs():
        raise ValueError(f"there is a brain run {new_key!r} already; choose another name")
    layout = replace(layout_of(dataset.get_brain_info(key).config), prefix=new_key)
    fields = [*result_fields(layout), embeddings_field_name(new_key)]
    taken = [field for field in fields if dataset.has_sample_field(field)]
    if taken:
        raise ValueError(f"the name {new_key!r} is taken by fields: {', '.join(taken)}")
    dataset.rename_brain_run(key, new_key)


@one_writer
def delete_run(samples: SampleCollection, key: str) -> None:
    """Deletes a run with all that it wrote: fields, indexes, saved views, stored embeddings.

    Embeddings in the durable store go only if no other run of the dataset was made with them.

    Raises:
        ValueError: if there is no such run, or it is being written
    """
    _check_run(samples, key)
    samples._root_dataset.delete_brain_run(key)


def _stored_results(dataset: fo.Dataset, key: str) -> CLIPCleanerResults | None:
    """Returns the results as the database has them now; another process may have replaced them.

    FiftyOne keeps results in memory. The object that it keeps is brought up to date, not replaced:
    it follows a later renaming, and so does whoever holds it.
    """
    stored = dataset.load_brain_results(key, cache=False)
    if stored is None:
        return None
    kept: CLIPCleanerResults = dataset.load_brain_results(key)
    kept.take(stored)
    return kept


def _check_run(samples: SampleCollection, key: str) -> None:
    # The runs alone: Dataset.reload() would drop what the user has not saved yet
    samples._root_dataset._doc.reload("brain_methods")
    found = list_runs(samples)
    if key not in found:
        raise ValueError(
            f"dataset {samples._root_dataset.name!r} has no CLIPCleaner run {key!r}; runs here: "
            f"{', '.join(found) or 'none'}"
        )
