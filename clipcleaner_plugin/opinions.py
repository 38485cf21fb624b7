"""Both classifiers, fitted, and asked about the scorable samples one block after the other."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from . import visual
from .cleaning import Cleaning, clean_labels, draw_sample
from .fitting import in_order, one_blas_thread
from .inputs import Inputs, unit_rows
from .labeled import Labeled
from .noise_fit import start_model
from .noise_model import NoiseModel
from .visual import VisualModels
from .zeroshot import ZeroShot

if TYPE_CHECKING:
    import torch

T = TypeVar("T")
Work = Callable[["Opinions", slice], T]

_asker: ContextVar[Callable[[Opinions, Work[Any]], Iterator[Any]] | None] = ContextVar(
    "asker", default=None
)

LANGUAGE_TEMPERATURE = 0.01  # CLIP's own scale; the user's belongs to the paper's rule

# Numbers in a table of one block, and its least and most rows. Fixed, so that no row's result
# depends on the number of cores.
_BLOCK = 2**19
_ROWS_OF_BLOCK = (64, 8192)


@dataclass(frozen=True)
class Opinions:
    """The scorable samples, in an order that their content decides, and who judges them.

    A table of all samples and classes never exists: :meth:`each_block` asks for a block at a time.

    Attributes:
        rows: (n,) int, where these samples stand among all
        features: (n, d) float32 unit rows that the class names are compared with
        visual_features: (n, e) float32 unit rows that the images are compared by; the same object
            where there are no others
        labels: (n,) int in [0, K)
        fold_of: (n,) int from :func:`clipcleaner_plugin.visual.assign_folds`
        num_classes: K
        language: None without text features
        images: None where all samples are of one class
        noise: how the labels came about, by the first cleaning
        offsets: (K,) float32, to be added to the logits of language, by the first cleaning
        lonely: number of samples without another image in their class
    """

    rows: np.ndarray
    features: np.ndarray
    visual_features: np.ndarray
    labels: np.ndarray
    fold_of: np.ndarray
    num_classes: int
    language: ZeroShot | None
    images: VisualModels | None
    noise: NoiseModel
    offsets: np.ndarray
    lonely: int

    def zeroshot(self, block: slice | np.ndarray, temperature: float) -> np.ndarray | None:
        """Log-probabilities by language, (b, K) float32; None without text features."""
        if self.language is None:
            return None
        return self.language.log_probs(self.features[block], temperature)

    def seen(self, block: slice | np.ndarray) -> np.ndarray | None:
        """Log-probabilities by the model of the paper, (b, K) float32; None where there is none."""
        return None if self.images is None else self.images.seen(self.visual_features[block])

    def unseen(self, block: slice | np.ndarray) -> np.ndarray:
        """Out-of-fold log-probabilities, (b, K) float32; rows are NaN where there are none."""
        if self.images is None:
            count = len(self.labels[block])
            return np.full((count, self.num_classes), np.nan, dtype=np.float32)
        return self.images.unseen(self.visual_features[block], self.fold_of[block])

    def each_block(self, work: Work[T]) -> Iterator[T]:
        """Applies a function to every block of rows, and yields what it returns, in their order.

        On all cores, or by all processes: see :func:`asked_by`.

        Args:
            work: takes these opinions and a block; can be pickled
        """
        ask = _asker.get()
        return self.blocks_here(work) if ask is None else ask(self, work)

    def blocks_here(self, work: Work[T]) -> Iterator[T]:
        """Does what :meth:`each_block` does, in this process."""
        with one_blas_thread():
            yield from in_order(
                partial(work, self), _blocks_of_table(len(self.labels), self.num_classes)
            )


@contextmanager
def asked_by(asker: Callable[[Opinions, Work[Any]], Iterator[Any]]) -> Iterator[None]:
    """Within it, a function does what :meth:`Opinions.each_block` does, as processes share it."""
    token = _asker.set(asker)
    try:
        yield
    finally:
        _asker.reset(token)


def form_opinions(
    inputs: Inputs, prompt_reduce: str, folds: int, seed: int, device: torch.device | str = "cpu"
) -> Opinions:
    """Fits both classifiers to the samples that have an image, a label and a choice of classes.

    Needs checked inputs; see :func:`clipcleaner_plugin.score_labels` for the other arguments.
    """
    k, texts = inputs.num_classes, inputs.text_features
    complete = inputs.has_image & (inputs.labels >= 0)
    rows = np.flatnonzero(complete) if k > 1 else np.zeros(0, dtype=np.int64)
    hashes = _hashes(inputs, rows, seed)
    fold_of = visual.assign_folds(hashes, inputs.labels[rows], folds)
    # Everything runs in an order that the content decides: a permutation of the samples permutes
    # the result to the bit, whatever the rounding of sums. The samples of a fold lie together.
    order = np.lexsort([hashes, inputs.labels[rows], fold_of])
    rows, fold_of = rows[order], fold_of[order]
    features, labels = _gather(inputs.image_features, rows), inputs.labels[rows]
    looks = features
    if inputs.visual_features is not inputs.image_features:
        looks = _gather(inputs.visual_features, rows)
    language = ZeroShot(texts, prompt_reduce) if texts else None
    images, noise, offsets = None, start_model(max(k, 2), 1), np.zeros(k, dtype=np.float32)
    if len(np.unique(labels)) > 1:
        doubts = None
        if fold_of.max() >= 0:
            words = _Words(features, language)
            cleaning = _clean(looks, words, labels, fold_of, k)
            doubts = _doubts(cleaning, looks, words, labels, fold_of)
            noise, offsets = cleaning.model, cleaning.offsets
        images = visual.fit_visual(looks, labels, fold_of, k, doubts, device=device)
    # The only image of its class: a model that has seen it says nothing, others know no such class
    lonely = int(np.sum(fold_of == visual.ALWAYS_TRAIN)) if images else len(rows)
    # Unless language is asked, nobody judges it. These samples come first.
    scorable = slice(0 if texts is not None else lonely, None)
    return Opinions(
        rows[scorable],
        features[scorable],
        looks[scorable],
        labels[scorable],
        fold_of[scorable],
        k,
        language,
        images,
        noise,
        offsets,
        lonely,
    )


@dataclass(frozen=True)
class _Words:
    """The opinion of the class names on images with these features, if there are names."""

    features: np.ndarray
    language: ZeroShot | None

    def logits(self, rows: np.ndarray | slice) -> np.ndarray | None:
        if self.language is None:
            return None
        return self.language.log_probs(self.features[rows], LANGUAGE_TEMPERATURE)


def _clean(
    features: np.ndarray, words: _Words, labels: np.ndarray, fold_of: np.ndarray, num_classes: int
) -> Cleaning:
    """The first cleaning, by a part of the samples where they are many."""
    sample = draw_sample(labels, num_classes)
    with one_blas_thread():
        rows = Labeled(
            features[sample.rows],
            words.logits(sample.rows),
            labels[sample.rows],
            fold_of[sample.rows],
            sample.weights,
        )
        return clean_labels(rows, num_classes)


def _doubts(
    cleaning: Cleaning,
    features: np.ndarray,
    words: _Words,
    labels: np.ndarray,
    fold_of: np.ndarray,
) -> tuple[np.ndarray, np.ndarray]:
    """Another label for each sample, (n,) int, and how probable it is that the given is wrong."""

    def look(block: slice) -> tuple[np.ndarray, np.ndarray]:
        return cleaning.doubts(features[block], words.logits(block), labels[block], fold_of[block])

    num_classes = len(cleaning.model.confusion)
    with one_blas_thread():
        found = list(in_order(look, _blocks_of_table(len(labels), num_classes)))
    others, shares = zip(*found, strict=True)
    return np.concatenate(others), np.concatenate(shares)


def _hashes(inputs: Inputs, rows: np.ndarray, seed: int) -> np.ndarray:
    """Hashes of the unit rows, (n,) uint64."""
    parts = [rows[block] for block in _blocks(len(rows))]
    with one_blas_thread():
        hashed = in_order(
            lambda part: visual.row_hashes(unit_rows(inputs.image_features, part), seed), parts
        )
        return np.concatenate([np.zeros(0, dtype=np.uint64), *hashed])


def _gather(given: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """Copies unit rows, (n, d) float32, in the order given."""
    import torch

    # Torch aligns its memory, and a product of matrices may round by where they lie
    features = torch.empty(len(rows), given.shape[1]).numpy()

    def copy(block: slice) -> None:
        features[block] = unit_rows(given, rows[block])

    with one_blas_thread():
        for _ in in_order(copy, _blocks(len(rows))):
            pass
    return features


def _blocks_of_table(count: int, num_classes: int) -> list[slice]:
    """Blocks of rows whose tables with all classes are of bounded size."""
    least, most = _ROWS_OF_BLOCK
    size = min(max(_BLOCK // max(num_classes, 1), least), most)
    return [slice(start, start + size) for start in range(0, count, size)]


def _blocks(count: int) -> Iterator[slice]:
    size = _ROWS_OF_BLOCK[1]
    return (slice(start, start + size) for start in range(0, count, size))
