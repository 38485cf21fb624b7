"""Records of the detection benchmark as Markdown."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from benchmarks.figures import FIGURES
from benchmarks.peers import METHODS
from benchmarks.settings import NO_NOISE, PLAIN

Record = dict[str, Any]
Row = tuple[str, str, str]  # set, variant, noise
RIVALS = ("paper rule", "cleanlab")  # ours is to be below neither, in any row
TIE = 0.0005  # figures that differ by less count as one
HELD_OUT = "ucf101"


def summary(records: Sequence[Record]) -> Iterator[str]:
    """Yields the tables of docs/accuracy.md.

    Args:
        records: of ``benchmarks.detection.examine``, at least one
    """
    rows = _rows(records)
    noisy = {row: group for row, group in rows.items() if row[2] != NO_NOISE}
    yield from _means(noisy)
    yield from _behind(noisy)
    for figure in ("F1", "AUROC"):
        yield from _rows_of(noisy, figure)
    yield from _calibration(noisy)
    yield from _clean(rows)
    yield from _times(rows)


def raw(records: Sequence[Record]) -> Iterator[str]:
    """Yields the table of benchmarks/results/detection.md; see :func:`summary`."""
    yield f"{' / '.join(FIGURES)}, means over the draws."
    yield from _head("set", "variant", "noise", "samples, classes", "draws", *METHODS)
    for row, group in _rows(records).items():
        samples, classes = np.mean([record["size"] for record in group], axis=0)
        cells = [
            " / ".join(f"{mean_of(group, name, figure):.3f}" for figure in FIGURES)
            for name in METHODS
        ]
        yield _line(*row, f"{samples:.0f}, {classes:.0f}", len(group), *cells)


def mean_of(group: Sequence[Record], method: str, figure: str) -> float:
    """Mean of a figure over draws."""
    return float(np.mean(_draws(group, method, figure)))


def _draws(group: Sequence[Record], method: str, figure: str) -> list[float]:
    return [record["methods"][method][figure] for record in group]


def _rows(records: Sequence[Record]) -> dict[Row, list[Record]]:
    """The draws of every row."""
    rows: dict[Row, list[Record]] = {}
    for record in records:
        data, variant, noise, _ = record["setting"]
        rows.setdefault((data, variant, noise), []).append(record)
    return rows


def _means(rows: dict[Row, list[Record]]) -> Iterator[str]:
    """Every method on average, on all rows, and on the held-out set."""
    held_out = {row: group for row, group in rows.items() if row[0] == HELD_OUT}
    figures = [figure for figure in FIGURES if figure != "flagged"]
    for title, part in (("all rows with noise", rows), (f"{HELD_OUT} alone", held_out)):
        if part:
            yield f"Means over {title} ({len(part)} rows)"
            yield from _head("method", *figures)
            for name in METHODS:
                cells = [
                    f"{np.mean([mean_of(group, name, figure) for group in part.values()]):.3f}"
                    for figure in figures
                ]
                yield _line(name, *cells)
            yield ""


def _behind(rows: dict[Row, list[Record]]) -> Iterator[str]:
    """The rows in which ours is below the paper's rule or cleanlab."""
    yield f"Rows in which ours is below {' or '.join(RIVALS)}, in F1 or AUROC, by {TIE} or more"
    yield from _head("set", "variant", "noise", "figure", "ours", *RIVALS)
    for row, group in rows.items():
        for figure in ("F1", "AUROC"):
            own, *others = (mean_of(group, name, figure) for name in ("ours", *RIVALS))
            if max(others) - own >= TIE:
                yield _line(*row, figure, f"{own:.3f}", *(f"{value:.3f}" for value in others))
    yield ""


def _rows_of(rows: dict[Row, list[Record]], figure: str) -> Iterator[str]:
    """One figure of all methods, row by row."""
    yield f"{figure} by row; ± is the standard deviation over the draws, the best mean is bold"
    yield from _head("set", "variant", "noise", *METHODS)
    for row, group in rows.items():
        means = {name: mean_of(group, name, figure) for name in METHODS}
        best = max(means.values())
        cells = []
        for name, mean in means.items():
            text = f"**{mean:.3f}**" if mean == best else f"{mean:.3f}"
            if len(group) > 1:
                text += f" ± {np.std(_draws(group, name, figure), ddof=1):.3f}"
            cells.append(text)
        yield _line(*row, *cells)
    yield ""


def _calibration(rows: dict[Row, list[Record]]) -> Iterator[str]:
    """How far the clean score of ours is a probability."""
    yield "Ours as a probability, means over the draws"
    yield from _head(
        "set", "variant", "noise", "calibration error", "estimated noise rate", "true", "off by",
        "interval covers", "off by, per class", "classes covered", "F1 of score < .5",
        "language weight",
    )  # fmt: skip
    for row, group in rows.items():
        own = [record["ours"] for record in group]
        mean = {name: np.mean([one[name] for one in own]) for name in own[0]}
        off = np.mean([abs(one["estimated"] - one["true"]) for one in own])
        covered = sum(int(one["covered"]) for one in own)
        yield _line(
            *row,
            *(f"{value:.3f}" for value in (mean["ece"], mean["estimated"], mean["true"], off)),
            f"{covered} of {len(own)}",
            f"{mean['by class']:.3f}",
            f"{mean['classes covered']:.2f}",
            f"{mean['F1 of score']:.3f}",
            f"{mean['language weight']:.2f}",
        )
    yield ""


def _times(rows: dict[Row, list[Record]]) -> Iterator[str]:
    """How long ours takes beside the plain fused rule, with regressions by the same solver."""
    yield "Seconds on the sets as they are, means over kinds of noise and draws"
    yield from _head("set", "ours", "plain fused", "ours / plain fused")
    plain_sets: dict[str, list[Record]] = {}
    for (name, variant, _), group in rows.items():
        if variant == PLAIN:
            plain_sets.setdefault(name, []).extend(record["ours"] for record in group)
    for name, own in plain_sets.items():
        ours, plain = (
            float(np.mean([one[key] for one in own])) for key in ("seconds", "plain seconds")
        )
        yield _line(name, f"{ours:.1f}", f"{plain:.1f}", f"{ours / plain:.2f}")
    yield ""


def _clean(rows: dict[Row, list[Record]]) -> Iterator[str]:
    """What is flagged where no label is wrong."""
    clean = {row: group for row, group in rows.items() if row[1:] == (PLAIN, NO_NOISE)}
    yield "No noise: share of the labels flagged"
    yield from _head("set", *METHODS, "noise rate that ours estimates")
    for row, group in clean.items():
        cells = [f"{mean_of(group, name, 'flagged'):.3f}" for name in METHODS]
        estimated = np.mean([record["ours"]["estimated"] for record in group])
        yield _line(row[0], *cells, f"{estimated:.3f}")
    yield ""


def _head(*names: str) -> Iterator[str]:
    yield ""
    yield _line(*names)
    yield "|---" * len(names) + "|"


def _line(*cells: Any) -> str:
    return f"| {' | '.join(map(str, cells))} |"
