"""Reading a FiftyOne collection: is it fit for a run, and what are its ids, images and labels."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import fiftyone as fo
import numpy as np
from fiftyone.core.collections import SampleCollection

from .crops import Media, make_crop
from .decisions import DROPPED, TRUSTED, reviewed_fields
from .layout import Layout, field_layout, holds_objects

_DEFAULT_FIELD = "ground_truth"
# What to do with labels that are not examined
_HINTS: dict[type, str] = {
    fo.Classifications: "where an image has several labels, none of them must be the best one",
    fo.Detection: "put each into a Detections field",
    fo.Polylines: "polyline.to_detection() makes boxes of them, for a Detections field",
    fo.Keypoints: "put a box around each, in a Detections field",
    fo.Segmentation: "segmentation.to_detections() makes objects of it, for a Detections field",
}
# From what is no image to images
_WAYS_OUT = {
    "video": (
        '. Make a dataset of the frames: dataset.to_frames(sample_frames=True).clone("frames"), '
        "which needs ffmpeg. The labels of frames come along, those of whole videos do not"
    ),
}

LEFT_OUT = "dropped in a review"

# Stages of a view that change labels and leave the dataset as it is
_CHANGING = ("MapLabels", "MapValues", "SetField")


@dataclass(frozen=True)
class Targets:
    """The labels to examine, in the collection's order.

    Attributes:
        ids: N ids, of samples or of objects
        sample_ids: N ids of the samples that they are in
        labels: (N,) int64 index into ``classes``; -1 = no usable label
        classes: the K class names
        unusable: ``{id: reason}`` of those whose label is -1
        trusted: (N,) bool, whether a reviewer vouches for the label
    """

    ids: list[str]
    sample_ids: list[str]
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
            "supported; pass the dataset or an ordinary view of its samples, or of frames a "
            'dataset of their own: view.clone("frames")'
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
            f"supported{_WAYS_OUT.get(samples.media_type, '')}"
        )


def unfit_labels(samples: SampleCollection) -> list[str]:
    """Says of every field of labels that cannot be examined why, and what to do."""
    return [
        f"{name!r} holds {kind.__name__}: {hint}"
        for kind, hint in _HINTS.items()
        for name in sorted(samples.get_field_schema(embedded_doc_type=kind))
    ]


def check_label_field(samples: SampleCollection, label_field: str) -> None:
    """Raises ValueError unless ``label_field`` is a Classification field of ``samples``."""
    _check_type(samples, label_field, "label_field", (fo.Classification,))


def check_layout(samples: SampleCollection, layout: Layout) -> None:
    """Raises ValueError unless the labels of a run are where the run has found them."""
    kind = fo.Detections if layout.objects else fo.Classification
    _check_type(samples, layout.label_field, "label_field", (kind,))


def trusted_path(samples: SampleCollection, layout: Layout, name: str) -> str:
    """Returns where labels are that are known to be right.

    Args:
        samples: a dataset or view
        layout: where the labels of a run are
        name: a Classification field; of a run on objects, an attribute of them

    Raises:
        ValueError: if there is none
    """
    if not layout.objects:
        check_label_field(samples, name)
        return f"{name}.label"
    if samples._root_dataset.has_sample_field(layout.root + name):
        return layout.root + name
    raise ValueError(
        f"the objects of {layout.label_field!r} have no attribute {name!r} (or it is not declared: "
        "dataset.add_dynamic_sample_fields())"
    )


def examined_layout(
    samples: SampleCollection, label_field: str | None, patches_field: str | None, prefix: str
) -> Layout:
    """Returns where the labels to examine are.

    Args:
        samples: a dataset or view
        label_field: a Classification or Detections field; None = ``patches_field``, or
            "ground_truth"
        patches_field: a Detections field, or None
        prefix: of the run's results

    Raises:
        ValueError: if a field does not fit
    """
    if patches_field is None:
        name = label_field or _DEFAULT_FIELD
        _check_type(samples, name, "label_field", (fo.Classification, fo.Detections))
    else:
        name = patches_field
        if label_field not in (None, patches_field):
            raise ValueError(
                f"label_field {label_field!r} and patches_field {patches_field!r} differ: the "
                "labels of objects stand in the same field; leave label_field out"
            )
        _check_type(samples, name, "patches_field", (fo.Detections,))
    layout = Layout(name, holds_objects(samples, name), prefix)
    check_stored_labels(samples, layout)
    return layout


def check_stored_labels(samples: SampleCollection, layout: Layout) -> None:
    """Raises ValueError if a view shows other labels than the dataset has.

    What a run keeps and what a review changes are the labels of the dataset.
    """
    field, stages = layout.label_field, getattr(samples, "_stages", ())
    paths = (field, layout.given, *([layout.array] if layout.objects else []))
    for stage in stages:
        if type(stage).__name__ in _CHANGING and stage.field in paths:
            raise ValueError(
                f"this view changes the labels of {field!r} ({type(stage).__name__}), and a run is "
                f"about labels as the dataset has them. Make them a field of their own, "
                f'view.clone_sample_field({field!r}, "new_field"), and use that one'
            )


def _check_type(
    samples: SampleCollection, name: str, option: str, wanted: tuple[type[fo.Label], ...]
) -> None:
    field = samples.get_field(name)
    document_type = getattr(field, "document_type", None)
    if document_type is not None and issubclass(document_type, wanted):
        return
    usable = sorted(f for kind in wanted for f in samples.get_field_schema(embedded_doc_type=kind))
    kinds = " or ".join(kind.__name__ for kind in wanted)
    choice = f"{kinds} fields here: {', '.join(usable) or 'none'}"
    if field is None:
        raise ValueError(f"there is no field {name!r}; {choice}")
    found = document_type.__name__ if document_type else type(field).__name__
    hint = next((f" ({text})" for kind, text in _HINTS.items() if document_type is kind), "")
    raise ValueError(
        f"field {name!r} is a {found}, but {option} must hold {kinds} labels{hint}; {choice}"
    )


@dataclass(frozen=True)
class Items:
    """What has a label, in the order of a collection: samples, or their objects.

    Attributes:
        ids: N ids
        sample_ids: N ids of the samples that they are in
        columns: for each path asked for, N values
    """

    ids: list[str]
    sample_ids: list[str]
    columns: list[list[Any]]


def read_items(samples: SampleCollection, layout: Layout, paths: Sequence[str] = ()) -> Items:
    """Reads ids and values of samples, or of the objects that a view shows of them.

    Args:
        samples: a dataset or a view of samples
        layout: where the labels are
        paths: of values; those of objects begin with ``layout.root``, others are of the sample
    """
    if not layout.objects:
        ids, *columns = samples.values(["id", *paths])
        return Items(ids, ids, columns)
    sample_ids, nested, *columns = samples.values(["id", f"{layout.root}id", *paths])
    counts = [len(ids or ()) for ids in nested]

    def of_objects(path: str, column: list[Any]) -> list[Any]:
        if path.startswith(layout.root):
            return [value for values in column for value in values or ()]
        return [value for value, n in zip(column, counts, strict=True) for _ in range(n)]

    return Items(
        [i for ids in nested for i in ids or ()],
        of_objects("id", sample_ids),
        [of_objects(path, column) for path, column in zip(paths, columns, strict=True)],
    )


def read_media(
    samples: SampleCollection, layout: Layout, alpha: float | None = None
) -> tuple[list[str], list[Media]]:
    """Returns what is to be embedded: ids and image files, or ids of objects and their crops.

    Args:
        samples: a dataset or a view of samples
        layout: where the labels are
        alpha (None): as in :func:`clipcleaner_plugin.crops.make_crop`

    Raises:
        ValueError: if objects share an id
    """
    if not layout.objects:
        items = read_items(samples, layout, ["filepath"])
        return items.ids, list(items.columns[0])
    items = read_items(samples, layout, ["filepath", f"{layout.root}bounding_box"])
    _check_distinct(items, layout)
    paths, boxes = items.columns
    crops: list[Media] = [make_crop(p, b, alpha) for p, b in zip(paths, boxes, strict=True)]
    return items.ids, crops


def _check_distinct(items: Items, layout: Layout) -> None:
    if len(set(items.ids)) == len(items.ids):
        return
    twice = next(i for i, n in Counter(items.ids).items() if n > 1)
    raise ValueError(
        f"several objects of field {layout.label_field!r} have the id {twice}, as copies do: make "
        "each a Detection of its own"
    )


def check_alpha(alpha: float | None, objects: bool) -> None:
    """Raises ValueError unless ``alpha`` can change the size of boxes, and there are boxes."""
    if alpha is None:
        return
    if not objects:
        raise ValueError("alpha is about the boxes of objects: it goes with a Detections field")
    if not isinstance(alpha, (int, float)) or not -1 < alpha < float("inf"):
        raise ValueError(f"alpha must be a number above -1, found {alpha!r}")


def patches_layout(samples: SampleCollection, patches_field: str | None) -> Layout:
    """Returns where the objects to embed are; None = the images of samples.

    Raises:
        ValueError: if it is no Detections field
    """
    if patches_field is None:
        return Layout("")
    _check_type(samples, patches_field, "patches_field", (fo.Detections,))
    return field_layout(samples, patches_field)


def read_targets(
    samples: SampleCollection, layout: Layout, classes: Sequence[str] | None = None
) -> Targets:
    """Reads ids and labels, and what reviewers have decided about them.

    What was dropped in a review counts as if it had no label.

    Args:
        samples: a dataset or view
        layout: where the labels are
        classes (None): the class list; None = the labels in use, sorted

    Raises:
        ValueError: if ``classes`` is empty or names a class twice, nothing has a label, or objects
            share an id
    """
    reviewed = layout.label_field in reviewed_fields(samples)
    items = read_items(samples, layout, [layout.given, *([layout.review] * reviewed)])
    _check_distinct(items, layout)
    ids, names = items.ids, items.columns[0]
    decision = np.array(items.columns[1] if reviewed else [None] * len(ids), dtype=object)
    if classes is None:
        classes = sorted({name for name in names if name})
        if not classes:
            raise ValueError(f"no {layout.unit} has a label in field {layout.label_field!r}")
    else:
        classes = _checked_classes(classes)
    index = {name: k for k, name in enumerate(classes)}
    labels = np.array([index.get(name, -1) for name in names], dtype=np.int64)
    unusable = {
        ids[i]: f"label {names[i]!r} is not in the class list" if names[i] else "no label"
        for i in np.flatnonzero(labels < 0)
    }
    dropped = np.flatnonzero(decision == DROPPED)
    unusable |= dict.fromkeys((ids[i] for i in dropped), LEFT_OUT)
    labels[dropped] = -1
    trusted = np.isin(decision, TRUSTED)
    return Targets(ids, items.sample_ids, labels, list(classes), unusable, trusted)


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
