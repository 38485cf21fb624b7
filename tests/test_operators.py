"""The operators of the App, executed through FiftyOne's own registry: forms, results, failures."""

from __future__ import annotations

import json
import subprocess
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path
from typing import Any

import fiftyone as fo
import fiftyone.brain as fob
import fiftyone.operators as foo
import numpy as np
import pytest
import yaml
from fiftyone.operators.executor import ExecutionError
from noisy_digits import make_samples
from operators_at_work import form, module, requests, uri

import clipcleaner_plugin as cc

pytestmark = pytest.mark.usefixtures("plugin")

NAMES = [
    "accept_suggestions", "confirm_labels", "open_panel", "drop", "undo_review", "load_view",
    "apply_clipcleaner", "compute_embeddings", "update_selection",
    "accept_suggestions_in_modal", "confirm_labels_in_modal", "drop_in_modal", "start_review",
    "review_report", "export_cleaned", "train_on_cleaned", "get_run_info", "rename_run",
    "delete_run",
]  # fmt: skip
N = 120
# Visual evidence alone, on vectors that are there: no model is loaded
PIXELS = {"label_field": "ground_truth", "embeddings": "pixels", "use_names": False}

Maker = Callable[..., fo.Dataset]


@pytest.fixture
def digits(dataset: Maker, tmp_path: Path) -> fo.Dataset:
    """120 digits, a fifth of the labels redrawn; a detections field, and vectors of pixels."""
    made = dataset(make_samples(tmp_path, N))
    made.add_sample_field("objects", fo.EmbeddedDocumentField, embedded_doc_type=fo.Detections)
    return made


def wrong_ids(digits: fo.Dataset) -> set[str]:
    ids, given, trusted = digits.values(["id", "ground_truth.label", "trusted.label"])
    return {i for i, a, b in zip(ids, given, trusted, strict=True) if a != b}


def execute(name: str, samples: Any, params: dict[str, Any], **more: Any) -> Any:
    kind = "view" if isinstance(samples, fo.DatasetView) else "dataset"
    result = foo.execute_operator(uri(name), {kind: samples}, params=params, **more)
    samples._root_dataset.reload()
    return result


def apply(digits: Any, key: str = "run", **more: Any) -> Any:
    return execute("apply_clipcleaner", digits, {**PIXELS, "key": key}, **more)


def shown(digits: fo.Dataset, set_view: dict[str, Any]) -> fo.DatasetView:
    return fo.DatasetView._build(digits, set_view["view"])


# --- the plugin


def test_all_operators_load_as_the_manifest_says(repo_root: Path) -> None:
    registry = foo.OperatorRegistry()
    assert registry.list_errors() == []
    ours = {op.uri: op for op in registry.list_operators(builtin=False)}
    assert list(ours) == [uri(name) for name in [*NAMES, "clipcleaner"]]
    manifest = yaml.safe_load((repo_root / "fiftyone.yml").read_text())
    assert manifest["operators"] == NAMES and manifest["panels"] == ["clipcleaner"]
    assert manifest["version"] == cc.__version__
    icons = {op.config.icon for op in ours.values() if op.config.icon.startswith("/")}
    assert icons and all((repo_root / icon.lstrip("/")).is_file() for icon in icons)


