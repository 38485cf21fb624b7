"""Exports what a run has cleaned: a bundle to train on, or the clean samples in other formats."""

from __future__ import annotations

import contextlib
import logging
import os
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fiftyone.core.collections import SampleCollection

from . import staging
from .export_dataset import check_dataset_name, make_dataset
from .export_formats import media_files, text_files
from .export_rows import Row, cleaned_rows, read_rows
from .inputs import check_seed
from .media import MediaFile, is_placed, place_all
from .splits import MODES, SPLITS, checked_fractions
from .targets import check_images

if TYPE_CHECKING:
    from .results import CLIPCleanerResults

logger = logging.getLogger(__name__)

FORMATS = {
    "bundle": "Training bundle: everything with its given label, score and selection",
    "image_tree": "Folders SPLIT/CLASS of the clean images, as FiftyOne and torchvision read them",
    "csv": "labels.csv and a folder of the clean images",
    "dataset": "A new FiftyOne dataset of what is clean",
}
LABELS = ("given", "suggested")


@dataclass(frozen=True)
class ExportReport:
    """What an export has written.

    Attributes:
        format: one of ``FORMATS``
        path: the folder, or the name of the new dataset
        splits: samples by split, or objects, as all the counts
        selected: samples that the run found clean
        relabelled: samples exported under their suggestion
        left_out: ``{id: reason}`` of those without a usable label or image
        reused: whether the very same export was there already
        unit: what was exported: "sample" or "object"
    """

    format: str
    path: str
    splits: dict[str, int]
    selected: int
    relabelled: int
    left_out: dict[str, str] = field(repr=False)
    reused: bool = False
    unit: str = "sample"

    @property
    def samples(self) -> int:
        """How many samples or objects were exported."""
        return sum(self.splits.values())

    def __str__(self) -> str:
        splits = ", ".join(f"{name} {n:,}" for name, n in self.splits.items())
        parts = [f"{self.samples:,} {self.unit}s ({splits}), {self.selected:,} of them clean"]
        if self.relabelled:
            parts.append(f"{self.relabelled:,} relabelled")
        if self.left_out:
            parts.append(f"{len(self.left_out):,} left out")
        verb = "was there already" if self.reused else "exported"
        return f"{self.path} {verb}: {', '.join(parts)}"


