"""Text features batched over classes equal those of one prompt at a time."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest

from clipcleaner_plugin.models import TINY_CLIP, ClipModel, load_model
from clipcleaner_plugin.text import class_text_features

PROMPTS = [
    ["a photo of a three.", "the digit three"],
    ["a photo of an eight."],
    ["zero", "a photo of a zero.", "a scan of the digit 0", "zero"],
    ["a photo of a three.", "köttbullar, 饺子"],
]


@pytest.fixture(scope="module")
def model() -> ClipModel:
    return load_model(TINY_CLIP, device="cpu")


class Counting:
    """Remembers how many texts each forward pass had."""

    def __init__(self, model: ClipModel) -> None:
        self.model = model
        self.batches: list[int] = []

    def encode_texts(self, texts: Sequence[str]) -> np.ndarray:
        self.batches.append(len(texts))
        return self.model.encode_texts(texts)


@pytest.mark.parametrize("batch_size", [1, 2, 3, 256])
def test_batching_changes_nothing(model: ClipModel, batch_size: int) -> None:
    features = class_text_features(model, PROMPTS, batch_size=batch_size)
    assert [f.shape for f in features] == [(2, 64), (1, 64), (4, 64), (2, 64)]
    for group, mine in zip(PROMPTS, features, strict=True):
        alone = np.concatenate([model.encode_texts([text]) for text in group])
        assert mine.dtype == np.float32
        np.testing.assert_allclose(mine, alone, atol=1e-6)


def test_no_forward_pass_is_larger_than_asked_and_shared_prompts_are_computed_once(
    model: ClipModel,
) -> None:
    counting = Counting(model)
    features = class_text_features(counting, PROMPTS, batch_size=3)
    assert counting.batches == [3, 3, 1]  # seven different texts
    assert np.array_equal(features[0][0], features[3][0])
    assert np.array_equal(features[2][0], features[2][3])


def test_thousands_of_classes(model: ClipModel) -> None:
    counting = Counting(model)
    features = class_text_features(counting, [[f"class {k}"] for k in range(1000)])
    assert len(features) == 1000 and max(counting.batches) == 256


def test_no_classes(model: ClipModel) -> None:
    assert class_text_features(model, []) == []


def test_a_class_without_prompts_is_named(model: ClipModel) -> None:
    with pytest.raises(ValueError, match=r"prompts\[1\]: expected a list of at least one prompt"):
        class_text_features(model, [["a"], []])
    with pytest.raises(ValueError, match=r"prompts\[0\].*got 'three'"):
        class_text_features(model, ["three"])


def test_batch_size_is_checked(model: ClipModel) -> None:
    with pytest.raises(ValueError, match="batch_size=0"):
        class_text_features(model, PROMPTS, batch_size=0)
