"""Does a list of classes fit? What speaks against it, before a run shows it."""

from __future__ import annotations

import re
from collections.abc import Mapping

# "7", "n01440764" of WordNet, "class_3", "A1": names of somebody's table, not of a thing
_MEANS_NOTHING = re.compile(
    r"[\W\d_]*|n\d{8}|(class|label|category|cls|id)[\W_]*\d+|[a-z]\d+", re.I
)
_SHOWN = 3


def class_list_warnings(counts: Mapping[str | None, int], with_names: bool = True) -> list[str]:
    """Says in sentences why labels may not be fit for a run.

    Args:
        counts: label → samples; None for samples without one
        with_names: whether the names of the classes take part in the run

    Returns:
        warnings; empty where nothing is suspicious
    """
    names = {name: n for name, n in counts.items() if name}
    if not names:
        return ["No sample has a label in this field: there is nothing to examine."]
    if len(names) == 1:
        return [f"All labels are {next(iter(names))!r}: with one class, no label can be wrong."]
    found = []
    single = sum(n == 1 for n in names.values())
    if 2 * single > len(names):
        found.append(
            f"{single:,} of {len(names):,} classes have one image only, which cannot be compared "
            "with others of its class. Does the field hold captions or ids?"
        )
    if with_names:
        found += _about_names(list(names))
    unlabeled = sum(counts.values()) - sum(names.values())
    if unlabeled:
        found.append(f"{unlabeled:,} samples have no label; they will be unscorable.")
    return found


def _about_names(names: list[str]) -> list[str]:
    found = []
    empty = [name for name in names if _MEANS_NOTHING.fullmatch(name)]
    if empty:
        found.append(
            f"{len(empty):,} of {len(names):,} class names say nothing to the model: "
            f"{_some(empty)}. Name the things in a prompts file (advanced options). Or compute "
            "embeddings first, choose their field there, and leave the class names out."
        )
    alike: dict[str, list[str]] = {}
    for name in names:
        alike.setdefault(re.sub(r"[\W_]+", " ", name).strip().casefold(), []).append(name)
    same = [group for group in alike.values() if len(group) > 1]
    if same:
        found.append(
            "Names that differ in spelling only are classes of their own: "
            + "; ".join(_some(group) for group in same[:_SHOWN])
            + ". Merge them first."
        )
    return found


def _some(names: list[str]) -> str:
    more = f" and {len(names) - _SHOWN:,} more" if len(names) > _SHOWN else ""
    return ", ".join(map(repr, sorted(names)[:_SHOWN])) + more
