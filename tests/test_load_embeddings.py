"""FiftyOne's own methods on vectors from the store, without a field of them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import fiftyone as fo
import fiftyone.brain as fob
import numpy as np
import pytest
from projection import make_images

import clipcleaner_plugin as cc
from clipcleaner_plugin.embeddings import dataset_store
from clipcleaner_plugin.models import model_identity


@pytest.fixture
def stored(dataset: Callable[..., fo.Dataset], tmp_path: Path) -> fo.Dataset:
    """Twelve samples with vectors in the store, none of them in a field; the fifth is broken."""
    _, paths = make_images(tmp_path / "images", 12)
    Path(paths[4]).write_text("no image")
    made = dataset([fo.Sample(path) for path in paths])
    cc.compute_embeddings(made, model=cc.TINY_CLIP, progress=False)
    assert not made.get_field_schema(ftype=fo.VectorField)
    return made


def test_vectors_are_those_of_the_store(stored: fo.Dataset) -> None:
    ids = stored.values("id")
    good = ids[:4] + ids[5:]
    expected = dataset_store(stored, model_identity(cc.TINY_CLIP)).read(good)
    found = cc.load_embeddings(stored, model=cc.TINY_CLIP)
    assert list(found) == good
    np.testing.assert_array_equal(np.stack(list(found.values())), expected)
    backwards = cc.load_embeddings(stored.select(good[::-1], ordered=True), model=cc.TINY_CLIP)
    assert list(backwards) == good[::-1]


def test_visualization_takes_them(stored: fo.Dataset) -> None:
    vectors = cc.load_embeddings(stored, model=cc.TINY_CLIP)
    results = fob.compute_visualization(
        stored, embeddings=vectors, method="pca", brain_key="map", num_dims=2, verbose=False
    )
    matrix = np.stack(list(vectors.values())).astype(np.float64)
    centred = matrix - matrix.mean(axis=0)
    _, singular, _ = np.linalg.svd(centred, full_matrices=False)
    assert list(results.sample_ids) == list(vectors)
    np.testing.assert_allclose(
        np.sort((results.points**2).sum(axis=0)), np.sort(singular[:2] ** 2), rtol=1e-4
    )


def test_similarity_takes_them(stored: fo.Dataset) -> None:
    vectors = cc.load_embeddings(stored, model=cc.TINY_CLIP)
    index = fob.compute_similarity(
        stored, embeddings=vectors, brain_key="similar", backend="sklearn", metric="euclidean"
    )
    indexed, ids, _ = index.get_embeddings()
    assert list(ids) == list(vectors)
    np.testing.assert_allclose(indexed, np.stack(list(vectors.values())), rtol=1e-6)
    query = stored.first().id
    found = stored.sort_by_similarity(query, brain_key="similar").values("id")
    likeness = [vectors[i] @ vectors[query] for i in found]
    assert set(found) == set(vectors) and (np.diff(likeness) <= 1e-6).all()


def test_nothing_stored(stored: fo.Dataset) -> None:
    other = {"mean": (0.1, 0.1, 0.1)}
    with pytest.raises(ValueError, match=r"no embeddings of .* 12 samples: name the model"):
        cc.load_embeddings(stored, model=cc.TINY_CLIP, preprocess=other)
    with pytest.raises(ValueError, match=r"no embeddings of .* 1 samples"):
        cc.load_embeddings(stored[4:5], model=cc.TINY_CLIP)
