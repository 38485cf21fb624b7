"""The life of a run after it was made: list, load, describe, rename, delete."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import fiftyone as fo
from fiftyone.core.collections import SampleCollection

from .brain import check_key_name, embeddings_field_name
from .fields import result_fields

if TYPE_CHECKING:
    from .results import CLIPCleanerResults


def list_runs(samples: SampleCollection) -> list[str]:
    """Returns the keys of the CLIPCleaner runs of a dataset."""
    return samples.list_brain_runs(method="clipcleaner")


def load_results(samples: SampleCollection, key: str = "clipcleaner") -> CLIPCleanerResults:
    """Loads the results of an earlier run.

    Raises:
        ValueError: if there is no such run, or it did not finish
    """
    _check_run(samples, key)
    results = samples._root_dataset.load_brain_results(key)
    if results is None:
        raise ValueError(
            f"run {key!r} did not finish; apply it again under the same key (embeddings that were "
            "computed are kept), or delete it"
        )
    return results


def get_run_info(samples: SampleCollection, key: str = "clipcleaner") -> dict[str, Any]:
    """Returns what is known of a run, as JSON values: parameters, model, counts, noise rate, time.

    Raises:
        ValueError: if there is no such run
    """
    _check_run(samples, key)
    dataset = samples._root_dataset
    info = dataset.get_brain_info(key)
    config = {k: v for k, v in info.config.serialize().items() if k not in ("cls", "type")}
    results = dataset.load_brain_results(key)
    return {
        "key": key,
        "timestamp": info.timestamp.isoformat() if info.timestamp else None,
        "fiftyone_version": info.version,
        "finished": results is not None,
        "parameters": config,
        "record": results.record if results is not None else None,
    }


def rename_run(samples: SampleCollection, key: str, new_key: str) -> None:
    """Renames a run with its fields and saved views.

    Raises:
        ValueError: if there is no such run, or the new name is taken or not a valid name
    """
    _check_run(samples, key)
    dataset: fo.Dataset = samples._root_dataset
    check_key_name(new_key)
    if new_key in dataset.list_brain_runs():
        raise ValueError(f"there is a brain run {new_key!r} already; choose another name")
    fields = [*result_fields(new_key), embeddings_field_name(new_key)]
    taken = [field for field in fields if dataset.has_sample_field(field)]
    if taken:
        raise ValueError(f"the name {new_key!r} is taken by fields: {', '.join(taken)}")
    dataset.rename_brain_run(key, new_key)


def delete_run(samples: SampleCollection, key: str) -> None:
    """Deletes a run with all that it wrote: fields, indexes, saved views, stored embeddings.

    Embeddings in the durable store go only if no other run of the dataset was made with them.

    Raises:
        ValueError: if there is no such run
    """
    _check_run(samples, key)
    samples._root_dataset.delete_brain_run(key)


def _check_run(samples: SampleCollection, key: str) -> None:
    found = list_runs(samples)
    if key not in found:
        raise ValueError(
            f"dataset {samples._root_dataset.name!r} has no CLIPCleaner run {key!r}; runs here: "
            f"{', '.join(found) or 'none'}"
        )
