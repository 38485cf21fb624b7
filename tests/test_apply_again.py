"""The form of a run that is made again: it begins with what the earlier one was made with."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import fiftyone as fo
import fiftyone.operators as foo
import pytest
from boxed import FIELD, canvases
from noisy_digits import make_samples
from operators_at_work import context, form, messages, uri

import clipcleaner_plugin as cc

pytestmark = pytest.mark.usefixtures("plugin", "quiet")

Maker = Callable[..., fo.Dataset]
TINY = {"model": cc.TINY_CLIP, "pretrained": None, "progress": False}


@pytest.fixture
def made(dataset: Maker, tmp_path: Path) -> fo.Dataset:
    return dataset(make_samples(tmp_path, 60))


def defaults(inputs: dict[str, dict[str, Any]]) -> dict[str, Any]:
    return {name: prop["default"] for name, prop in inputs.items()}


def test_it_begins_with_the_model_and_labels_of_the_run(made: fo.Dataset) -> None:
    assert form("apply_clipcleaner", made)["model"]["default"] == "ViT-B-32"
    made.rename_sample_field("ground_truth", "given")
    cc.apply_clipcleaner(made[:40], "given", **TINY)
    inputs = form("apply_clipcleaner", made)
    begun = defaults(inputs)
    assert (begun["label_field"], begun["model"]) == ("given", cc.TINY_CLIP)
    assert "pretrained" not in inputs, "this model needs none"
    assert begun["advanced"] is False and "folds" not in inputs
    assert inputs["cost"]["view"]["label"].startswith("60 samples, 20 embeddings to compute")
    assert "decisions and embeddings are kept" in inputs["replaces"]["view"]["description"]
    # What is chosen in the form counts more
    chosen = form("apply_clipcleaner", made, model="ViT-B-16", label_field="trusted")
    assert "60 embeddings to compute" in chosen["cost"]["view"]["label"]


def test_the_panel_begins_with_the_run_that_it_shows(made: fo.Dataset) -> None:
    cc.apply_clipcleaner(made, "trusted", key="other", **TINY)
    assert form("apply_clipcleaner", made, key="other")["model"]["default"] == "ViT-B-32"
    inputs = form("apply_clipcleaner", made, key="other", again="other")
    assert defaults(inputs)["label_field"] == "trusted"
    assert defaults(inputs)["model"] == cc.TINY_CLIP


def test_unusual_options_are_shown(made: fo.Dataset, tmp_path: Path) -> None:
    prompts = tmp_path / "prompts.json"
    prompts.write_text(json.dumps({"template": "a handwritten {name}"}))
    unusual = {"class_prompts": str(prompts), "folds": 3, "theta_cons": 0.7, "seed": 9}
    cc.apply_clipcleaner(made, embeddings_field=None, **unusual, **TINY)
    begun = defaults(form("apply_clipcleaner", made))
    assert begun["advanced"] is True and begun["store_embeddings"] is False
    assert {name: begun[name] for name in unusual} == unusual


def test_a_call_from_python_means_what_it_says(made: fo.Dataset) -> None:
    """FiftyOne asks for the form before it executes a call, too."""
    cc.apply_clipcleaner(made, theta_cons=0.7, folds=3, **TINY)
    params = {"label_field": "ground_truth", "key": "clipcleaner", "model": cc.TINY_CLIP}
    foo.execute_operator(uri("apply_clipcleaner"), {"dataset": made}, params=params)
    made.reload()
    config = cc.load_results(made).config
    assert (config.theta_cons, config.folds) == (0.8, 5)


def test_embeddings_that_were_given_are_proposed_while_they_exist(made: fo.Dataset) -> None:
    cc.apply_clipcleaner(made, embeddings="pixels", model=None, progress=False)
    begun = defaults(form("apply_clipcleaner", made))
    assert (begun["advanced"], begun["embeddings"], begun["use_names"]) == (True, "pixels", False)
    made.delete_sample_field("pixels")
    assert defaults(form("apply_clipcleaner", made))["advanced"] is False


def test_from_patches_the_dataset_is_meant(dataset: Maker, tmp_path: Path) -> None:
    """After a run on objects the grid shows patches, which no operator can work on."""
    made = dataset(canvases(tmp_path / "canvases", 80))
    options = {"alpha": 0.1, "embeddings_field": None, **TINY}
    patches = cc.apply_clipcleaner(made, FIELD, **options).mislabeled_view()
    ids = patches.values("id")[:2]
    for name in ("apply_clipcleaner", "compute_embeddings", "export_cleaned", "train_on_cleaned"):
        inputs = form(name, patches, selected=ids)
        assert "blocked" not in inputs
        assert inputs["view_target"]["type"]["values"] == ["DATASET"]
        assert inputs["view_target"]["default"] == "DATASET"
    inputs = form("apply_clipcleaner", patches)
    assert inputs["cost"]["view"]["label"].startswith("80 objects, 0 embeddings to compute")
    params = {name: prop["default"] for name, prop in inputs.items() if prop["default"] is not None}
    assert params["alpha"] == 0.1
    sent = messages("apply_clipcleaner", context(patches, params))
    assert "of 80 labels look wrong" in sent[-1][1]["message"]


@pytest.mark.parametrize(
    ("content", "words"),
    [(None, "cannot read"), ('{"tempalte": "a {name}"}', "unknown key 'tempalte'"), ("[]", "map")],
)
def test_a_prompts_file_is_read_while_it_is_typed(
    made: fo.Dataset, tmp_path: Path, content: str | None, words: str
) -> None:
    path = tmp_path / "prompts.json"
    if content is not None:
        path.write_text(content)
    prop = form("apply_clipcleaner", made, advanced=True, class_prompts=str(path))["class_prompts"]
    assert prop["invalid"] and words in prop["error_message"]
    path.write_text('{"template": "a {name}"}')
    prop = form("apply_clipcleaner", made, advanced=True, class_prompts=str(path))["class_prompts"]
    assert not prop["invalid"]
