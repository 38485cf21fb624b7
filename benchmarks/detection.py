"""How well wrong labels are found: ``python -m benchmarks.detection [--quick]``.

Noise is drawn on clean labels of real CLIP ViT-B/32 features, ours and other methods say which
labels are wrong, and figures against the truth are printed as Markdown: what docs/accuracy.md and
benchmarks/results/detection.md hold.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks import report
from benchmarks.data import DEFAULT_FOLDER, DataMissingError, FeatureSet, load_sets
from benchmarks.figures import calibration, measure
from benchmarks.machine import describe
from benchmarks.peers import METHODS, Found, make_case, plain_fused
from benchmarks.settings import DRAWS, HARD, NOISE, PLAIN, QUICK, VARIANTS, make_task
from clipcleaner_plugin import score_labels

PACKAGES = ("numpy", "scipy", "scikit-learn", "torch", "cleanlab")


class Setting(NamedTuple):
    """One draw of noise on one set."""

    data: str
    variant: str
    noise: str
    seed: int


def settings(names: Iterable[str], seeds: int, quick: bool) -> Iterator[Setting]:
    """Lists what is measured: the plain sets one seed after the other, then the harder ones.

    Args:
        names: of the sets
        seeds: number of draws on the plain sets; harder sets are drawn once, small ones ten times
        quick: a few kinds of noise on the plain sets only

    Yields:
        the settings
    """
    names = list(names)
    for seed in range(seeds):
        for noise in QUICK if quick else NOISE:
            yield from (Setting(name, PLAIN, noise, seed) for name in names)
    for variant in () if quick else [name for name in VARIANTS if name != PLAIN]:
        for seed in range(DRAWS.get(variant, 1)):
            yield from (Setting(name, variant, noise, seed) for noise in HARD for name in names)


def examine(data: FeatureSet, setting: Setting) -> dict[str, Any]:
    """Measures all methods in one setting.

    Args:
        data: the set that it names
        setting: what to measure

    Returns:
        a record that JSON can hold: ``setting``, ``size`` (samples, classes), ``methods`` (name →
        figures), ``ours`` (calibration, F1 of ``clean_score < 0.5``, language weight, seconds that
        ``score_labels`` and the plain fused rule took)
    """
    task = make_task(data, setting.variant, setting.noise, setting.seed)
    started = time.perf_counter()
    scores = score_labels(task.features, task.given, task.texts, num_classes=task.num_classes)
    seconds = time.perf_counter() - started
    started = time.perf_counter()
    case = make_case(task, scores)
    plain_fused(case)
    plain_seconds = time.perf_counter() - started
    return {
        "setting": list(setting),
        "size": [len(task.given), task.num_classes],
        "methods": {name: measure(find(case), task.wrong) for name, find in METHODS.items()},
        "ours": {
            **calibration(scores.clean_score, task.given, task.wrong),
            "F1 of score": measure(
                Found(scores.clean_score < 0.5, scores.evidence["margin"]), task.wrong
            )["F1"],
            "language weight": float(scores.language_weight),
            "seconds": seconds,
            "plain seconds": plain_seconds,
        },
    }


def main(argv: list[str] | None = None) -> int:
    """Measures and prints the report.

    Args:
        argv: arguments; default: those of the command line

    Returns:
        exit status
    """
    args = _arguments(argv)
    try:
        sets = {data.name: data for data in load_sets(args.data)}
    except DataMissingError as error:
        print(f"No benchmark without data: {error}", file=sys.stderr)
        return 2
    wanted = list(settings(sets, 1 if args.quick else args.seeds, args.quick))
    records = _read(args.records)
    for number, setting in enumerate(wanted, start=1):
        if setting in records:
            continue
        started = time.perf_counter()
        records[setting] = examine(sets[setting.data], setting)
        took = time.perf_counter() - started
        print(f"{number}/{len(wanted)} {' · '.join(map(str, setting))}: {took:.0f} s",
              file=sys.stderr, flush=True)  # fmt: skip
        if args.records:
            with args.records.open("a", encoding="utf-8") as file:
                file.write(json.dumps(records[setting]) + "\n")
    print(f"{describe(*PACKAGES)}\n")
    found = [records[setting] for setting in wanted]
    for line in report.raw(found) if args.raw else report.summary(found):
        print(line)
    return 0


def _arguments(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.detection", description=__doc__)
    parser.add_argument("--data", type=Path, default=DEFAULT_FOLDER, help="folder of the features")
    parser.add_argument("--seeds", type=int, default=3, help="draws on plain sets (default: 3)")
    parser.add_argument("--quick", action="store_true", help="three kinds of noise, one draw")
    parser.add_argument("--raw", action="store_true", help="all figures of all methods, row by row")
    parser.add_argument(
        "--records",
        type=Path,
        help="file that keeps what is measured; what it holds already is not measured again",
    )
    args = parser.parse_args(argv)
    if args.seeds < 1:
        parser.error(f"--seeds must be >= 1, found {args.seeds}")
    return args


def _read(path: Path | None) -> dict[Setting, dict[str, Any]]:
    """Reads records that an earlier call has kept."""
    if path is None or not path.is_file():
        return {}
    records = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    return {Setting(*record["setting"]): record for record in records}


if __name__ == "__main__":
    sys.exit(main())
