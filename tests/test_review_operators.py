"""The review operators, executed through FiftyOne's own registry: forms, results, refusals."""

from __future__ import annotations

import getpass
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import fiftyone as fo
import fiftyone.operators as foo
import pytest
from fiftyone.operators.executor import ExecutionError
from noisy_features import Noisy, run_on_features
from operators_at_work import context, form, module, requests, uri

import clipcleaner_plugin as cc

pytestmark = pytest.mark.usefixtures("plugin")

ACTIONS = ["accept_suggestions", "confirm_labels", "drop"]

Maker = Callable[..., fo.Dataset]


@pytest.fixture(scope="module")
def finished_run() -> Iterator[Noisy]:
    """The run that ``noisy`` is a clone of, under another key than the default one."""
    with run_on_features(key="run") as made:
        yield made


def execute(name: str, samples: Any, **params: Any) -> Any:
    selected = params.pop("selected", None)
    kind = "view" if isinstance(samples, fo.DatasetView) else "dataset"
    context = {kind: samples, "selected": selected or []}
    result = foo.execute_operator(uri(name), context, params={"key": "run", **params})
    samples._root_dataset.reload()
    return result


def worst(noisy: Noisy) -> list[str]:
    return cc.load_results(noisy.dataset, "run").mislabeled_view().values("id")


# --- forms


@pytest.mark.parametrize("name", ACTIONS)
def test_the_form_says_what_it_is_about_and_what_comes_of_it(noisy: Noisy, name: str) -> None:
    chosen = form(name, noisy.dataset, selected=worst(noisy)[:3], key="run")
    assert "**3 selected samples**" in chosen["target"]["default"]
    assert "**3 samples**" in chosen["preview"]["default"]
    view = noisy.dataset.match({"run_verdict": "mislabeled"})
    unchosen = form(name, view, key="run")
    label = unchosen["target"]["view"]["label"]
    assert label == "Nothing is selected: this is about all 40 samples of the current view"
    assert "**40 samples**" in unchosen["preview"]["default"]
    assert noisy.dataset.get_field("ground_truth_review") is None, "a form writes nothing"


def test_the_preview_counts_pairs_of_labels(noisy: Noisy) -> None:
    results = cc.load_results(noisy.dataset, "run")
    text = form("accept_suggestions", results.mislabeled_view(), key="run")["preview"]["default"]
    for old, new, n in results.confusions():
        assert f"| {old} | {new} | {n} |" in text


@pytest.mark.parametrize(
    ("name", "decision"),
    [
        ("accept_suggestions", "relabeled"),
        ("confirm_labels", "confirmed"),
        ("drop", "dropped"),
    ],
)
def test_the_open_sample_is_meant_before_selected_ones(
    noisy: Noisy, name: str, decision: str
) -> None:
    ids = worst(noisy)
    opened = noisy.dataset[ids[0]]
    given, suggested = opened.ground_truth.label, opened.run_suggestion.label
    context = {"dataset": noisy.dataset, "selected": ids[1:], "current_sample": ids[0]}
    result = foo.execute_operator(uri(f"{name}_in_modal"), context, params={"key": "run"})
    assert result.result["count"] == 1
    opened.reload()
    assert opened.ground_truth_review == decision
    assert opened.ground_truth.label == (suggested if decision == "relabeled" else given)
    assert noisy.dataset.count("ground_truth_review") == 1


def test_a_form_that_would_do_nothing_is_blocked(noisy: Noisy) -> None:
    cc.confirm_labels(noisy.dataset, "run")
    blocked = form("confirm_labels", noisy.dataset, key="run")["blocked"]
    assert blocked["invalid"] and "240 decided already" in blocked["view"]["description"]
    with pytest.raises(ExecutionError, match="240 decided already"):
        execute("confirm_labels", noisy.dataset)


def test_a_label_outside_the_class_list_is_refused_while_it_is_typed(noisy: Noisy) -> None:
    inputs = form("accept_suggestions", noisy.dataset, key="run", label="newt")
    assert inputs["label"]["invalid"] and "class list" in inputs["label"]["error_message"]
    good = form("accept_suggestions", noisy.dataset, key="run", label="owl")
    assert not good["label"]["invalid"] and "min_confidence" not in good


@pytest.mark.parametrize("name", [*ACTIONS, "undo_review", "start_review", "review_report"])
def test_before_any_run_or_review_the_form_says_so(dataset: Maker, name: str) -> None:
    empty = dataset([fo.Sample(filepath="/nowhere/1.jpg")])
    blocked = form(name, empty)["blocked"]
    assert blocked["invalid"]
    assert "no CLIPCleaner runs" in blocked["view"]["label"] or name == "undo_review"


def test_objects_are_refused(noisy: Noisy) -> None:
    noisy.dataset.add_sample_field("boxes", fo.EmbeddedDocumentField, fo.Detections)
    blocked = form("drop", noisy.dataset.to_patches("boxes"), key="run")["blocked"]
    assert "cannot be reviewed" in blocked["view"]["label"]


