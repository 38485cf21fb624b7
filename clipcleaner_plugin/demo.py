"""``python -m clipcleaner_plugin demo``: plants label errors, finds them, compares with the
truth."""

from __future__ import annotations

import argparse
import logging
import math
import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import fiftyone as fo
import numpy as np

from .demo_data import (
    DIGITS,
    KEY,
    LABEL_FIELD,
    TRUSTED_FIELD,
    Images,
    demo_dataset,
    read_images,
)
from .model_names import TINY_CLIP
from .planting import inject_noise

if TYPE_CHECKING:
    from .results import CLIPCleanerResults

logger = logging.getLogger(__name__)

DEMO_NAME = "clipcleaner-demo"
_EXAMPLES = 10
# Classes that people confuse; for other class lists asymmetric noise goes round the list
_KNOWN_CONFUSIONS: tuple[tuple[tuple[str, str], ...], ...] = (
    (
        *(("three", "eight"), ("eight", "three"), ("four", "nine"), ("nine", "four")),
        *(("one", "seven"), ("seven", "one")),
    ),
    (
        *(("truck", "automobile"), ("bird", "airplane"), ("deer", "horse")),
        *(("cat", "dog"), ("dog", "cat")),
    ),
)


@dataclass(frozen=True)
class Demo:
    """What a demo made.

    Attributes:
        dataset: with ``trusted_label``, the noisy ``ground_truth`` and the run's fields
        results: of the run
        found: what :meth:`CLIPCleanerResults.evaluate` says against the trusted labels
    """

    dataset: fo.Dataset
    results: CLIPCleanerResults
    found: dict[str, Any]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the demo's options to a parser.

    Args:
        parser: of the subcommand
    """
    unset = argparse.SUPPRESS
    add = parser.add_argument
    add("--model", default=unset, help="by default the tiny CLIP for digits, else ViT-B-32")
    add("--pretrained", default="openai", help="tag or file of its weights")
    text = "digits, a FiftyOne dataset, a folder of class folders, or a dataset of FiftyOne's zoo"
    add("--dataset", default=DIGITS, help=text)
    text = "the labels that are taken for true, in a FiftyOne or zoo dataset"
    add("--label-field", default=LABEL_FIELD, metavar="FIELD", help=text)
    add("--split", default=unset, help="of a zoo dataset; by default test, else validation")
    text = "a random subset of this size; by default everything"
    add("--max-samples", type=int, default=unset, metavar="N", help=text)
    text = "symmetric: to any class; asymmetric: to the class that it is confused with"
    add("--noise", choices=("symmetric", "asymmetric"), default="symmetric", help=text)
    text = "fraction of labels to redraw; 0 = look for the dataset's own errors"
    add("--rate", type=float, default=0.3, help=text)
    add("--seed", type=int, default=51, help="fixes which labels are redrawn")
    text = "prompts for the classes: a JSON or YAML file"
    add("--class-prompts", default=unset, metavar="FILE", help=text)
    add("--name", default=DEMO_NAME, help="of the demo's own dataset, which is replaced")
    add("--app", action="store_true", help="open the App on the result and wait")


def run(args: argparse.Namespace) -> int:
    """Runs the demo and prints what it found.

    Args:
        args: parsed with :func:`add_arguments`

    Returns:
        the exit status, 0

    Raises:
        ValueError: if an option does not fit
    """
    if not 0 <= args.rate <= 1:
        raise ValueError(f"--rate is {args.rate}; expected a fraction from 0 to 1")
    if args.dataset == args.name:
        raise ValueError(f"--dataset {args.dataset} is what --name would replace; choose another")
    optional = {key: getattr(args, key, None) for key in ("split", "max_samples")}
    images = read_images(args.dataset, args.label_field, **optional)
    model = getattr(args, "model", None) or _default_model(args.dataset)
    if model == TINY_CLIP and args.dataset != DIGITS:
        logger.warning("Model %s knows handwritten digits only: expect nonsense", TINY_CLIP)
    made = run_demo(
        images,
        model=model,
        pretrained=args.pretrained,
        noise=args.noise,
        rate=args.rate,
        seed=args.seed,
        name=args.name,
        class_prompts=getattr(args, "class_prompts", None),
    )
    print(report(made, planted=args.rate > 0))
    if args.app:
        _open_app(made)
    else:
        print(f"\nTo look at it: fiftyone app launch {args.name}")
        print(f"and load the saved view '{KEY}: mislabeled'.")
    return 0


def run_demo(
    images: Images,
    *,
    model: str,
    pretrained: str | None = "openai",
    noise: str = "symmetric",
    rate: float = 0.3,
    seed: int = 51,
    name: str = DEMO_NAME,
    class_prompts: str | None = None,
) -> Demo:
    """Plants errors in a dataset of the demo's own and looks for them.

    Args:
        images: what to work on; its labels are taken for true
        model: as in :func:`clipcleaner_plugin.apply_clipcleaner`
        pretrained ("openai"): likewise
        noise ("symmetric"): "symmetric" or "asymmetric"
        rate (0.3): fraction of labels to redraw
        seed (51): of the noise
        name ("clipcleaner-demo"): of the dataset; a former demo of this name is replaced
        class_prompts (None): likewise

    Returns:
        dataset, results and comparison

    Raises:
        ValueError: if an option does not fit
    """
    from .apply import apply_clipcleaner
    from .models import model_identity

    model_identity(model, pretrained)  # a misspelt model must not cost the former demo
    dataset = demo_dataset(name, images)
    inject_noise(
        dataset,
        noise,
        rate,
        seed,
        label_field=TRUSTED_FIELD,
        noisy_field=LABEL_FIELD,
        pairs=confusion_pairs(images.classes) if noise == "asymmetric" else None,
        classes=images.classes,
    )
    dataset.description = f"{images.source}, {rate:.0%} {noise} label noise, seed {seed}"
    results = apply_clipcleaner(
        dataset,
        label_field=LABEL_FIELD,
        key=KEY,
        model=model,
        pretrained=pretrained,
        classes=images.classes,
        class_prompts=class_prompts,
    )
    return Demo(dataset, results, results.evaluate(TRUSTED_FIELD))


def confusion_pairs(classes: list[str]) -> list[tuple[str, str]] | None:
    """Says which classes asymmetric noise confuses.

    Args:
        classes: K names

    Returns:
        (from, to) names for digits (3 and 8, 4 and 9, 1 and 7) and CIFAR-10 (as in Patrini et al.
        2017); None for other class lists
    """
    for confusions in _KNOWN_CONFUSIONS:
        if all(name in classes for pair in confusions for name in pair):
            return list(confusions)
    return None


def report(demo: Demo, planted: bool) -> str:
    """Puts the demo's outcome into words.

    Args:
        demo: what was made
        planted: whether errors were planted; if not, there is no truth to compare with

    Returns:
        lines for a terminal
    """
    config, found = demo.results.config, demo.found
    lines = [
        f"{demo.dataset.description}: {found['samples']} labelled images",
        f"model {config.model_identity}",
        "",
    ]
    lines += _against_truth(demo) if planted else _without_truth(demo)
    return "\n".join(lines)


def _against_truth(demo: Demo) -> list[str]:
    found = demo.found
    wrong = found["found"] + found["missed"]
    return [
        f"wrong labels      {wrong:>6}  of {found['samples']} ({found['noise_rate']:.1%}; "
        f"estimated {_estimate(demo)})",
        f"found             {found['found']:>6}  recall {_number(found['recall'])}",
        f"missed            {found['missed']:>6}",
        f"falsely flagged   {found['falsely_flagged']:>6}  precision {_number(found['precision'])}",
        f"right suggestions {round(_or_zero(found['suggestions_right']) * found['found']):>6}  of "
        f"the {found['found']} found",
        *_listed("missed", demo, flagged=False),
        *_listed("falsely flagged", demo, flagged=True),
    ]


def _without_truth(demo: Demo) -> list[str]:
    flagged = demo.results.counts()["mislabeled"]
    lines = [
        "No errors were planted: these are the dataset's own, or false alarms.",
        f"flagged {flagged} of {demo.found['samples']} (estimated share of wrong labels "
        f"{_estimate(demo)})",
    ]
    return lines + _listed("flagged", demo, flagged=True)


def _listed(title: str, demo: Demo, flagged: bool) -> list[str]:
    """Names some samples whose verdict is not the truth's: flagged though right, or not flagged
    though wrong."""
    results = demo.results
    root = os.path.commonpath([os.path.dirname(path) for path in demo.dataset.values("filepath")])
    fields = ["filepath", f"{LABEL_FIELD}.label", f"{TRUSTED_FIELD}.label"]
    fields += [results.field("suggestion") + ".label", results.field("verdict")]
    rows = zip(*results.view().values(fields), strict=True)
    chosen = [
        f"  {os.path.relpath(path, root)}: labelled {given}, "
        + (f"suggested {suggested}" if flagged else f"is {trusted}, called {verdict}")
        for path, given, trusted, suggested, verdict in rows
        if (verdict == "mislabeled") == flagged and (given == trusted) == flagged
    ]
    if not chosen:
        return []
    more = [f"  and {len(chosen) - _EXAMPLES} more"] if len(chosen) > _EXAMPLES else []
    return ["", f"{title}:", *chosen[:_EXAMPLES], *more]


def _estimate(demo: Demo) -> str:
    noise = demo.results.summary().noise
    return f"{noise.rate:.1%}, {noise.low:.1%} to {noise.high:.1%}"


def _number(value: float) -> str:
    return "-" if math.isnan(value) else f"{value:.3f}"


def _or_zero(value: float) -> float:
    return float(np.nan_to_num(value))


def _default_model(dataset: str) -> str:
    return TINY_CLIP if dataset == DIGITS else "ViT-B-32"


def _open_app(demo: Demo) -> None:
    session = fo.launch_app(demo.dataset, view=demo.results.mislabeled_view())
    try:
        print("\nThe App shows the labels to review, worst first. Ctrl-C ends it.", flush=True)
        session.wait(-1)
    except KeyboardInterrupt:
        session.close()
