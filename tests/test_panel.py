"""The panel and what belongs to it, asked as the App asks, without a browser."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import fiftyone as fo
import fiftyone.operators as foo
import numpy as np
import pytest
from noisy_digits import make_samples
from noisy_features import CLASSES, Noisy
from operators_at_work import form, module, requests, uri
from panel_at_work import Panel, shown

import clipcleaner_plugin as cc
from clipcleaner_plugin import kept_statistics
from clipcleaner_plugin.class_list import class_list_warnings
from clipcleaner_plugin.models import choose_device
from clipcleaner_plugin.speeds import known_speed, remember_speed

pytestmark = pytest.mark.usefixtures("plugin")

Maker = Callable[..., fo.Dataset]


@pytest.fixture
def noisy(dataset: Maker) -> fo.Dataset:
    made = Noisy(dataset)
    made.apply(key="run")
    return made.dataset


def test_it_opens_on_the_latest_run_and_changes_nothing(noisy: fo.Dataset) -> None:
    panel = Panel(noisy)
    assert panel.send("on_load") == {}
    assert panel.state == {
        "run": "run", "tab": "scores", "theta_gmm": 0.5, "theta_cons": 0.8, "theta_score": 0.5,
    }  # fmt: skip
    assert "40 of 240 labels look wrong" in panel.said("summary")
    n = cc.load_results(noisy, "run").counts()
    expected = {"mislabeled": "Mislabeled 40", "clean": f"Clean {n['clean']}"}
    assert panel.buttons("verdicts").items() >= expected.items()
    # An input's default that differs from the state would count as a change at mount
    assert panel.parts["tab"]["default"] is None
    before = dict(panel.state)
    assert panel.send("on_input") == {} and panel.state == before


def test_what_is_clicked_is_shown(noisy: fo.Dataset) -> None:
    panel, results = Panel(noisy), cc.load_results(noisy, "run")
    panel.send("on_load")
    asked = panel.send("on_show", kind="clean")
    assert shown(noisy, asked).values("id") == results.view("clean").values("id")
    assert asked["open_panel"]["name"] == "Samples", "the panel may hide the grid"

    place = next(i for i, n in enumerate(results.statistics().histogram["mislabeled"]) if n)
    asked = panel.send("on_score", idx=place, trace="mislabeled")
    expected = results.view("mislabeled", scores=(place / 32, (place + 1) / 32))
    assert shown(noisy, asked).values("id") == expected.values("id") != []

    given, suggested, n = results.confusions()[0]
    asked = panel.send("on_cell", y=given, x=suggested)
    assert len(shown(noisy, asked)) == n

    asked = panel.send("on_class", y=given, trace_idx=0)
    assert len(shown(noisy, asked)) == len(results.view("mislabeled", given=given))
    asked = panel.send("on_class", y=given, trace_idx=2)
    assert len(shown(noisy, asked)) == len(results.view(given=given))


def test_the_review_actions_are_at_hand(noisy: fo.Dataset) -> None:
    panel, results = Panel(noisy), cc.load_results(noisy, "run")
    panel.send("on_load")
    actions = ["accept_suggestions", "confirm_labels", "drop", "undo_review"]
    assert list(panel.buttons("review")) == actions
    for action in actions:
        asked = panel.send("on_review", action=action)["prompt_user_for_operation"]
        assert asked["operator_uri"] == uri(action) and asked["params"] == {"key": "run"}
    results.confirm_labels(results.mislabeled_view()[:2])
    results.confirm_labels(results.view("clean")[:3])
    panel.send("on_input")
    assert "38 of 240 labels still look wrong" in panel.said("summary")
    assert "**5** are reviewed" in panel.said("summary")
    assert panel.buttons("verdicts")["reviewed"] == "Reviewed 5"
    assert len(shown(noisy, panel.send("on_show", kind="reviewed"))) == 5


def test_of_a_large_run_it_asks_before_it_counts_again(
    noisy: fo.Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kept_statistics, "LARGE", 100)
    panel, worst = Panel(noisy), cc.load_results(noisy, "run").mislabeled_view().first()
    panel.send("on_load")
    assert "changed" not in panel.parts
    cc.confirm_labels(noisy.select(worst.id), "run")
    panel.send("on_change_view")
    assert "39 of 240" in panel.said("summary") and "changed" not in panel.parts
    noisy.delete_samples([worst.id])
    panel.send("on_change_view")
    assert "39 of 240" in panel.said("summary")
    assert "changed since these numbers were counted" in panel.said("changed")
    panel.send("on_count")
    assert "39 of 239" in panel.said("summary") and "changed" not in panel.parts


def test_samples_that_came_after_a_run_are_seen(noisy: fo.Dataset) -> None:
    noisy.add_samples([fo.Sample(f"/new/{i}.jpg") for i in range(2)], progress=False)
    panel = Panel(noisy)
    panel.send("on_load")
    assert "2 samples of the dataset are not in this run" in panel.said("added")
    asked = panel.send("on_start")["prompt_user_for_operation"]
    assert asked["params"] == {"key": "run", "again": "run"}
    noisy.delete_samples(noisy[-2:])
    panel.send("on_input")
    assert "added" not in panel.parts
    part, vectors = noisy[:200], np.random.default_rng(0).normal(size=(200, 4))
    cc.apply_clipcleaner(part, key="part", model=None, embeddings=vectors, progress=False)
    panel.state["run"] = "part"
    panel.send("on_run")
    assert "added" not in panel.parts, "it is about a part of them"


def test_images_of_no_class_are_counted_and_shown(noisy: fo.Dataset) -> None:
    panel = Panel(noisy)
    panel.send("on_load")
    assert "open_set" not in panel.buttons("verdicts"), "there are none"
    view = noisy.skip(100).limit(7)
    view.set_values("run_open_set", [True] * 7)
    cc.drop(view.limit(2), "run")
    panel.send("on_load")
    assert panel.buttons("verdicts")["open_set"] == "Of no class 7"
    asked = panel.send("on_show", kind="open_set")
    assert set(shown(noisy, asked).values("id")) == set(view.values("id"))
    noisy.delete_sample_field("run_open_set")  # as in runs of earlier versions
    panel.send("on_load")
    assert "open_set" not in panel.buttons("verdicts")


def test_class_names_to_rewrite_are_named(dataset: Maker) -> None:
    made = Noisy(dataset)
    made.apply(key="run")
    panel = Panel(made.dataset)
    panel.send("on_load")
    assert "⚠" not in panel.said("summary")
    made.text[1] = -made.text[1]
    made.apply(key="run")
    panel.send("on_load")
    (said,) = [line for line in panel.said("summary").splitlines() if line.startswith("⚠")]
    assert "mean little to the model: `dog`. Apply again with prompts" in said


def test_thresholds_are_tried_and_applied_and_taken_back(noisy: fo.Dataset) -> None:
    panel = Panel(noisy)
    panel.send("on_load")
    panel.state |= {"tab": "thresholds", "theta_gmm": 0.99, "theta_score": 0.001}
    before = noisy.values("run_verdict")
    panel.send("on_input")
    assert "→" in panel.said("change") and noisy.values("run_verdict") == before
    assert list(panel.buttons("decide")) == ["apply", "reset"]

    asked = panel.send("on_apply")
    assert asked["notify"]["variant"] == "success" and "reload_dataset" in asked
    assert noisy.values("run_verdict") != before and "→" not in panel.said("change")
    assert panel.buttons("decide") == {"apply": "Apply", "restore": "Back to 0.50 / 0.80 / 0.50"}

    former = {"theta_gmm": 0.5, "theta_cons": 0.8, "theta_score": 0.5}
    panel.send("on_restore", thetas=former)
    assert noisy.values("run_verdict") == before
    assert panel.state.items() >= former.items()


def test_a_slider_that_was_moved_goes_back(noisy: fo.Dataset) -> None:
    panel = Panel(noisy)
    panel.send("on_load")
    panel.state |= {"tab": "thresholds", "theta_cons": 0.1}
    panel.send("on_reset")
    assert panel.state["theta_cons"] == 0.8 and panel.state["tab"] == "thresholds"


def test_a_chosen_run_stays_chosen_while_it_exists(noisy: fo.Dataset) -> None:
    texts = [[1.0, 0.0], [0.0, 1.0], [1.0, 1.0]]
    vectors = [texts[CLASSES.index(name)] for name in noisy.values("trusted.label")]
    cc.apply_clipcleaner(noisy, "trusted", "later", embeddings=vectors, model=None)
    panel = Panel(noisy)
    panel.send("on_load")
    assert panel.state["run"] == "later" and panel.parts["run"]["type"]["values"] == [
        "later",
        "run",
    ]
    panel.state["run"] = "run"
    panel.send("on_run")
    assert panel.state["run"] == "run" and "40 of 240" in panel.said("summary")
    cc.delete_run(noisy, "run")
    panel.send("on_change_dataset")
    assert panel.state["run"] == "later" and "run" not in panel.parts


def test_without_a_run_it_offers_to_make_one(dataset: Maker, tmp_path: Path) -> None:
    made = dataset(make_samples(tmp_path, 10))
    panel = Panel(made)
    assert panel.send("on_load") == {}
    assert "No run yet" in panel.said("problem")
    assert panel.buttons("ways_out") == {"start": "Find wrong labels"}
    asked = panel.send("on_start")["prompt_user_for_operation"]
    assert asked["operator_uri"] == uri("apply_clipcleaner") and asked["params"] == {}


def test_without_labels_it_says_what_is_missing(dataset: Maker) -> None:
    topics = fo.Classifications(classifications=[fo.Classification(label="a")])
    panel = Panel(dataset([fo.Sample(filepath="/none.png", topics=topics)]))
    panel.send("on_load")
    assert "no labels to examine" in panel.said("problem")
    assert "'topics' holds Classifications" in panel.said("problem")
    assert panel.buttons("ways_out") == {}


def test_videos_are_refused_with_a_way_out(dataset: Maker, tmp_path: Path) -> None:
    labels = [fo.Classification(label="ab"[i % 2]) for i in range(8)]
    video = fo.Sample("/none.mp4", ground_truth=labels[0])
    pictures = [sample.filepath for sample in make_samples(tmp_path, 8)]
    for i, (path, label) in enumerate(zip(pictures, labels, strict=True)):
        video.frames[i + 1] = fo.Frame(filepath=path, ground_truth=label)
    videos = dataset([video])
    way_out = 'dataset.to_frames(sample_frames=True).clone("frames")'
    panel = Panel(videos)
    assert panel.send("on_load") == {}
    assert "only images are supported" in panel.said("problem")
    assert way_out in panel.said("problem") and panel.buttons("ways_out") == {}
    blocked = form("apply_clipcleaner", videos)["blocked"]
    assert blocked["invalid"] and way_out in blocked["view"]["description"]

    with pytest.raises(ValueError, match=r'view\.clone\("frames"\)'):
        cc.apply_clipcleaner(videos.to_frames())
    frames = videos.to_frames().clone()  # as the sentence says, of frames that are files already
    try:
        panel = Panel(frames)
        panel.send("on_load")
        assert panel.buttons("ways_out") == {"start": "Find wrong labels"}
        options = {"model": cc.TINY_CLIP, "pretrained": None, "progress": False}
        assert sum(cc.apply_clipcleaner(frames, **options).counts().values()) == 8
    finally:
        frames.delete()


def test_of_groups_a_slice_can_be_examined(dataset: Maker) -> None:
    group, label = fo.Group(), fo.Classification(label="a")
    names = ("left", "right")
    grouped = dataset(
        [fo.Sample(f"/{n}.jpg", ground_truth=label, group=group.element(n)) for n in names]
    )
    panel = Panel(grouped)
    panel.send("on_load")
    assert "pass one slice of it" in panel.said("problem") and panel.buttons("ways_out") == {}
    panel.view = grouped.select_group_slices("left")
    panel.send("on_change_view")
    assert panel.buttons("ways_out") == {"start": "Find wrong labels"}


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        (["run_score"], "fields of run 'run' were deleted"),
        (["run_verdict"], "fields of run 'run' were deleted"),
        (["ground_truth"], "labels of run 'run' are gone"),
    ],
)
def test_a_damaged_run_is_no_dead_end(noisy: fo.Dataset, fields: list[str], said: str) -> None:
    noisy.delete_sample_fields(fields)
    panel = Panel(noisy)
    panel.send("on_load")
    assert said in panel.said("problem")
    assert panel.buttons("ways_out")["delete"] == "Delete run"
    asked = panel.send("on_delete")["prompt_user_for_operation"]
    assert asked["operator_uri"] == uri("delete_run") and asked["params"] == {"key": "run"}


def test_a_run_that_did_not_finish_is_no_dead_end(noisy: fo.Dataset) -> None:
    run = cc.load_results(noisy, "run")
    run.backend.save_run_results(noisy, "run", None)
    panel = Panel(noisy)
    panel.send("on_load")
    assert "did not finish" in panel.said("problem")
    asked = panel.send("on_start")["prompt_user_for_operation"]
    assert asked["params"] == {"key": "run", "again": "run"}


# ---- the operator


def test_thresholds_in_a_form(noisy: fo.Dataset) -> None:
    inputs = form("update_selection", noisy, key="run")
    assert inputs["theta_cons"]["default"] == 0.8 and "→" not in inputs["change"]["default"]
    inputs = form("update_selection", noisy, key="run", theta_gmm=0.99)
    promised = inputs["change"]["default"]
    result = foo.execute_operator(
        uri("update_selection"), {"dataset": noisy}, params={"key": "run", "theta_gmm": 0.99}
    )
    noisy.reload()
    counts = cc.load_results(noisy, "run").counts()
    assert result.result["counts"] == counts
    assert f"→ **{counts['clean']}**" in promised
    assert [name for name, _ in requests(result)] == ["reload_dataset", "notify"]
    again = foo.get_operator(uri("update_selection"))(noisy, "run", theta_gmm=0.5)
    assert again == cc.load_results(noisy, "run").counts() != counts


def test_the_panel_opens_beside_the_grid(noisy: fo.Dataset) -> None:
    result = foo.execute_operator(uri("open_panel"), {"dataset": noisy}, params={})
    ((name, params),) = requests(result)
    assert (name, params["name"], params["layout"]) == ("open_panel", "clipcleaner", "horizontal")


# ---- the form: classes and time


@pytest.mark.parametrize(
    ("counts", "said"),
    [
        ({"cat": 5, "dog": 5}, []),
        ({"cat": 5}, ["All labels are 'cat'"]),
        ({None: 3}, ["No sample has a label"]),
        ({"cat": 5, "dog": 5, None: 2}, ["2 samples have no label"]),
        ({"0": 5, "1": 5, "2": 3, "3": 1, "cat": 9}, ["4 of 5 class names say nothing"]),
        ({"n01440764": 5, "class_2": 5, "ID 7": 5, "A1": 3}, ["4 of 4 class names say nothing"]),
        ({"Cat": 5, "cat": 5, "dog": 2}, ["'Cat', 'cat'. Merge them"]),
        ({"red_fox": 5, "red fox": 5}, ["'red fox', 'red_fox'. Merge"]),
        ({f"a dog in picture {w}": 1 for w in "abcdef"}, ["6 of 6 classes have one image only"]),
        ({"猫": 5, "犬": 5, "B": 5}, []),
    ],
)
def test_class_lists_that_do_not_fit(counts: dict[str | None, int], said: list[str]) -> None:
    found = class_list_warnings(counts)
    assert len(found) == len(said)
    assert all(part in text for part, text in zip(said, found, strict=True))


def test_names_do_not_matter_where_they_take_no_part() -> None:
    assert class_list_warnings({"0": 5, "1": 5}, with_names=False) == []


def test_the_form_warns_of_the_classes(noisy: fo.Dataset) -> None:
    assert "class_note_0" not in form("apply_clipcleaner", noisy)
    noisy.set_values("ground_truth.label", [str(CLASSES.index(c)) for c in
                                            noisy.values("ground_truth.label")])  # fmt: skip
    note = form("apply_clipcleaner", noisy)["class_note_0"]["view"]
    assert note["name"] == "Warning" and "3 of 3 class names say nothing" in note["label"]
    own = {"advanced": True, "class_prompts": "/some/file.yaml"}
    assert "class_note_0" not in form("apply_clipcleaner", noisy, **own)


def test_the_form_says_how_long_it_took_the_last_time(dataset: Maker, tmp_path: Path) -> None:
    made = dataset(make_samples(tmp_path, 150))
    tiny = {"model": cc.TINY_CLIP, "pretrained": None}
    device = choose_device(None)
    first = form("apply_clipcleaner", made, **tiny)["cost"]["view"]["label"]
    assert first.startswith(f"150 samples, 150 embeddings to compute, on {device}")
    cc.compute_embeddings(made[:120], **tiny, progress=False)
    label = form("apply_clipcleaner", made, **tiny)["cost"]["view"]["label"]
    assert label.startswith(f"150 samples, 30 embeddings to compute, on {device}, about ")
    assert label.endswith("at the speed of the last run")


def test_speeds_of_this_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CLIPCLEANER_STORE_DIR", str(tmp_path))
    assert known_speed("model [1]", "cpu") is None
    remember_speed("model [1]", "cpu", 99, 1.0)
    assert known_speed("model [1]", "cpu") is None, "that was the loading of the model"
    remember_speed("model [1]", "cpu", 1000, 50.0)
    remember_speed("model [1]", "cuda", 1000, 1.0)
    assert (known_speed("model [1]", "cpu"), known_speed("model [1]", "cuda")) == (20.0, 1000.0)
    (tmp_path / "speeds.json").write_text("[damaged")
    assert known_speed("model [1]", "cpu") is None
    monkeypatch.setenv("CLIPCLEANER_STORE_DIR", str(tmp_path / "speeds.json" / "no folder"))
    remember_speed("model [1]", "cpu", 1000, 50.0)  # is a convenience: nothing fails


@pytest.mark.parametrize(
    ("seconds", "said"),
    [(0.2, "1 second"), (40, "40 seconds"), (89, "89 seconds"), (91, "2 minutes"),
     (3600, "60 minutes"), (7000, "2 hours"), (200_000, "2 days")],
)  # fmt: skip
def test_rough_times(seconds: float, said: str) -> None:
    foo.get_operator(uri("load_view"))  # FiftyOne loads the operators
    assert module("cost").duration(seconds) == said
