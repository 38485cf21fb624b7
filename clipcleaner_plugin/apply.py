"""The whole method on a FiftyOne collection: images → features → evidence → scores → fields."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable, Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Any

import fiftyone as fo
import fiftyone.core.utils as fou
import numpy as np
from fiftyone.core.collections import SampleCollection

from .brain import (
    CLIPCleaner,
    CLIPCleanerConfig,
    check_key_name,
    embeddings_field_name,
    vector_fields_of,
)
from .embeddings import NO_OBJECT_FIELD, ModelSource, check_vector_field, fill_vector_field
from .features import (
    features_of_images,
    features_of_names,
    identity_of,
    make_prompts,
    prompt_warnings,
)
from .fields import delete_fields, result_fields
from .given import given_embeddings
from .inputs import check_options
from .kept_statistics import count_again
from .layout import Layout, layout_of
from .locks import confirm_lock, one_writer
from .record import make_record
from .targets import check_alpha, check_images, examined_layout, read_targets
from .views import delete_views
from .writing import write_results

if TYPE_CHECKING:
    from .results import CLIPCleanerResults

logger = logging.getLogger(__name__)

AUTO = "auto"
# MongoDB refuses documents over 16 MB; a view of hundreds of thousands of listed ids comes near
_MAX_VIEW_BYTES = 12_000_000
_PATH = (str, os.PathLike)
_PACKAGES = ("fiftyone", "torch", "open_clip_torch", "scikit-learn", "numpy")


@one_writer
def apply_clipcleaner(
    samples: SampleCollection,
    label_field: str | None = None,
    key: str = "clipcleaner",
    model: str | os.PathLike[str] | None = "ViT-B-32",
    pretrained: str | os.PathLike[str] | None = "openai",
    preprocess: Mapping[str, Any] | None = None,
    embeddings: str | np.ndarray | None = None,
    text_features: Any = None,
    classes: Sequence[str] | None = None,
    class_prompts: Mapping[str, Any] | str | os.PathLike[str] | None = None,
    embeddings_field: str | None = AUTO,
    theta_gmm: float = 0.5,
    theta_cons: float = 0.8,
    temperature: float = 0.07,
    folds: int = 5,
    seed: int = 51,
    patches_field: str | None = None,
    alpha: float | None = None,
    visual_embeddings: str | np.ndarray | None = None,
    batch_size: int | None = None,
    num_workers: int | None = None,
    device: str | None = None,
    skip_failures: bool = True,
    progress: bool | Callable[..., Any] | None = None,
) -> CLIPCleanerResults:
    """Finds the wrong labels of a classification dataset, or of the objects in its images.

    Every sample gets a clean score, a verdict and a suggested label, as fields named after ``key``;
    see the README for what they mean. Of a Detections field, every object gets them, as attributes
    of these names, judged by the part of the image within its box; its sample gets the lowest
    score. The run is stored with the dataset: load it later with
    :func:`clipcleaner_plugin.load_results`. Applying again under the same key replaces it.

    An interrupted run loses no embedding: call it again, and it goes on where it stopped.

    Args:
        samples: a FiftyOne dataset or view of images
        label_field (None): the labels to examine: a Classification field, or a Detections field
            whose objects are examined one by one; None = ``patches_field``, or "ground_truth"
        key ("clipcleaner"): the name of the run and the prefix of its fields
        model ("ViT-B-32"): an open_clip architecture, ``"hf-hub:org/name"``, or a local checkpoint;
            None = no words, with ``embeddings``: visual evidence alone
        pretrained ("openai"): the tag of the weights, or a local checkpoint file
        preprocess (None): preprocessing of a checkpoint that does not state its own
        embeddings (None): instead of computing them: a vector field (of objects: the name of their
            attribute), the key of a similarity index, or an (N, d) array in the order of
            ``samples`` (or of their objects)
        text_features (None): instead of the text tower, together with ``embeddings``: a (K, d)
            array in the order of ``classes``, or ``{class: (m, d) array}``
        classes (None): the class list; None = the labels in use. A label outside it is unscorable
        class_prompts (None): templates and descriptors: a dict, or a JSON or YAML file
        embeddings_field ("auto"): a vector field to write the embeddings to; "auto" =
            ``<key>_embedding``, None = none. The durable store has them in any case; for objects,
            it alone
        theta_gmm (0.5): posterior that the two loss scores must reach to be clean
        theta_cons (0.8): value that the two consistency scores must reach to be clean
        temperature (0.07): temperature of the zero-shot probabilities in the paper's rule
        folds (5): folds of the out-of-fold visual model
        seed (51): seed of everything random
        patches_field (None): the Detections field whose objects are examined, as FiftyOne's own
            methods name it; the same as ``label_field`` with that field
        alpha (None): how much the boxes of objects grow before they are cut out, or shrink where
            it is negative: by ``100 * alpha`` percent of their width and height
        visual_embeddings (None): vectors of another model, one that sees more than CLIP, to compare
            the images with each other by; given like ``embeddings``
        batch_size (None): images per forward pass; None = chosen by device
        num_workers (None): decoding processes; None = chosen by the machine
        device (None): "cuda", "mps" or "cpu"; None = the best one at hand
        skip_failures (True): whether unreadable images become "unscorable" instead of raising
        progress (None): as in FiftyOne: True, False, None, or a callable that takes the bar

    Returns:
        a :class:`clipcleaner_plugin.results.CLIPCleanerResults`

    Raises:
        ValueError: if an option or field does not fit; the text says what was found and what to do
        clipcleaner_plugin.locks.RunIsBusy: if the run is being written by someone else
        clipcleaner_plugin.images.ImageReadError: on the first unreadable image, with
            ``skip_failures=False``
    """
    started = time.perf_counter()
    check_options(
        theta_gmm=theta_gmm,
        theta_cons=theta_cons,
        temperature=temperature,
        prompt_reduce="mean",
        folds=folds,
        seed=seed,
    )
    model, pretrained = _as_text(model), _as_text(pretrained)
    check_images(samples)
    layout = examined_layout(samples, label_field, patches_field, key)
    check_alpha(alpha, layout.objects)
    _check_sources(model, embeddings, text_features)
    if embeddings is not None and text_features is not None:
        model = pretrained = None  # both sides are given: no model has a part in this run
    if layout.objects and embeddings_field not in (AUTO, None):
        raise ValueError(NO_OBJECT_FIELD)
    if embeddings is not None or layout.objects:
        embeddings_field = None
    elif embeddings_field == AUTO:
        embeddings_field = embeddings_field_name(key)
    dataset = samples._root_dataset
    _check_key(dataset, layout)
    targets = read_targets(samples, layout, classes)
    prompts = make_prompts(targets.classes, class_prompts) if model is not None else []

    identity = identity_of(model, pretrained, preprocess)
    if embeddings_field is not None:
        _check_embeddings_field(dataset, layout, embeddings_field, identity)
    source = ModelSource(model or "", pretrained, preprocess, device)
    image_features, embedded = features_of_images(
        samples,
        targets,
        embeddings,
        identity,
        source,
        layout,
        alpha,
        batch_size=batch_size,
        num_workers=num_workers,
        skip_failures=skip_failures,
        progress=progress,
    )
    looks = None
    if visual_embeddings is not None:
        looks = given_embeddings(
            samples, targets.ids, visual_embeddings, None, layout, "visual_embeddings"
        )
    features = features_of_names(text_features, targets.classes, prompts, source)

    from .scoring import score_labels

    logger.info("Scoring %d labels of %d classes", len(targets.ids), len(targets.classes))
    scores = score_labels(
        image_features,
        targets.labels,
        features,
        num_classes=len(targets.classes),
        theta_gmm=theta_gmm,
        theta_cons=theta_cons,
        temperature=temperature,
        folds=folds,
        seed=seed,
        device=device,
        trusted=targets.trusted,
        visual_features=looks,
    )

    written_field = embeddings_field or _inherited_field(dataset, key, embeddings)
    config = CLIPCleanerConfig(
        prefix=key,
        label_field=layout.label_field,
        patches_field=layout.label_field if layout.objects else None,
        alpha=alpha,
        model=model,
        pretrained=pretrained,
        model_identity=identity,
        embeddings_field=written_field,
        owns_embeddings_field=_owns(dataset, written_field),
        embeddings_source=_describe(embeddings),
        visual_source=_describe(visual_embeddings),
        text_source="given" if text_features is not None else "model" if prompts else "none",
        prompts_file=_as_text(class_prompts) if isinstance(class_prompts, _PATH) else None,
        theta_gmm=theta_gmm,
        theta_cons=theta_cons,
        temperature=temperature,
        folds=folds,
        seed=seed,
        versions=_versions(),
    )
    run = CLIPCleaner(config)
    _ask_to_write(progress, len(targets.ids))
    confirm_lock(dataset, key)
    _replace_run(samples, key, run)
    write_results(dataset, config, targets, scores)
    if embedded and embeddings_field is not None:
        fill_vector_field(samples, embeddings_field, embedded.store, embedded.report)

    from .results import CLIPCleanerResults

    failures = embedded.report.failures if embedded else {}
    record = make_record(
        targets, scores, prompts, failures, image_features, time.perf_counter() - started
    )
    if prompts:
        record["warnings"] += prompt_warnings(targets.classes, class_prompts)
    results = CLIPCleanerResults(samples, config, key, backend=run, record=record)
    count_again(results)
    run.save_run_results(samples, key, results)
    logger.info("Done: %s", results.headline())
    return results


def _as_text(name: str | os.PathLike[str] | None) -> str | None:
    return None if name is None else os.fspath(name)


def _check_sources(model: str | None, embeddings: Any, text_features: Any) -> None:
    if model is None and embeddings is None:
        raise ValueError("model is None: then embeddings must be given")
    if text_features is not None and embeddings is None:
        raise ValueError(
            "text_features are given without embeddings; give the image embeddings of the same "
            "model, or leave both out"
        )


def _check_key(dataset: fo.Dataset, layout: Layout) -> None:
    key, written = layout.prefix, result_fields(layout)
    check_key_name(key)
    if layout.label_field in written:
        raise ValueError(
            f"label_field {layout.label_field!r} is a field that this run would overwrite; "
            "choose another key"
        )
    run = _existing_run(dataset, key)
    if run is not None:
        if run.type != "clipcleaner":
            raise ValueError(
                f"key {key!r} is taken by a brain run of type {run.type!r}; choose another key"
            )
        return
    taken = [field for field in written if dataset.has_sample_field(field)]
    if taken:
        raise ValueError(
            f"key {key!r} would overwrite fields that no run of this key wrote: "
            f"{', '.join(taken)}; choose another key, or delete them"
        )


def _existing_run(dataset: fo.Dataset, key: str) -> Any:
    if key not in dataset.list_brain_runs():
        return None
    return dataset.get_brain_info(key).config


def _inherited_field(dataset: fo.Dataset, key: str, embeddings: Any) -> str | None:
    """The vector field of the run that is replaced, where it is the source of the new one."""
    old = _existing_run(dataset, key)
    if old is not None and isinstance(embeddings, str) and embeddings == old.embeddings_field:
        return embeddings
    return None


def _owns(dataset: fo.Dataset, written_field: str | None) -> bool:
    """Whether a vector field is new, or made by a run: then it goes with the last run on it."""
    if written_field is None or not dataset.has_sample_field(written_field):
        return True
    runs = dataset.list_brain_runs(
        method="clipcleaner", embeddings_field=written_field, owns_embeddings_field=True
    )
    return bool(runs)


def _check_embeddings_field(
    dataset: fo.Dataset, layout: Layout, embeddings_field: str, identity: str | None
) -> None:
    if embeddings_field in result_fields(layout):
        raise ValueError(
            f"embeddings_field {embeddings_field!r} is a field of this run's results; choose "
            "another name"
        )
    old = _existing_run(dataset, layout.prefix)
    if old is not None and old.embeddings_field == embeddings_field:
        return  # this run's own field: it is replaced with the run
    assert identity is not None
    check_vector_field(dataset, embeddings_field, identity)


def _ask_to_write(progress: Any, n: int) -> None:
    """Reports n scored samples to a callable, which may raise: after this nothing stops the run."""
    if callable(progress):
        bar = fou.ProgressBar(total=n, quiet=True)
        bar.update(n)
        progress(bar)


def _replace_run(samples: SampleCollection, key: str, run: CLIPCleaner) -> None:
    """Takes an older run's fields and views away and registers the new one, the store aside."""
    dataset = samples._root_dataset
    old = _existing_run(dataset, key)
    if old is not None:
        delete_fields(dataset, result_fields(layout_of(old)))
        delete_views(dataset, old.prefix)
        if old.embeddings_field != run.config.embeddings_field:
            delete_fields(dataset, vector_fields_of(dataset, key, old))
    # Registered before anything is written: what a crash leaves half done can be deleted by its key
    run.register_run(_registrable(samples), key, cleanup=False)
    run.save_run_results(dataset, key, None)


def _registrable(samples: SampleCollection) -> SampleCollection:
    if isinstance(samples, fo.DatasetView):
        from bson import json_util

        if len(json_util.dumps(samples._serialize())) > _MAX_VIEW_BYTES:
            logger.warning("The view lists too many ids to be stored with the run")
            return samples._root_dataset
    return samples


def _describe(embeddings: Any) -> str | None:
    if embeddings is None or isinstance(embeddings, str):
        return embeddings
    return "array"


def _versions() -> dict[str, str]:
    from . import __version__

    found = {"clipcleaner": __version__}
    for package in _PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = "unknown"
    return found
