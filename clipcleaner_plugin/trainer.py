"""The stand-alone trainer as seen from here: where it is, what it offers, how it is started."""

from __future__ import annotations

import contextlib
import hashlib
import importlib.util
import json
import logging
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import fiftyone.core.utils as fou

from .predictions import CONFIG
from .staging import BUNDLE_HEADER, RUNS, held

logger = logging.getLogger(__name__)

LOG, METRICS = "trainer.log", "metrics.jsonl"
DEFAULT_SEED = 3047

# Seconds between two looks at a training process, and how long it may take to end when told to
_POLL = 0.5
_PATIENCE = 10.0

_ALIAS = "clipcleaner_training"


@dataclass(frozen=True)
class TrainerOptions:
    """What is asked of the trainer; None = as its preset says.

    Args:
        recipe: one of :func:`recipes`
        preset: one of :func:`presets`
        epochs: passes
        batch_size: images in a batch
        seed: of everything random
        more: further arguments of its command line
    """

    recipe: str = "mixfix"
    preset: str = "auto"
    epochs: int | None = None
    batch_size: int | None = None
    seed: int = DEFAULT_SEED
    more: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for name, value, choices in (
            ("recipe", self.recipe, list(recipes())),
            ("preset", self.preset, presets()),
        ):
            if value not in choices:
                raise ValueError(f"{name} must be one of {', '.join(choices)}, found {value!r}")
        for name, number, least in (
            ("epochs", self.epochs, 1),
            ("batch_size", self.batch_size, 2),
            ("seed", self.seed, 0),
        ):
            if number is not None and (not isinstance(number, int) or number < least):
                raise ValueError(f"{name} must be a number of at least {least}, found {number!r}")

    def arguments(self) -> list[str]:
        """Returns the arguments of the command line, bundle and output folder aside."""
        given = [("--recipe", self.recipe), ("--preset", self.preset), ("--seed", self.seed)]
        given += [("--epochs", self.epochs), ("--batch-size", self.batch_size)]
        pairs = ((name, str(value)) for name, value in given if value is not None)
        return [part for pair in pairs for part in pair] + list(self.more)


def trainer_folder() -> Path:
    """Returns the folder of the trainer: in the wheel inside this package, else beside it.

    Raises:
        RuntimeError: if there is none
    """
    package = Path(__file__).resolve().parent
    for folder in (package / "training", package.parent / "training"):
        if (folder / "train.py").is_file():
            return folder
    raise RuntimeError(
        f"This installation is incomplete, install it again: {package.parent} has no training "
        "folder"
    )


def presets() -> list[str]:
    """Returns the trainer's presets, "auto" first."""
    return ["auto", *_module("presets").PRESETS]


def recipes() -> dict[str, str]:
    """Returns recipe → what it does."""
    found: dict[str, str] = _module("recipes").RECIPES
    return found


def run_folder(bundle: Path, options: TrainerOptions) -> Path:
    """Returns where a run on a bundle goes: the same settings and samples, the same folder.

    So a repeated call resumes, and a changed one begins anew without touching the other.
    """
    content = hashlib.sha256("\0".join(options.arguments()).encode())
    for name in (BUNDLE_HEADER, "manifest.jsonl"):
        content.update((bundle / name).read_bytes())
    return bundle / RUNS / f"{options.recipe}-{content.hexdigest()[:8]}"


def train(
    bundle: Path,
    run_dir: Path,
    arguments: Sequence[str],
    progress: bool | Callable[..., Any] | None,
) -> None:
    """Trains in a process of its own and waits for it; resumes what is in the folder.

    Whatever ends the wait (Ctrl-C, an exception of the progress callable, the death of this
    process) ends the training too; its checkpoints stay.

    Args:
        bundle: the exported bundle
        run_dir: the output folder
        arguments: of the trainer's command line, bundle and output folder aside
        progress: as in FiftyOne; called twice a second, with an :class:`EpochBar`

    Raises:
        RuntimeError: if the training failed; the text is the trainer's own
        FileExistsError: if another process trains in the same folder
    """
    script = trainer_folder() / "train.py"
    child = Path(__file__).with_name("child.py")
    command = [sys.executable, str(child), str(script), str(bundle), "--out", str(run_dir)]
    run_dir.mkdir(parents=True, exist_ok=True)
    with held(run_dir, "is training into"), (run_dir / LOG).open("ab") as log:
        began = log.tell()
        with _started([*command, *arguments], log) as process:
            _watch(process, run_dir, progress)
        if process.returncode:
            raise RuntimeError(_reason(process.returncode, run_dir / LOG, began))


