"""Statistics, views and thresholds of a run, against the same made by hand from its fields."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import fiftyone as fo
import numpy as np
import pytest
from noisy_features import CLASSES, Noisy

import clipcleaner_plugin as cc
from clipcleaner_plugin import reselection
from clipcleaner_plugin.decisions import declare_review
from clipcleaner_plugin.fields import EVIDENCES
from clipcleaner_plugin.layout import Layout
from clipcleaner_plugin.memory import Last
from clipcleaner_plugin.reselection import StoredEvidence, Thetas, preview_evidence, read_evidence
from clipcleaner_plugin.rules import noise_rate, select_paper, verdicts
from clipcleaner_plugin.tally import BINS

Maker = Callable[..., fo.Dataset]
N = 240
VERDICTS = ("mislabeled", "uncertain", "clean", "unscorable")


@pytest.fixture
def results(dataset: Maker) -> Any:
    """A run whose fields hold all there can be: borders of bins, ties, gaps, reviews."""
    noisy = Noisy(dataset, N)
    results = noisy.apply()
    made, rng = noisy.dataset, np.random.default_rng(0)
    score = (rng.integers(0, 2 * BINS + 1, N) / (2 * BINS)).tolist()
    suggested = rng.integers(3, size=N)
    for name in EVIDENCES:
        values = np.round(rng.beta(3, 1, N), 2).astype(np.float32).astype(float).tolist()
        values[:9] = [None] * 9
        made.set_values(f"clipcleaner_{name}", values)
    score[:9] = [None] * 9
    made.set_values("clipcleaner_score", score)
    made.set_values("clipcleaner_suggestion.label", [CLASSES[k] for k in suggested])
    made.set_values("clipcleaner_suggestion.confidence", rng.random(N).tolist())
    some = [VERDICTS[k] for k in rng.integers(3, size=N - 9)]
    made.set_values("clipcleaner_verdict", ["unscorable"] * 9 + some)
    declare_review(made, Layout("ground_truth"))
    states = [None, None, None, "confirmed", "relabeled", "dropped"]
    made.set_values("ground_truth_review", [states[i] for i in rng.integers(6, size=N)])
    made.set_values("clipcleaner_open_set", (rng.random(N) < 0.2).tolist())
    return results


def rows(results: Any) -> list[dict[str, Any]]:
    names = ["score", "verdict", *EVIDENCES, "suggestion.label", "suggestion.confidence"]
    names.append("open_set")
    fields = ["id", "ground_truth.label", "ground_truth_review", *map(results.field, names)]
    keys = ["id", "given", "review", *names]
    found = zip(*results.dataset.values(fields), strict=True)
    return [dict(zip(keys, row, strict=True)) for row in found]


def state(row: dict[str, Any]) -> str:
    """The verdict, or "settled" where the view of the verdict leaves the sample out."""
    if row["review"] == "dropped":
        return "settled"
    return "settled" if row["review"] and row["verdict"] in VERDICTS[:2] else row["verdict"]


def test_statistics_are_those_of_a_loop_over_the_samples(results: Any) -> None:
    found, samples = results.statistics(), rows(results)
    assert found.counts == {s: 0 for s in found.counts} | Counter(map(state, samples))
    scores = np.array([row["score"] for row in samples], dtype=float)
    assert found.noise == pytest.approx(noise_rate(scores))
    for name, counts in found.histogram.items():
        chosen = [
            row["score"] for row in samples if state(row) == name and row["score"] is not None
        ]
        assert counts == np.histogram(chosen, BINS, (0, 1))[0].tolist(), name
    pairs = Counter(
        (row["given"], row["suggestion.label"]) for row in samples if state(row) == "mislabeled"
    )
    assert {(a, b): n for a, b, n in found.confusions} == pairs
    assert [n for *_, n in found.confusions] == sorted(pairs.values(), reverse=True)
    assert list(found.classes) == sorted(CLASSES)
    for name, of_class in found.classes.items():
        members = [row for row in samples if row["given"] == name]
        assert of_class.count == len(members)
        assert of_class.mislabeled == sum(state(row) == "mislabeled" for row in members)
        words = [row["zeroshot_consistency"] for row in members if row["score"] is not None]
        assert of_class.words == np.mean(np.array(words) >= 1)
        looks = [row["visual_consistency"] for row in members if row["score"] is not None]
        assert of_class.looks == np.mean(np.array(looks) >= 1)
        own = noise_rate(np.array([row["score"] for row in members], dtype=float))
        assert of_class.noise == pytest.approx(own)


def test_views_show_what_the_statistics_count(results: Any) -> None:
    found, samples = results.statistics(), rows(results)
    counts = found.in_views
    for kind in (*VERDICTS, "reviewed", "settled"):
        assert len(results.view(kind)) == counts[kind] > 0, kind
    assert counts["settled"] < counts["reviewed"], "clean labels that were confirmed stay clean"
    assert counts["reviewed"] == sum(row["review"] is not None for row in samples)
    assert len(results.view("open_set")) == counts["open_set"] > 10
    assert found.verdicts == results.counts()
    for kind in (*VERDICTS, "settled"):
        for i, n in enumerate(found.histogram[kind]):
            assert len(results.view(kind, scores=(i / BINS, (i + 1) / BINS))) == n, (kind, i)
    for given, suggested, n in found.confusions:
        assert len(results.view("mislabeled", given=given, suggested=suggested)) == n
    for name, of_class in found.classes.items():
        assert len(results.view(given=name)) == of_class.count
        assert len(results.view("mislabeled", given=name)) == of_class.mislabeled
    assert len(results.view()) == N


def test_views_of_what_is_worth_a_look(results: Any) -> None:
    samples, theta = rows(results), results.thetas.theta_cons
    by_id = {row["id"]: row for row in samples}

    def shown(kind: str) -> list[dict[str, Any]]:
        return [by_id[i] for i in results.view(kind).values("id")]

    def gap(row: dict[str, Any]) -> float:
        return abs(row["zeroshot_consistency"] - row["visual_consistency"])

    disagreeing = shown("disagreement")
    expected = [
        row
        for row in samples
        if row["score"] is not None
        and max(row["zeroshot_consistency"], row["visual_consistency"]) >= 1
        and min(row["zeroshot_consistency"], row["visual_consistency"]) < theta
    ]
    assert {row["id"] for row in disagreeing} == {row["id"] for row in expected} != set()
    assert [gap(row) for row in disagreeing] == sorted(map(gap, expected), reverse=True)

    near = [abs(row["score"] - 0.5) for row in shown("near_threshold")]
    scores = [row["score"] for row in samples if row["score"] is not None]
    assert near == sorted(abs(s - 0.5) for s in scores if abs(s - 0.5) <= 0.1) != []

    least = [row["suggestion.confidence"] for row in shown("least_certain")]
    confidences = [row["suggestion.confidence"] for row in samples if not row["open_set"]]
    assert least == sorted(c for c in confidences if c < 0.5) != []


def test_a_view_that_the_run_has_no_evidence_for_is_refused(dataset: Maker) -> None:
    results = Noisy(dataset).apply(text_features=None, model=None)
    for kind in ("disagreement", "reviewed", "nonsense"):
        with pytest.raises(ValueError, match=f"no view '{kind}'; choose one of mislabeled"):
            results.view(kind)


def test_saved_views_leave_out_what_a_reviewer_has_decided_later(dataset: Maker) -> None:
    results = Noisy(dataset).apply()
    made = results.dataset
    assert len(made.load_saved_view("clipcleaner: mislabeled")) == 40
    declare_review(made, Layout("ground_truth"))
    worst = results.mislabeled_view().first()
    worst["ground_truth_review"] = "confirmed"
    worst.save()
    assert len(made.load_saved_view("clipcleaner: mislabeled")) == 39
    assert len(results.mislabeled_view()) == 39


def test_many_threads_make_a_value_once() -> None:
    made, last, start = [], Last[int](), threading.Barrier(6)

    def make() -> int:
        made.append(1)
        time.sleep(0.1)
        return len(made)

    def ask(_: int) -> int:
        start.wait()
        return last.get("state", make)

    with ThreadPoolExecutor(6) as threads:
        assert list(threads.map(ask, range(6))) == [1] * 6
    assert last.get("other state", make) == 2


# ---- thresholds


@pytest.mark.parametrize(
    "thetas", [(0.5, 0.8, 0.5), (0.9, 0.8, 0.5), (0.5, 0.3, 0.5), (0.1, 1.0, 0.2), (0.5, 0.8, 0.9)]
)
def test_a_preview_is_what_the_rules_say_and_what_reselect_does(
    results: Any, thetas: tuple[float, float, float]
) -> None:
    samples = rows(results)
    index = {name: k for k, name in enumerate(results.record["classes"])}
    labels = np.array([index[row["given"]] for row in samples])
    suggested = np.array([index[row["suggestion.label"]] for row in samples])
    evidence = {
        name: np.array([row[name] for row in samples], dtype=np.float32) for name in EVIDENCES
    }
    selected = select_paper(evidence, labels, 3, *thetas[:2], seed=results.config.seed)
    score = np.array([row["score"] for row in samples], dtype=np.float32)
    expected = verdicts(evidence, labels, suggested, score, selected, thetas[2])
    vouched = [
        row["review"] in ("confirmed", "relabeled") and row["verdict"] == "clean" for row in samples
    ]
    assert sum(vouched) > 10
    expected[vouched] = "clean"

    before = results.dataset.values("clipcleaner_verdict")
    promised = preview_evidence(results).counts(Thetas(*thetas))
    assert results.dataset.values("clipcleaner_verdict") == before
    assert results.reselect(*thetas) == promised == results.counts()
    assert results.dataset.values("clipcleaner_verdict") == list(expected)
    assert results.thetas == thetas


def test_the_way_back(dataset: Maker) -> None:
    results = Noisy(dataset).apply()
    assert results.former_thetas is None
    before = results.dataset.values("clipcleaner_verdict")
    results.reselect(theta_gmm=0.99, theta_score=0.01)
    assert results.dataset.values("clipcleaner_verdict") != before
    later = cc.load_results(results.dataset)
    assert later.former_thetas == (0.5, 0.8, 0.5)
    later.reselect()  # changes nothing, and forgets nothing
    later.reselect(*later.former_thetas)
    assert results.dataset.values("clipcleaner_verdict") == before
    assert later.former_thetas == (0.99, 0.8, 0.01)


def test_only_samples_with_another_verdict_are_written(dataset: Maker) -> None:
    results = Noisy(dataset).apply()
    results.reselect(theta_gmm=0.99)
    changed = results.dataset._max("last_modified_at")
    results.reselect(theta_gmm=0.99)
    assert results.dataset._max("last_modified_at") == changed


def test_thresholds_are_checked(dataset: Maker) -> None:
    results = Noisy(dataset).apply()
    with pytest.raises(ValueError, match=r"theta_score must be in \[0, 1\], found 1.5"):
        results.reselect(theta_score=1.5)


def test_a_preview_of_many_samples_looks_at_a_random_part(
    dataset: Maker, monkeypatch: pytest.MonkeyPatch
) -> None:
    results = Noisy(dataset, 3000, 500).apply()
    part = read_evidence(results, 1000)
    assert 850 < len(part.ids) < 1150 and not part.is_whole
    assert part.ids == read_evidence(results, 1000).ids, "the same each time"
    assert read_evidence(results, 3000).is_whole
    places = [results.dataset.values("id").index(str(i)) for i in part.ids]
    assert 1350 < np.mean(places) < 1650, "from everywhere"
    about = part.counts(results.thetas)
    assert sum(about.values()) == pytest.approx(3000, abs=2)
    # Five standard deviations of a third of 500, times three
    assert about["mislabeled"] == pytest.approx(results.counts()["mislabeled"], rel=0.3)
    monkeypatch.setattr(reselection, "PREVIEW_SAMPLES", 1000)
    monkeypatch.setattr(reselection, "_last", reselection.Last())
    assert preview_evidence(results).counts(results.thetas) == about


@pytest.mark.parametrize(("named", "verdict"), [(1.0, "uncertain"), (None, "mislabeled")])
def test_without_names_stored_scores_decide(named: float | None, verdict: str) -> None:
    row = {"sample": 0, "verdict": "clean", "given": "cat", "suggested": "dog", "score": 0.1}
    row |= dict.fromkeys(("visual_loss", "visual_consistency"), 1.0)
    row |= dict.fromkeys(("zeroshot_loss", "zeroshot_consistency"), named)
    stored = StoredEvidence([row | {"_id": i} for i in range(4)], ["cat", "dog"], 51, 4)
    assert stored.verdicts(Thetas()).tolist() == [verdict] * 4
