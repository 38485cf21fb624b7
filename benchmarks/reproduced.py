"""The report of a reproduced row: Markdown for people, JSON for programs."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.machine import describe

_PACKAGES = ("numpy", "torch", "torchvision", "fiftyone")


def write(
    folder: Path, name: str, options: str, about: str, records: Sequence[dict[str, Any]]
) -> list[Path]:
    """Writes ``reproduce-NAME.md`` and ``.json``.

    Args:
        folder: where to
        name: of the row, and what differs from it
        options: of the command line
        about: data, noise and embeddings, in words
        records: of all seeds

    Returns:
        the two files
    """
    folder.mkdir(parents=True, exist_ok=True)
    machine = describe(*_PACKAGES)
    lines = [f"# {name}", "", f"{about}. `python -m benchmarks.reproduce {options}` on {machine}."]
    text, data = folder / f"reproduce-{name}.md", folder / f"reproduce-{name}.json"
    text.write_text("\n".join([*lines, *_selection(records), *_training(records), ""]))
    content = {"name": name, "about": about, "machine": machine, "records": list(records)}
    data.write_text(json.dumps(content, indent=1) + "\n")
    return [text, data]


def _selection(records: Sequence[dict[str, Any]]) -> Iterator[str]:
    yield from (
        "",
        "## Selection",
        "",
        "Training labels of which it is known whether they are right: how many are right, how many "
        "of the selected ones are (precision), and how many of the right ones are selected "
        '(recall). Then the verdict "mislabeled" on training and validation labels.',
        "",
        "| seed | training labels | right | selected | precision | recall | mislabeled: precision "
        "| recall | AUROC |",
        "|---|---|---|---|---|---|---|---|---|",
    )
    for found in (record for record in records if "recipe" not in record):
        flagged = found.get("mislabeled", {})
        cells = [
            str(found["seed"]),
            f"{found['train']:,}",
            _share(found["right"], found["known"]),
            f"{found['selected']:,}",
            _share(found["selected_right"], found["selected_known"]),
            _share(found["selected_right"], found["right"]),
            *(_number(flagged.get(name)) for name in ("precision", "recall", "auroc")),
        ]
        yield f"| {' | '.join(cells)} |"


def _training(records: Sequence[dict[str, Any]]) -> Iterator[str]:
    trained = [record for record in records if "recipe" in record]
    recipes = list(dict.fromkeys(record["recipe"] for record in trained))
    settings, epochs = trained[0]["config"], trained[0]["epochs"]
    yield from (
        "",
        "## Accuracy on the test images, by right labels",
        "",
        f"Network {settings['network']}, {settings['image_size']} px, {epochs} epochs of "
        f"batches of {settings['batch_size']}, learning rate {settings['lr']:g}; best: by the "
        "validation images, with labels as given. Mean of the seeds, and the standard deviation.",
        "",
        "| recipe | last | best | last, by seed | labels trained on at the end | of them right "
        "| seconds of the clock |",
        "|---|---|---|---|---|---|---|",
    )
    for recipe in recipes:
        rows = [record for record in trained if record["recipe"] == recipe]
        last = [row["last"]["test_accuracy"] for row in rows]
        sets = [row["set"] for row in rows]
        cells = [
            recipe,
            _spread(last),
            _spread([row["best"]["test_accuracy"] for row in rows]),
            ", ".join(f"{value:.1%}" for value in last),
            f"{np.mean([s['set_size'] for s in sets]):,.0f}",
            _share(sum(s["set_right"] for s in sets), sum(s["set_known"] for s in sets)),
            f"{np.mean([row['seconds'] for row in rows]):,.0f}",
        ]
        yield f"| {' | '.join(cells)} |"


def _spread(values: Sequence[float]) -> str:
    mean = f"{np.mean(values):.1%}"
    return f"{mean} ± {np.std(values, ddof=1):.1%}" if len(values) > 1 else mean


def _share(part: int, whole: int) -> str:
    return f"{part / whole:.1%}" if whole else "-"


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"
