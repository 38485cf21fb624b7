"""What reviewers have decided about labels: a field of the samples, or an attribute of the objects.

All runs on a label field share it. Decisions belong to a dataset and a label field, not to a run:
renaming, deleting or repeating a run leaves them as they are. They are part of the samples, and so
are copied, exported and deleted with them.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import fiftyone as fo
import numpy as np
from fiftyone import ViewField as F
from fiftyone.core.collections import SampleCollection

from .layout import Layout

CONFIRMED = "confirmed"
RELABELED = "relabeled"
DROPPED = "dropped"
DECISIONS = (CONFIRMED, RELABELED, DROPPED)
TRUSTED = (CONFIRMED, RELABELED)


class Decisions(NamedTuple):
    """Decisions as a run uses them, in the order of the samples.

    Attributes:
        trusted: (N,) bool, the label was confirmed or replaced by a reviewer
        dropped: (N,) bool, the sample is to be left out
    """

    trusted: np.ndarray
    dropped: np.ndarray


def reviewed_fields(samples: SampleCollection) -> list[str]:
    """Returns the label fields on which there has been a review."""
    dataset = samples._root_dataset
    log = Layout("").log
    names = {f.removesuffix(log) for f in dataset.get_field_schema() if f.endswith(log)}
    found = [Layout(name) for name in names]
    found += [Layout(f, True) for f in dataset.get_field_schema(embedded_doc_type=fo.Detections)]
    return sorted(
        layout.label_field
        for layout in found
        if dataset.has_sample_field(layout.log) and dataset.has_sample_field(layout.review)
    )


def decisions(samples: SampleCollection, label_field: str) -> Decisions:
    """Reads which labels of these samples a reviewer vouches for, and which samples are dropped.

    Args:
        samples: a dataset or view
        label_field: a Classification field
    """
    if label_field not in reviewed_fields(samples):
        nothing = np.zeros(samples.count(), dtype=bool)
        return Decisions(nothing, nothing.copy())
    found = np.array(samples.values(Layout(label_field).review), dtype=object)
    return Decisions(np.isin(found, TRUSTED), found == DROPPED)


def is_decided(layout: Layout, among: tuple[str, ...] = DECISIONS) -> Any:
    """Returns the expression "a reviewer has decided this", also for fields that do not exist."""
    return F(layout.review).is_in(list(among))


def declare_review(dataset: fo.Dataset, layout: Layout) -> None:
    """Adds the two review fields of a label field and their indexes, where they do not exist.

    Raises:
        ValueError: if one of the names is taken by another field
    """
    review, log = layout.review, layout.log
    if layout.label_field in reviewed_fields(dataset):
        return
    taken = [field for field in (review, log) if dataset.has_sample_field(field)]
    if taken:
        raise ValueError(
            f"reviews of {layout.label_field!r} are kept in the fields {review!r} and {log!r}, but "
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
