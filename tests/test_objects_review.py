"""Reviews of objects: decisions, their log, taking them back, and what later runs make of them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import fiftyone as fo
import pytest
from boxed import FIELD, Boxed
from fiftyone import ViewField as F

import clipcleaner_plugin as cc
from clipcleaner_plugin import review_update

ROOT = f"{FIELD}.{FIELD}."

pytestmark = pytest.mark.usefixtures("quiet")


@pytest.fixture(scope="module")
def finished() -> Iterator[Boxed]:
    """A run on 240 objects, 40 of them with a wrong label."""
    made = fo.Dataset()

    def fill(samples: list[fo.Sample]) -> fo.Dataset:
        made.add_samples(samples, progress=False)
        return made

    boxed = Boxed(fill)
    boxed.apply()
    yield boxed
    made.delete()


@pytest.fixture
def boxed(finished: Boxed) -> Iterator[Boxed]:
    """The same for the test alone; objects keep their ids."""
    original = finished.dataset
    finished.dataset = original.clone()
    yield finished
    finished.dataset.delete()
    finished.dataset = original


def results_of(boxed: Boxed) -> Any:
    return cc.load_results(boxed.dataset)


def labels(boxed: Boxed, *names: str) -> dict[str, Any]:
    """Object id → its label, or other attributes."""
    wanted = names or ("label",)
    ids, *columns = boxed.dataset.values([ROOT + n for n in ("id", *wanted)], unwind=True)
    rows = columns[0] if len(columns) == 1 else zip(*columns, strict=True)
    return dict(zip(ids, rows, strict=True))


def test_suggestions_are_accepted_and_taken_back(boxed: Boxed) -> None:
    before, documents = labels(boxed), boxed.documents()
    truth = labels(boxed, "truth")
    report = results_of(boxed).accept_suggestions(who="ann")
    assert (report.count, report.unit) == (40, "object")
    assert sum(n for *_, n in report.changes) == 40
    after = labels(boxed, "label", "confidence", "review")
    for i in boxed.ids:
        expected = (truth[i], None, "relabeled") if i in boxed.wrong else (before[i], 0.25, None)
        assert after[i] == expected
    assert len(results_of(boxed).mislabeled_view()) == 0
    assert len(results_of(boxed).view("reviewed")) == 40
    originals = cc.original_labels(boxed.dataset, FIELD)
    assert {i: (o.label, o.confidence) for i, o in originals.items() if o} == {
        i: (before[i], 0.25) for i in boxed.wrong
    }
    (action,) = cc.review_history(boxed.dataset)
    assert (action.by, action.count, action.label_field) == ("ann", 40, FIELD)
    assert str(action).endswith("ann: 40 objects relabeled")

    assert str(cc.preview_undo(boxed.dataset)).startswith("40 objects would be as before")
    assert cc.undo_review(boxed.dataset).count == 40
    assert boxed.documents() == documents
    assert set(labels(boxed, "review").values()) == {None}
    assert str(cc.review_history(boxed.dataset)[0]).endswith("40 objects relabeled, undone")


@pytest.mark.parametrize("how", ["patches", "selected patches", "ids", "filtered labels", "labels"])
def test_however_objects_are_named_the_same_ones_are_meant(boxed: Boxed, how: str) -> None:
    results = results_of(boxed)
    chosen = results.mislabeled_view().values("id")[:7]
    scores = results.mislabeled_view().values(f"{FIELD}.clipcleaner_score")
    if how == "patches":
        view: Any = results.mislabeled_view().limit(7)
    elif how == "selected patches":
        view = boxed.dataset.to_patches(FIELD).select(chosen)
    elif how == "ids":
        view = chosen
    elif how == "filtered labels":
        view = boxed.dataset.filter_labels(FIELD, F("clipcleaner_score") <= scores[6])
        chosen = view.values(f"{ROOT}id", unwind=True)
    else:
        view = boxed.dataset.select_labels(ids=chosen, fields=FIELD)
    assert results.confirm_labels(view).count == len(chosen) < 40
    decided = {i for i, review in labels(boxed, "review").items() if review}
    assert decided == set(chosen)


def test_a_patches_view_shows_what_was_decided(boxed: Boxed) -> None:
    view = results_of(boxed).mislabeled_view()
    worst = view.values("id")
    cc.drop(view.limit(1))
    view.reload()
    assert view.values("id") == worst[1:]
    assert labels(boxed, "review")[worst[0]] == "dropped"


def test_a_chosen_label_and_a_second_decision(boxed: Boxed) -> None:
    view = results_of(boxed).mislabeled_view().limit(3)
    ids = view.values("id")
    first = cc.accept_suggestions(view, label="owl")
    assert {labels(boxed)[i] for i in ids} == {"owl"}
    some = boxed.dataset.select_labels(ids=ids[:1], fields=FIELD)
    assert cc.confirm_labels(some).left == {"decided already": 1}
    second = cc.confirm_labels(some, overwrite=True)
    assert cc.undo_review(boxed.dataset, first.action).left == {"decided again since": 1}
    assert cc.undo_review(boxed.dataset, second.action).count == 1
    assert labels(boxed, "review")[ids[0]] in ("relabeled", "confirmed")
    assert cc.undo_review(boxed.dataset, first.action).count == 1
    with pytest.raises(ValueError, match="label 'newt' is not in the class list"):
        cc.accept_suggestions(view, label="newt")


def test_an_edited_label_is_not_taken_back(boxed: Boxed) -> None:
    results_of(boxed).accept_suggestions()
    some = boxed.dataset.match_labels(ids=list(boxed.wrong)[:1]).first()
    edited = next(found for found in some[FIELD].detections if found.id in boxed.wrong)
    edited.label = "newt"
    some.save()
    report = cc.undo_review(boxed.dataset)
    assert (report.count, report.left) == (39, {"edited since": 1})
    assert labels(boxed)[edited.id] == "newt"


def test_a_box_that_moved_since_stays_where_it_is(boxed: Boxed) -> None:
    report = results_of(boxed).accept_suggestions()
    sample = boxed.dataset.match_labels(ids=list(boxed.wrong)[:1]).first()
    moved = next(found for found in sample[FIELD].detections if found.id in boxed.wrong)
    moved.bounding_box = [0.3, 0.3, 0.2, 0.2]
    sample.save()
    assert cc.undo_review(boxed.dataset, report.action).count == 40
    sample.reload()
    now = next(found for found in sample[FIELD].detections if found.id == moved.id)
    assert (now.bounding_box, now.confidence) == ([0.3, 0.3, 0.2, 0.2], 0.25)


def test_many_objects_go_in_several_commands(boxed: Boxed, monkeypatch: pytest.MonkeyPatch) -> None:
    documents = boxed.documents()
    monkeypatch.setattr(review_update, "_OBJECT_CHUNK", 3)
    assert results_of(boxed).accept_suggestions().count == 40
    assert [action.count for action in cc.review_history(boxed.dataset)] == [40]
    assert cc.undo_review(boxed.dataset).count == 40
    assert boxed.documents() == documents


def test_a_later_run_trusts_what_was_decided(boxed: Boxed) -> None:
    results = results_of(boxed)
    worst = results.mislabeled_view().values("id")
    results.confirm_labels(worst[:5])
    results.drop(worst[5:8])
    later = boxed.apply(key="later")
    verdicts = labels(boxed, "later_verdict")
    assert {verdicts[i] for i in worst[:5]} == {"clean"}
    assert {verdicts[i] for i in worst[5:8]} == {"unscorable"}
    assert later.summary().unscorable == {"dropped in a review": 3}
    assert set(later.mislabeled_view().values("id")) == set(worst[8:])


def test_decisions_outlive_the_run_and_samples_are_another_matter(boxed: Boxed) -> None:
    results_of(boxed).accept_suggestions()
    cc.delete_run(boxed.dataset, "clipcleaner")
    assert cc.undo_review(boxed.dataset).count == 40
    n = len(boxed.dataset)
    values = [fo.Classification(label="ab"[i % 2]) for i in range(n)]
    boxed.dataset.set_values("ground_truth", values)
    boxed.dataset.apply_clipcleaner(embeddings=boxed.features[:n], model=None)
    assert cc.confirm_labels(boxed.dataset).unit == "sample"
    with pytest.raises(ValueError, match="views of patches, clips or frames cannot be reviewed"):
        cc.confirm_labels(boxed.dataset.to_patches(FIELD))


def test_objects_of_another_field_are_refused(boxed: Boxed) -> None:
    boxed.dataset.clone_sample_field(FIELD, "others")
    with pytest.raises(ValueError, match="does not show the objects of 'detections'"):
        cc.confirm_labels(boxed.dataset.to_patches("others"))


def test_an_attribute_of_that_name_is_not_overwritten(boxed: Boxed) -> None:
    boxed.dataset.add_sample_field(f"{ROOT}review", fo.StringField)
    with pytest.raises(ValueError, match="is there already and is no review; rename it first"):
        results_of(boxed).accept_suggestions()


def test_a_random_sample_measures_the_run(boxed: Boxed) -> None:
    results = results_of(boxed)
    view = results.start_review(n=60)
    assert view.patches_field == FIELD and len(view) == 60
    drawn = view.values("id")
    assert len(boxed.wrong & set(drawn)) == 30
    saved = boxed.dataset.load_saved_view("clipcleaner: review sample")
    assert set(saved.values(f"{ROOT}id", unwind=True)) == set(drawn)
    for name in ("cat", "dog", "owl"):
        wrong = (F(f"{FIELD}.truth") == name) & (F(f"{FIELD}.label") != name)
        cc.accept_suggestions(view.match(wrong), label=name)
    cc.confirm_labels(view)
    report = results.review_report()
    assert (report.decided, report.precision.rate, report.missed.rate) == (60, 1, 0)
    assert str(report).startswith("60 of 60 objects decided")
