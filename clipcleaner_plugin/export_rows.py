"""What of a run is exported, with which label and in which split: samples, or their objects."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from typing import TYPE_CHECKING, Any

from fiftyone.core.collections import SampleCollection

from .crops import Media, make_crop, media_stamp
from .decisions import DROPPED, TRUSTED, reviewed_fields
from .images import ImageReadError, file_stamp
from .splits import assign_splits, split_of_tags
from .targets import check_layout, read_items, trusted_path

if TYPE_CHECKING:
    from .results import CLIPCleanerResults


@dataclass(frozen=True)
class Row:
    """One exported sample or object.

    Attributes:
        id: its id
        sample_id: that of its sample
        source: absolute path of its image, or the part of one
        stamp: as :func:`clipcleaner_plugin.crops.media_stamp`
        box: left, top, width and height of an object, as shares of the image; None of a sample
        label: the label to export
        given: the label that it has
        suggested: what the run suggests, if anything
        confidence: of the suggestion
        verdict: of the run; None = it has not examined this
        selected: whether the run found it clean, or a reviewer confirmed or replaced the label
        clean_score: in [0, 1], 1 where a reviewer vouches for the label; None = unknown
        split: "train", "val" or "test"
        trusted: a label known to be right; None = unknown
    """

    id: str
    sample_id: str
    source: Media
    stamp: tuple[int, int]
    box: list[float] | None
    label: str
    given: str
    suggested: str | None
    confidence: float | None
    verdict: str | None
    selected: bool
    clean_score: float | None
    split: str
    trusted: str | None

    @property
    def relabelled(self) -> bool:
        """Whether it is exported with another label than it has."""
        return self.label != self.given


def read_rows(
    samples: SampleCollection,
    results: CLIPCleanerResults,
    trusted_field: str | None,
    held_out: bool,
    split: str,
    fractions: Mapping[str, float] | None,
    seed: int,
) -> tuple[list[Row], dict[str, str]]:
    """Reads what of a run has a label and an image.

    Args:
        samples: a dataset or view
        results: the run
        trusted_field: a Classification field with labels that are known to be right, or an
            attribute of objects; or None
        held_out: whether to read what the run has not examined too, where a tag puts it into val or
            test
        split: as in :func:`clipcleaner_plugin.splits.assign_splits`, likewise the rest; the objects
            of a sample stay together

    Returns:
        the rows, in the order of the ids of their samples and then of their own, with the labels as
        given; ``{id: reason}`` of the others, among them those that a reviewer dropped

    Raises:
        ValueError: if an option does not fit
    """
    tags = dict(zip(*samples.values(["id", "tags"]), strict=True))
    of_tag = {i: split_of_tags(i, of_one) for i, of_one in tags.items()} if held_out else {}
    classes, look = set(results.record["classes"]), cache(file_stamp)
    rows, left_out = [], {}
    for item in _read_items(samples, results, trusted_field):
        label, verdict, decision = item["label"], item["verdict"], item["decision"]
        if verdict is None and not (held_out and of_tag[item["sample_id"]] in ("val", "test")):
            continue
        if decision == DROPPED:
            left_out[item["id"]] = "dropped in a review"
            continue
        if label not in classes:
            reason = f"label {label!r} is not in the class list" if label else "no label"
            left_out[item["id"]] = reason
            continue
        source: Media = item["filepath"]
        if results.layout.objects:
            source = make_crop(item["filepath"], item["box"], results.config.alpha)
        try:
            stamp = media_stamp(source, look)
        except ImageReadError as err:
            left_out[item["id"]] = str(err)
            continue
        rows.append(
            Row(
                id=item["id"],
                sample_id=item["sample_id"],
                source=source,
                stamp=stamp,
                box=list(item["box"]) if results.layout.objects else None,
                label=label,
                given=label,
                suggested=item["suggested"] if item["suggested"] in classes else None,
                confidence=item["confidence"],
                verdict=verdict,
                selected=verdict == "clean" or decision in TRUSTED,
                # The score of a run is of the label that the reviewer found
                clean_score=1.0 if decision in TRUSTED else item["score"],
                split="",
                trusted=item["trusted"] if item["trusted"] in classes else None,
            )
        )
    splits = _splits(rows, tags, split, fractions, seed)
    return [replace(row, split=splits[row.sample_id]) for row in rows], left_out


def _read_items(
    samples: SampleCollection, results: CLIPCleanerResults, trusted_field: str | None
) -> Iterator[dict[str, Any]]:
    """Reads what rows are made of, one dict a sample or object, in the order of the rows."""
    layout = results.layout
    check_layout(samples, layout)
    paths = {
        "label": layout.given,
        "suggested": layout.suggested,
        "confidence": layout.confidence,
        "verdict": layout.result("verdict"),
        "score": layout.result("score"),
        "filepath": "filepath",
    }
    if layout.objects:
        paths["box"] = f"{layout.root}bounding_box"
    if trusted_field is not None:
        paths["trusted"] = trusted_path(samples, layout, trusted_field)
    if layout.label_field in reviewed_fields(samples):
        paths["decision"] = layout.review
    items = read_items(samples, layout, list(paths.values()))
    nothing: list[Any] = [None] * len(items.ids)
    columns = dict.fromkeys(("box", "trusted", "decision"), nothing)
    columns |= {"id": items.ids, "sample_id": items.sample_ids}
    columns |= dict(zip(paths, items.columns, strict=True))
    for i in sorted(range(len(items.ids)), key=lambda i: (items.sample_ids[i], items.ids[i])):
        yield {name: values[i] for name, values in columns.items()}


def _splits(
    rows: Sequence[Row],
    tags: Mapping[str, Sequence[str]],
    split: str,
    fractions: Mapping[str, float] | None,
    seed: int,
) -> dict[str, str]:
    """Returns the split of every sample; one with several objects counts for its rarest label."""
    counts = Counter(row.given for row in rows)
    label_of: dict[str, str] = {}
    for row in rows:
        rarest = label_of.setdefault(row.sample_id, row.given)
        if (counts[row.given], row.given) < (counts[rarest], rarest):
            label_of[row.sample_id] = row.given
    ids = list(label_of)
    of_samples = assign_splits(
        ids, list(label_of.values()), [tags[i] for i in ids], split, fractions, seed
    )
    return dict(zip(ids, of_samples, strict=True))


def cleaned_rows(rows: Sequence[Row], labels: str, min_confidence: float) -> list[Row]:
    """Keeps the clean rows and, with ``labels="suggested"``, mislabeled ones under a new label.

    Args:
        rows: all rows
        labels: "given" or "suggested"
        min_confidence: that a suggestion must have to be used

    Returns:
        the rows to export
    """
    kept = []
    for row in rows:
        if row.selected:
            kept.append(row)
        elif (
            labels == "suggested"
            and row.verdict == "mislabeled"
            and row.suggested is not None
            and row.confidence is not None
            and row.confidence >= min_confidence
        ):
            kept.append(replace(row, label=row.suggested))
    return kept
