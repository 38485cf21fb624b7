"""Review actions on real datasets: what they decide, record, leave and take back."""

from __future__ import annotations

import getpass
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import fiftyone as fo
import pytest
from fiftyone import ViewField as F
from noisy_features import CLASSES, Noisy

import clipcleaner_plugin as cc
from clipcleaner_plugin import review
from clipcleaner_plugin.decisions import decisions

Maker = Callable[..., fo.Dataset]


def documents(dataset: fo.Dataset, ids: Any = None) -> dict[Any, Any]:
    """The label and the decision of every sample, as they lie in the database."""
    found = {
        d["_id"]: (d.get("ground_truth"), d.get("ground_truth_review"))
        for d in dataset._sample_collection.find()
    }
    return found if ids is None else {i: v for i, v in found.items() if str(i) in set(ids)}


def labels(dataset: fo.Dataset, ids: list[str]) -> list[str]:
    return dataset.select(ids, ordered=True).values("ground_truth.label")


def mislabeled(noisy: Noisy) -> fo.DatasetView:
    return cc.load_results(noisy.dataset).mislabeled_view()


# --- accept


def test_accepting_gives_the_suggested_labels(noisy: Noisy) -> None:
    view = mislabeled(noisy)
    others = noisy.dataset.exclude(list(noisy.wrong))
    before = documents(noisy.dataset, others.values("id"))
    report = cc.accept_suggestions(view, "clipcleaner")
    assert report.count == 40 and not report.left
    wrong = noisy.dataset.select(list(noisy.wrong))
    assert wrong.values("ground_truth.label") == wrong.values("trusted.label")
    assert set(wrong.values("ground_truth_review")) == {"relabeled"}
    assert documents(noisy.dataset, others.values("id")) == before, "others are untouched"
    assert len(mislabeled(noisy)) == 0, "nothing is left to review"


def test_the_report_and_the_preview_say_the_same(noisy: Noisy) -> None:
    view = mislabeled(noisy)
    given, suggested = view.values(["ground_truth.label", "clipcleaner_suggestion.label"])
    pairs = list(zip(given, suggested, strict=True))
    preview = cc.preview_review(view, "accept_suggestions")
    report = cc.accept_suggestions(view)
    for found in (preview, report):
        assert {(old, new): n for old, new, n in found.changes} == {
            pair: pairs.count(pair) for pair in pairs
        }
        counts = [n for *_, n in found.changes]
        assert counts == sorted(counts, reverse=True)
    assert preview.action is None and "40 samples would be relabeled" in str(preview)
    assert report.action and "40 samples relabeled" in str(report)
    old, new, n = report.changes[0]
    assert f"{old} -> {new}: {n}" in str(report)


def test_a_preview_writes_nothing(noisy: Noisy) -> None:
    schema, before = noisy.dataset.get_field_schema(), documents(noisy.dataset)
    cc.preview_review(noisy.dataset, "accept_suggestions", label="owl")
    cc.preview_review(noisy.dataset, "drop")
    assert documents(noisy.dataset) == before
    assert set(noisy.dataset.get_field_schema()) == set(schema)


def test_only_suggestions_above_the_confidence_are_accepted(noisy: Noisy) -> None:
    view = mislabeled(noisy)
    view.set_values("clipcleaner_suggestion.confidence", [i / 40 for i in range(40)])
    report = cc.accept_suggestions(view, min_confidence=0.25)
    assert report.count == 30
    assert report.left == {"with a suggestion less sure than 0.25": 10}
    decided = noisy.dataset.match(F("ground_truth_review") == "relabeled")
    assert min(decided.values("clipcleaner_suggestion.confidence")) == 0.25


def test_a_suggestion_that_is_the_given_label_is_no_decision(noisy: Noisy) -> None:
    report = cc.accept_suggestions(noisy.dataset)
    assert report.count == 40
    assert report.left == {"with the suggested label already": 200}


