"""What a run writes to and asks of MongoDB: one update a sample, and queries that use indexes."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import fiftyone as fo
import numpy as np
import pytest
from fiftyone import ViewField as F

from clipcleaner_plugin.brain import CLIPCleanerConfig
from clipcleaner_plugin.fields import (
    VERDICTS,
    classification,
    create_indexes,
    declare_fields,
    delete_fields,
    rename_fields,
    result_fields,
    write_rows,
)
from clipcleaner_plugin.layout import Layout
from clipcleaner_plugin.views import run_view

N = 2_000
LAYOUT = Layout("ground_truth", prefix="k")
Make = Callable[..., fo.Dataset]


def rows(ids: list[str]) -> Iterator[tuple[str, dict[str, Any]]]:
    rng = np.random.default_rng(0)
    for number, (id_, score) in enumerate(zip(ids, rng.random(len(ids)), strict=True)):
        suggestion = classification(f"class {number % 7}", 0.5)
        verdict = VERDICTS[number % 3 if number else 3]
        yield id_, {"k_score": float(score), "k_verdict": verdict, "k_suggestion": suggestion}


@pytest.fixture
def scored(dataset: Make) -> fo.Dataset:
    label = fo.Classification(label="x")
    made = dataset([fo.Sample(f"/x/{i}.jpg", ground_truth=label.copy()) for i in range(N)])
    declare_fields(made, LAYOUT)
    write_rows(made, rows(made.values("id")))
    create_indexes(made, LAYOUT)
    return made


def test_rows_are_read_back(scored: fo.Dataset) -> None:
    ids = scored.values("id")
    expected = dict(rows(ids))
    for field in ("k_score", "k_verdict"):
        assert scored.values(field) == [expected[i][field] for i in ids]
    assert scored.values("k_suggestion.label") == [f"class {n % 7}" for n in range(N)]
    first, last = scored.first().k_suggestion, scored.last().k_suggestion
    assert isinstance(first, fo.Classification) and first.id != last.id
    made = fo.Classification(label="class 0", confidence=0.5)
    assert {**first.to_dict(), "_id": 0} == {**made.to_dict(), "_id": 0}
    assert scored.exists("k_zeroshot_loss").count() == 0

    sample, before = scored.first(), scored.first().last_modified_at
    write_rows(scored, [(sample.id, {"k_score": 0.25}), ("0" * 24, {"k_score": 0.5})])
    assert sample.k_score == 0.25  # also in samples that are in memory
    assert scored.count() == N  # an id that is gone stays gone
    assert scored.first().last_modified_at > before
    assert scored.first().k_verdict == "unscorable"  # other fields are left alone


@pytest.mark.parametrize("dtype", ["<f4", "<f8", "<f2"])
def test_vectors_are_what_fiftyone_reads(dataset: Make, dtype: str) -> None:
    made = dataset([fo.Sample(f"/x/{i}.jpg") for i in range(5)])
    made.add_sample_field("vector", fo.VectorField)
    vectors = np.random.default_rng(0).normal(size=(5, 7)).astype(dtype)
    ids = made.values("id")
    write_rows(made, ((i, {"vector": v}) for i, v in zip(ids, vectors, strict=True)))
    for found in (made.values("vector"), [sample.vector for sample in made]):
        np.testing.assert_array_equal(np.stack(found), vectors)
        assert found[0].dtype == vectors.dtype
    sample = made.first()
    sample.vector = sample.vector * 2
    sample.save()
    np.testing.assert_array_equal(made.first().vector, vectors[0] * 2)


def plan(view: fo.DatasetView) -> tuple[list[str], int, int]:
    """Stages and indexes of MongoDB's plan for a view, and the keys and documents it looked at."""
    collection = view._dataset._sample_collection
    command = {"aggregate": collection.name, "pipeline": view._pipeline(), "cursor": {}}
    found = collection.database.command("explain", command, verbosity="executionStats")
    if "stages" in found:
        assert [next(iter(stage)) for stage in found["stages"]][1:] == []  # nothing sorted after it
        found = found["stages"][0]["$cursor"]
    stage = found["queryPlanner"]["winningPlan"]
    stage = stage.get("queryPlan", stage)
    stages = []
    while stage:
        stages.append(stage.get("indexName", stage["stage"]))
        stage = stage.get("inputStage")
    statistics = found["executionStats"]
    return stages, statistics["totalKeysExamined"], statistics["totalDocsExamined"]


def test_sorting_by_score_uses_the_index(scored: fo.Dataset) -> None:
    assert plan(scored.sort_by("k_score").limit(20)) == (["LIMIT", "FETCH", "k_score_1"], 20, 20)
    assert plan(scored.sort_by("k_score", reverse=True).limit(20))[1:] == (20, 20)


def test_filtering_by_score_uses_the_index(scored: fo.Dataset) -> None:
    for condition in ((F("k_score") < 0.1), (F("k_score") >= 0.4) & (F("k_score") < 0.5)):
        stages, _, documents = plan(scored.match(condition))
        assert stages == ["FETCH", "k_score_1"] and documents < 0.15 * N


@pytest.mark.parametrize("verdict", ["mislabeled", "clean", "uncertain"])
def test_a_page_of_one_verdict_reads_that_page(scored: fo.Dataset, verdict: str) -> None:
    config = CLIPCleanerConfig(prefix="k", label_field="ground_truth")
    view = run_view(scored, config, verdict)
    assert view.count() > 500
    stages, keys, documents = plan(view.limit(20))
    assert "k_verdict_1_k_score_1" in stages and "SORT" not in stages
    assert max(keys, documents) <= 40
    assert view.values("k_score") == sorted(view.values("k_score"))


def test_indexes_follow_the_fields(scored: fo.Dataset) -> None:
    other = replace(LAYOUT, prefix="other")
    rename_fields(scored, LAYOUT, other)
    names = {"other_score", "other_verdict", "other_verdict_1_other_score_1"}
    assert names <= set(scored.get_index_information())
    delete_fields(scored, result_fields(other))
    assert not any("other" in name for name in scored.get_index_information())
