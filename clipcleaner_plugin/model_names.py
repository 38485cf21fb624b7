"""Errors for model names and tags that open_clip does not know: what is close, and how to list
all."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

TINY_CLIP = "tiny-clip-digits"
HUB_PREFIX = "hf-hub:"
_LIST_MODELS = 'python -c "import open_clip; print(*open_clip.list_pretrained(), sep=chr(10))"'


def tags_of(name: str) -> str:
    """Lists the pretrained tags of an architecture.

    Args:
        name: an open_clip architecture

    Returns:
        the tags, separated by commas, or a phrase that says that there are none
    """
    import open_clip

    tags = open_clip.list_pretrained_tags_by_model(name)
    return ", ".join(tags) if tags else "open_clip has no weights for it"


def unknown_model(name: str) -> str:
    """Says that there is no such model.

    Args:
        name: what the user typed

    Returns:
        the text of the error
    """
    import open_clip

    close = _close(name.replace("/", "-"), [*open_clip.list_models(), TINY_CLIP])
    text = f"model={name!r} is no open_clip model, and no file or folder is there"
    if close:
        text += f". Close names: {', '.join(close)}"
    if name.count("/") == 1 and not name.startswith((".", "/", "~")):
        text += f". A model on the Hugging Face hub is written {HUB_PREFIX}{name}"
    return f"{text}. All names and tags: {_LIST_MODELS}"


def unknown_tag(name: str, pretrained: str) -> str:
    """Says that an architecture has no such weights.

    Args:
        name: an open_clip architecture
        pretrained: what the user typed

    Returns:
        the text of the error
    """
    import open_clip

    text = f"pretrained={pretrained!r} is no tag of {name}, and no file is there"
    text += f". Its tags: {tags_of(name)}"
    close = _close(pretrained, open_clip.list_pretrained_tags_by_model(name))
    if close:
        text += f". Close: {', '.join(close)}"
    elsewhere = open_clip.list_pretrained_models_by_tag(pretrained)
    if elsewhere:
        text += f". {pretrained!r} belongs to {', '.join(elsewhere[:8])}"
    return f"{text}. All names and tags: {_LIST_MODELS}"


def _close(word: str, choices: Iterable[str]) -> list[str]:
    by_lower = {choice.lower(): choice for choice in choices}
    return [by_lower[c] for c in difflib.get_close_matches(word.lower(), by_lower, n=5, cutoff=0.5)]