def test_a_chosen_label(noisy: Noisy) -> None:
    view = noisy.dataset.limit(60)
    has_it = view.values("ground_truth.label").count("owl")
    report = cc.accept_suggestions(view, label="owl")
    assert set(view.values("ground_truth.label")) == {"owl"}
    decided = view.count_values("ground_truth_review")
    assert decided == {"relabeled": 60 - has_it, "confirmed": has_it}
    assert ("owl", "owl", has_it) in report.changes


def test_a_chosen_label_for_a_sample_without_one_and_without_scores(noisy: Noisy) -> None:
    bare = fo.Sample(filepath="/nowhere/bare.jpg")
    noisy.dataset.add_sample(bare)
    view = noisy.dataset.select(bare.id)
    assert cc.accept_suggestions(view).left == {"without a suggestion": 1}
    assert cc.confirm_labels(view).left == {"without a label": 1}
    cc.accept_suggestions(view, label="cat")
    assert noisy.dataset[bare.id].ground_truth.label == "cat"
    assert isinstance(noisy.dataset[bare.id].ground_truth, fo.Classification)
    cc.undo_review(noisy.dataset)
    assert noisy.dataset[bare.id].ground_truth is None
    assert cc.drop(view).count == 1


def test_names_that_look_like_commands_of_the_database(noisy: Noisy) -> None:
    results = cc.load_results(noisy.dataset)
    results.record["classes"].append("$filepath")
    results.backend.save_run_results(noisy.dataset, "clipcleaner", results)
    view = noisy.dataset.limit(1)
    cc.accept_suggestions(view, label="$filepath", who="$id")
    assert view.values("ground_truth.label") == ["$filepath"]
    assert cc.review_history(noisy.dataset)[0].by == "$id"
    cc.undo_review(noisy.dataset, who="$filepath")
    assert view.values("ground_truth.label") != ["$filepath"]


def test_a_new_label_keeps_the_other_attributes_of_the_old_one(noisy: Noisy) -> None:
    sample = noisy.dataset[mislabeled(noisy).first().id]
    sample.ground_truth = fo.Classification(
        label=sample.ground_truth.label, confidence=0.3, logits=[1.0, 2.0], tags=["odd"], by="ann"
    )
    sample.save()
    noisy.dataset.add_dynamic_sample_fields()
    label_id = sample.ground_truth.id
    cc.accept_suggestions(noisy.dataset.select(sample.id))
    new = sample.ground_truth
    assert new.label == sample.trusted.label, "the sample in memory follows"
    assert (new.id, new.tags, new.by) == (label_id, ["odd"], "ann")
    assert new.confidence is None and new.logits is None, "they belonged to the old label"


# --- confirm, drop, decide again


def test_confirming_keeps_labels_and_takes_samples_off_the_list(noisy: Noisy) -> None:
    before = noisy.dataset.values("ground_truth.label")
    report = cc.confirm_labels(mislabeled(noisy).limit(5))
    assert report.count == 5 and "5 samples confirmed" in str(report)
    assert noisy.dataset.values("ground_truth.label") == before
    assert noisy.dataset.count_values("ground_truth_review")["confirmed"] == 5
    assert len(mislabeled(noisy)) == 35
    assert len(noisy.dataset.load_saved_view("clipcleaner: mislabeled")) == 35


def test_dropping_deletes_nothing(noisy: Noisy) -> None:
    report = cc.drop(mislabeled(noisy).limit(3))
    assert report.count == 3 and "3 samples dropped" in str(report)
    assert len(noisy.dataset) == 240
    assert noisy.dataset.count_values("ground_truth_review")["dropped"] == 3
    assert len(mislabeled(noisy)) == 37