class EpochBar(fou.ProgressBar):
    """A bar that counts epochs.

    Attributes:
        note: what the last epoch reached, in words
    """

    note = ""


@cache
def _module(name: str) -> Any:
    """Loads a module of the trainer that needs no torch, wherever the trainer is."""
    folder = trainer_folder()
    if _ALIAS not in sys.modules:
        spec = importlib.util.spec_from_file_location(
            _ALIAS, folder / "__init__.py", submodule_search_locations=[str(folder)]
        )
        assert spec is not None and spec.loader is not None
        package = importlib.util.module_from_spec(spec)
        sys.modules[_ALIAS] = package
        spec.loader.exec_module(package)
    return importlib.import_module(f"{_ALIAS}.{name}")


@contextlib.contextmanager
def _started(command: list[str], log: Any) -> Iterator[subprocess.Popen[bytes]]:
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=log, stderr=subprocess.STDOUT)
    try:
        yield process
    finally:
        if process.poll() is None:
            process.terminate()
            try:
                process.wait(_PATIENCE)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        assert process.stdin is not None
        process.stdin.close()


def _watch(
    process: subprocess.Popen[bytes], run_dir: Path, progress: bool | Callable[..., Any] | None
) -> None:
    """Reports epochs until the process ends."""
    logger.info("Starting the trainer")
    # Nothing to count yet, but a caller may want to stop
    asked = progress if callable(progress) else False
    with fou.ProgressBar(total=1, progress=asked, iters_str="runs") as starting:
        epochs = None
        while epochs is None and process.poll() is None:
            starting.update(0)
            epochs = _epochs(run_dir, process)
    if epochs is None:
        return
    logger.info("Training: %d epochs", epochs)
    with EpochBar(total=epochs, progress=progress, iters_str="epochs") as bar:
        running = True
        while running:
            running = not _ended(process)
            done, bar.note = _epochs_done(run_dir)
            bar.set_iteration(done, suffix=bar.note)


def _epochs(run_dir: Path, process: subprocess.Popen[bytes]) -> int | None:
    """The number of epochs, once the trainer has settled it; it writes its metrics file next."""
    _ended(process)
    try:
        config = json.loads((run_dir / CONFIG).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return int(config["epochs"])


def _epochs_done(run_dir: Path) -> tuple[int, str]:
    """The number of epochs, and what the last one reached, in words."""
    try:
        lines = (run_dir / METRICS).read_bytes().split(b"\n")[:-1]
        row = json.loads(lines[-1])
    except (OSError, IndexError, ValueError):
        return 0, ""
    found = [f"{split} {row[f'{split}_accuracy']:.1%}" for split in ("val", "test")
             if row[f"{split}_accuracy"] is not None]  # fmt: skip
    return len(lines), f"accuracy {', '.join(found)}" if found else ""


def _ended(process: subprocess.Popen[bytes]) -> bool:
    try:
        process.wait(_POLL)
    except subprocess.TimeoutExpired:
        return False
    return True


def _reason(status: int, log: Path, began: int) -> str:
    lines = [
        line
        for line in log.read_bytes()[began:].decode("utf-8", "replace").splitlines()
        if line.strip()
    ]
    errors = [line.removeprefix("error: ") for line in lines if line.startswith("error: ")]
    if errors:
        return f"Training failed: {errors[-1]} (log: {log})"
    how = f"with status {status}"
    if status < 0:
        how = f"by signal {signal.Signals(-status).name}"
        how += " (out of memory?)" if -status == signal.SIGKILL else ""
    return f"Training ended {how}: {' / '.join(lines[-3:]) or 'it said nothing'} (log: {log})"
