"""Where the labels and results of a run stand: in fields of samples, or in attributes of objects.

The rest of the library asks for paths, and need not know which of the two it works on.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import fiftyone as fo
from fiftyone.core.collections import SampleCollection

from .fields import field_name

if TYPE_CHECKING:
    from .brain import CLIPCleanerConfig


@dataclass(frozen=True)
class Layout:
    """Paths of a label field and of what a run says of its labels.

    Attributes:
        label_field: the labels: a Classification field, or Detections
        objects: whether these are Detections, each of them with a label of its own
        prefix: of the run's results; "" where only the labels and their reviews matter
        seen_from: what the path of an object's attribute begins with; None = its place in the
            dataset, ``"<label_field>.detections."``. See :meth:`at`
    """

    label_field: str
    objects: bool = False
    prefix: str = ""
    seen_from: str | None = None

    def at(self, root: str) -> Layout:
        """Returns the paths as they are seen from elsewhere; those of samples are the same.

        Args:
            root: "" within ``filter_labels``, "<label_field>." in a view of patches, "$item." in an
                expression on the variable ``item``
        """
        return replace(self, seen_from=root)

    @property
    def in_patches(self) -> Layout:
        """The paths in a view of patches."""
        return self.at(f"{self.label_field}.")

    @property
    def array(self) -> str:
        """The list of objects."""
        return f"{self.label_field}.detections"

    @property
    def root(self) -> str:
        """What the paths of results and reviews begin with."""
        if not self.objects:
            return ""
        return f"{self.array}." if self.seen_from is None else self.seen_from

    @property
    def unwind(self) -> list[dict[str, Any]]:
        """Stages of the database after which there is one document a label."""
        return [{"$unwind": f"${self.array}"}] if self.objects else []

    @property
    def unit(self) -> str:
        """What has a label: a sample or an object."""
        return "object" if self.objects else "sample"

    @property
    def id(self) -> str:
        """The id in the database."""
        return f"{self.root}_id"

    @property
    def given(self) -> str:
        """The name of the given label."""
        return f"{self.root}label" if self.objects else f"{self.label_field}.label"

    def result(self, name: str) -> str:
        """One of the results, for example ``"score"``."""
        return self.root + field_name(self.prefix, name)

    @property
    def suggested(self) -> str:
        """The name of the suggested label."""
        return self.result("suggestion") + ("" if self.objects else ".label")

    @property
    def confidence(self) -> str:
        """The confidence of the suggestion."""
        return (
            self.result("confidence") if self.objects else f"{self.result('suggestion')}.confidence"
        )

    @property
    def lowest_score(self) -> str:
        """The field of a sample with its score, or with the lowest of its objects."""
        return field_name(self.prefix, "score")

    @property
    def review(self) -> str:
        """The decision of a reviewer."""
        return f"{self.root}review" if self.objects else f"{self.label_field}_review"

    @property
    def log(self) -> str:
        """What reviewers did to the label, action by action."""
        return f"{self.root}review_log" if self.objects else f"{self.label_field}_review_log"


def layout_of(config: CLIPCleanerConfig) -> Layout:
    """Returns where a run has its labels and results."""
    return Layout(str(config.label_field), config.patches_field is not None, config.prefix)


def field_layout(samples: SampleCollection, label_field: str) -> Layout:
    """Returns where a label field has its labels and reviews."""
    return Layout(label_field, holds_objects(samples, label_field))


def holds_objects(samples: SampleCollection, label_field: str) -> bool:
    """Returns whether a field is a Detections field."""
    document = getattr(samples.get_field(label_field), "document_type", None)
    return document is not None and issubclass(document, fo.Detections)


def select_labels(dataset: fo.Dataset, layout: Layout, ids: list[str]) -> fo.DatasetView:
    """Returns the samples of these ids, or those with the objects of these ids alone."""
    if layout.objects:
        return dataset.select_labels(ids=ids, fields=layout.label_field)
    return dataset.select(ids)
