"""The statistics that are kept with a run: never older than said, and seldom counted anew."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import asdict
from typing import Any

import fiftyone as fo
import pytest
from boxed import Boxed
from noisy_features import Noisy

import clipcleaner_plugin as cc
from benchmarks import panel as panel_benchmark
from clipcleaner_plugin import fields, kept_statistics, review_update
from clipcleaner_plugin.kept_statistics import count_again, following, recent_statistics
from clipcleaner_plugin.memory import content_state
from clipcleaner_plugin.statistics import statistics_of
from clipcleaner_plugin.tally import count_labels

pytestmark = pytest.mark.usefixtures("quiet")

N = 240
Maker = Callable[..., fo.Dataset]


@pytest.fixture
def results(noisy: Noisy) -> Any:
    return cc.load_results(noisy.dataset)


@pytest.fixture
def uncounted(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every run is a large one, and no run is counted as a whole."""
    count = kept_statistics.count_labels

    def count_a_part(results: Any, sample_ids: Any = None) -> Any:
        assert sample_ids is not None, "all of the run was counted"
        return count(results, sample_ids)

    monkeypatch.setattr(kept_statistics, "LARGE", 100)
    monkeypatch.setattr(kept_statistics, "count_labels", count_a_part)


@pytest.fixture(params=["samples", "objects"])
def two_runs(request: pytest.FixtureRequest, dataset: Maker) -> Iterator[list[Any]]:
    """Two runs on the same labels."""
    made = Noisy(dataset) if request.param == "samples" else Boxed(dataset)
    yield [made.apply(key=key) for key in ("one", "two")]


def counted(results: Any) -> dict[str, Any]:
    """The statistics, counted here and now; sums of scores may differ by rounding."""
    found = asdict(statistics_of(count_labels(results), results.record["classes"]))
    for row in (found, *found["classes"].values()):
        row["noise"] = pytest.approx(row["noise"], nan_ok=True)
    return found


def forget() -> None:
    """As another process, or a later one."""
    kept_statistics._last.forget()


def test_a_run_is_counted_when_it_is_written(
    dataset: Maker, request: pytest.FixtureRequest
) -> None:
    results = Noisy(dataset).apply()
    expected = counted(results)
    assert sum(expected["counts"].values()) == N and expected["confusions"]
    request.getfixturevalue("uncounted")
    forget()
    found = recent_statistics(results)
    assert found.current and asdict(found.statistics) == expected
    assert recent_statistics(results).statistics is found.statistics, "it stays in memory"


def test_new_thresholds_are_counted_when_they_are_applied(
    results: Any, request: pytest.FixtureRequest
) -> None:
    results.reselect(theta_gmm=0.99, theta_score=0.9)
    expected = counted(results)
    request.getfixturevalue("uncounted")
    forget()
    found = recent_statistics(results)
    assert found.current and asdict(found.statistics) == expected
    assert found.statistics.verdicts == results.counts()


def test_other_changes_are_noticed(results: Any) -> None:
    def check() -> None:
        found = recent_statistics(results)
        assert found.current and asdict(found.statistics) == counted(results)
        assert asdict(results.statistics()) == counted(results)

    check()
    sample = results.view("clean").first()
    sample["clipcleaner_verdict"] = "mislabeled"
    sample.save()
    check()
    results.dataset.set_values("ground_truth.label", ["owl"] * N)
    check()
    results.dataset.delete_samples([sample.id])
    check()
    results.dataset.add_samples([fo.Sample("/nowhere/new.jpg", clipcleaner_verdict="clean")])
    check()
    results.dataset.clear_sample_field("clipcleaner_score")
    check()


def test_of_a_large_run_older_numbers_are_said_to_be_older(
    results: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kept_statistics, "LARGE", 100)
    first = recent_statistics(results).statistics
    results.dataset.delete_samples([results.dataset.first().id])
    for _ in range(2):
        assert recent_statistics(results) == (first, False)
        forget()
    assert sum(count_again(results).verdicts.values()) == N - 1
    found = recent_statistics(results)
    assert found.current and asdict(found.statistics) == counted(results)
    results.dataset.delete_samples([results.dataset.first().id])
    assert sum(results.statistics().verdicts.values()) == N - 2, "from Python it is counted"


def test_a_clone_counts_for_itself(results: Any) -> None:
    recent_statistics(results)
    copy = results.dataset.clone()
    copy.delete_samples([results.mislabeled_view().first().id])
    cloned = cc.load_results(copy)
    assert asdict(recent_statistics(cloned).statistics) == counted(cloned)
    assert cloned.counts() != results.counts()
    copy.delete()


