"""A row of the paper from raw data to accuracy: ``python -m benchmarks.reproduce --row NAME``.

The labels are examined, a bundle is exported, networks are trained on it, and selection and
accuracies go to ``reproduce-NAME.md`` and ``.json``. Killed, the same command goes on where it was:
everything that is finished lies in ``--work`` and in FiftyOne's database.
"""

from __future__ import annotations

import argparse
import json
import logging
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import fiftyone as fo
import numpy as np

import clipcleaner_plugin as cc
from benchmarks import reproduced
from benchmarks.data import DataMissingError
from benchmarks.rows import RECIPES, ROWS, Row
from clipcleaner_plugin.datasets import GIVEN_FIELD, TRUSTED_FIELD
from clipcleaner_plugin.splits import stratified
from clipcleaner_plugin.trainer import TrainerOptions, run_folder, train

FIRST_SEED = 3047  # the paper's
RESULTS = Path(__file__).with_name("results")
KEY, NOISY_FIELD = "clipcleaner", "noisy_label"
_READY = "reproduce_ready"


@dataclass(frozen=True)
class Job:
    """One row with one seed.

    Attributes:
        name: of the row
        row: the row
        seed: of noise, validation split, selection and training
        root: the folder of the raw data
        work: the folder of this job
        epochs: instead of the row's
        device: for the networks; empty = the best one at hand
        recipes: to train with
    """

    name: str
    row: Row
    seed: int
    root: Path
    work: Path
    epochs: int | None
    device: str
    recipes: tuple[str, ...]

    @property
    def label_field(self) -> str:
        """The field with the labels to examine."""
        return GIVEN_FIELD if self.row.kind is None else NOISY_FIELD

    def run(self) -> Iterator[dict[str, Any]]:
        """Does what is not done yet.

        Yields:
            a record that JSON can hold: first of the selection, then of each recipe
        """
        self.work.mkdir(parents=True, exist_ok=True)
        dataset = self.dataset()
        yield self._kept("selection", lambda: self.select(dataset))
        bundle = self.bundle(dataset)
        for recipe in self.recipes:
            what = f"{recipe}-{self.epochs}-epochs" if self.epochs else recipe
            yield self._kept(what, lambda: self.train(bundle, recipe))  # noqa: B023  called at once

    def dataset(self) -> fo.Dataset:
        """Makes the dataset, with noise and a validation split, or loads it."""
        name = f"reproduce-{self.name}-{self.seed}"
        if fo.dataset_exists(name):
            dataset = fo.load_dataset(name)
            if dataset.info.get(_READY):
                return dataset
            dataset.delete()
        dataset = self.row.dataset(self.root, self.work.parent, name)
        if self.row.kind is not None:
            cc.inject_noise(
                dataset.match_tags(["train", "val"]),
                self.row.kind,
                self.row.rate,
                self.seed,
                label_field=TRUSTED_FIELD,
                noisy_field=NOISY_FIELD,
                pairs=self.row.pairs(dataset.default_classes),
            )
        self._tag_val(dataset)
        dataset.info[_READY] = True
        dataset.save()
        return dataset

    def select(self, dataset: fo.Dataset) -> dict[str, Any]:
        """Examines the labels of the training images; right ones of other images are hidden."""
        started = time.perf_counter()
        row, field = self.row, self.label_field
        hidden = self._hidden(dataset)
        hidden.set_values(field, [None] * len(hidden))
        options: dict[str, Any] = {"model": row.model}
        if row.features is not None:
            options["embeddings"] = self._features(dataset)
        elif row.prompts:
            options["class_prompts"] = cc.datasets.prompts(row.data[0])
        results = dataset.apply_clipcleaner(
            field,
            key=KEY,
            classes=dataset.default_classes,
            theta_cons=row.theta_cons,
            seed=self.seed,
            progress=False,
            **options,
        )
        found = _selection(dataset, field, results.field("verdict"))
        if found["known"]:
            found["mislabeled"] = results.evaluate(TRUSTED_FIELD)
        return {**found, "seconds": time.perf_counter() - started}

    def bundle(self, dataset: fo.Dataset) -> Path:
        """Exports the bundle, with the labels that were hidden."""
        hidden = self._hidden(dataset)
        names = hidden.values(f"{TRUSTED_FIELD}.label")
        hidden.set_values(self.label_field, [fo.Classification(label=name) for name in names])
        folder = self.work / "bundle"
        cc.export_cleaned(
            dataset,
            KEY,
            folder,
            trusted_field=TRUSTED_FIELD,
            export_media="symlink",
            overwrite=True,
            progress=False,
        )
        return folder

    def train(self, bundle: Path, recipe: str) -> dict[str, Any]:
        """Trains, or goes on with it."""
        more = (*self.row.trainer, *(("--device", self.device) if self.device else ()))
        epochs = self.epochs or self.row.epochs
        options = TrainerOptions(recipe, self.row.preset, epochs, None, self.seed, more)
        out = run_folder(bundle, options)
        train(bundle, out, options.arguments(), progress=sys.stderr.isatty())
        results = json.loads((out / "results.json").read_text())
        metrics = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
        last = metrics[-1]
        config = json.loads((out / "config.json").read_text())
        del config["bundle"]  # a path of this machine
        return {
            "recipe": recipe,
            "last": results["last"],
            "best": results["best"],
            "epochs": len(metrics),
            "seconds": sum(row["seconds"] for row in metrics),
            "set": {name: last[name] for name in ("set_size", "set_known", "set_right")},
            "config": config,
        }

    def _kept(self, what: str, measure: Any) -> dict[str, Any]:
        """Reads what an earlier call has measured, or measures and keeps it."""
        path = self.work / f"{what}.json"
        if not path.is_file():
            found = {"row": self.name, "seed": self.seed, **measure()}
            scratch = path.with_suffix(".part")
            scratch.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
            scratch.replace(path)
            logging.info("%s, seed %d: %s done", self.name, self.seed, what)
        record: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        return record

    def _hidden(self, dataset: fo.Dataset) -> fo.DatasetView:
        """The test images; also a validation set that came with the data, as its labels are right,
        while one that was drawn from the training images is as noisy as they are."""
        own_val = not self.row.val and self.row.kind is None
        return dataset.match_tags(["test", "val"] if own_val else "test")

    def _features(self, dataset: fo.Dataset) -> np.ndarray:
        path = self.work.parent / "features.npy"
        if not path.is_file():
            assert self.row.features is not None
            scratch = path.with_suffix(".part.npy")
            np.save(scratch, self.row.features(dataset.values("filepath")))
            scratch.replace(path)
        features: np.ndarray = np.load(path)
        return features

    def _tag_val(self, dataset: fo.Dataset) -> None:
        """Sets some of the training images aside, with the labels as given."""
        if not self.row.val:
            return
        ids, labels = dataset.match_tags("train").values(["id", f"{self.label_field}.label"])
        shares = {"train": 1 - self.row.val, "val": self.row.val}
        splits = stratified(labels, shares, self.seed)
        chosen = dataset.select([i for i, split in zip(ids, splits, strict=True) if split == "val"])
        chosen.untag_samples("train")
        chosen.tag_samples("val")


