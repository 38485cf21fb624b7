"""How fast a run's results reach MongoDB and come back: ``python -m benchmarks.database``.

Scores, verdicts and suggestions (seven fields) and vectors of 512 numbers, for 100,000 samples:
written as a run writes them, by FiftyOne's ``set_values``, and by ``sample.save()`` (a part of
them, extrapolated). Prints Markdown.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import fiftyone as fo
import fiftyone.core.odm as foo
import numpy as np

from benchmarks.clock import Clock
from benchmarks.machine import describe
from clipcleaner_plugin.embed import EmbeddingReport
from clipcleaner_plugin.embeddings import fill_vector_field
from clipcleaner_plugin.fields import (
    EVIDENCES,
    VERDICTS,
    classification,
    create_indexes,
    declare_fields,
    write_rows,
)
from clipcleaner_plugin.layout import Layout
from clipcleaner_plugin.store import EmbeddingStore

DIM = 512
SAVED = 1_000  # samples that are saved one by one
FLOATS = ("score", *EVIDENCES)


def make_columns(count: int) -> dict[str, list[Any]]:
    """Draws what a run gives for each sample: five floats, a verdict, a suggestion."""
    rng = np.random.default_rng(0)
    columns: dict[str, list[Any]] = {name: rng.random(count).tolist() for name in FLOATS}
    columns["verdict"] = rng.choice(VERDICTS, count).tolist()
    columns["suggestion"] = [f"class {k}" for k in rng.integers(0, 100, count)]
    return columns


def rows(ids: list[str], columns: dict[str, list[Any]]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yields the fields of each sample, as a run does."""
    labels = columns["suggestion"]
    for i, sample_id in enumerate(ids):
        row = {f"ours_{name}": columns[name][i] for name in (*FLOATS, "verdict")}
        yield sample_id, {**row, "ours_suggestion": classification(labels[i], 0.5)}


def by_set_values(dataset: fo.Dataset, ids: list[str], columns: dict[str, list[Any]]) -> None:
    """Writes field after field, in FiftyOne's documented way."""
    for name, values in columns.items():
        if name == "suggestion":
            values = [fo.Classification(label=label, confidence=0.5) for label in values]
        dataset.set_values(f"theirs_{name}", dict(zip(ids, values, strict=True)), key_field="id")


def by_save(dataset: fo.Dataset, columns: dict[str, list[Any]], vectors: np.ndarray) -> None:
    """Writes sample after sample."""
    for i, sample in enumerate(dataset[:SAVED]):
        for name in (*FLOATS, "verdict"):
            sample[f"saved_{name}"] = columns[name][i]
        label = columns["suggestion"][i]
        sample["saved_suggestion"] = fo.Classification(label=label, confidence=0.5)
        sample["saved_vectors"] = vectors[i]
        sample.save()


def fill_store(folder: Path, ids: list[str], vectors: np.ndarray) -> EmbeddingStore:
    """Stores the vectors, batch by batch."""
    store = EmbeddingStore("benchmark", "benchmark", folder)
    with store.writer() as writer:
        for start in range(0, len(ids), 256):
            part = ids[start : start + 256]
            writer.append(part, [(1, 1)] * len(part), vectors[start : start + 256])
    return store


def measure(count: int, scratch: Path) -> Iterator[str]:
    """Times everything on a new dataset, checks what was written, and yields table rows."""
    columns = make_columns(count)
    vectors = np.random.default_rng(1).normal(size=(count, DIM)).astype(np.float32)
    dataset, clock = fo.Dataset(), Clock()
    try:
        dataset.add_samples([fo.Sample(f"/none/{i}.jpg") for i in range(count)], progress=False)
        ids = dataset.values("id")
        for prefix in ("ours", "theirs", "saved"):
            declare_fields(dataset, Layout("ground_truth", prefix=prefix))
        for field in ("theirs_vectors", "saved_vectors"):
            dataset.add_sample_field(field, fo.VectorField)
        report = EmbeddingReport((), count, {})

        def write(prefix: str, work: Callable[[], None]) -> None:
            work()
            create_indexes(dataset, Layout("ground_truth", prefix=prefix))

        clock("rows", lambda: write("ours", lambda: write_rows(dataset, rows(ids, columns))))
        clock("values", lambda: write("theirs", lambda: by_set_values(dataset, ids, columns)))
        clock("save", lambda: by_save(dataset, columns, vectors))
        store = clock("store", lambda: fill_store(scratch, ids, vectors))
        clock("fill", lambda: fill_vector_field(dataset, "ours_vectors", store, report))
        theirs = dict(zip(ids, vectors, strict=True))
        clock("vectors", lambda: dataset.set_values("theirs_vectors", theirs, key_field="id"))
        clock("read store", lambda: EmbeddingStore("benchmark", "benchmark", scratch).read(ids))
        found = clock("read field", lambda: np.stack(dataset.values("ours_vectors")))
        read = clock("read scores", lambda: dataset.values([f"ours_{name}" for name in FLOATS]))
        assert np.array_equal(found, vectors)
        assert list(map(list, read)) == [columns[name] for name in FLOATS]
        assert dataset.values("ours_suggestion.label") == columns["suggestion"]
    finally:
        dataset.delete()
    yield from table(clock.seconds, count)


def table(seconds: dict[str, float], count: int) -> Iterator[str]:
    """Yields the figures as Markdown."""
    rate = {name: (SAVED if name == "save" else count) / took for name, took in seconds.items()}
    yield f"{count:,} samples; `sample.save()`: {SAVED:,} of them."
    yield ""
    yield "| what | samples/s |"
    yield "|---|---|"
    for name, text in (
        ("rows", "7 fields, as a run writes them"),
        ("values", "7 fields, `set_values` field by field"),
        ("store", f"vectors of {DIM} into the store, durable"),
        ("fill", "vectors from the store into a field"),
        ("vectors", "vectors into a field, `set_values`"),
        ("save", "all of it, `sample.save()`"),
        ("read store", "vectors out of the store, opened and verified"),
        ("read field", "vectors out of the field"),
        ("read scores", "5 scores, `values`"),
    ):
        yield f"| {text} | {rate[name]:,.0f} |"
    mine = 1 / (1 / rate["rows"] + 1 / rate["fill"])
    theirs = 1 / (1 / rate["values"] + 1 / rate["vectors"])
    yield ""
    yield (
        f"Scores and vectors together: {mine / rate['save']:.0f} x `sample.save()` (to reach: 20), "
        f"{mine / theirs:.2f} x `set_values` (to reach: 0.9)."
    )


def main(argv: list[str] | None = None) -> int:
    """Runs the benchmark and prints it as Markdown."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.database", description=__doc__)
    parser.add_argument("--count", type=int, default=100_000, help="samples")
    args = parser.parse_args(argv)
    database = foo.get_db_conn().client.server_info()["version"]
    print(f"{describe('fiftyone', 'pymongo', 'numpy')}, MongoDB {database}\n")
    with tempfile.TemporaryDirectory() as scratch:
        for row in measure(args.count, Path(scratch)):
            print(row, flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
