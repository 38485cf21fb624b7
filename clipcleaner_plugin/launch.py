"""From a run to a trained network and its predictions: export, train, load."""

from __future__ import annotations

import logging
import os
import shlex
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path
from typing import Any

from fiftyone.core.collections import SampleCollection

from .export import ExportReport, export_cleaned
from .predictions import (
    DEFAULT_FIELD,
    PredictionReport,
    check_prediction_field,
    load_predictions,
)
from .runs import load_results
from .trainer import DEFAULT_SEED, TrainerOptions, run_folder, train, trainer_folder

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class TrainingReport:
    """What came out of a training.

    Attributes:
        run_dir: the trainer's output folder: checkpoints, metrics, predictions
        exported: what it was trained on
        predictions: what was written to the dataset
    """

    run_dir: str
    exported: ExportReport
    predictions: PredictionReport

    def __str__(self) -> str:
        trained_on = f"{self.exported.samples:,} {self.exported.unit}s"
        return f"Trained on {trained_on}{_accuracies(self)}; {self.run_dir}"


def train_on_cleaned(
    samples: SampleCollection,
    key: str = "clipcleaner",
    export_dir: str | os.PathLike[str] | None = None,
    *,
    recipe: str = "mixfix",
    preset: str = "auto",
    epochs: int | None = None,
    batch_size: int | None = None,
    seed: int = DEFAULT_SEED,
    trainer_args: Sequence[str] = (),
    prediction_field: str = DEFAULT_FIELD,
    split: str = "tags",
    fractions: Mapping[str, float] | None = None,
    trusted_field: str | None = None,
    export_media: bool | str | None = None,
    overwrite: bool = False,
    progress: bool | Callable[..., Any] | None = None,
) -> TrainingReport:
    """Exports a bundle, trains on it, and writes the predictions of the best weights to a field.

    The training runs in a process of its own that ends with this one. Interrupted, the same call
    goes on after the last whole epoch. Another recipe, setting or selection trains into another
    folder under ``<export_dir>/runs``.

    Args:
        samples: a dataset or view
        key ("clipcleaner"): the run
        export_dir (None): the folder of the bundle
        recipe ("mixfix"): "mixfix", "ce", "ce-clean" or "weighted"; see the trainer's README
        preset ("auto"): settings to start from
        epochs (None): passes; None = those of the preset
        batch_size (None): images in a batch; None = that of the preset
        seed (3047): of everything random in the training
        trainer_args (()): further arguments of the trainer, such as ``("--device", "cpu")``
        prediction_field ("clipcleaner_prediction"): the field to write, as in
            :func:`clipcleaner_plugin.load_predictions`
        split ("tags"): as in :func:`clipcleaner_plugin.export_cleaned`, likewise fractions,
            trusted_field, overwrite and progress
        export_media (None): True, "symlink" or False, likewise; None = "symlink", of objects True

    Returns:
        a :class:`TrainingReport`

    Raises:
        ValueError: if an option does not fit
        FileExistsError: if something is in the way
        RuntimeError: if the training failed; the text is the trainer's own
    """
    options = TrainerOptions(recipe, preset, epochs, batch_size, seed, tuple(trainer_args))
    check_prediction_field(samples._root_dataset, prediction_field)
    patches_field = load_results(samples, key).config.patches_field
    if export_media is None:
        export_media = True if patches_field else "symlink"
    exported = export_cleaned(
        samples,
        key,
        export_dir,
        split=split,
        fractions=fractions,
        trusted_field=trusted_field,
        export_media=export_media,
        overwrite=overwrite,
        progress=progress,
    )
    bundle = Path(exported.path)
    run_dir = run_folder(bundle, options)
    logger.info("Training into %s", run_dir)
    referenced = ["--referenced"] if export_media is False else []
    train(bundle, run_dir, [*options.arguments(), *referenced], progress)
    loaded = load_predictions(samples, run_dir, prediction_field, patches_field)
    report = TrainingReport(str(run_dir), exported, loaded)
    logger.info("Done: %s", report)
    return report


def command_lines(
    dataset_name: str,
    key: str,
    export_dir: str,
    options: TrainerOptions,
    prediction_field: str = DEFAULT_FIELD,
    *,
    media: str = "symlink",
    split: str = "tags",
    trusted_field: str | None = None,
    patches_field: str | None = None,
) -> list[str]:
    """Returns the commands that do the same in a shell.

    Args:
        dataset_name: the dataset
        key: the run
        export_dir: the folder of the bundle
        options: of the trainer
        prediction_field: the field for the predictions
        media: "copy", "symlink" or "reference"
        split: as in :func:`train_on_cleaned`, likewise trusted_field
        patches_field: where the run is about objects, their field

    Returns:
        three lines: export, train, load the predictions
    """
    program = [*_python_path(), sys.executable, "-m", "clipcleaner_plugin"]
    run_dir = os.path.join(export_dir, "runs", options.recipe)
    export = [*program, "export", dataset_name, export_dir, "--key", key, "--media", media]
    export += ["--split", split] if split != "tags" else []
    export += ["--trusted-field", trusted_field] if trusted_field else []
    script = str(trainer_folder() / "train.py")
    train = [sys.executable, script, export_dir, *options.arguments(), "--out", run_dir]
    train += ["--referenced"] if media == "reference" else []
    load = [*program, "predictions", dataset_name, run_dir, "--field", prediction_field]
    load += ["--patches-field", patches_field] if patches_field else []
    return [shlex.join(command) for command in (export, train, load)]


def _python_path() -> list[str]:
    """What a shell needs to find this package, where the plugin was only copied or linked."""
    try:
        distribution("clipcleaner-fiftyone")
    except PackageNotFoundError:
        return ["env", f"PYTHONPATH={Path(__file__).resolve().parent.parent}"]
    return []


def _accuracies(report: TrainingReport) -> str:
    best = (report.predictions.results or {}).get("best", {})
    found = [f"{name} {best[f'{name}_accuracy']:.1%}" for name in ("val", "test")
             if best.get(f"{name}_accuracy") is not None]  # fmt: skip
    return f": {', '.join(found)} accuracy" if found else ""
