"""Reading a FiftyOne collection: is it fit for a run, and what are its ids, files and labels."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import fiftyone as fo
import numpy as np
from fiftyone.core.collections import SampleCollection

from .decisions import DROPPED, TRUSTED, review_field, reviewed_fields


@dataclass(frozen=True)
class Targets:
    """The labels to examine, in the collection's order.

    Attributes:
        ids: N sample ids
        labels: (N,) int64 index into ``classes``; -1 = no usable label
        classes: the K class names
        unusable: ``{sample id: reason}`` of the samples whose label is -1
        trusted: (N,) bool, whether a reviewer vouches for the label
    """

    ids: list[str]
    labels: np.ndarray
    classes: list[str]
    unusable: dict[str, str]
    trusted: np.ndarray


def check_images(samples: SampleCollection) -> None:
    """Raises ValueError unless ``samples`` is a non-empty collection of images."""
    if not isinstance(samples, SampleCollection):
        raise TypeError(
            f"samples must be a FiftyOne dataset or view, found {type(samples).__name__}"
        )
    if samples._is_generated:
        raise ValueError(
            f"{samples.view()._root_dataset.name!r}: views of patches, clips or frames are not "
            "supported; pass the dataset or an ordinary view of its samples"
        )
    if not samples:
        what = "view" if isinstance(samples, fo.DatasetView) else "dataset"
        raise ValueError(
            f"the {what} of {samples._root_dataset.name!r} has no samples: there is nothing to do"
        )
    if samples.media_type == "group":
        raise ValueError(
            f"{samples._root_dataset.name!r} is a grouped dataset; pass one slice of it: "
            "dataset.select_group_slices('<slice>')"
        )
    if samples.media_type != "image":
        raise ValueError(
            f"{samples._root_dataset.name!r} holds {samples.media_type} samples; only images are "
            "supported"
        )


def check_label_field(samples: SampleCollection, label_field: str) -> None:
    """Raises ValueError unless ``label_field`` is a Classification field of ``samples``."""
    field = samples.get_field(label_field)
    document_type = getattr(field, "document_type", None)
    if document_type is not None and issubclass(document_type, fo.Classification):
        return
    usable = sorted(samples.get_field_schema(embedded_doc_type=fo.Classification))
    choice = f"Classification fields here: {', '.join(usable) or 'none'}"
    if field is None:
        raise ValueError(f"there is no field {label_field!r}; {choice}")
    found = document_type.__name__ if document_type else type(field).__name__
    raise ValueError(
        f"field {label_field!r} is a {found}, but label_field must hold Classification labels; "
        f"{choice}"
    )


def read_targets(
    samples: SampleCollection, label_field: str, classes: Sequence[str] | None = None
) -> Targets:
    """Reads ids and labels, and what reviewers have decided about them.

    Samples that were dropped in a review count as samples without a label.

    Args:
        samples: a dataset or view
        label_field: a Classification field
        classes (None): the class list; None = the labels in use, sorted

    Raises:
        ValueError: if ``classes`` is empty or names a class twice, or no sample has a label
    """
    fields, reviewed = ["id", f"{label_field}.label"], label_field in reviewed_fields(samples)
    columns = samples.values([*fields, review_field(label_field)] if reviewed else fields)
    ids, names = columns[:2]
    decision = np.array(columns[2] if reviewed else [None] * len(ids), dtype=object)
    if classes is None:
        classes = sorted({name for name in names if name})
        if not classes:
            raise ValueError(f"no sample has a label in field {label_field!r}")
    else:
        classes = _checked_classes(classes)
    index = {name: k for k, name in enumerate(classes)}
    labels = np.array([index.get(name, -1) for name in names], dtype=np.int64)
    unusable = {
        ids[i]: f"label {names[i]!r} is not in the class list" if names[i] else "no label"
        for i in np.flatnonzero(labels < 0)
    }
    dropped = np.flatnonzero(decision == DROPPED)
    unusable |= {ids[i]: "dropped in a review" for i in dropped}
    labels[dropped] = -1
    return Targets(ids, labels, list(classes), unusable, np.isin(decision, TRUSTED))


def _checked_classes(classes: Sequence[str]) -> list[str]:
    names = [] if isinstance(classes, str) else list(classes)
    if isinstance(classes, str) or not all(isinstance(name, str) and name for name in names):
        raise ValueError(f"classes must be a list of non-empty strings, found {classes!r}")
    if not names:
        raise ValueError("classes is empty; leave it out to use the labels of the dataset")
    repeated = sorted(name for name, n in Counter(names).items() if n > 1)
    if repeated:
        raise ValueError(f"classes names {', '.join(map(repr, repeated))} more than once")
    return [str(name) for name in names]
