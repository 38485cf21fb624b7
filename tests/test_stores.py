"""Stores that nobody uses any more: told from the others, and removed alone."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import fiftyone as fo
import numpy as np
import pytest
from projection import make_images

from clipcleaner_plugin import apply_clipcleaner, compute_embeddings, doctor
from clipcleaner_plugin.__main__ import main
from clipcleaner_plugin.embeddings import dataset_store
from clipcleaner_plugin.models import TINY_CLIP, model_identity
from clipcleaner_plugin.store import EmbeddingStore
from clipcleaner_plugin.stores import list_stores, prune

Make = Callable[..., fo.Dataset]
OTHER = {"mean": (0.1, 0.1, 0.1), "std": (0.5, 0.5, 0.5)}


@pytest.fixture(autouse=True)
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("CLIPCLEANER_STORE_DIR", str(tmp_path / "stores"))
    return tmp_path / "stores"


@pytest.fixture
def made(dataset: Make, tmp_path: Path) -> fo.Dataset:
    _, paths = make_images(tmp_path / "images", 8)
    labels = [fo.Classification(label="ab"[i % 2]) for i in range(8)]
    samples = [fo.Sample(p, ground_truth=x) for p, x in zip(paths, labels, strict=True)]
    return dataset(samples, persistent=True)


def fill(dataset_id: str, identity: str = "m") -> EmbeddingStore:
    store = EmbeddingStore(dataset_id, identity)
    with store.writer() as writer:
        writer.append(["a"], [(1, 1)], np.ones((1, 4)))
    return store


def uses() -> dict[str, str]:
    return {info.store.identity: info.use for info in list_stores()}


def test_who_uses_a_store(made: fo.Dataset) -> None:
    options = {"model": TINY_CLIP, "progress": False}
    identity, other = model_identity(TINY_CLIP), model_identity(TINY_CLIP, preprocess=OTHER)
    compute_embeddings(made, **options)
    assert uses() == {identity: "unused"}
    compute_embeddings(made, embeddings_field="vectors", **options)
    assert uses() == {identity: "used"}
    made.delete_sample_field("vectors")
    apply_clipcleaner(made, embeddings_field=None, **options)
    assert uses() == {identity: "used"}
    apply_clipcleaner(made, embeddings_field=None, preprocess=OTHER, **options)
    assert uses() == {identity: "unused", other: "used"}
    made.delete()
    assert uses() == {identity: "orphan", other: "orphan"}


def test_only_what_is_asked_for_is_deleted(made: fo.Dataset, root: Path) -> None:
    orphan, unused = fill("0" * 24), fill(str(made._doc.id))
    compute_embeddings(made, embeddings_field="vectors", model=TINY_CLIP, progress=False)
    used = dataset_store(made, model_identity(TINY_CLIP))
    (orphan.folder / "notes.txt").write_text("mine")
    (root / "something" / "else").mkdir(parents=True)
    (root / "something" / "else" / "meta.json").write_text("{}")

    assert [i.store.folder for i in prune(list_stores())] == [orphan.folder]
    assert len(orphan) == 0 and len(unused) == 1 and len(used) == 8
    assert [i.store.folder for i in prune(list_stores(), ("unused",))] == [unused.folder]
    assert prune(list_stores(), ("orphan", "unused", "used")) == []
    assert len(used) == 8
    assert (orphan.folder / "notes.txt").exists() and (root / "something" / "else").exists()


def test_the_command(made: fo.Dataset, capsys: pytest.CaptureFixture[str]) -> None:
    orphan, unused = fill("gone"), fill(str(made._doc.id), "former model")
    assert main(["prune"]) == 0
    out = capsys.readouterr().out
    assert "dataset id gone, m\n" in out
    assert f"dataset {made.name!r}, former model\n" in out and "--delete removes it" in out
    assert len(orphan) == 1
    assert main(["prune", "--delete"]) == 0
    assert "gone, m, deleted" in capsys.readouterr().out
    assert (len(orphan), len(unused)) == (0, 1)
    assert main(["prune", "--delete", "--unused"]) == 0
    assert (len(unused), list_stores()) == (0, [])


def test_the_doctor_counts_orphans() -> None:
    assert doctor._stored().status == "OK"
    fill("gone")
    check = doctor._stored()
    assert check.status == "WARN" and "prune" in check.advice
    assert "1 of datasets that this database does not have" in check.found
