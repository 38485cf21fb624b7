"""Which samples of a run are exported, with which label and in which split."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from fiftyone import ViewField as F
from fiftyone.core.collections import SampleCollection

from .decisions import DROPPED, TRUSTED, reviewed_fields
from .fields import VERDICTS
from .images import ImageReadError, file_stamp
from .splits import assign_splits
from .targets import check_label_field

if TYPE_CHECKING:
    from .results import CLIPCleanerResults


@dataclass(frozen=True)
class Row:
    """One exported sample.

    Attributes:
        id: its id
        filepath: absolute path of its image
        stamp: size of the image in bytes, modification time in nanoseconds
        label: the label to export
        given: the label that it has
        suggested: what the run suggests, if anything
        selected: whether the run found it clean, or a reviewer confirmed or replaced the label
        clean_score: in [0, 1], 1 where a reviewer vouches for the label; None = unknown
        split: "train", "val" or "test"
        trusted: a label known to be right; None = unknown
    """

    id: str
    filepath: str
    stamp: tuple[int, int]
    label: str
    given: str
    suggested: str | None
    selected: bool
    clean_score: float | None
    split: str
    trusted: str | None

    @property
    def relabelled(self) -> bool:
        """Whether it is exported with another label than it has."""
        return self.label != self.given


def run_view(samples: SampleCollection, results: CLIPCleanerResults) -> SampleCollection:
    """Returns those of the samples that the run has examined."""
    return samples.match(F(results.field("verdict")).is_in(list(VERDICTS)))


def read_rows(
    samples: SampleCollection,
    results: CLIPCleanerResults,
    trusted_field: str | None,
    split: str,
    fractions: Mapping[str, float] | None,
    seed: int,
) -> tuple[list[Row], dict[str, str]]:
    """Reads the samples of a run that have a label and an image file.

    Args:
        samples: a dataset or view
        results: the run
        trusted_field: a Classification field with labels that are known to be right, or None
        split: as in :func:`clipcleaner_plugin.splits.assign_splits`, likewise the rest

    Returns:
        the rows in the order of their ids, with the labels as given; ``{id: reason}`` of the
        others, among them those that a reviewer dropped

    Raises:
        ValueError: if an option does not fit
    """
    label_field, classes = results.config.label_field, set(results.record["classes"])
    check_label_field(samples, label_field)
    paths = {
        "label": f"{label_field}.label",
        "suggested": f"{results.field('suggestion')}.label",
        "verdict": results.field("verdict"),
        "clean_score": results.field("score"),
    }
    if trusted_field is not None:
        check_label_field(samples, trusted_field)
        paths["trusted"] = f"{trusted_field}.label"
    if label_field in reviewed_fields(samples):
        paths["decision"] = results.layout.review
    view = run_view(samples, results)
    columns = dict(zip(paths, view.values(list(paths.values())), strict=True))
    ids, filepaths, tags = view.values(["id", "filepath", "tags"])
    nothing = [None] * len(ids)
    trusted, decision = columns.get("trusted", nothing), columns.get("decision", nothing)
    rows, left_out, kept_tags = [], {}, []
    for i in sorted(range(len(ids)), key=ids.__getitem__):
        label, suggested = columns["label"][i], columns["suggested"][i]
        if decision[i] == DROPPED:
            left_out[ids[i]] = "dropped in a review"
            continue
        if label not in classes:
            left_out[ids[i]] = f"label {label!r} is not in the class list" if label else "no label"
            continue
        try:
            stamp = file_stamp(filepaths[i])
        except ImageReadError as err:
            left_out[ids[i]] = str(err)
            continue
        kept_tags.append(tags[i])
        rows.append(
            Row(
                id=ids[i],
                filepath=filepaths[i],
                stamp=stamp,
                label=label,
                given=label,
                suggested=suggested if suggested in classes else None,
                selected=columns["verdict"][i] == "clean" or decision[i] in TRUSTED,
                # The score of a run is of the label that the reviewer found
                clean_score=1.0 if decision[i] in TRUSTED else columns["clean_score"][i],
                split="",
                trusted=trusted[i] if trusted[i] in classes else None,
            )
        )
    splits = assign_splits(
        [row.id for row in rows], [row.given for row in rows], kept_tags, split, fractions, seed
    )
    return [replace(row, split=name) for row, name in zip(rows, splits, strict=True)], left_out


def cleaned_rows(
    rows: Sequence[Row],
    samples: SampleCollection,
    results: CLIPCleanerResults,
    labels: str,
    min_confidence: float,
) -> list[Row]:
    """Keeps the clean rows and, with ``labels="suggested"``, mislabeled ones under a new label.

    Args:
        rows: all rows
        samples: where they come from
        results: the run
        labels: "given" or "suggested"
        min_confidence: that a suggestion must have to be used

    Returns:
        the rows to export
    """
    confident: set[str] = set()
    if labels == "suggested":
        sure = F(f"{results.field('suggestion')}.confidence") >= min_confidence
        wrong = F(results.field("verdict")) == "mislabeled"
        confident = set(samples.match(wrong & sure).values("id"))
    kept = []
    for row in rows:
        if row.selected:
            kept.append(row)
        elif row.id in confident and row.suggested is not None:
            kept.append(replace(row, label=row.suggested))
    return kept