def test_a_review_brings_the_numbers_up_to_date(
    two_runs: list[Any], request: pytest.FixtureRequest
) -> None:
    one, two = two_runs
    dataset = one.dataset
    for results in two_runs:
        count_again(results)
    request.getfixturevalue("uncounted")

    def check() -> None:
        for results in two_runs:
            forget()
            found = recent_statistics(results)
            assert found.current and asdict(found.statistics) == counted(results)

    check()
    worst = one.mislabeled_view()
    assert one.accept_suggestions(min_confidence=0.5).count > 10
    check()
    assert recent_statistics(one).statistics.decided > 10
    assert two.confirm_labels(worst[:20]).count == 0, "decided already"
    cc.confirm_labels(two.view("clean")[:5], "two")
    check()
    cc.accept_suggestions(one.view("clean")[:7], "one", label="owl")
    check()
    cc.drop(two.view("uncertain")[:3] if len(two.view("uncertain")) else two.view()[-3:], "two")
    check()
    for _ in cc.review_history(dataset):
        cc.undo_review(dataset)
        check()
    assert recent_statistics(one).statistics.decided == 0


def test_a_review_that_is_too_large_is_no_longer_followed(
    results: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    recent_statistics(results)
    monkeypatch.setattr(kept_statistics, "LARGE", 100)
    monkeypatch.setattr(kept_statistics, "_MOST_FOLLOWED", 10)
    assert results.accept_suggestions().count > 10
    assert not recent_statistics(results).current
    assert asdict(count_again(results)) == counted(results)


@pytest.mark.parametrize("when", ["before", "meanwhile"])
@pytest.mark.parametrize("what", ["changed", "added", "deleted", "swapped"])
def test_what_others_do_at_the_same_time_is_not_missed(
    results: Any, monkeypatch: pytest.MonkeyPatch, what: str, when: str
) -> None:
    monkeypatch.setattr(kept_statistics, "LARGE", 100)
    dataset = results.dataset
    recent_statistics(results)
    mine, other = dataset.first(), dataset.last()

    def disturb() -> None:
        if what == "changed":
            other["clipcleaner_verdict"] = "unscorable"
            other.save()
        if what in ("deleted", "swapped"):
            dataset.delete_samples([other.id])
        if what in ("added", "swapped"):
            dataset.add_sample(fo.Sample("/nowhere/new.jpg", clipcleaner_verdict="clean"))

    if when == "before":
        disturb()
    with following(dataset, [mine._id]):
        mine["clipcleaner_verdict"] = "unscorable"
        mine.save()
        if when == "meanwhile":
            disturb()
    assert not recent_statistics(results).current
    assert asdict(count_again(results)) == counted(results)


def test_a_change_in_steps_ends_with_a_state_of_its_own(
    results: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Otherwise whoever counts between two steps would take that for the whole."""
    dataset, seen = results.dataset, []
    reload, write = review_update.Sample._reload_docs, type(dataset)._bulk_write

    def look_and_reload(*args: Any, **options: Any) -> None:
        seen.append(content_state(dataset))
        reload(*args, **options)

    def write_and_look(*args: Any, **options: Any) -> None:
        write(*args, **options)
        seen.append(content_state(dataset))

    monkeypatch.setattr(review_update, "_CHUNK", 10)
    monkeypatch.setattr(review_update.Sample, "_reload_docs", look_and_reload)
    results.accept_suggestions()
    assert len(seen) > 2 and content_state(dataset) not in seen
    seen.clear()
    monkeypatch.setattr(type(dataset), "_bulk_write", write_and_look)
    monkeypatch.setattr(fields, "_ROWS", 10)
    results.reselect(theta_gmm=0.99)
    assert len(seen) > 2 and content_state(dataset) not in seen


def test_the_numbers_go_with_the_run(results: Any) -> None:
    dataset, expected = results.dataset, counted(results)
    recent_statistics(results)
    cc.rename_run(dataset, "clipcleaner", "renamed")
    store = kept_statistics._store(dataset)
    assert store.list_keys() == []
    found = recent_statistics(cc.load_results(dataset, "renamed"))
    assert found.current and asdict(found.statistics) == expected
    assert store.list_keys() == ["renamed"]
    cc.delete_run(dataset, "renamed")
    assert store.list_keys() == []


def test_numbers_that_another_version_kept_are_counted_again(results: Any) -> None:
    count_again(results)
    store = kept_statistics._store(results.dataset)
    kept = store.get("clipcleaner")
    del kept["form"]  # as before it was told
    store.set("clipcleaner", {**kept, "tally": '{"scores": [[[], [1]]]}'})
    forget()
    found = recent_statistics(results)
    assert found.current and asdict(found.statistics) == counted(results)


def test_what_is_too_large_for_the_database_is_counted(
    results: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kept_statistics, "_MOST_CHARACTERS", 100)
    count_again(results)
    forget()
    found = recent_statistics(results)
    assert found.current and asdict(found.statistics) == counted(results)


def test_the_benchmark_of_the_panel_still_runs(capsys: pytest.CaptureFixture[str]) -> None:
    assert panel_benchmark.main(["--count", str(panel_benchmark.SEED + 500)]) == 0
    said = capsys.readouterr().out
    assert "2,500 samples" in said and said.count("\n| ") == 14, "a head and thirteen times"
