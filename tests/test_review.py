"""Review actions on real datasets: what they decide, record, leave and refuse."""

from __future__ import annotations

import getpass
from collections.abc import Callable
from datetime import datetime, timedelta, timezone
from typing import Any

import fiftyone as fo
import pytest
from fiftyone import ViewField as F
from noisy_features import CLASSES, Noisy, documents, mislabeled

import clipcleaner_plugin as cc
from clipcleaner_plugin.decisions import decisions

Maker = Callable[..., fo.Dataset]


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
