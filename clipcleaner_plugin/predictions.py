"""Brings the predictions of a training run back into the dataset that was exported."""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Iterator
from dataclasses import dataclass
from dataclasses import field as hidden
from pathlib import Path
from typing import Any

import fiftyone as fo
from fiftyone.core.collections import SampleCollection

from .fields import write_values
from .layout import Layout
from .targets import patches_layout, read_items

logger = logging.getLogger(__name__)

PREDICTIONS, RESULTS, CONFIG = "predictions.jsonl", "results.json", "config.json"
DEFAULT_FIELD = "clipcleaner_prediction"

# Key of Field.info by which a field is known to hold predictions; no other is ever replaced
_ORIGIN = "clipcleaner_run"


@dataclass(frozen=True)
class PredictionReport:
    """What became of the predictions of a run.

    Attributes:
        field: the field that holds them now
        loaded: how many samples or objects have one
        unreadable: ids whose image the trainer could not read
        unknown: ids that the dataset does not have (any more)
        results: the content of ``results.json``; None if the run has not finished
    """

    field: str
    loaded: int
    unreadable: list[str] = hidden(repr=False)
    unknown: list[str] = hidden(repr=False)
    results: dict[str, Any] | None = hidden(repr=False)

    def __str__(self) -> str:
        parts = [f"{self.loaded:,} predictions in {self.field!r}"]
        if self.unreadable:
            parts.append(f"{len(self.unreadable):,} images were unreadable")
        if self.unknown:
            parts.append(f"{len(self.unknown):,} ids are not in the dataset")
        return ", ".join(parts)


def load_predictions(
    dataset: SampleCollection,
    run_dir: str | os.PathLike[str],
    field: str = DEFAULT_FIELD,
    patches_field: str | None = None,
) -> PredictionReport:
    """Writes what a trained network predicts into a Classification field.

    FiftyOne can then compare it with the labels:
    ``dataset.evaluate_classifications(field, gt_field="ground_truth", eval_key="eval")``.
    Predictions of objects become a Detections field, with their boxes:
    ``dataset.evaluate_detections(field, gt_field="detections", eval_key="eval", classwise=False)``.
    Loading again replaces the earlier predictions in the field.

    Args:
        dataset: the dataset that the bundle was exported from
        run_dir: the trainer's output folder, with its ``predictions.jsonl``
        field ("clipcleaner_prediction"): the field to write
        patches_field (None): the Detections field whose objects were exported; None = samples were

    Returns:
        a :class:`PredictionReport`; ids that the dataset does not have are in it, and harm nothing

    Raises:
        ValueError: if there are no predictions, a line is damaged, none belongs to this dataset,
            or the field holds something else
    """
    root = dataset._root_dataset
    folder = Path(run_dir).expanduser()
    check_prediction_field(root, field)
    layout = patches_layout(root, patches_field)
    known = set(read_items(root, layout).ids)
    found: dict[str, dict[str, Any]] = {}
    unreadable, unknown = [], []
    for item_id, label, confidence in _read(folder / PREDICTIONS, _classes(folder)):
        if item_id not in known:
            unknown.append(item_id)
        elif label is None:
            unreadable.append(item_id)
        else:
            found[item_id] = {"label": label, "confidence": confidence}
    if not found:
        raise ValueError(
            f"{folder / PREDICTIONS} has no prediction for {_described(root, layout)}: it was made "
            "on the export of something else"
        )
    results = _read_object(folder / RESULTS)
    origin = {"folder": str(folder.resolve()), "results": results}
    _declare(root, field, fo.Detections if layout.objects else fo.Classification, origin)
    if layout.objects:
        write_values(root, field, _detections(root, layout, found))
    else:
        write_values(root, field, {i: fo.Classification(**of_one) for i, of_one in found.items()})
    report = PredictionReport(field, len(found), unreadable, unknown, results)
    if unknown:
        logger.warning("Not in the dataset: %d ids, e.g. %s", len(unknown), unknown[0])
    logger.info("Done: %s", report)
    return report


