"""Text features of class prompts, batched over the classes: a thousand classes never make one giant
forward pass."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np


class TextEncoder(Protocol):
    """What is needed of a model: :class:`clipcleaner_plugin.models.ClipModel` is one."""

    def encode_texts(self, texts: Sequence[str]) -> np.ndarray:
        """(T, d) float32 features, every row of length 1."""


def class_text_features(
    model: TextEncoder, prompts: Sequence[Sequence[str]], *, batch_size: int = 256
) -> list[np.ndarray]:
    """Computes the text features of every class's prompts.

    A prompt that several classes share is computed once.

    Args:
        model: the text tower
        prompts: K lists of m_k prompts
        batch_size: prompts in one forward pass

    Returns:
        K arrays (m_k, d) float32, every row of length 1

    Raises:
        ValueError: if a class has no prompts, or ``batch_size`` is below 1
    """
    if batch_size < 1:
        raise ValueError(f"batch_size={batch_size}: expected 1 or more")
    for k, group in enumerate(prompts):
        if isinstance(group, str) or not len(group):
            raise ValueError(f"prompts[{k}]: expected a list of at least one prompt, got {group!r}")
    texts = list(dict.fromkeys(text for group in prompts for text in group))
    if not texts:
        return []
    starts = range(0, len(texts), batch_size)
    features = np.concatenate([model.encode_texts(texts[i : i + batch_size]) for i in starts])
    row = {text: i for i, text in enumerate(texts)}
    return [features[[row[text] for text in group]] for group in prompts]
