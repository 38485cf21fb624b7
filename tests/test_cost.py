"""What a form says there is to compute: exact where that is quick, about right or nothing else."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import fiftyone as fo
import pytest
from operators_at_work import form, module
from projection import make_images

import clipcleaner_plugin as cc

pytestmark = pytest.mark.usefixtures("plugin")


@pytest.fixture
def made(dataset: Callable[..., fo.Dataset], tmp_path: Path) -> fo.Dataset:
    _, paths = make_images(tmp_path / "images", 12)
    return dataset([fo.Sample(path) for path in paths])


def said(samples: fo.core.collections.SampleCollection) -> str:
    label: str = form("compute_embeddings", samples, model=cc.TINY_CLIP)["cost"]["view"]["label"]
    return label


def test_small_stores_are_compared_id_by_id(made: fo.Dataset) -> None:
    assert "12 embeddings to compute" in said(made)
    cc.compute_embeddings(made[:5], model=cc.TINY_CLIP, progress=False)
    assert "7 embeddings to compute" in said(made)
    assert "4 embeddings to compute" in said(made[3:9])


def test_large_stores_are_counted(made: fo.Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    assert said(made)  # loads the plugin's modules
    monkeypatch.setattr(module("cost"), "_COUNTED_VECTORS", 3)
    assert "12 embeddings to compute" in said(made)
    cc.compute_embeddings(made[:5], model=cc.TINY_CLIP, progress=False)
    assert "about 7 embeddings to compute" in said(made)
    assert "to compute" not in said(made[3:9])  # nothing would be known of these
