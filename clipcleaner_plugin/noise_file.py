"""Noisy labels that somebody else has drawn, from a CSV file."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path


def read_noise_file(path: Path, labels: Sequence[str | None], classes: Sequence[str]) -> list[str]:
    """Reads noisy labels.

    Args:
        path: a CSV file with the column ``label_noisy`` and, to make sure that it belongs to these
            samples, ``label``; a row a sample, in their order. Labels are names of classes or
            their numbers
        labels: N labels that are taken for true
        classes: K names

    Returns:
        N labels

    Raises:
        ValueError: if the file is malformed or does not belong to the samples; the text says where
    """
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.DictReader(file)
            rows, columns = list(reader), reader.fieldnames or []
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise ValueError(f"cannot read noise from {path}: {error}") from error
    if "label_noisy" not in columns:
        raise ValueError(f"{path} has no column 'label_noisy', only {', '.join(columns) or 'none'}")
    if len(rows) != len(labels):
        raise ValueError(f"{path} has {len(rows)} rows for {len(labels)} samples")
    names = {**{str(k): name for k, name in enumerate(classes)}, **{name: name for name in classes}}
    noisy = []
    for number, (row, label) in enumerate(zip(rows, labels, strict=True), start=2):
        for column in ("label", "label_noisy"):
            if column in row and row[column] not in names:
                raise ValueError(
                    f"{path}, line {number}: {column} {row[column]!r} is no class and no number "
                    f"from 0 to {len(classes) - 1}"
                )
        if "label" in row and names[row["label"]] != label:
            raise ValueError(
                f"{path}, line {number}: its label is {names[row['label']]!r}, that of the sample "
                f"{label!r}: the file belongs to other samples, or to another order of them"
            )
        noisy.append(names[row["label_noisy"]])
    return noisy
