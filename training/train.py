"""Trains a network on a bundle of labels of which some are wrong.

    python training/train.py BUNDLE --preset cifar10
    torchrun --nproc_per_node 2 training/train.py BUNDLE --preset cifar10
    python -m clipcleaner_plugin.training.train BUNDLE --recipe ce

One epoch of the default recipe, MixFix: draw class-balanced batches from the current set, mix
them up, train; predict the whole training split; the next set = samples whose label the network
confidently agrees with ∪ those it confidently relabels ∪ the initial selection.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib.util
import logging
import os
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

if not __package__:
    # Started as a script, from wherever this folder was copied to and whatever it is called now:
    # the folder becomes a package, so that the relative imports below hold (as in PEP 366)
    __package__ = "clipcleaner_training"
    _init = Path(__file__).with_name("__init__.py")
    _spec = importlib.util.spec_from_file_location(__package__, _init)
    assert _spec is not None and _spec.loader is not None
    sys.modules[__package__] = importlib.util.module_from_spec(_spec)
    _spec.loader.exec_module(sys.modules[__package__])

from . import checkpoint, lock, parallel, report
from .bundle import Bundle, read_bundle
from .engine import Engine
from .images import ImageSet
from .mixfix import NextSet, initial_set, next_set
from .options import Config, configure, parse
from .parallel import World
from .plan import epoch_subset, plan_epoch
from .presets import learning_rate
from .recipes import choose_recipe

# Not __name__, which is "__main__" in a script
logger = logging.getLogger(f"{__package__}.train")

INTERRUPTED = 130


def run(
    args: argparse.Namespace, on_epoch: Callable[[dict[str, Any]], None] | None = None
) -> dict[str, Any]:
    """Trains, or goes on with an interrupted run.

    Args:
        args: what ``options.parse`` returned
        on_epoch: called with the metrics of each epoch once its checkpoint is on disk; what it
            raises stops the run, which may be resumed

    Returns:
        the content of ``results.json``

    Raises:
        ValueError: if the bundle, the options or an earlier checkpoint cannot be used, or another
            trainer works in the output folder
        OSError: if a file cannot be written; the newest checkpoint is still there
    """
    world = parallel.start(args.device)
    try:
        bundle = read_bundle(args.bundle, args.referenced)
        config = configure(args, bundle, world.size)
        out = Path(args.out) if args.out else bundle.root / "runs" / args.recipe
        with lock.hold(out) if world.is_main else contextlib.nullcontext():
            training = Training(args, bundle, config, out, world)
            for epoch in range(training.epochs_done, config.settings.epochs):
                row = training.epoch(epoch)
                if world.is_main:
                    logger.info("%s", report.epoch_line(row, config.settings.epochs))
                    if on_epoch is not None:
                        on_epoch(row)
            return training.finish()
    finally:
        parallel.stop()


class Training:
    """One run, from scratch or from the newest checkpoint in its folder.

    All processes hold the same state; only the main one writes files.
    """

    def __init__(
        self, args: argparse.Namespace, bundle: Bundle, config: Config, out: Path, world: World
    ) -> None:
        self.bundle, self.config, self.settings = bundle, config, config.settings
        self.out, self.world = out, world
        self.recipe = choose_recipe(config.recipe, bundle)
        self.set = initial_set(bundle.labels, self.recipe.members)
        self.epochs_done = 0
        self.best_epoch, self.best_accuracy = 0, -1.0
        state = self._earlier_state(args.restart)
        self.engine = Engine(
            self.settings,
            len(bundle.classes),
            ImageSet(bundle.paths, self.settings),
            world,
            strict=args.strict,
            seed=config.seed,
            amp=config.amp,
            compiled=args.compile,
            workers=args.workers,
            cache=args.cache,
            state=state,
            show_progress=world.is_main and not args.quiet,
        )
        if state is not None:
            self._go_on_from(state)
        if world.is_main:
            about = {**config.as_dict(), "config_digest": config.digest()}
            about |= {"bundle": str(bundle.root.resolve()), "bundle_digest": bundle.digest}
            about |= {"processes": world.size, "device": str(world.device)}
            report.write_json(out / "config.json", {**about, "torch": torch.__version__})
            self.metrics = report.Metrics(out, self.epochs_done)

    def epoch(self, epoch: int) -> dict[str, Any]:
        """Trains one epoch, finds the next set, and writes the checkpoint.

        Args:
            epoch: from 0

        Returns:
            its line of ``metrics.jsonl``, where epochs count from 1
        """
        started = time.perf_counter()
        subset, unreadable = self._subset(epoch), self.engine.unreadable
        members = subset[self.set.members[subset] & ~unreadable[subset]]
        if len(members) == 0:
            raise ValueError(f"Epoch {epoch + 1}: no sample with a readable image to train on")
        plan = plan_epoch(
            members,
            self.set.labels[members],
            len(subset) // self.settings.batch_size,
            self.settings.batch_size,
            balanced=self.recipe.mixfix,
            beta=self.settings.beta,
            seed=self.config.seed,
            epoch=epoch,
        )
        lr = learning_rate(self.settings, epoch)
        loss = self.engine.train(
            plan, self.set.labels, self.recipe.weights, lr, self.recipe.mixfix, epoch
        )
        images_per_second = plan.indices.size / (time.perf_counter() - started)

        ahead = self._subset(epoch + 1) if self.recipe.mixfix else subset[:0]
        val, test = self.bundle.splits["val"], self.bundle.splits["test"]
        predicted, confidence = self.engine.predict(np.concatenate([ahead, val, test]))
        trained_on = self.set
        if self.recipe.mixfix:
            self.set = self._next_set(ahead, predicted, confidence)
        self.epochs_done = epoch + 1
        row = {
            "epoch": self.epochs_done,
            "loss": loss,
            "lr": lr,
            "val_accuracy": self._accuracy(predicted, "val"),
            "test_accuracy": self._accuracy(predicted, "test"),
            **report.set_counts(self.bundle, members, trained_on.labels),
            **report.joined_counts(self.bundle, self.set, self.recipe.members),
            "unreadable": int(self.engine.unreadable.sum()),
            "seconds": time.perf_counter() - started,
            "images_per_second": images_per_second,
        }
        self._save(row)
        return row

    def finish(self) -> dict[str, Any]:
        """Predicts everything by the last and by the best weights, and writes the results."""
        everything = np.arange(len(self.bundle))
        last = best = self.engine.predict(everything)
        if 0 < self.best_epoch < self.epochs_done:
            state = self._best_state()
            if state is None:
                self.best_epoch = 0
            else:
                # A kill may have come between this file and last.pt, and a GPU not have repeated
                # the epoch to the digit
                self.best_epoch = state["epoch"]
                self.engine.network.load_state_dict(state["model"])
                best = self.engine.predict(everything)
        unreadable = [self.bundle.ids[i] for i in np.flatnonzero(self.engine.unreadable)]
        results: dict[str, Any] = {
            "recipe": self.config.recipe,
            "best_chosen_on": "val" if self.best_epoch else None,
            "last": self._summary(self.epochs_done, last[0]),
            "best": self._summary(self.best_epoch or self.epochs_done, best[0]),
            "unreadable": unreadable,
        }
        if self.world.is_main:
            self.metrics.close()
            path, matrices = self.out / "predictions.jsonl", {"last": last[0], "best": best[0]}
            report.write_predictions(path, self.bundle, *best)
            report.write_confusion(self.out / "confusion.json", self.bundle, matrices)
            report.write_json(self.out / "results.json", results)
            report.log_results(results, self.out)
        return results

    def _subset(self, epoch: int) -> np.ndarray:
        train = self.bundle.splits["train"]
        return epoch_subset(train, self.settings.epoch_samples, self.config.seed, epoch)

    def _next_set(
        self, ahead: np.ndarray, predicted: np.ndarray, confidence: np.ndarray
    ) -> NextSet:
        of_train = np.full(len(self.bundle), -1)
        of_train[ahead] = predicted[ahead]
        thresholds = self.settings.theta_r, self.settings.theta_r2
        given, selected = self.bundle.labels, self.recipe.members
        return next_set(given, selected, of_train, confidence, *thresholds)

    def _accuracy(self, predicted: np.ndarray, split: str) -> float | None:
        chosen = self.bundle.splits[split]
        labels = report.reference_labels(self.bundle, split)
        return report.accuracy(predicted[chosen], labels[chosen])

    def _summary(self, epoch: int, predicted: np.ndarray) -> dict[str, Any]:
        accuracies = {f"{s}_accuracy": self._accuracy(predicted, s) for s in ("val", "test")}
        return {"epoch": epoch, **accuracies}

    def _identity(self) -> dict[str, Any]:
        return {"config": self.config.as_dict(), "bundle_digest": self.bundle.digest}

    def _save(self, row: dict[str, Any]) -> None:
        """Metrics and the best weights first: an epoch counts once ``last.pt`` holds it."""
        accuracy = row["val_accuracy"]
        # The later of equals: it has been trained for longer, at a smaller rate
        is_best = accuracy is not None and accuracy >= self.best_accuracy
        if is_best:
            self.best_epoch, self.best_accuracy = row["epoch"], accuracy
        if not self.world.is_main:
            return
        self.metrics.add(row)
        if is_best:
            best = {**self._identity(), "epoch": row["epoch"], "val_accuracy": accuracy}
            best["model"] = self.engine.network.state_dict()
            checkpoint.write_bytes(self.out / checkpoint.BEST, checkpoint.to_bytes(best))
        state = {
            **self._identity(),
            **self.engine.state(),
            "epoch": self.epochs_done,
            "best_epoch": self.best_epoch,
            "best_accuracy": self.best_accuracy,
            "set": {name: torch.from_numpy(part) for name, part in vars(self.set).items()},
        }
        checkpoint.save_last(self.out, state)

    def _earlier_state(self, restart: bool) -> dict[str, Any] | None:
        """The newest checkpoint: read by the main process, since others may not reach its disk."""
        data = None
        if self.world.is_main:
            checkpoint.clean_up(self.out)
            if restart:
                checkpoint.discard(self.out)
            data = checkpoint.load_last(self.out, **self._identity())
        sent = parallel.broadcast_bytes(data, self.world)
        return None if sent is None else checkpoint.from_bytes(sent)

    def _go_on_from(self, state: dict[str, Any]) -> None:
        self.epochs_done = state["epoch"]
        self.best_epoch, self.best_accuracy = state["best_epoch"], state["best_accuracy"]
        self.set = NextSet(**{name: part.numpy() for name, part in state["set"].items()})
        if self.world.is_main:
            logger.info("Going on after epoch %d of %s", self.epochs_done, self.out)

    def _best_state(self) -> dict[str, Any] | None:
        data = None
        if self.world.is_main:
            data = checkpoint.load_best(self.out, **self._identity())
        sent = parallel.broadcast_bytes(data, self.world)
        return None if sent is None else checkpoint.from_bytes(sent)


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command line.

    Args:
        argv (None): the arguments; None = those of the process

    Returns:
        the exit status: 0; 1 = failed, the reason is on stderr; 130 = stopped by Ctrl-C
    """
    log, handler = logging.getLogger(__package__), logging.StreamHandler()
    log.addHandler(handler)
    try:
        args = parse(argv)
        main_process = os.environ.get("RANK", "0") == "0"
        level = logging.WARNING if args.quiet else logging.INFO
        log.setLevel(level if main_process else logging.ERROR)
        run(args)
        return 0
    except KeyboardInterrupt:
        print("\nStopped. The same command goes on after the last whole epoch.", file=sys.stderr)
        return INTERRUPTED
    except torch.cuda.OutOfMemoryError as err:
        print(f"error: {str(err).split('.')[0]}: give a smaller --batch-size", file=sys.stderr)
    except OSError as err:
        print(
            f"error: {err}. Once this is mended, the same command goes on from the newest "
            "checkpoint, if one was written: it is whole",
            file=sys.stderr,
        )
    except (ValueError, RuntimeError) as err:
        print(f"error: {err}", file=sys.stderr)
    finally:
        log.removeHandler(handler)
    return 1


if __name__ == "__main__":
    sys.exit(main())