def check_prediction_field(dataset: fo.Dataset, name: str) -> None:
    """Raises ValueError unless predictions may be written to the field."""
    if not isinstance(name, str) or not name.isidentifier():
        raise ValueError(f"field {name!r} is no valid name: letters, digits and '_' only")
    existing = dataset.get_field(name)
    if existing is not None and _ORIGIN not in (existing.info or {}):
        raise ValueError(
            f"field {name!r} exists and does not hold predictions that were loaded before: choose "
            "another field, or delete it first"
        )


def _described(dataset: fo.Dataset, layout: Layout) -> str:
    if layout.objects:
        return f"the objects of {layout.label_field!r} in dataset {dataset.name!r}"
    fields = sorted(dataset.get_field_schema(embedded_doc_type=fo.Detections))
    hint = f" (for objects, patches_field= one of {', '.join(fields)})" if fields else ""
    return f"the samples of dataset {dataset.name!r}{hint}"


def _detections(
    dataset: fo.Dataset, layout: Layout, found: dict[str, dict[str, Any]]
) -> dict[str, fo.Detections]:
    """Returns ``{sample id: the predicted objects of it}``, each with the box of the given one."""
    items = read_items(dataset, layout, [f"{layout.root}bounding_box"])
    objects: dict[str, list[fo.Detection]] = {}
    for item_id, sample_id, box in zip(items.ids, items.sample_ids, items.columns[0], strict=True):
        if item_id in found:
            predicted = fo.Detection(**found[item_id], bounding_box=box)
            objects.setdefault(sample_id, []).append(predicted)
    return {i: fo.Detections(detections=of_one) for i, of_one in objects.items()}


def _declare(
    dataset: fo.Dataset, name: str, label_type: type[fo.Label], origin: dict[str, Any]
) -> None:
    existing = dataset.get_field(name)
    if existing is not None and existing.document_type is not label_type:
        dataset.delete_sample_field(name)  # predictions of samples, now of objects; or vice versa
    if dataset.has_sample_field(name):
        dataset.clear_sample_field(name)
    else:
        dataset.add_sample_field(
            name,
            fo.EmbeddedDocumentField,
            embedded_doc_type=label_type,
            description="What a network trained on the cleaned set predicts",
        )
    declared = dataset.get_field(name)
    declared.info = {_ORIGIN: origin}
    declared.save()


def _classes(folder: Path) -> set[str] | None:
    config = _read_object(folder / CONFIG)
    classes = (config or {}).get("classes")
    return set(classes) if isinstance(classes, list) else None


def _read(path: Path, classes: set[str] | None) -> Iterator[tuple[str, str | None, float | None]]:
    seen: set[str] = set()
    try:
        lines = path.read_text(encoding="utf-8").split("\n")
    except FileNotFoundError:
        raise ValueError(
            f"{path} does not exist: give the output folder of a training run that has finished"
        ) from None
    except UnicodeDecodeError as err:
        raise ValueError(f"{path} is damaged: {err}") from None
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        where = f"{path}, line {number}"
        try:
            entry = json.loads(line)
        except ValueError as err:
            raise ValueError(f"{where}: damaged JSON ({err})") from None
        sample_id, label, confidence = _checked(entry, classes, where)
        if sample_id in seen:
            raise ValueError(f"{where}: a second prediction for {sample_id!r}")
        seen.add(sample_id)
        yield sample_id, label, confidence


def _checked(
    entry: Any, classes: set[str] | None, where: str
) -> tuple[str, str | None, float | None]:
    if not isinstance(entry, dict) or not isinstance(entry.get("id"), str):
        raise ValueError(f"{where}: no object with an 'id'")
    sample_id, label, confidence = entry["id"], entry.get("label"), entry.get("confidence")
    if label is None:
        return sample_id, None, None
    if not isinstance(label, str) or (classes is not None and label not in classes):
        raise ValueError(f"{where}: 'label' is {label!r}, which is none of the run's classes")
    number = isinstance(confidence, int | float) and not isinstance(confidence, bool)
    if confidence is not None and not (number and 0 <= confidence <= 1):
        raise ValueError(f"{where}: 'confidence' is {confidence!r}, expected null or 0 to 1")
    return sample_id, label, None if confidence is None else float(confidence)


def _read_object(path: Path) -> dict[str, Any] | None:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return content if isinstance(content, dict) else None