@pytest.mark.parametrize("name", [*ACTIONS, "undo_review"])
def test_buttons_appear_with_the_first_run(noisy: Noisy, name: str) -> None:
    def place(operator: str) -> Any:
        ctx = foo.executor.ExecutionContext({"dataset_name": noisy.dataset.name, "params": {}})
        placement = foo.get_operator(uri(operator)).resolve_placement(ctx)
        return placement and placement.to_json()["place"]

    assert place(name) == "samples-grid-secondary-actions"
    if name in ACTIONS:
        assert place(f"{name}_in_modal") == "samples-viewer-actions"
    cc.delete_run(noisy.dataset, "run")
    assert place(name) is None


# --- actions


def test_selected_samples_are_decided_and_the_app_follows(noisy: Noisy) -> None:
    ids = worst(noisy)
    result = execute("accept_suggestions", noisy.dataset, selected=ids[:3])
    assert result.result["count"] == 3 and result.result["action"]
    asked = requests(result)
    assert [name for name, _ in asked] == ["reload_dataset", "clear_selected_samples", "notify"]
    assert asked[-1][1]["message"].startswith("3 samples relabeled")
    chosen = noisy.dataset.select(ids[:3])
    assert chosen.values("ground_truth.label") == chosen.values("trusted.label")
    assert noisy.dataset.count("ground_truth_review") == 3
    assert cc.review_history(noisy.dataset)[0].by == getpass.getuser()


def test_the_view_above_a_confidence(noisy: Noisy) -> None:
    view = cc.load_results(noisy.dataset, "run").mislabeled_view()
    view.set_values("run_suggestion.confidence", [i / 40 for i in range(40)])
    result = execute("accept_suggestions", view, min_confidence=0.5)
    assert result.result["count"] == 20
    assert result.result["left"] == {"with a suggestion less sure than 0.5": 20}


def test_a_view_leaves_decisions_alone_and_a_selection_replaces_them(noisy: Noisy) -> None:
    ids = worst(noisy)
    cc.confirm_labels(noisy.dataset.select(ids[:2]), "run")
    assert execute("drop", noisy.dataset.select(ids[:5])).result["count"] == 3
    assert execute("drop", noisy.dataset, selected=ids[:2]).result["count"] == 2
    assert noisy.dataset.count_values("ground_truth_review") == {"dropped": 5, None: 235}


def test_undo_of_the_last_and_of_an_earlier_action(noisy: Noisy) -> None:
    before = noisy.dataset.values("ground_truth.label")
    ids = worst(noisy)
    execute("accept_suggestions", noisy.dataset, selected=ids[:3])
    execute("drop", noisy.dataset, selected=ids[2:4])
    inputs = form("undo_review", noisy.dataset)
    choices = inputs["action"]["view"]["choices"]
    assert ["drop" in choice["label"] for choice in choices] == [True, False]
    assert "**2 samples** will be as before" in inputs["preview"]["default"]
    earlier = choices[1]["value"]
    text = form("undo_review", noisy.dataset, action=earlier)["preview"]["default"]
    assert "Left as they are: 1 decided again since" in text
    result = execute("undo_review", noisy.dataset, action=earlier)
    assert requests(result)[-1][1]["message"] == (
        "Undone on 2 samples; 1 left, decided again since"
    )
    assert execute("undo_review", noisy.dataset).result["count"] == 2
    assert execute("undo_review", noisy.dataset).result["count"] == 1
    assert noisy.dataset.values("ground_truth.label") == before
    assert "nothing to undo" in form("undo_review", noisy.dataset)["blocked"]["view"]["label"]


def test_every_action_can_be_found_and_undone(noisy: Noisy) -> None:
    ids = noisy.dataset.values("id")[:25]
    actions = []
    for place, i in enumerate(ids):
        who = "ann" if place == 1 else "bob"
        actions.append(cc.confirm_labels(noisy.dataset.select(i), "run", who=who).action)
    first, anns, last = actions[0], actions[1], actions[-1]
    inputs = form("undo_review", noisy.dataset)
    assert [c["value"] for c in inputs["action"]["view"]["choices"]] == actions[:4:-1]
    assert inputs["more"]["default"] == "5 earlier ones: search for them"
    assert "Of 25 actions" in inputs["find"]["view"]["description"]

    found = form("undo_review", noisy.dataset, find="ANN confirmed")
    assert [c["value"] for c in found["action"]["view"]["choices"]] == [anns]
    assert form("undo_review", noisy.dataset, find=first)["action"]["default"] == first
    nothing = form("undo_review", noisy.dataset, find="ann relabeled")["blocked"]
    assert nothing["invalid"] and nothing["view"]["label"] == "No action matches"

    # One chosen before the search, which it does not find: what the form shows is undone
    stale = form("undo_review", noisy.dataset, find="ann", action=last)
    assert ", ann: 1 sample confirmed" in stale["chosen"]["default"]
    assert execute("undo_review", noisy.dataset, find="ann", action=last).result["action"] == anns
    assert execute("undo_review", noisy.dataset, action=first).result["action"] == first
    undecided = noisy.dataset.match({"ground_truth_review": None}).values("id")
    assert set(ids) & set(undecided) == set(ids[:2])
    assert "find" in form("undo_review", noisy.dataset)
    execute("undo_review", noisy.dataset)
    for _ in range(2):
        execute("undo_review", noisy.dataset)
    assert "find" not in form("undo_review", noisy.dataset), "20 can be looked through"