def test_a_decision_is_changed_only_on_demand(noisy: Noisy) -> None:
    view = noisy.dataset.select(list(noisy.wrong))
    cc.confirm_labels(view.limit(4))
    kept = documents(noisy.dataset, view.limit(4).values("id"))
    report = cc.accept_suggestions(view)
    assert report.count == 36 and report.left == {"decided already": 4}
    assert documents(noisy.dataset, view.limit(4).values("id")) == kept
    report = cc.accept_suggestions(view, overwrite=True)
    assert (report.count == 4 and report.left == {"decided so already": 36}) or report.left == {
        "with the suggested label already": 36
    }
    assert view.values("ground_truth.label") == view.values("trusted.label")
    assert cc.drop(view, overwrite=True).count == 40
    assert cc.drop(view, overwrite=True).left == {"decided so already": 40}


def test_an_action_on_nothing_leaves_no_trace(noisy: Noisy) -> None:
    schema = set(noisy.dataset.get_field_schema())
    report = cc.confirm_labels(noisy.dataset.limit(0))
    assert report.count == 0 and report.action is None
    assert set(noisy.dataset.get_field_schema()) == schema
    assert cc.review_history(noisy.dataset) == []


def test_methods_of_results(noisy: Noisy) -> None:
    results = cc.load_results(noisy.dataset)
    worst = results.mislabeled_view().values("id")
    assert results.confirm_labels(worst[:2]).count == 2
    assert results.drop(noisy.dataset.select(worst[2])).count == 1
    assert results.accept_suggestions(min_confidence=0).count == 37, "those to review"
    assert [action.count for action in cc.review_history(noisy.dataset)] == [37, 1, 2]


# --- the record


def test_the_audit_log(noisy: Noisy) -> None:
    began = datetime.now(timezone.utc) - timedelta(seconds=1)
    view = mislabeled(noisy).limit(2)
    ids, given, score = view.values(["id", "ground_truth.label", "clipcleaner_score"])
    cc.accept_suggestions(view, who="ann")
    cc.confirm_labels(noisy.dataset.limit(3))
    last, first = cc.review_history(noisy.dataset)
    assert (first.kind, first.by, first.key, first.count) == (
        *("accept_suggestions", "ann", "clipcleaner", 2),
    )
    assert (last.kind, last.by, last.undone) == ("confirm_labels", getpass.getuser(), 0)
    assert began <= first.at <= last.at <= datetime.now(timezone.utc)
    assert cc.review_history(noisy.dataset, limit=1) == [last]
    log = noisy.dataset.select(ids, ordered=True).values("ground_truth_review_log")
    for i, entries in enumerate(log):
        (entry,) = entries
        assert entry["from"]["label"] == given[i] and entry["score"] == score[i]
        assert entry["to"] == noisy.dataset[ids[i]].ground_truth.label
        assert (entry["key"], entry["verdict"]) == ("clipcleaner", "mislabeled")


def test_decisions_and_history_are_indexed(noisy: Noisy) -> None:
    cc.confirm_labels(mislabeled(noisy))
    assert "ground_truth_review" in noisy.dataset.list_indexes()
    plan = noisy.dataset._sample_collection.find(
        {"ground_truth_review_log.action": {"$exists": True}}
    ).explain()
    assert "IXSCAN" in str(plan["queryPlanner"]["winningPlan"])


def test_the_original_label_is_there_after_several_changes(noisy: Noisy) -> None:
    sample = noisy.dataset[mislabeled(noisy).first().id]
    sample.ground_truth = fo.Classification(label="dog", confidence=0.3, tags=["odd"], by="ann")
    sample.save()
    noisy.dataset.add_dynamic_sample_fields()
    original = sample.ground_truth.to_dict()
    view = noisy.dataset.select(sample.id)
    for label in ("owl", "cat", "owl"):
        cc.accept_suggestions(view, label=label, overwrite=True)
    cc.confirm_labels(noisy.dataset.limit(1), overwrite=True)
    found = cc.original_labels(noisy.dataset, "ground_truth")
    assert list(found) == [sample.id]
    assert found[sample.id].to_dict() == original
    assert cc.original_labels(noisy.dataset, "trusted") == {}


