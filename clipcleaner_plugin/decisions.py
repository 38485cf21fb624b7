"""What reviewers have decided about labels: one field of the dataset, shared by all runs on it.

Decisions belong to a dataset and a label field, not to a run: renaming, deleting or repeating a
run leaves them as they are. They are part of the samples, and so are copied, exported and deleted
with them.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import fiftyone as fo
import numpy as np
from fiftyone import ViewField as F
from fiftyone.core.collections import SampleCollection

CONFIRMED = "confirmed"
RELABELED = "relabeled"
DROPPED = "dropped"
DECISIONS = (CONFIRMED, RELABELED, DROPPED)
TRUSTED = (CONFIRMED, RELABELED)

_REVIEW, _LOG = "_review", "_review_log"


class Decisions(NamedTuple):
    """Decisions as a run uses them, in the order of the samples.

    Attributes:
        trusted: (N,) bool, the label was confirmed or replaced by a reviewer
        dropped: (N,) bool, the sample is to be left out
    """

    trusted: np.ndarray
    dropped: np.ndarray


def review_field(label_field: str) -> str:
    """Returns the field with the decision about a label: a string, None where there is none."""
    return label_field + _REVIEW


def log_field(label_field: str) -> str:
    """Returns the field with what was done to a label, action by action."""
    return label_field + _LOG


def reviewed_fields(samples: SampleCollection) -> list[str]:
    """Returns the label fields on which there has been a review."""
    schema = samples._root_dataset.get_field_schema()
    found = (field.removesuffix(_LOG) for field in schema if field.endswith(_LOG))
    return sorted(field for field in found if review_field(field) in schema)


def decisions(samples: SampleCollection, label_field: str) -> Decisions:
    """Reads which labels of these samples a reviewer vouches for, and which samples are dropped."""
    if label_field not in reviewed_fields(samples):
        nothing = np.zeros(samples.count(), dtype=bool)
        return Decisions(nothing, nothing.copy())
    found = np.array(samples.values(review_field(label_field)), dtype=object)
    return Decisions(np.isin(found, TRUSTED), found == DROPPED)


def is_decided(label_field: str, among: tuple[str, ...] = DECISIONS) -> Any:
    """Returns the expression "a reviewer has decided this", also for fields that do not exist."""
    return F(review_field(label_field)).is_in(list(among))


def declare_review(dataset: fo.Dataset, label_field: str) -> None:
    """Adds the two review fields of a label field and their indexes, where they do not exist.

    Raises:
        ValueError: if one of the names is taken by another field
    """
    review, log = review_field(label_field), log_field(label_field)
    if label_field in reviewed_fields(dataset):
        return
    taken = [field for field in (review, log) if dataset.has_sample_field(field)]
    if taken:
        raise ValueError(
            f"reviews of {label_field!r} are kept in the fields {review!r} and {log!r}, but "
            f"{', '.join(taken)} is there already and is no review; rename it first"
        )
    dataset.add_sample_field(
        review, fo.StringField, description="Decision of a reviewer: confirmed|relabeled|dropped"
    )
    dataset.create_index(review)
    dataset.add_sample_field(
        log, fo.ListField, subfield=fo.DictField, description="What reviewers did to the label"
    )
    # FiftyOne has no sparse indexes; without one, every look at the history reads all samples
    dataset._sample_collection.create_index(f"{log}.action", sparse=True)
