"""Embeddings of a collection: computed into the durable store, or taken from where they are."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import fiftyone as fo
import numpy as np
from fiftyone.core.collections import SampleCollection

from .fields import write_rows, write_values
from .speeds import remember_speed
from .targets import check_alpha, check_images, patches_layout, read_items, read_media

if TYPE_CHECKING:
    from .crops import Media
    from .embed import EmbeddingReport
    from .models import ClipModel
    from .ranks import Ranks
    from .store import EmbeddingStore

logger = logging.getLogger(__name__)

# Key in a vector field's ``info`` under which the identity of its model stands
IDENTITY = "clipcleaner_model"
# ... and the number of the store's segment up to which the field follows the store
FILLED = "clipcleaner_filled"
NO_OBJECT_FIELD = (
    "vectors of objects are kept in the durable store only: leave embeddings_field out, and take "
    "them with load_embeddings(samples, ..., patches_field=...)"
)
_PART = 10_000


def compute_embeddings(
    samples: SampleCollection,
    embeddings_field: str | None = None,
    model: str = "ViT-B-32",
    pretrained: str | None = "openai",
    preprocess: Mapping[str, Any] | None = None,
    batch_size: int | None = None,
    num_workers: int | None = None,
    device: str | None = None,
    skip_failures: bool = True,
    progress: bool | Callable[..., Any] | None = None,
    ranks: Ranks | None = None,
    patches_field: str | None = None,
    alpha: float | None = None,
) -> EmbeddingReport:
    """Computes CLIP image embeddings, resuming where an earlier call stopped.

    Vectors go to the durable store batch by batch; only samples that have none there, or whose
    file changed, are computed. :func:`clipcleaner_plugin.apply_clipcleaner` with the same model
    finds them.

    Args:
        samples: a dataset or view of images
        embeddings_field (None): a vector field to fill from the store as well
        model ("ViT-B-32"): an open_clip architecture, ``"hf-hub:org/name"``, or a local checkpoint
        pretrained ("openai"): the tag of the weights, or a local checkpoint file
        preprocess (None): preprocessing of a checkpoint that does not state its own
        batch_size (None): images per forward pass; None = chosen by device
        num_workers (None): decoding processes; None = chosen by the machine
        device (None): "cuda", "mps" or "cpu"; None = the best one at hand
        skip_failures (True): whether to report unreadable images instead of raising
        progress (None): as in FiftyOne: True, False, None, or a callable that takes the bar
        ranks (None): the processes to share the work with, seen from the first of them, while the
            others call :func:`clipcleaner_plugin.ranks.follow`
        patches_field (None): a Detections field: instead of whole images, the parts within the
            boxes of its objects; their vectors go to the durable store only
        alpha (None): how much these boxes grow, or shrink where it is negative: by
            ``100 * alpha`` percent of their width and height

    Returns:
        an :class:`clipcleaner_plugin.embed.EmbeddingReport`

    Raises:
        ValueError: if the samples are not images, the model cannot be had, or ``embeddings_field``
            exists with other contents or vectors of another model
        clipcleaner_plugin.images.ImageReadError: on the first unreadable image, with
            ``skip_failures=False``
    """
    from .models import model_identity

    check_images(samples)
    layout = patches_layout(samples, patches_field)
    check_alpha(alpha, layout.objects)
    identity = model_identity(model, pretrained, preprocess=preprocess)
    if embeddings_field is not None and layout.objects:
        raise ValueError(NO_OBJECT_FIELD)
    if embeddings_field is not None:
        check_vector_field(samples._root_dataset, embeddings_field, identity)
    device = ranks.device(device) if ranks is not None else device
    source = ModelSource(model, pretrained, preprocess, device)
    report, store = embed_media(
        samples._root_dataset,
        read_media(samples, layout, alpha),
        identity,
        source,
        ranks,
        batch_size=batch_size,
        num_workers=num_workers,
        skip_failures=skip_failures,
        progress=progress,
    )
    if embeddings_field is not None:
        fill_vector_field(samples, embeddings_field, store, report)
    return report


class ModelSource:
    """Loads the model when it is first needed, and once."""

    def __init__(
        self,
        model: str,
        pretrained: str | None,
        preprocess: Mapping[str, Any] | None,
        device: str | None,
    ) -> None:
        self.arguments = (model, pretrained, preprocess, device)
        self._model: ClipModel | None = None

    def __call__(self) -> ClipModel:
        if self._model is None:
            from .models import load_model

            model, pretrained, preprocess, device = self.arguments
            logger.info("Loading model %s", model)
            self._model = load_model(model, pretrained, preprocess=preprocess, device=device)
        return self._model


def embed_media(
    dataset: fo.Dataset,
    what: tuple[Sequence[str], Sequence[Media]],
    identity: str,
    source: ModelSource,
    ranks: Ranks | None = None,
    **options: Any,
) -> tuple[EmbeddingReport, EmbeddingStore]:
    """Brings the store of a dataset and model up to date for N images, given by ids and media."""
    from .embed import embed_images
    from .ranks import lead

    ids, media = what
    store = dataset_store(dataset, identity)
    if ranks is not None:
        report = lead(ranks, ids, media, source, store, **options)
    else:
        started = time.perf_counter()
        report = embed_images(ids, media, source, store, **options)
        if report.computed:
            device = source().device.type
            remember_speed(identity, device, report.computed, time.perf_counter() - started)
    if report.failures:
        first, reason = next(iter(report.failures.items()))
        logger.warning(
            "%d of %d images have no embedding, for example %s: %s",
            len(report.failures), len(ids), first, reason,
        )  # fmt: skip
    return report, store


def dataset_store(dataset: fo.Dataset, identity: str) -> EmbeddingStore:
    """Returns the store that holds this dataset's vectors of one model."""
    from .store import EmbeddingStore

    return EmbeddingStore(str(dataset._doc.id), identity)


