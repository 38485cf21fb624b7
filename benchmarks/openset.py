"""How well images of no class are told: images of left-out classes, added with random labels.

``python -m benchmarks.openset`` prints one row a setting. A third of the classes is left out.
"""

from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np

from clipcleaner_plugin import score_labels
from clipcleaner_plugin.noise import draw_noise

from .data import DEFAULT_FOLDER, DataMissingError, FeatureSet, load_sets

SHARES, RATES = (0.0, 0.05, 0.2), (0.0, 0.2)
HEAD = (
    "| data | class names | wrong labels | foreign images | flagged | precision | recall |\n"
    "|---|---|---|---|---|---|---|"
)


class Task(NamedTuple):
    """A set with images of classes that it does not have.

    Attributes:
        features: (N, d) float32
        given: (N,) int64 labels in [0, K)
        texts: (K, d) float array
        foreign: (N,) bool
    """

    features: np.ndarray
    given: np.ndarray
    texts: np.ndarray
    foreign: np.ndarray


def make_task(data: FeatureSet, share: float, rate: float, seed: int) -> Task:
    """Leaves out a third of the classes and adds images of them, with labels drawn at random.

    Args:
        data: a set
        share: of foreign images among all, in [0, 1); fewer where the left-out classes have fewer
        rate: of labels of the other images that symmetric noise draws anew, in [0, 1]
        seed: draws the classes, images and labels
    """
    random = np.random.RandomState(seed)
    order = random.permutation(len(data.texts))
    kept = order[len(order) // 3 :]
    position = np.full(len(order), -1)
    position[kept] = np.arange(len(kept))
    known, left_out = np.flatnonzero(position[data.labels] >= 0), position[data.labels] < 0
    count = min(round(share * len(known) / (1 - share)), int(left_out.sum()))
    added = random.choice(np.flatnonzero(left_out), count, replace=False)
    labels = draw_noise(position[data.labels[known]], len(kept), "symmetric", rate, seed)
    return Task(
        data.features[np.concatenate([known, added])],
        np.concatenate([labels, random.randint(len(kept), size=count)]),
        data.texts[kept],
        np.arange(len(known) + count) >= len(known),
    )


def rows(sets: list[FeatureSet], seed: int) -> Iterator[str]:
    """Measures every setting; yields rows of a Markdown table."""
    for data in sets:
        for names in (True, False):
            for rate in RATES:
                for share in SHARES:
                    task = make_task(data, share, rate, seed)
                    texts = task.texts if names else None
                    scores = score_labels(
                        task.features, task.given, texts, num_classes=len(task.texts)
                    )
                    yield _row(data.name, names, rate, task.foreign, scores.open_set)


def _row(name: str, names: bool, rate: float, foreign: np.ndarray, found: np.ndarray) -> str:
    right = int((found & foreign).sum())
    precision = f"{right / found.sum():.2f}" if found.any() else "–"
    recall = f"{right / foreign.sum():.2f}" if foreign.any() else "–"
    return (
        f"| {name} | {'yes' if names else 'no'} | {rate:.0%} | {foreign.mean():.0%} "
        f"| {found.mean():.1%} | {precision} | {recall} |"
    )


def main(argv: list[str] | None = None) -> int:
    """Measures and prints the table.

    Args:
        argv: arguments; default: those of the command line

    Returns:
        exit status
    """
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.openset", description=(__doc__ or "").splitlines()[0]
    )
    parser.add_argument("--data", type=Path, default=DEFAULT_FOLDER, help="folder of the features")
    parser.add_argument("--seed", type=int, default=0, help="of all draws (default: 0)")
    args = parser.parse_args(argv)
    logging.disable(logging.WARNING)
    try:
        sets = load_sets(args.data)
    except DataMissingError as error:
        print(f"No benchmark without data: {error}", file=sys.stderr)
        return 2
    print(HEAD, flush=True)
    for row in rows(sets, args.seed):
        print(row, flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
