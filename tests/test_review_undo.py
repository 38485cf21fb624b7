"""Review actions taken back, killed, and outliving their runs and datasets."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import fiftyone as fo
import pytest
from noisy_features import Noisy, documents, mislabeled

import clipcleaner_plugin as cc
from clipcleaner_plugin import review_update
from clipcleaner_plugin.decisions import decisions

Maker = Callable[..., fo.Dataset]


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
    said = [str(action) for action in cc.review_history(noisy.dataset)]
    assert [text.endswith("40 samples relabeled, undone") for text in said] == [True] * 3
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
    monkeypatch.setattr(review_update, "_CHUNK", 7)
    view = mislabeled(noisy)
    assert cc.accept_suggestions(view).count == 40
    assert [action.count for action in cc.review_history(noisy.dataset)] == [40]
    assert cc.undo_review(noisy.dataset).count == 40
    assert documents(noisy.dataset) == before


_ACCEPT = """
import sys, time
import fiftyone as fo
import clipcleaner_plugin as cc
from clipcleaner_plugin import review_update

write = review_update._write_samples

def write_and_wait(*arguments):
    for n, done in enumerate(write(*arguments)):
        yield done
        while n >= 40:  # however late the kill comes
            time.sleep(1)

review_update._CHUNK = 10
review_update._write_samples = write_and_wait
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