def load_embeddings(
    samples: SampleCollection,
    model: str = "ViT-B-32",
    pretrained: str | None = "openai",
    preprocess: Mapping[str, Any] | None = None,
    patches_field: str | None = None,
) -> dict[str, np.ndarray]:
    """Returns the vectors that the durable store has of samples; nothing is computed.

    FiftyOne takes them in place of a field, and passes over samples that have none::

        vectors = cc.load_embeddings(dataset)
        fob.compute_similarity(dataset, embeddings=vectors, brain_key="similar")
        fob.compute_visualization(dataset, embeddings=vectors, brain_key="map")

    Args:
        samples: a dataset or view
        model ("ViT-B-32"): as it was computed, see :func:`compute_embeddings`
        pretrained ("openai"): as it was computed
        preprocess (None): as it was computed
        patches_field (None): a Detections field, for the vectors of its objects

    Returns:
        ``{id: (d,) float32}`` of samples or objects in the order of ``samples``, without those
        whose image could not be read; views of one array

    Raises:
        ValueError: if the store has no vector of any of the samples
    """
    from .models import model_identity

    check_images(samples)
    layout = patches_layout(samples, patches_field)
    ids = read_items(samples, layout).ids
    identity = model_identity(model, pretrained, preprocess=preprocess)
    vectors = dataset_store(samples._root_dataset, identity).read(ids)
    found = ~np.isnan(vectors).any(axis=1) if vectors.shape[1] else np.zeros(len(ids), dtype=bool)
    if not found.any():
        raise ValueError(
            f"no embeddings of {identity} are stored for these {len(ids)} {layout.unit}s: name "
            "the model that they were computed with, or call compute_embeddings() first"
        )
    return {i: v for i, v, ok in zip(ids, vectors, found, strict=True) if ok}


def check_vector_field(dataset: fo.Dataset, field_name: str, identity: str) -> None:
    """Raises ValueError unless a field is free, or holds vectors of the model ``identity``."""
    if not field_name.isidentifier() or field_name.startswith("_"):
        raise ValueError(f"embeddings_field {field_name!r} is not a valid field name")
    field = dataset.get_field(field_name)
    if field is None:
        return
    if not isinstance(field, fo.VectorField):
        raise ValueError(
            f"embeddings_field {field_name!r} exists as a {type(field).__name__}; choose another "
            "name"
        )
    found = (field.info or {}).get(IDENTITY)
    if found != identity:
        raise ValueError(
            f"embeddings_field {field_name!r} holds vectors of {found or 'an unknown model'}, not "
            f"of {identity}; choose another name, or delete the field first"
        )


def fill_vector_field(
    samples: SampleCollection, field_name: str, store: EmbeddingStore, report: EmbeddingReport
) -> None:
    """Writes the store's vectors to a field: those that it lacks, and those that are newer.

    Vectors of another model are replaced as a whole; :func:`check_vector_field` tells beforehand
    whether the field may be touched.
    """
    dataset = samples._root_dataset
    field = dataset.get_field(field_name)
    if field is not None and (field.info or {}).get(IDENTITY) != store.identity:
        dataset.delete_sample_field(field_name)
    if not dataset.has_sample_field(field_name):
        dataset.add_sample_field(
            field_name,
            fo.VectorField,
            description=f"CLIP image embeddings of {store.identity}",
            info={IDENTITY: store.identity},
        )
    # The vector of an image that can no longer be read is that of its former contents: it must go
    if report.failures:
        # Compared here: a query that lists the ids of a million failures is too long for MongoDB
        filled = samples.exists(field_name).values("id")
        lost = [i for i in filled if i in report.failures]
        write_values(dataset, field_name, dict.fromkeys(lost))
    if not store.dim:
        return
    field = dataset.get_field(field_name)
    newer, latest = store.written_after(field.info.get(FILLED, 0))
    filled = set(dataset.exists(field_name).values("id"))
    ids = [
        *(i for i in samples.exists(field_name, False).values("id") if i not in report.failures),
        *(i for i in newer if i in filled),
    ]
    logger.info("Writing embeddings to field %s", field_name)
    write_rows(dataset, ((i, {field_name: v}) for i, v in _stored(store, ids)))
    field.info = {**field.info, FILLED: latest}
    field.save()


def _stored(store: EmbeddingStore, ids: Sequence[str]) -> Iterator[tuple[str, np.ndarray]]:
    """The ids that the store has, with their vectors; a part of them in memory at a time."""
    for start in range(0, len(ids), _PART):
        part = ids[start : start + _PART]
        vectors = store.read(part)
        found = ~np.isnan(vectors).any(axis=1)
        yield from ((i, v) for i, v, ok in zip(part, vectors, found, strict=True) if ok)
