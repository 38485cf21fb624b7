"""The features that a run compares: of its images and of its class names, computed or given."""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from fiftyone.core.collections import SampleCollection

from .embeddings import ModelSource, embed_media
from .given import given_embeddings
from .layout import Layout
from .targets import Targets, read_media

if TYPE_CHECKING:
    from .embed import EmbeddingReport
    from .store import EmbeddingStore

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Embedded:
    """What embedding the images gave: the report, and the store with the vectors."""

    report: EmbeddingReport
    store: EmbeddingStore


def identity_of(
    model: str | None, pretrained: str | None, preprocess: Mapping[str, Any] | None
) -> str | None:
    """Returns the identity of the model; None where no model has a part in the run."""
    if model is None:
        return None
    from .models import model_identity

    return model_identity(model, pretrained, preprocess=preprocess)


def make_prompts(
    classes: list[str], class_prompts: Mapping[str, Any] | str | os.PathLike[str] | None
) -> list[list[str]]:
    """Returns the prompts of every class, and warns of classes that have the same ones."""
    from .prompts import class_prompts as prompts_of

    for text in prompt_warnings(classes, class_prompts):
        logger.warning("%s", text)
    return prompts_of(classes, class_prompts)


def prompt_warnings(
    classes: list[str], class_prompts: Mapping[str, Any] | str | os.PathLike[str] | None
) -> list[str]:
    """Returns a sentence for every group of classes that words cannot tell apart."""
    from .prompts import duplicate_names

    return [
        f"Classes {', '.join(map(repr, group))} have the same prompts: words cannot tell them "
        "apart. Give them names with class_prompts={'names': {...}}, or merge them"
        for group in duplicate_names(classes, class_prompts)
    ]


def features_of_images(
    samples: SampleCollection,
    targets: Targets,
    embeddings: Any,
    identity: str | None,
    source: ModelSource,
    layout: Layout,
    alpha: float | None = None,
    **options: Any,
) -> tuple[np.ndarray, Embedded | None]:
    """Returns (N, d) vectors of the targets, NaN where there is no image; computed or given.

    Raises:
        ValueError: if no image can be read, or what is given does not fit
    """
    if embeddings is not None:
        return given_embeddings(samples, targets.ids, embeddings, identity, layout), None
    assert identity is not None
    what = read_media(samples, layout, alpha)
    report, store = embed_media(samples._root_dataset, what, identity, source, **options)
    features = store.read(targets.ids)
    # The store may know the former contents of a file that cannot be read any more
    features[[i in report.failures for i in targets.ids]] = np.nan
    if np.isnan(features).all():
        first, reason = next(iter(report.failures.items()))
        raise ValueError(
            f"none of the {len(targets.ids)} images could be read, for example {layout.unit} "
            f"{first}: {reason}"
        )
    return features, Embedded(report, store)


def features_of_names(
    given: Any, classes: list[str], prompts: list[list[str]], source: ModelSource
) -> np.ndarray | list[np.ndarray] | None:
    """Returns the vectors of the class names, as ``score_labels`` takes them; None = no words.

    Raises:
        ValueError: if the given ones lack a class
    """
    if given is None:
        if not prompts:
            return None
        from .text import class_text_features

        logger.info("Embedding the prompts of %d classes", len(classes))
        return class_text_features(source(), prompts)
    if not isinstance(given, Mapping):
        return given
    missing = [name for name in classes if name not in given]
    if missing:
        raise ValueError(f"text_features lacks classes: {', '.join(missing[:10])}")
    return [np.atleast_2d(np.asarray(given[name])) for name in classes]
