"""A dataset with features and planted label errors: runs on it need no model and no images."""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Callable, Iterator
from typing import Any

import fiftyone as fo
import numpy as np

import clipcleaner_plugin as cc
from clipcleaner_plugin.fields import result_fields
from clipcleaner_plugin.layout import Layout

CLASSES = ["cat", "dog", "owl"]
DIM = 16

Maker = Callable[..., fo.Dataset]


def gaussian_classes(
    n: int, seed: int = 0, num_classes: int = 3
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Unit features around one direction a class: (features, true labels, class directions)."""
    rng = np.random.default_rng(seed)
    centres = np.linalg.qr(rng.normal(size=(DIM, DIM)))[0][:num_classes]
    labels = rng.integers(num_classes, size=n)
    features = centres[labels] + 0.12 * rng.normal(size=(n, DIM))
    features /= np.linalg.norm(features, axis=1, keepdims=True)
    return features.astype(np.float32), labels, centres.astype(np.float32)


class Noisy:
    """A dataset with planted errors, its features, and the ids of the samples with wrong labels."""

    def __init__(self, make: Maker, n: int = 240, wrong: int = 40) -> None:
        self.features, true, self.text = gaussian_classes(n)
        given = true.copy()
        given[:wrong] = (true[:wrong] + 1) % 3
        self.dataset = make(
            [
                fo.Sample(
                    filepath=f"/nowhere/{i}.jpg",
                    ground_truth=fo.Classification(label=CLASSES[given[i]]),
                    trusted=fo.Classification(label=CLASSES[true[i]]),
                )
                for i in range(n)
            ]
        )
        self.ids = self.dataset.values("id")
        self.wrong = set(self.ids[:wrong])

    def copy(self) -> Noisy:
        """Clones the dataset with its runs; samples keep their ids."""
        copied = copy.copy(self)
        copied.dataset = self.dataset.clone()
        return copied

    def apply(self, samples: Any = None, **kwargs: Any) -> Any:
        options = {"embeddings": self.features, "text_features": self.text, **kwargs}
        return cc.apply_clipcleaner(self.dataset if samples is None else samples, **options)


@contextlib.contextmanager
def run_on_features(**options: Any) -> Iterator[Noisy]:
    """A dataset with 40 planted errors among 240 labels, and a run that found them.

    Args:
        **options: of ``apply_clipcleaner``
    """
    dataset = fo.Dataset()

    def fill(samples: list[fo.Sample]) -> fo.Dataset:
        dataset.add_samples(samples, progress=False)
        return dataset

    made = Noisy(fill)
    made.apply(**options)
    yield made
    dataset.delete()


def snapshot(dataset: fo.Dataset, key: str = "clipcleaner") -> list[Any]:
    """All that a run wrote to the samples."""
    layout = Layout("ground_truth", prefix=key)
    fields = [f for f in result_fields(layout) if not f.endswith("_suggestion")]
    suggestion = f"{key}_suggestion"
    return dataset.values(["id", *fields, f"{suggestion}.label", f"{suggestion}.confidence"])


def add_vectors(noisy: Noisy, field: str, **info: Any) -> None:
    """Gives the features to the samples, as a field."""
    noisy.dataset.add_sample_field(field, fo.VectorField, info=info)
    noisy.dataset.set_values(field, list(noisy.features))


def documents(dataset: fo.Dataset, ids: Any = None) -> dict[Any, Any]:
    """The label and the decision of every sample, as they lie in the database."""
    found = {
        d["_id"]: (d.get("ground_truth"), d.get("ground_truth_review"))
        for d in dataset._sample_collection.find()
    }
    return found if ids is None else {i: v for i, v in found.items() if str(i) in set(ids)}


def mislabeled(noisy: Noisy) -> fo.DatasetView:
    """What the run says is to be reviewed, the worst first."""
    return cc.load_results(noisy.dataset).mislabeled_view()