def _selection(dataset: fo.Dataset, field: str, verdict_field: str) -> dict[str, Any]:
    """Counts the selected training labels, and how many of them are right."""
    given, trusted, verdict = map(
        np.array,
        dataset.match_tags("train").values(
            [f"{field}.label", f"{TRUSTED_FIELD}.label", verdict_field]
        ),
    )
    selected, known = verdict == "clean", trusted != None  # noqa: E711  elementwise
    right = known & (given == trusted)
    return {
        "train": len(given),
        "selected": int(selected.sum()),
        "known": int(known.sum()),
        "right": int(right.sum()),
        "selected_known": int((selected & known).sum()),
        "selected_right": int((selected & right).sum()),
    }


def main(argv: list[str] | None = None) -> int:
    """Runs a row and writes its results.

    Args:
        argv: arguments; default: those of the command line

    Returns:
        exit status
    """
    args = _arguments(argv)
    if args.list:
        print("\n".join(f"{name:24} {row.about}" for name, row in ROWS.items()))
        return 0
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    records: list[dict[str, Any]] = []
    for seed in range(FIRST_SEED, FIRST_SEED + args.seeds):
        work = args.work / args.row / f"seed-{seed}"
        recipes = tuple(args.recipes or ROWS[args.row].recipes)
        job = Job(
            args.row, ROWS[args.row], seed, args.root, work, args.epochs, args.device, recipes
        )
        try:
            records += job.run()
        except (DataMissingError, cc.datasets.LayoutError) as error:
            print(f"No data for {args.row}: {error}", file=sys.stderr)
            return 2
    name = f"{args.row}-{args.epochs}-epochs" if args.epochs else args.row
    options = f"--row {args.row} --seeds {args.seeds}"
    options += f" --epochs {args.epochs}" if args.epochs else ""
    options += f" --recipes {' '.join(args.recipes)}" if args.recipes else ""
    for path in reproduced.write(args.results, name, options, ROWS[args.row].about, records):
        print(path)
    return 0


def _arguments(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.reproduce", description=__doc__)
    parser.add_argument("--row", choices=ROWS, metavar="NAME", help="see --list")
    parser.add_argument("--list", action="store_true", help="list the rows")
    parser.add_argument("--root", type=Path, default=Path(), help="folder of the raw data")
    parser.add_argument(
        "--work",
        type=Path,
        default=Path("reproduce-work"),
        help="folder of what is made on the way (default: %(default)s)",
    )
    parser.add_argument("--seeds", type=int, default=1, help="repetitions (default: %(default)s)")
    parser.add_argument("--epochs", type=int, help="instead of the row's own number")
    parser.add_argument("--recipes", nargs="+", choices=RECIPES, help="instead of the row's own")
    parser.add_argument("--device", default="", help="for training, such as cuda or cpu")
    parser.add_argument("--results", type=Path, default=RESULTS, help="folder of the report")
    args = parser.parse_args(argv)
    if args.row is None and not args.list:
        parser.error("name a --row; --list lists them")
    if args.seeds < 1:
        parser.error(f"--seeds must be >= 1, found {args.seeds}")
    return args


if __name__ == "__main__":
    sys.exit(main())