# --- undo


def test_undoing_restores_every_bit(noisy: Noisy) -> None:
    sample = noisy.dataset[mislabeled(noisy).first().id]
    sample.ground_truth.confidence, sample.ground_truth.logits = 0.3, [1.0, 2.0]
    sample.save()
    before = documents(noisy.dataset)
    cc.accept_suggestions(mislabeled(noisy))
    after_accept = documents(noisy.dataset)
    cc.drop(noisy.dataset.limit(50), overwrite=True)
    assert documents(noisy.dataset) != after_accept != before
    report = cc.undo_review(noisy.dataset)
    assert report.count == 50 and not report.left
    assert documents(noisy.dataset) == after_accept
    report = cc.undo_review(noisy.dataset)
    assert (report.count, report.left) == (40, {})
    assert documents(noisy.dataset) == before
    assert noisy.dataset[sample.id].ground_truth.confidence == 0.3
    assert len(mislabeled(noisy)) == 40
    with pytest.raises(ValueError, match="no review action that could be undone"):
        cc.undo_review(noisy.dataset)
    assert [action.undone for action in cc.review_history(noisy.dataset)] == [50, 40]


def test_an_earlier_action_is_undone_where_nothing_was_decided_since(noisy: Noisy) -> None:
    view = noisy.dataset.select(list(noisy.wrong))
    before = documents(noisy.dataset)
    first = cc.accept_suggestions(view)
    assert first.action
    second = cc.drop(view.limit(10), overwrite=True)
    preview = cc.preview_undo(noisy.dataset, first.action)
    report = cc.undo_review(noisy.dataset, first.action)
    assert report.count == preview.count == 30
    assert report.left == preview.left == {"decided again since": 10}
    assert "left as they are: 10 decided again since" in str(report)
    dropped = view.limit(10)
    assert dropped.values("ground_truth.label") == dropped.values("trusted.label")
    assert set(dropped.values("ground_truth_review")) == {"dropped"}
    # The later one first: then the rest of the earlier one can follow
    assert cc.undo_review(noisy.dataset, second.action).count == 10
    report = cc.undo_review(noisy.dataset, first.action)
    assert report.count == 10 and report.left == {"where it has been undone before": 30}
    assert documents(noisy.dataset) == before


def test_a_label_edited_since_is_left(noisy: Noisy) -> None:
    view = mislabeled(noisy).limit(3)
    ids = view.values("id")
    cc.accept_suggestions(view)
    edited = noisy.dataset[ids[0]]
    edited.ground_truth.label = "newt"
    edited.save()
    report = cc.undo_review(noisy.dataset)
    assert report.count == 2 and report.left == {"edited since": 1}
    edited.reload()
    assert (edited.ground_truth.label, edited.ground_truth_review) == ("newt", "relabeled")


def test_an_action_can_be_done_again_after_it_was_undone(noisy: Noisy) -> None:
    view = noisy.dataset.select(list(noisy.wrong))
    for _ in range(3):
        assert cc.accept_suggestions(view).count == 40
        assert view.values("ground_truth.label") == view.values("trusted.label")
        assert cc.undo_review(noisy.dataset).count == 40
    history = cc.review_history(noisy.dataset)
    assert [str(action).endswith("40 samples, undone") for action in history] == [True] * 3
    assert len(cc.original_labels(noisy.dataset, "ground_truth")) == 40


def test_undoing_on_some_samples_only(noisy: Noisy) -> None:
    cc.confirm_labels(noisy.dataset.limit(10))
    assert cc.undo_review(noisy.dataset.limit(4)).count == 4
    assert noisy.dataset.count("ground_truth_review") == 6
    assert "undone on 4" in str(cc.review_history(noisy.dataset)[0])
    assert cc.undo_review(noisy.dataset).count == 6