def export_cleaned(
    samples: SampleCollection,
    key: str = "clipcleaner",
    export_dir: str | os.PathLike[str] | None = None,
    *,
    format: str = "bundle",
    dataset_name: str | None = None,
    labels: str = "given",
    min_confidence: float = 0.8,
    split: str = "tags",
    fractions: Mapping[str, float] | None = None,
    trusted_field: str | None = None,
    export_media: bool | str = True,
    overwrite: bool = False,
    seed: int = 51,
    progress: bool | Callable[..., Any] | None = None,
) -> ExportReport:
    """Exports the samples of a run, to train on; of a run on objects, their crops.

    A ``"bundle"`` holds every sample that has a label and an image, with what the run says of it;
    the trainer in ``training/`` decides what it uses. Samples tagged ``val`` or ``test`` that the
    run did not examine are in it too, to measure by. The other formats hold the clean samples
    only, and with ``labels="suggested"`` also the mislabeled ones under their suggested label.
    Images are called by the ids of their samples, so names never collide.

    An object comes as the part of its image that the run has looked at, as a PNG file named by its
    own id; a new dataset holds the whole images with the clean objects. The objects of an image
    are in the same split, which for a draw has the share of images.

    A folder appears under its name once it is whole. After an interruption the same call goes on
    with what ``<export_dir>.partial`` holds. Where the very same bundle or table is there already,
    nothing is written.

    Args:
        samples: a dataset or view; of it, what the run has examined, and for bundles what is held
            out
        key ("clipcleaner"): the run
        export_dir (None): the folder to write; for all formats but "dataset"
        format ("bundle"): "bundle", "image_tree" (``SPLIT/CLASS/image``), "csv" (``labels.csv`` and
            ``data/``), both readable by ``fo.Dataset.from_dir``, or "dataset"
        dataset_name (None): the name of the new dataset, with ``format="dataset"``
        labels ("given"): "given", or "suggested" (not for bundles: they hold both)
        min_confidence (0.8): that a suggestion must have to become the label
        split ("tags"): "tags" = samples tagged ``train``, ``val`` (or ``validation``) or ``test``
            belong there, others are drawn; "random" = all are drawn, class by class; "none" = all
            are in ``train``
        fractions (None): shares of the draw; None = ``{"train": 0.8, "val": 0.1, "test": 0.1}``
        trusted_field (None): a Classification field with labels that are known to be right, or an
            attribute of the objects; the trainer measures by them and never trains on them
        export_media (True): True = copy the images, "symlink" = link them, False = leave them where
            they are and refer to them (bundles and tables). Crops of objects are always written
        overwrite (False): whether an earlier export may be replaced; other content never is
        seed (51): of the draw of splits
        progress (None): as in FiftyOne: True, False, None, or a callable that takes the bar

    Returns:
        an :class:`ExportReport`

    Raises:
        TypeError, ValueError: if there is no such run, or an option does not fit; the text says
            what to do
        FileExistsError: if something is in the way
        OSError: if the disk is full or cannot be written
    """
    from .runs import load_results

    check_images(samples)
    _check_options(format, export_dir, dataset_name, labels, min_confidence, split, export_media)
    fractions, seed = checked_fractions(fractions), check_seed(seed)
    results = load_results(samples, key)
    if results.layout.objects and format != "dataset" and export_media is not True:
        raise ValueError(
            f"run {key!r} is about objects: their crops are no files that could be linked or "
            "referred to; use export_media=True"
        )
    if format == "dataset":
        dataset_name = check_dataset_name(dataset_name, overwrite)
    logger.info("Reading labels and image files")
    held_out = format == "bundle" and split == "tags"
    rows, left_out = read_rows(samples, results, trusted_field, held_out, split, fractions, seed)
    if format != "bundle":
        rows = cleaned_rows(rows, labels, min_confidence)
    _check_rows(format, rows, key, left_out)
    options = {
        "format": format,
        "labels": labels,
        "min_confidence": min_confidence if labels == "suggested" else None,
        "split": split,
        "fractions": fractions,
        "trusted_field": trusted_field,
        "seed": seed,
    }
    origin = _origin(results, options)
    if format == "dataset":
        assert dataset_name is not None
        logger.info("Writing %d %ss to dataset %s", len(rows), results.layout.unit, dataset_name)
        made = make_dataset(samples, results, rows, dataset_name, origin, split != "none", progress)
        return _report(format, made.name, rows, left_out)
    assert export_dir is not None
    target = staging.export_folder(export_dir)
    job = _Folder(format, results.record["classes"], export_media, origin)
    return job.write(target, rows, left_out, overwrite, progress)


@dataclass(frozen=True)
class _Folder:
    """An export that is a folder."""

    format: str
    classes: Sequence[str]
    export_media: bool | str
    origin: dict[str, Any]

    def write(
        self,
        target: Path,
        rows: list[Row],
        left_out: dict[str, str],
        overwrite: bool,
        progress: bool | Callable[..., Any] | None,
    ) -> ExportReport:
        files = media_files(rows, self.format, self.classes)
        if self._is_there(target, rows, files):
            logger.info("The same export is there already: %s", target)
            return _report(self.format, str(target), rows, left_out, reused=True)
        staging.check_target(target, overwrite)
        _refuse_own_sources(target, files)
        logger.info("Writing %d images to %s", len(files), target)
        with staging.growing(target) as folder, _explained(folder):
            placed = [] if self.export_media is False else files
            failures = place_all(placed, folder, self.export_media == "symlink", progress)
            if failures:
                left_out |= failures
                rows = [row for row in rows if row.id not in failures]
                _check_rows(self.format, rows, self.origin["run_key"], failures)
                files = [file for file in files if file.id not in failures]
                placed = [file for file in placed if file.id not in failures]
            staging.finish(folder, self._texts(rows, files), {file.target for file in placed})
            if self.format == "csv":  # FiftyOne's reader insists on it, also where it is empty
                (folder / "data").mkdir(exist_ok=True)
            staging.publish(folder, target)
        return _report(self.format, str(target), rows, left_out)

    def _texts(self, rows: list[Row], files: list[MediaFile]) -> dict[str, bytes]:
        referenced = self.export_media is False
        return text_files(self.format, rows, files, self.classes, referenced, self.origin)

    def _is_there(self, target: Path, rows: list[Row], files: list[MediaFile]) -> bool:
        if not staging.same_texts(target, self._texts(rows, files)):
            return False
        # Where links are asked for, copies do as well
        ways = {True: [False], "symlink": [False, True], False: []}[self.export_media]
        return not ways or all(any(is_placed(f, target, way) for way in ways) for f in files)