def test_the_audit_record_names_the_apps_user(noisy: Noisy) -> None:
    def named(**user: Any) -> str | None:
        ctx = foo.executor.ExecutionContext({"dataset_name": noisy.dataset.name, "params": {}})
        if user:
            ctx.user = SimpleNamespace(**{"email": None, "name": None, "id": None, **user})
        said: str | None = module("review_form").reviewer(ctx)
        return said

    assert named(email="ann@lab.org", name="Ann", id="1") == "ann@lab.org"
    assert named(name="Ann", id="1") == "Ann" and named(id="1") == "1"
    assert named(email="") is None, "an App of one user: the library writes the system's"


@pytest.mark.parametrize("name", [*ACTIONS, "undo_review"])
def test_every_action_of_the_app_is_signed_by_its_user(noisy: Noisy, name: str) -> None:
    ids = worst(noisy)[:1]
    if name == "undo_review":
        execute("drop", noisy.dataset, selected=ids)
    ctx = context(noisy.dataset, {"key": "run"}, selected=ids)
    ctx.user = SimpleNamespace(email="ann@lab.org", name="Ann", id="1")
    foo.get_operator(uri(name)).execute(ctx)
    (entry,) = noisy.dataset.select(ids).values("ground_truth_review_log")[0]
    assert (entry["undone"] if name == "undo_review" else entry)["by"] == "ann@lab.org"


def test_operators_called_from_python(noisy: Noisy) -> None:
    view = noisy.dataset.select(worst(noisy))
    operator = {name: foo.get_operator(uri(name)) for name in [*ACTIONS, "undo_review"]}
    assert operator["accept_suggestions"](view.limit(2), "run", who="ann").count == 2
    assert operator["confirm_labels"](view.limit(3), "run").count == 1
    assert operator["drop"](view, "run").count == 37
    assert operator["undo_review"](noisy.dataset).count == 37
    assert [action.by for action in cc.review_history(noisy.dataset)][-1] == "ann"


# --- how good is the list


def test_from_the_sample_to_the_threshold(noisy: Noisy) -> None:
    result = execute("start_review", noisy.dataset, n=40)
    sent = dict(requests(result))
    shown = fo.DatasetView._build(noisy.dataset, sent["set_view"]["view"])
    assert len(shown) == 40
    explained = ["ground_truth", "run_suggestion", "run_score"]
    assert sent["set_active_fields"]["fields"][:3] == explained
    assert "replaces" in form("start_review", noisy.dataset, key="run")
    waiting = form("review_report", noisy.dataset, key="run")
    assert "0 of 40 samples decided**, 40 to go" in waiting["report"]["default"]
    assert "apply" not in waiting

    flagged = [i for i in shown.values("id") if i in noisy.wrong]
    execute("accept_suggestions", noisy.dataset, selected=flagged)
    execute("confirm_labels", shown)
    text = execute("review_report", noisy.dataset).result["report"]
    measured = cc.review_report(noisy.dataset, "run")
    assert "40 of 40 samples decided" in text
    assert f"| flagged as mislabeled | 40 | 100.0% | {measured.precision.low:.1%} to 100.0%" in text
    assert "Missed: about 0 wrong labels (0 to " in text

    inputs = form("review_report", noisy.dataset, key="run", apply=True, precision=0.9)
    threshold = measured.threshold(0.9)
    assert threshold is not None
    assert f"**{threshold:.3f}**" in inputs["threshold"]["default"]
    foretold = inputs["change"]["default"]
    before = cc.load_results(noisy.dataset, "run").counts()
    text = execute("review_report", noisy.dataset, apply=True, precision=0.9).result["report"]
    assert "mislabeled" in text
    counts = cc.load_results(noisy.dataset, "run").counts()
    assert counts != before
    assert str(counts["mislabeled"]) in foretold
    assert cc.load_results(noisy.dataset, "run").config.theta_score == threshold


def test_a_threshold_that_nothing_reaches_is_refused(noisy: Noisy) -> None:
    cc.start_review(noisy.dataset, "run", n=20)
    cc.confirm_labels(noisy.dataset, "run")
    inputs = form("review_report", noisy.dataset, key="run", apply=True)
    assert inputs["blocked"]["invalid"]
    assert "No threshold reaches this share" in inputs["blocked"]["view"]["label"]