def test_a_registry_is_rebuilt_without_loading_anything_heavy(repo_root: Path) -> None:
    """FiftyOne rebuilds it at every request."""
    code = f"""
        import sys, fiftyone as fo
        fo.config.plugins_dir = {str(repo_root)!r}
        import fiftyone.operators as foo
        ours = lambda: {{type(o) for o in foo.OperatorRegistry().list_operators(builtin=False)}}
        first = ours()
        assert len(first) == {len(NAMES) + 1} and ours() == first, "classes were made again"
        heavy = {{"torch", "open_clip", "torchvision"}} & set(sys.modules)
        assert not heavy, heavy
    """
    command = [sys.executable, "-c", textwrap.dedent(code)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("name", ["apply_clipcleaner", "load_view", "open_panel"])
def test_buttons_above_the_grid(digits: fo.Dataset, name: str) -> None:
    placement = foo.get_operator(uri(name)).resolve_placement(None).to_json()
    assert placement["place"] == "samples-grid-secondary-actions"
    assert placement["view"]["icon"].startswith("/assets/")


# --- forms


def test_the_form_offers_fields_of_labels_and_of_boxes_only(digits: fo.Dataset) -> None:
    label_field = form("apply_clipcleaner", digits)["label_field"]
    assert label_field["type"]["values"] == ["ground_truth", "objects", "trusted"]
    assert label_field["default"] == "ground_truth"
    apply(digits)
    offered = form("apply_clipcleaner", digits)["label_field"]["type"]["values"]
    assert offered == label_field["type"]["values"], "suggestions of a run are none"


def test_without_labels_the_form_says_so_and_cannot_be_executed(digits: fo.Dataset) -> None:
    digits.delete_sample_fields(["ground_truth", "objects", "trusted"])
    blocked = form("apply_clipcleaner", digits)["blocked"]
    assert blocked["invalid"] and "no labels to examine" in blocked["view"]["label"]
    with pytest.raises(ExecutionError, match="no labels to examine"):
        apply(digits)
    digits.add_sample_field("topics", fo.EmbeddedDocumentField, fo.Classifications)
    said = form("apply_clipcleaner", digits)["blocked"]["view"]["description"]
    assert "'topics' holds Classifications: where an image has several labels" in said


@pytest.mark.parametrize("name", ["apply_clipcleaner", "compute_embeddings"])
def test_nothing_to_work_on_is_said_in_the_form(digits: fo.Dataset, name: str) -> None:
    empty = form(name, digits.limit(0))["blocked"]
    assert empty["invalid"] and "has no samples" in empty["view"]["description"]
    registry = foo.OperatorRegistry()
    ctx = foo.executor.ExecutionContext({"params": {}})
    no_dataset = registry.get_operator(uri(name)).resolve_type(ctx, "inputs").to_json()
    assert "No dataset" in no_dataset["type"]["properties"]["blocked"]["view"]["label"]


def test_a_key_is_checked_while_it_is_typed(digits: fo.Dataset) -> None:
    fob.compute_uniqueness(digits, uniqueness_field="unique", embeddings="pixels")
    apply(digits, key="taken")
    reasons = {"3x": "beginning with a letter", "_x": "beginning with a letter"}
    for key, reason in {**reasons, "unique": "another brain run"}.items():
        prop = form("apply_clipcleaner", digits, key=key)["key"]
        assert prop["invalid"] and reason in prop["error_message"]
    replaces = form("apply_clipcleaner", digits, key="taken")
    assert not replaces["key"]["invalid"] and "replaces" in replaces
    fresh = form("apply_clipcleaner", digits, key="fresh")
    assert not fresh["key"]["invalid"] and "replaces" not in fresh


def test_the_form_asks_what_to_work_on(digits: fo.Dataset) -> None:
    picked = digits.values("id")[:9]
    for samples, selected, choices, default in (
        (digits, [], ["DATASET"], "DATASET"),
        (digits[:50], [], ["DATASET", "CURRENT_VIEW"], "DATASET"),
        (digits, picked, ["DATASET", "SELECTED_SAMPLES"], "SELECTED_SAMPLES"),
    ):
        prop = form("apply_clipcleaner", samples, selected=selected)["view_target"]
        assert (prop["type"]["values"], prop["default"]) == (choices, default)


def test_weights_are_asked_for_only_where_a_tag_names_them(digits: fo.Dataset) -> None:
    assert "pretrained" in form("apply_clipcleaner", digits, model="ViT-L-14")
    for model in (cc.TINY_CLIP, "hf-hub:org/name", "/models/clip.safetensors"):
        assert "pretrained" not in form("apply_clipcleaner", digits, model=model)


def test_advanced_options_appear_and_count_only_when_switched_on(digits: fo.Dataset) -> None:
    assert "theta_gmm" not in form("apply_clipcleaner", digits)
    shown = form("apply_clipcleaner", digits, advanced=True)
    assert {"theta_gmm", "theta_cons", "temperature", "folds", "seed"} <= set(shown)
    assert shown["embeddings"]["type"]["values"] == ["<compute>", "pixels"]
    assert "store_embeddings" in shown and "use_names" not in shown
    given = form("apply_clipcleaner", digits, advanced=True, embeddings="pixels")
    assert "use_names" in given and "store_embeddings" not in given

    hidden = {"advanced": False, "key": "run", "seed": 3, "embeddings": "pixels"}
    options = module("options")
    assert options.in_force(hidden) == {"key": "run"}
    assert options.in_force({**hidden, "advanced": True})["seed"] == 3


def test_the_cost_is_said_before_execution(digits: fo.Dataset) -> None:
    cc.compute_embeddings(digits[:50], model=cc.TINY_CLIP, pretrained=None, progress=False)
    cost = form("apply_clipcleaner", digits, model=cc.TINY_CLIP)["cost"]["view"]["label"]
    assert "120 samples" in cost and "70 embeddings to compute" in cost and "on c" in cost
    given = form("apply_clipcleaner", digits, advanced=True, embeddings="pixels")["cost"]
    assert given["view"]["label"] == "120 samples"
    unknown = form("compute_embeddings", digits, model="ViT-B-33")["blocked"]
    assert unknown["invalid"] and "ViT-B-32" in unknown["view"]["description"]


# --- apply


def test_apply_finds_the_planted_errors_and_shows_them(digits: fo.Dataset) -> None:
    params = {"label_field": "ground_truth", "key": "run", "model": cc.TINY_CLIP}
    sent = requests(execute("apply_clipcleaner", digits, params))
    found = set(cc.load_results(digits, "run").mislabeled_view().values("id"))
    wrong = wrong_ids(digits)
    assert len(found & wrong) / len(wrong) >= 0.9 and len(found & wrong) / len(found) >= 0.8
    assert digits.count("run_embedding") == N

    after = [call for call in sent if call[0] != "set_progress"]
    assert [name for name, _ in after] == [
        "reload_dataset", "open_panel", "set_view", "set_active_fields", "notify",
    ]  # fmt: skip
    assert shown(digits, after[2][1]).values("id") == digits.load_saved_view(
        "run: mislabeled"
    ).values("id")
    explaining = ["ground_truth", "run_suggestion", "run_score"]
    assert after[3][1] == {"fields": explaining}
    message = after[4][1]
    assert message["variant"] == "success"
    assert f"{len(found)} of {N}" in message["message"] and "noise rate" in message["message"]
    progress = [params for name, params in sent if name == "set_progress"]
    assert len(progress) >= 2 and progress[-1] == {"label": "Done", "progress": 1}


def test_a_run_that_finds_nothing_leaves_the_view_alone(digits: fo.Dataset) -> None:
    params = {**PIXELS, "label_field": "trusted", "key": "run", "embeddings": "perfect"}
    digits.set_values("perfect", _one_hot(digits.values("trusted.label")))
    sent = requests(execute("apply_clipcleaner", digits, params))
    assert "set_view" not in [name for name, _ in sent]
    (result, *warnings) = [params for name, params in sent if name == "notify"]
    assert result["variant"] == "success" and f"0 of {N}" in result["message"]
    said = [(warning["variant"], warning["message"]) for warning in warnings]
    assert said == [("warning", w) for w in cc.load_results(digits, "run").record["warnings"]]
    assert "only one different image" in said[0][1], "ten different vectors, one a class"


def _one_hot(labels: list[str]) -> list[np.ndarray]:
    names = sorted(set(labels))
    return [np.eye(len(names), dtype=np.float32)[names.index(label)] for label in labels]


def test_apply_works_on_the_selected_samples_or_the_view(digits: fo.Dataset) -> None:
    chosen = digits.values("id")[:80]
    apply(digits, "picked", selected=chosen[:60])
    assert digits.count("picked_verdict") == N, "without a choice, the dataset is meant"
    selected = {**PIXELS, "key": "picked", "view_target": "SELECTED_SAMPLES"}
    execute("apply_clipcleaner", digits, selected, selected=chosen[:60])
    assert set(digits.exists("picked_verdict").values("id")) == set(chosen[:60])
    apply(digits.select(chosen), "seen")
    assert set(digits.exists("seen_verdict").values("id")) == set(chosen)
    with_target = {**PIXELS, "key": "seen", "view_target": "DATASET"}
    execute("apply_clipcleaner", digits.select(chosen), with_target)
    assert digits.count("seen_verdict") == N


def test_options_of_the_form_reach_the_run(digits: fo.Dataset, tmp_path: Path) -> None:
    more = {"theta_gmm": 0.6, "theta_cons": 0.9, "temperature": 0.1, "folds": 3, "seed": 7}
    execute("apply_clipcleaner", digits, {**PIXELS, "key": "run", **more})
    parameters = cc.get_run_info(digits, "run")["parameters"]
    assert {name: parameters[name] for name in more} == more
    assert parameters["embeddings_source"] == "pixels" and parameters["model"] is None

    prompts = tmp_path / "prompts.json"
    prompts.write_text(json.dumps({"template": "a handwritten {name}"}))
    words = {
        "label_field": "ground_truth", "key": "words", "model": cc.TINY_CLIP,
        "class_prompts": str(prompts), "store_embeddings": False,
    }  # fmt: skip
    execute("apply_clipcleaner", digits, words)
    assert "words_embedding" not in digits.get_field_schema()
    assert ["a handwritten nine"] in cc.load_results(digits, "words").record["prompts"]


@pytest.mark.parametrize(
    ("params", "words"),
    [
        ({"key": "not a key"}, "Letters, digits"),
        ({"label_field": "objects"}, "no object has a label in field 'objects'"),
        ({"label_field": "nowhere"}, "label_field"),
        ({"class_prompts": "/no/such.yaml", "use_names": True}, "/no/such.yaml"),
        ({"embeddings": "nowhere"}, "nowhere"),
        ({"folds": 1, "advanced": True}, "folds"),
        ({"theta_gmm": 2.0, "advanced": True}, "theta_gmm"),
    ],
)
def test_bad_input_fails_in_words_and_writes_nothing(
    digits: fo.Dataset, params: dict[str, Any], words: str
) -> None:
    before = set(digits.get_field_schema())
    with pytest.raises(ExecutionError, match=words):
        execute("apply_clipcleaner", digits, {**PIXELS, "key": "run", **params})
    digits.reload()
    assert set(digits.get_field_schema()) == before and digits.list_brain_runs() == []


def test_embeddings_are_computed_once_and_counted(digits: fo.Dataset) -> None:
    params = {"model": cc.TINY_CLIP, "embeddings_field": "vectors", "batch_size": 16}
    broken = digits.first()
    broken.filepath = "/no/such/file.png"
    broken.save()
    first = dict(requests(execute("compute_embeddings", digits, params)))["notify"]
    assert first["message"].startswith(f"{N - 1} embeddings computed, 0 were there already")
    assert "1 images could not be read" in first["message"] and first["variant"] == "warning"
    assert digits.count("vectors") == N - 1
    again = dict(requests(execute("compute_embeddings", digits, params)))["notify"]
    assert again["message"].startswith(f"0 embeddings computed, {N - 1} were there already")


# --- views and the life of a run


def test_every_verdict_can_be_loaded(digits: fo.Dataset) -> None:
    digits[:3].clear_sample_field("ground_truth")
    apply(digits)
    results = cc.load_results(digits, "run")
    choices = form("load_view", digits)["kind"]["view"]["choices"]
    n = results.counts()
    assert [choice["label"] for choice in choices] == [
        f"Mislabeled ({n['mislabeled']})", f"Uncertain ({n['uncertain']})",
        f"Clean ({n['clean']})", "Unscorable (3)", "Near the threshold", "Least certain",
        "Of no class (0)", f"All ({N})",
    ]  # fmt: skip
    for kind in [choice["value"] for choice in choices]:
        sent = requests(execute("load_view", digits, {"key": "run", "kind": kind}))
        assert [name for name, _ in sent] == ["set_view", "set_active_fields"]
        expected = results.view(None if kind == "all" else kind).values("id")
        called = foo.get_operator(uri("load_view"))(digits, "run", kind)
        assert shown(digits, sent[0][1]).values("id") == called.values("id") == expected


def test_one_pair_of_labels_can_be_loaded(digits: fo.Dataset) -> None:
    apply(digits)
    given, suggested, n = cc.load_results(digits, "run").confusions()[0]
    params = {"key": "run", "kind": "mislabeled", "given": given, "suggested": suggested}
    sent = requests(execute("load_view", digits, params))
    found = shown(digits, sent[0][1])
    assert len(found) == n
    assert set(found.values("ground_truth.label")) == {given}
    assert set(found.values("run_suggestion.label")) == {suggested}
    assert not form("load_view", digits, **params)["given"]["invalid"]
    typed = form("load_view", digits, **{**params, "given": "sevn"})["given"]
    assert typed["invalid"] and "no label 'sevn'; close ones: seven" in typed["error_message"]


def test_operators_on_runs_say_that_there_is_none(digits: fo.Dataset) -> None:
    for name in ("load_view", "update_selection", "get_run_info", "rename_run", "delete_run"):
        assert "no CLIPCleaner runs" in form(name, digits)["blocked"]["view"]["label"]
    with pytest.raises(ExecutionError, match="no CLIPCleaner runs"):
        execute("delete_run", digits, {"key": "run"})
    apply(digits)
    with pytest.raises(ExecutionError, match="key"):
        execute("load_view", digits, {"key": "other"})
    with pytest.raises(ValueError, match="no view 'wrong'"):
        foo.get_operator(uri("load_view"))(digits, "run", "wrong")


def test_run_info_is_json_and_its_report_has_the_facts(digits: fo.Dataset) -> None:
    digits[:3].clear_sample_field("ground_truth")
    apply(digits)
    info = execute("get_run_info", digits, {"key": "run"}).result
    json.dumps(info)
    counts = cc.load_results(digits, "run").counts()
    assert {verdict: info["counts"].get(verdict, 0) for verdict in counts} == counts
    report = module("get_run_info").report(info)
    assert f"| mislabeled | {counts['mislabeled']} |" in report
    assert "3 × no label" in report and "| embeddings_source | `pixels` |" in report
    output = foo.get_operator(uri("get_run_info")).resolve_output(
        foo.executor.ExecutionContext({"results": info})
    )
    assert output.to_json()["type"]["properties"]["report"]["default"] == report
    assert "did not finish" in module("get_run_info").report({**info, "record": None})


def test_rename_and_delete(digits: fo.Dataset) -> None:
    before = set(digits.get_field_schema())
    apply(digits, "old")
    apply(digits, "other")
    taken = form("rename_run", digits, key="old", new_key="other")["new_key"]
    assert taken["invalid"] and "already" in taken["error_message"]
    execute("rename_run", digits, {"key": "old", "new_key": "new"})
    assert cc.list_runs(digits) == ["new", "other"]
    assert digits.has_sample_field("new_score") and not digits.has_sample_field("old_score")

    warning = form("delete_run", digits, key="new")["warning"]["view"]
    assert "cannot be undone" in warning["label"]
    assert "new_score" in warning["description"] and "new: clean" in warning["description"]
    sent = requests(execute("delete_run", digits, {"key": "new"}))
    assert [name for name, _ in sent] == ["reload_dataset", "notify"]
    foo.get_operator(uri("delete_run"))(digits, "other")
    digits.reload()
    assert cc.list_runs(digits) == [] and set(digits.get_field_schema()) == before