@pytest.mark.parametrize("action", ["nonsense", "0" * 24])
def test_an_unknown_action_is_refused(noisy: Noisy, action: str) -> None:
    cc.confirm_labels(noisy.dataset.limit(1))
    with pytest.raises(ValueError, match=f"no review action '{action}'"):
        cc.undo_review(noisy.dataset, action)


# --- bulk and interruption


def test_many_samples_go_in_several_commands(noisy: Noisy, monkeypatch: pytest.MonkeyPatch) -> None:
    before = documents(noisy.dataset)
    monkeypatch.setattr(review, "_CHUNK", 7)
    view = mislabeled(noisy)
    assert cc.accept_suggestions(view).count == 40
    assert [action.count for action in cc.review_history(noisy.dataset)] == [40]
    assert cc.undo_review(noisy.dataset).count == 40
    assert documents(noisy.dataset) == before


_ACCEPT = """
import sys
import fiftyone as fo
import clipcleaner_plugin as cc
from clipcleaner_plugin import review

review._CHUNK = 10
dataset = fo.load_dataset(sys.argv[1])
cc.accept_suggestions(dataset.match({"clipcleaner_verdict": "mislabeled"}))
"""


def test_a_kill_leaves_every_sample_decided_and_recorded_or_untouched(dataset: Maker) -> None:
    noisy = Noisy(dataset, n=3000, wrong=1000)
    noisy.apply()
    before = documents(noisy.dataset)
    command = [sys.executable, "-c", _ACCEPT, noisy.dataset.name]
    process = subprocess.Popen(command, env=os.environ)
    decided = {"ground_truth_review": "relabeled"}
    collection = noisy.dataset._sample_collection
    while collection.count_documents(decided) < 100:
        assert process.poll() is None, "it ended before it could be killed"
        time.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    process.wait()
    noisy.dataset.reload()

    n = collection.count_documents(decided)
    assert 100 <= n < 1000
    log = "ground_truth_review_log"
    assert collection.count_documents({f"{log}.0": {"$exists": True}}) == n
    assert collection.count_documents({**decided, f"{log}.0.decision": "relabeled"}) == n
    (action,) = cc.review_history(noisy.dataset)
    assert action.count == n
    after = documents(noisy.dataset)
    assert sum(after[i] != before[i] for i in before) == n
    # Going on decides about the rest; undoing both is as if nothing had happened
    assert cc.accept_suggestions(mislabeled(noisy)).count == 1000 - n
    assert cc.undo_review(noisy.dataset).count == 1000 - n
    assert cc.undo_review(noisy.dataset).count == n
    assert documents(noisy.dataset) == before


def test_another_process_declares_the_fields_first(noisy: Noisy) -> None:
    """The schema that this process knows is older; it must not write a second one."""
    code = (
        "import sys, fiftyone as fo, clipcleaner_plugin as cc\n"
        "cc.confirm_labels(fo.load_dataset(sys.argv[1]).limit(2))"
    )
    subprocess.run([sys.executable, "-c", code, noisy.dataset.name], check=True)
    assert cc.confirm_labels(noisy.dataset.skip(2).limit(2)).count == 2
    noisy.dataset.reload()
    assert noisy.dataset.count("ground_truth_review") == 4
    names = [field.name for field in noisy.dataset._doc.sample_fields]
    assert names.count("ground_truth_review") == 1
    assert sum(action.count for action in cc.review_history(noisy.dataset)) == 4


# --- what happens to decisions when runs and datasets change


def test_decisions_outlive_their_run_under_any_name(noisy: Noisy) -> None:
    before = documents(noisy.dataset)
    cc.accept_suggestions(mislabeled(noisy))
    cc.rename_run(noisy.dataset, "clipcleaner", "renamed")
    assert len(cc.load_results(noisy.dataset, "renamed").mislabeled_view()) == 0
    assert [action.key for action in cc.review_history(noisy.dataset)] == ["clipcleaner"]
    cc.delete_run(noisy.dataset, "renamed")
    assert noisy.dataset.count_values("ground_truth_review")["relabeled"] == 40
    assert cc.undo_review(noisy.dataset).count == 40
    assert documents(noisy.dataset) == before


