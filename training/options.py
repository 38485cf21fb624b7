"""The command line, and the configuration that it makes."""

from __future__ import annotations

import argparse
import hashlib
import json
import logging
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields, replace
from typing import Any

from .bundle import Bundle
from .images import typical_side
from .presets import PRESETS, Preset, auto_preset, override
from .recipes import RECIPES

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Config:
    """Everything that decides which weights come out; its digest guards a resumed run."""

    recipe: str
    preset: str
    settings: Preset
    seed: int
    amp: str
    classes: tuple[str, ...]

    def as_dict(self) -> dict[str, Any]:
        """Returns what goes into ``config.json``."""
        rest = {f.name: getattr(self, f.name) for f in fields(self) if f.name != "settings"}
        # Through JSON, so that tuples compare equal to what is read back
        flat: dict[str, Any] = json.loads(json.dumps({**rest, **asdict(self.settings)}))
        return flat

    def digest(self) -> str:
        """Returns the hexadecimal SHA-256 of the configuration."""
        text = json.dumps(self.as_dict(), sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()


def parser() -> argparse.ArgumentParser:
    """Returns the parser; every field of ``Preset`` is an option."""
    made = argparse.ArgumentParser(
        prog="train.py",
        description="Trains a network on a bundle of labels of which some are wrong.",
        epilog="Interrupted? The same command goes on where it was.",
    )
    made.add_argument("bundle", help="folder that was exported")
    made.add_argument("--recipe", choices=RECIPES, default="mixfix", help=_listed(RECIPES))
    made.add_argument(
        "--preset",
        choices=["auto", *PRESETS],
        default="auto",
        help="settings to start from (default: auto, from image size, classes and samples)",
    )
    made.add_argument("--out", default="", help="output folder (default: BUNDLE/runs/RECIPE)")
    made.add_argument("--restart", action="store_true", help="discard an earlier run in --out")
    made.add_argument("--seed", type=int, default=3047, help="(default: %(default)s)")
    made.add_argument(
        "--referenced", action="store_true", help="read the images outside the bundle it refers to"
    )
    made.add_argument("--strict", action="store_true", help="stop at an image that cannot be read")
    _add_machine_options(made.add_argument_group("machine (the result does not depend on these)"))
    group = made.add_argument_group("settings (default: those of the preset)")
    for field in fields(Preset):
        example = getattr(PRESETS["cifar10"], field.name)
        several = isinstance(example, tuple)
        kind = type(example[0]) if several else type(example)
        group.add_argument(
            f"--{field.name.replace('_', '-')}",
            type=kind,
            nargs="*" if several else None,
            default=None,
            help=field.metadata["help"],
        )
    return made


def _add_machine_options(group: Any) -> None:
    group.add_argument("--device", default="", help="cuda, cpu or mps (default: cuda if present)")
    group.add_argument(
        "--amp",
        choices=["auto", "bf16", "fp16", "off"],
        default="auto",
        help="half precision on CUDA (default: auto = bf16 where the GPU has it, else fp16); "
        "this one does change the result",
    )
    group.add_argument("--compile", action="store_true", help="torch.compile the network")
    group.add_argument(
        "--workers", type=int, default=None, help="processes that load images (default: by device)"
    )
    group.add_argument(
        "--cache",
        choices=["auto", "on", "off"],
        default="auto",
        help="keep decoded images in memory (default: auto = where half of it suffices)",
    )
    group.add_argument("--quiet", action="store_true", help="warnings and errors only")


def parse(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Parses a command line; ``.overrides`` holds the fields of ``Preset`` that were given."""
    args = parser().parse_args(argv)
    args.overrides = {f.name: getattr(args, f.name) for f in fields(Preset)}
    for name in ("mean", "std", "milestones"):
        if args.overrides[name] is not None:
            args.overrides[name] = tuple(args.overrides[name])
    if args.overrides["weights"] == "none":
        args.overrides["weights"] = ""
    if args.workers is not None and args.workers < 0:
        raise ValueError(f"--workers {args.workers}: give 0 or more")
    if args.seed < 0:
        raise ValueError(f"--seed {args.seed}: give 0 or more")
    return args


def configure(args: argparse.Namespace, bundle: Bundle, processes: int) -> Config:
    """Settles all values, for this bundle.

    Args:
        args: what ``parse`` returned
        bundle: the samples
        processes: how many train together

    Returns:
        the configuration

    Raises:
        ValueError: if the values do not go together with the bundle or the processes
    """
    train = bundle.splits["train"]
    side = typical_side([bundle.paths[i] for i in train])  # also finds a folder without images
    if args.preset == "auto":
        preset = auto_preset(side, len(bundle.classes), len(train))
    else:
        preset = PRESETS[args.preset]
    settings = override(preset, args.overrides)
    if settings.batch_size > len(train):
        fitting = len(train) // processes * processes
        logger.warning(
            "The training split has %d samples, fewer than a batch of %d: batches of %d instead",
            *(len(train), settings.batch_size, fitting),
        )
        settings = replace(settings, batch_size=fitting)
    if settings.batch_size < 2 * processes:
        raise ValueError(
            f"{settings.batch_size} samples in a batch (training split: {len(train)}, processes: "
            f"{processes}): each process needs two. Give a larger --batch-size, more samples or "
            "fewer processes"
        )
    if settings.batch_size % processes:
        raise ValueError(
            f"--batch-size {settings.batch_size} (over all processes) is no multiple of "
            f"{processes}, the number of processes"
        )
    if 0 < settings.epoch_samples < settings.batch_size:
        raise ValueError(
            f"--epoch-samples {settings.epoch_samples} is less than a batch, {settings.batch_size}"
        )
    return Config(args.recipe, args.preset, settings, args.seed, args.amp, bundle.classes)


def _listed(choices: dict[str, str]) -> str:
    return "; ".join(f"{name}: {text}" for name, text in choices.items())
