"""How long the App waits for the numbers of a large run: ``python -m benchmarks.panel``.

A run on 2,000 samples of 100 classes, with vectors of 512 numbers in a field, is copied in the
database until there are ``--count`` of them. Then every step of the panel is timed, and each is
checked against counts of the database. Prints Markdown.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from functools import partial
from typing import Any

import fiftyone as fo
import fiftyone.core.odm as foo
import numpy as np
from bson import ObjectId

import clipcleaner_plugin as cc
from benchmarks.clock import Clock
from benchmarks.machine import describe
from clipcleaner_plugin import kept_statistics, reselection
from clipcleaner_plugin.review import preview_review

SEED, CLASSES, DIM = 2_000, 100, 512
_CHUNK = 2_000
REVIEWED = 20
_PREVIEWED = reselection.PREVIEW_SAMPLES
SHOWN = 50  # samples of a page of the grid


def seed_dataset() -> fo.Dataset:
    """Makes a dataset with a run: a tenth of the labels are wrong."""
    rng = np.random.default_rng(0)
    centres = rng.normal(size=(CLASSES, DIM))
    true = rng.integers(0, CLASSES, SEED)
    given = np.where(rng.random(SEED) < 0.1, rng.integers(0, CLASSES, SEED), true)
    vectors = (centres[true] + rng.normal(size=(SEED, DIM))).astype(np.float32)
    dataset = fo.Dataset()
    dataset.add_samples(
        [
            fo.Sample(
                f"/none/{i}.jpg",
                ground_truth=fo.Classification(label=f"class {label}"),
                vectors=vectors[i],
            )
            for i, label in enumerate(given)
        ],
        progress=False,
    )
    texts = {f"class {k}": centres[k : k + 1] for k in range(CLASSES)}
    dataset.apply_clipcleaner(embeddings="vectors", text_features=texts, progress=False)
    return dataset


def multiply(dataset: fo.Dataset, count: int) -> None:
    """Copies the samples in the database until there are so many, each with bytes of its own."""
    collection, rng = dataset._sample_collection, np.random.default_rng(1)
    originals, made = list(collection.find()), len(dataset)
    size = len(originals[0]["vectors"])
    while made < count:
        n = min(_CHUNK, count - made)
        copies = [
            {
                **originals[i % len(originals)],
                **{"_id": ObjectId(), "filepath": f"/none/{i}.jpg", "vectors": rng.bytes(size)},
                "_rand": 0.999 + 0.001 * rng.random(),  # as FiftyOne draws it
            }
            for i in range(made, made + n)
        ]
        collection.insert_many(copies, ordered=False)
        made += n


def measure(count: int) -> Iterator[str]:
    """Times the steps of the panel on a run of so many samples, and yields table rows."""
    dataset, clock = seed_dataset(), Clock()
    try:
        multiply(dataset, count)
        results = cc.load_results(dataset)
        found = clock("count", lambda: kept_statistics.count_again(results))
        assert found.verdicts == {**dict.fromkeys(found.verdicts, 0), **results.counts()}
        assert sum(found.verdicts.values()) == count
        kept_statistics._last.forget()
        opened = clock("open", lambda: kept_statistics.recent_statistics(cc.load_results(dataset)))
        assert opened == (found, True)

        def first_page() -> list[str]:
            ids: list[str] = results.mislabeled_view().limit(SHOWN).values("id")
            return ids

        assert len(clock("page", first_page)) == SHOWN
        shown = clock("view", lambda: results.mislabeled_view().count())
        assert shown == found.counts["mislabeled"]
        given, suggested, pairs = found.confusions[0]
        pair = results.view("mislabeled", given=given, suggested=suggested)
        assert clock("cell", pair.count) == pairs
        assert clock("class", results.view(given=given).count) == found.classes[given].count
        evidence = clock("slider", lambda: _evidence(results))
        stricter = results.thetas._replace(theta_cons=0.9)
        promised = clock("slider again", lambda: evidence.counts(stricter))
        preview = clock(
            "preview", lambda: preview_review(results.mislabeled_view(), "accept_suggestions")
        )
        assert preview.count == shown
        for name in ("first review", "review"):
            worst = dataset.select(results.mislabeled_view().limit(REVIEWED).values("id"))
            clock(name, partial(results.confirm_labels, worst))
        after = clock("open after", lambda: kept_statistics.recent_statistics(results))
        assert after.current and after.statistics.counts["mislabeled"] == shown - 2 * REVIEWED
        applied = clock("apply", lambda: results.reselect(theta_cons=stricter.theta_cons))
        for verdict, n in applied.items():
            assert abs(promised[verdict] - n) < 0.01 * count, (verdict, promised[verdict], n)
    finally:
        dataset.delete()
    yield from table(clock.seconds, count)


def _evidence(results: Any) -> Any:
    """What the first move of a slider reads: a part of the run."""
    evidence = reselection.preview_evidence(results)
    evidence.counts(results.thetas)
    return evidence


def table(seconds: dict[str, float], count: int) -> Iterator[str]:
    """Yields the times as Markdown."""
    yield f"{count:,} samples with vectors of {DIM} numbers, {CLASSES} classes."
    yield ""
    yield "| what | seconds |"
    yield "|---|---|"
    for name, text in (
        ("count", "all numbers of the panel are counted: once a run, and after new thresholds"),
        ("open", "the panel opens, by the numbers that are kept"),
        ("page", f"the first {SHOWN} of the mislabeled, worst first"),
        ("view", "their number, which the grid shows"),
        ("cell", "the same of a cell of the confusions"),
        ("class", "the same of a whole class, which has no index"),
        ("slider", f"a threshold is tried: the evidence of {_PREVIEWED:,} is drawn and kept"),
        ("slider again", "and another one"),
        ("preview", "the form of a review of all mislabeled ones says what would change"),
        ("first review", f"{REVIEWED} labels are confirmed, the first ones: indexes are built"),
        ("review", f"{REVIEWED} more; the panel's numbers are brought up to date each time"),
        ("open after", "the panel is drawn again"),
        ("apply", "a threshold is applied: all evidence is read, and the changed verdicts written"),
    ):
        yield f"| {text} | {seconds[name]:.2f} |"


def main(argv: list[str] | None = None) -> int:
    """Runs the benchmark and prints it as Markdown."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.panel", description=__doc__)
    parser.add_argument("--count", type=int, default=1_000_000, help="samples")
    args = parser.parse_args(argv)
    database = foo.get_db_conn().client.server_info()["version"]
    print(f"{describe('fiftyone', 'pymongo', 'numpy')}, MongoDB {database}\n")
    for row in measure(args.count):
        print(row, flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
