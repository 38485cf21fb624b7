"""Image vectors that the user has already: a field, a similarity index, or an array."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import fiftyone as fo
import numpy as np
from fiftyone.core.collections import SampleCollection

from .embeddings import IDENTITY
from .layout import Layout
from .targets import read_items


def given_embeddings(
    samples: SampleCollection,
    ids: Sequence[str],
    embeddings: Any,
    identity: str | None,
    layout: Layout,
    option: str = "embeddings",
) -> np.ndarray:
    """Returns (N, d) float32 vectors from where the user has them; NaN rows where there is none.

    Args:
        samples: the collection
        ids: the N ids of its samples or objects
        embeddings: the name of a vector field (of the objects, where these are examined), the key
            of a similarity index, or an (N, d) array
        identity: the model whose text tower will be compared with them; None = no text tower
        layout: where the labels are
        option: what the user calls them, for errors

    Raises:
        ValueError: if nothing of that name exists, shapes do not fit, or the field says that its
            vectors come from another model
    """
    if not isinstance(embeddings, str):
        return _from_array(embeddings, len(ids), layout, option)
    dataset = samples._root_dataset
    if dataset.has_sample_field(layout.root + embeddings):
        return _from_field(samples, ids, embeddings, identity, layout)
    if embeddings in dataset.list_brain_runs():
        return _from_similarity(samples, ids, embeddings, layout)
    vector_fields = sorted(dataset.get_field_schema(ftype=fo.VectorField))
    raise ValueError(
        f"{option}={embeddings!r} is neither a field nor a similarity key of {dataset.name!r}; "
        f"vector fields: {', '.join(vector_fields) or 'none'}; "
        f"keys: {', '.join(dataset.list_brain_runs(type='similarity')) or 'none'}"
    )


def _from_array(embeddings: Any, n: int, layout: Layout, option: str) -> np.ndarray:
    array = np.asarray(embeddings)
    if array.ndim != 2 or array.shape[0] != n or array.dtype.kind not in "fiu":
        raise ValueError(
            f"{option} must be a numeric array of shape ({n}, d), one row "
            f"a{'n object' if layout.objects else ' sample'}; found "
            f"shape {array.shape}, dtype {array.dtype}"
        )
    return array.astype(np.float32)


def _from_field(
    samples: SampleCollection,
    ids: Sequence[str],
    field_name: str,
    identity: str | None,
    layout: Layout,
) -> np.ndarray:
    field = samples.get_field(layout.root + field_name)
    if field is None:
        raise ValueError(f"this view leaves out the embeddings field {field_name!r}: add it")
    found = (field.info or {}).get(IDENTITY)
    if identity is not None and found is not None and found != identity:
        raise ValueError(
            f"embeddings field {field_name!r} holds vectors of {found}, but the class names would "
            f"be embedded by {identity}; name the same model, or compute embeddings with this one"
        )
    # Asked anew, the samples may be others: some deleted meanwhile, some in another order
    items = read_items(samples, layout, [layout.root + field_name])
    vectors = dict(zip(items.ids, items.columns[0], strict=True))
    return _stack([vectors.get(i) for i in ids], f"embeddings field {field_name!r}")


def _from_similarity(
    samples: SampleCollection, ids: Sequence[str], key: str, layout: Layout
) -> np.ndarray:
    index = samples._root_dataset.load_brain_results(key)
    if not hasattr(index, "get_embeddings"):
        raise ValueError(
            f"brain run {key!r} is a {type(index).__name__} and holds no embeddings; name a "
            "similarity index or a vector field"
        )
    patches_field = layout.label_field if layout.objects else None
    if index.config.patches_field != patches_field:
        held, needed = (
            f"patches of {f!r}" if f else "whole images"
            for f in (index.config.patches_field, patches_field)
        )
        raise ValueError(f"similarity index {key!r} holds {held}; one over {needed} is needed")
    # Not index.get_embeddings(ids): it leaves out what it lacks, without saying which
    vectors, sample_ids, label_ids = index.get_embeddings()
    found_ids = sample_ids if label_ids is None else label_ids
    row = {sample_id: i for i, sample_id in enumerate(found_ids)}
    values = [vectors[row[i]] if i in row else None for i in ids]
    return _stack(values, f"similarity index {key!r}")


def _stack(values: Sequence[Any], where: str) -> np.ndarray:
    present = [v for v in values if v is not None]
    if not present:
        raise ValueError(f"{where} has no vector for any of the {len(values)} samples")
    odd = next((v for v in present if np.asarray(v).dtype.kind not in "fiu"), None)
    if odd is not None:
        raise ValueError(f"{where} holds no vectors: found a {type(odd).__name__}")
    if np.ndim(present[0]) != 1:
        raise ValueError(f"{where} holds no vectors: found the shape {np.shape(present[0])}")
    dim = len(present[0])
    out = np.full((len(values), dim), np.nan, dtype=np.float32)
    for i, vector in enumerate(values):
        if vector is None:
            continue
        if np.ndim(vector) != 1 or len(vector) != dim:
            raise ValueError(
                f"{where} mixes shapes: ({dim},) and {np.shape(vector)} (row {i}); all vectors "
                "must be of one model"
            )
        out[i] = vector
    return out