def _check_options(
    format: str,
    export_dir: str | os.PathLike[str] | None,
    dataset_name: str | None,
    labels: str,
    min_confidence: float,
    split: str,
    export_media: bool | str,
) -> None:
    for name, value, choices in (
        ("format", format, tuple(FORMATS)),
        ("labels", labels, LABELS),
        ("split", split, MODES),
        ("export_media", export_media, (True, "symlink", False)),
    ):
        if value not in choices:
            raise ValueError(
                f"{name} must be one of {', '.join(map(repr, choices))}, found {value!r}"
            )
    if not 0 <= min_confidence <= 1:
        raise ValueError(f"min_confidence must be in [0, 1], found {min_confidence!r}")
    if labels == "suggested" and format == "bundle":
        raise ValueError(
            "a bundle holds the given labels, and the suggested ones beside them: leave labels out"
        )
    if format == "dataset":
        if export_dir is not None:
            raise ValueError("format='dataset' writes no folder: leave export_dir out")
        return
    if dataset_name is not None:
        raise ValueError(f"dataset_name goes with format='dataset', not with {format!r}")
    if not export_dir:
        raise ValueError(f"format={format!r} needs export_dir, the folder to write")
    if format == "image_tree" and export_media is False:
        raise ValueError("an image tree consists of its images: export_media must not be False")


def _check_rows(format: str, rows: Sequence[Row], key: str, left_out: Mapping[str, str]) -> None:
    for reason, n in Counter(left_out.values()).most_common(5):
        logger.warning("Left out: %d x %s", n, reason)
    if not rows:
        raise ValueError(
            f"run {key!r} has nothing to export in these samples: none "
            + ("has a label and an image" if format == "bundle" else "is clean, with an image")
        )
    counts = Counter(row.split for row in rows)
    if format == "bundle" and not counts["train"]:
        raise ValueError(
            "no sample is in 'train': tag some, or use split='random' with fractions that have a "
            "share for train"
        )
    if format == "bundle" and not counts["val"]:
        logger.warning(
            "No sample is in 'val': training cannot choose its best epoch. Tag some samples val, "
            "or use split='random'"
        )
    if format == "bundle" and not any(row.selected for row in rows if row.split == "train"):
        logger.warning("No clean sample is in 'train'")


def _origin(results: CLIPCleanerResults, options: Mapping[str, Any]) -> dict[str, Any]:
    """Where an export comes from. Nothing in it changes from call to call: the same export is the
    same to the byte."""
    parameters = {"run": results.config.parameters(), "export": dict(options)}
    return {
        "dataset": results.dataset.name,
        "run_key": results.key,
        "parameters": parameters,
    }


def _report(
    format: str,
    path: str,
    rows: Sequence[Row],
    left_out: dict[str, str],
    reused: bool = False,
) -> ExportReport:
    counts = Counter(row.split for row in rows)
    report = ExportReport(
        format=format,
        path=path,
        splits={name: counts[name] for name in SPLITS if counts[name]},
        selected=sum(row.selected for row in rows),
        relabelled=sum(row.relabelled for row in rows),
        left_out=left_out,
        reused=reused,
        unit="sample" if rows[0].box is None else "object",
    )
    logger.info("Done: %s", report)
    return report


def _refuse_own_sources(target: Path, files: Sequence[MediaFile]) -> None:
    """The images of the dataset may lie in the folder that is to be replaced."""
    inside = f"{target}{os.sep}"
    for file in files:
        if file.path.startswith(inside) or os.path.realpath(file.path).startswith(inside):
            raise FileExistsError(
                f"{file.path} lies in {target}, which the export would replace: name another folder"
            )


@contextlib.contextmanager
def _explained(folder: Path) -> Iterator[None]:
    """Adds to a failure of the disk where the unfinished export is, and what to do."""
    try:
        yield
    except OSError as err:
        raise OSError(
            err.errno,
            f"{err.strerror or err}. Once this is mended, the same export goes on from {folder}; "
            "or delete that folder",
            err.filename,
        ) from err