def test_a_clone_has_decisions_and_history_of_its_own(noisy: Noisy, dataset: Maker) -> None:
    cc.accept_suggestions(mislabeled(noisy))
    name = dataset().name
    fo.delete_dataset(name)
    clone = noisy.dataset.clone(name)
    assert len(cc.original_labels(clone, "ground_truth")) == 40
    assert cc.undo_review(clone).count == 40
    assert clone.count("ground_truth_review") == 0
    assert noisy.dataset.count("ground_truth_review") == 40, "the source keeps its decisions"
    noisy.dataset.delete()
    assert len(cc.review_history(clone)) == 1


def test_decisions_survive_an_export_and_an_import(
    noisy: Noisy, dataset: Maker, tmp_path: Path
) -> None:
    cc.accept_suggestions(mislabeled(noisy).limit(4))
    kind = fo.types.FiftyOneDataset
    noisy.dataset.export(str(tmp_path), dataset_type=kind, export_media=False, progress=False)
    back = dataset()
    back.add_dir(str(tmp_path), dataset_type=kind, progress=False)
    assert back.count("ground_truth_review") == 4
    assert cc.undo_review(back).count == 4
    assert sorted(back.values("ground_truth.label")) != sorted(
        noisy.dataset.values("ground_truth.label")
    )


def test_two_label_fields_are_reviewed_apart(noisy: Noisy) -> None:
    noisy.apply(key="second", label_field="trusted")
    cc.confirm_labels(noisy.dataset.limit(3), "clipcleaner")
    cc.drop(noisy.dataset.limit(2), "second")
    assert decisions(noisy.dataset, "ground_truth").trusted.sum() == 3
    assert decisions(noisy.dataset, "trusted").dropped.sum() == 2
    assert {a.label_field for a in cc.review_history(noisy.dataset)} == {"ground_truth", "trusted"}
    assert cc.undo_review(noisy.dataset).count == 2
    assert noisy.dataset.count("ground_truth_review") == 3


# --- refusals


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"key": "nosuch"}, "no CLIPCleaner run 'nosuch'"),
        ({"label": "newt"}, "'newt' is not in the class list of the run: cat, dog, owl"),
        ({"min_confidence": 1.5}, "min_confidence must be in"),
        ({"label": "cat", "min_confidence": 0.5}, "about suggestions"),
    ],
)
def test_bad_options_are_refused(noisy: Noisy, options: dict[str, Any], text: str) -> None:
    before = documents(noisy.dataset)
    with pytest.raises(ValueError, match=text):
        cc.accept_suggestions(noisy.dataset, **options)
    assert documents(noisy.dataset) == before


def test_ids_and_patches_are_refused_in_words(noisy: Noisy) -> None:
    with pytest.raises(TypeError, match=r"use dataset.select\(ids\)"):
        cc.confirm_labels(noisy.ids)
    noisy.dataset.add_sample_field("boxes", fo.EmbeddedDocumentField, fo.Detections)
    with pytest.raises(ValueError, match="patches"):
        cc.confirm_labels(noisy.dataset.to_patches("boxes"))


def test_a_field_of_the_same_name_is_not_taken_over(noisy: Noisy) -> None:
    noisy.dataset.add_sample_field("ground_truth_review", fo.FloatField)
    with pytest.raises(ValueError, match="ground_truth_review is there already"):
        cc.confirm_labels(noisy.dataset)
    assert not decisions(noisy.dataset, "ground_truth").trusted.any()
    assert CLASSES[0] in noisy.dataset.values("ground_truth.label")
