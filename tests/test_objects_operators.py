"""The operators and the panel where a run is about objects: forms, views, reviews, refusals."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import fiftyone as fo
import fiftyone.operators as foo
import pytest
from boxed import FIELD, Boxed, canvases
from operators_at_work import context, form, messages, requests, uri
from panel_at_work import Panel, shown

import clipcleaner_plugin as cc

pytestmark = pytest.mark.usefixtures("plugin", "quiet")

ROOT = f"{FIELD}.{FIELD}."
Maker = Callable[..., fo.Dataset]


@pytest.fixture
def boxed(dataset: Maker) -> Boxed:
    """A run on 240 objects, 40 of them with a wrong label."""
    made = Boxed(dataset)
    made.apply()
    return made


@pytest.fixture
def worst(boxed: Boxed) -> fo.DatasetView:
    return cc.load_results(boxed.dataset).mislabeled_view()


def execute(name: str, samples: Any, **context: Any) -> Any:
    kind = "view" if isinstance(samples, fo.DatasetView) else "dataset"
    params = {"key": "clipcleaner", **context.pop("params", {})}
    result = foo.execute_operator(uri(name), {kind: samples, **context}, params=params)
    samples._root_dataset.reload()
    return result


def reviewed(dataset: fo.Dataset) -> set[str]:
    """The ids of the objects that are decided."""
    ids, decisions = dataset.values([f"{ROOT}id", f"{ROOT}review"], unwind=True)
    return {i for i, decision in zip(ids, decisions, strict=True) if decision}


def test_a_run_from_the_form(dataset: Maker, tmp_path: Path) -> None:
    made = dataset(canvases(tmp_path / "canvases", 80))
    inputs = form("apply_clipcleaner", made, model=cc.TINY_CLIP)
    assert inputs["label_field"]["type"]["values"] == [FIELD]
    assert inputs["alpha"]["view"]["label"] == "Padding"
    assert inputs["cost"]["view"]["label"].startswith("80 objects, 80 embeddings to compute")
    params = {"label_field": FIELD, "model": cc.TINY_CLIP, "alpha": 0.1}
    sent = messages("apply_clipcleaner", context(made, params))
    assert "of 80 labels look wrong" in sent[-1][1]["message"]
    made.reload()
    results = cc.load_results(made)
    assert results.config.alpha == 0.1
    (shown,) = (body["view"] for name, body in sent if name.endswith("set_view"))
    assert shown[1]["_cls"].endswith("ToPatches")
    again = form("apply_clipcleaner", made, model=cc.TINY_CLIP, label_field=FIELD)
    assert "80 objects, 0 embeddings to compute" in again["cost"]["view"]["label"]


def test_the_form_offers_embeddings_of_objects(boxed: Boxed) -> None:
    boxed.dataset.add_sample_field("of_samples", fo.VectorField)
    boxed.dataset.add_sample_field(f"{ROOT}of_objects", fo.VectorField)
    inputs = form("apply_clipcleaner", boxed.dataset, label_field=FIELD, advanced=True)
    assert inputs["embeddings"]["type"]["values"][1:] == ["of_objects"]
    assert "store_embeddings" not in inputs


def test_padding_of_another_field_is_forgotten(dataset: Maker, tmp_path: Path) -> None:
    made = dataset(canvases(tmp_path / "canvases", 20))
    labels = [fo.Classification(label="ab"[i % 2]) for i in range(len(made))]
    made.set_values("ground_truth", labels)
    assert "alpha" not in form("apply_clipcleaner", made, label_field="ground_truth")
    params = {"label_field": "ground_truth", "model": cc.TINY_CLIP, "alpha": 0.1}
    sent = messages("apply_clipcleaner", context(made, params))
    assert not any("failed" in str(body) for _, body in sent)


def test_embeddings_of_objects_ahead_of_a_run(dataset: Maker, tmp_path: Path) -> None:
    made = dataset(canvases(tmp_path / "canvases", 20))
    params = {"model": cc.TINY_CLIP, "patches_field": FIELD}
    inputs = form("compute_embeddings", made, **params)
    assert "embeddings_field" not in inputs and "alpha" in inputs
    assert "20 objects, 20 embeddings to compute" in inputs["cost"]["view"]["label"]
    sent = messages("compute_embeddings", context(made, {**params, "embeddings_field": "old"}))
    assert "20 embeddings computed" in sent[-1][1]["message"]
    assert not made.has_sample_field("old")


def test_selected_patches_are_reviewed(boxed: Boxed, worst: fo.DatasetView) -> None:
    ids = worst.values("id")[:3]
    inputs = form("accept_suggestions", worst, selected=ids, key="clipcleaner")
    assert inputs["target"]["default"] == "This is about **3 selected objects**."
    assert "**3 objects** will get a new label" in inputs["preview"]["default"]
    result = execute("accept_suggestions", worst, selected=ids)
    assert result.result["count"] == 3
    assert reviewed(boxed.dataset) == set(ids)
    said = [body.get("message", "") for _, body in requests(result)]
    assert any(text.startswith("3 objects relabeled") for text in said)
    worst.reload()
    assert len(worst) == 37
    result = execute("undo_review", worst)
    assert result.result["count"] == 3 and reviewed(boxed.dataset) == set()


def test_the_open_patch_is_meant_before_selected_ones(boxed: Boxed, worst: fo.DatasetView) -> None:
    ids = worst.values("id")
    execute("confirm_labels_in_modal", worst, selected=ids[1:], current_sample=ids[0])
    assert reviewed(boxed.dataset) == {ids[0]}


def test_objects_selected_in_samples_are_reviewed(boxed: Boxed, worst: fo.DatasetView) -> None:
    chosen = worst.values("id")[:2]
    labels = [{"label_id": i, "sample_id": "", "field": FIELD} for i in chosen]
    labels.append({"label_id": chosen[0], "sample_id": "", "field": "other"})
    execute("drop", boxed.dataset, selected_labels=labels)
    assert reviewed(boxed.dataset) == set(chosen)


def test_of_selected_samples_all_objects_in_view_are_meant_and_the_form_says_so(
    boxed: Boxed,
) -> None:
    saved = boxed.dataset.load_saved_view("clipcleaner: mislabeled")
    sample = saved.first()
    n = len(sample[FIELD].detections)
    inputs = form("confirm_labels", saved, selected=[sample.id], key="clipcleaner")
    words = f"No single object is selected: this is about all {n} objects of 1 selected sample"
    assert inputs["target"]["view"]["label"] == (
        words if n > 1 else words.replace("all 1 objects", "1 object")
    )
    execute("confirm_labels", saved, selected=[sample.id])
    assert reviewed(boxed.dataset) == {found.id for found in sample[FIELD].detections}


def test_a_view_of_other_patches_is_refused(boxed: Boxed) -> None:
    boxed.dataset.clone_sample_field(FIELD, "others")
    blocked = form("drop", boxed.dataset.to_patches("others"), key="clipcleaner")["blocked"]
    assert "does not show the objects of 'detections'" in blocked["view"]["description"]


def test_views_info_and_deletion(boxed: Boxed) -> None:
    inputs = form("load_view", boxed.dataset)
    assert inputs["kind"]["view"]["label"] == "Objects to show"
    assert inputs["kind"]["view"]["choices"][0]["label"] == "Mislabeled (40)"
    view = foo.get_operator(uri("load_view"))(boxed.dataset)
    assert len(view) == 40 and view.patches_field == FIELD
    info = foo.execute_operator(
        uri("get_run_info"), {"dataset": boxed.dataset}, params={"key": "clipcleaner"}
    )
    assert info.result["counts"]["mislabeled"] == 40
    warning = form("delete_run", boxed.dataset)["warning"]["view"]["description"]
    assert f"{ROOT}clipcleaner_score" in warning
    execute("rename_run", boxed.dataset, params={"new_key": "other"})
    assert cc.list_runs(boxed.dataset) == ["other"]


def test_a_review_sample_is_drawn(boxed: Boxed) -> None:
    assert form("start_review", boxed.dataset)["n"]["view"]["label"] == "Number of objects"
    result = execute("start_review", boxed.dataset, params={"n": 20})
    assert result.result["samples"] == 20
    (shown,) = (body["view"] for name, body in requests(result) if name.endswith("set_view"))
    assert any(stage["_cls"].endswith("ToPatches") for stage in shown)


def test_the_panel_shows_a_run_on_objects(boxed: Boxed) -> None:
    panel = Panel(boxed.dataset)
    panel.send("on_load")
    assert "40 of 240 labels look wrong" in panel.said("summary")
    view = shown(boxed.dataset, panel.send("on_show", kind="mislabeled"))
    assert len(view) == 40 and view.patches_field == FIELD
    axes = {"scores": ("yaxis", "objects (logarithmic)"), "classes": ("xaxis3", "objects")}
    for tab, (axis, title) in axes.items():
        panel.open(tab)
        layout = panel.parts[f"plot_{tab}"]["view"]["layout"]
        assert layout[axis]["title"]["text"] == title
        assert "samples" not in str(panel.parts), "objects are counted, and nothing else"
