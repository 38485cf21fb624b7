"""The benchmark of detection: its figures, its settings, its tables, on made-up features."""

from __future__ import annotations

import json
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from feature_clusters import make_clusters

from benchmarks import detection, report
from benchmarks.data import DEFAULT_FOLDER, DataMissingError, FeatureSet, load_sets
from benchmarks.detection import Setting, examine, main, settings
from benchmarks.figures import calibration, expected_calibration_error, measure
from benchmarks.noise import lost_noise
from benchmarks.peers import METHODS, Found
from benchmarks.settings import HARD, NO_NOISE, NO_TEXT, NOISE, PLAIN, VARIANTS, make_task


@pytest.fixture(scope="module")
def features() -> FeatureSet:
    data = make_clusters(240, 5, spread=0.25)
    return FeatureSet("clusters", data.images, data.truth, data.texts)


@pytest.fixture(scope="module")
def records(features: FeatureSet) -> list[dict[str, Any]]:
    """Two draws of noise, one without, and one without class names."""
    return [
        examine(features, Setting("clusters", *rest))
        for rest in (
            (PLAIN, "symmetric 20 %", 0),
            (PLAIN, "symmetric 20 %", 1),
            (PLAIN, NO_NOISE, 0),
            (NO_TEXT, "symmetric 20 %", 0),
        )
    ]


def test_figures_by_hand() -> None:
    found = Found(np.array([True, True, False, False]), np.array([0.1, 0.4, 0.3, 0.9]))
    figures = measure(found, np.array([True, False, True, False]))
    assert figures == {
        "F1": 0.5, "precision": 0.5, "recall": 0.5, "AUROC": 1.0, "AP": 1.0, "flagged": 0.5,
    }  # fmt: skip
    # Wrong is the first and the third in the order of suspicion: precisions 1/1 and 2/3
    figures = measure(found, np.array([True, True, False, False]))
    assert figures["AP"] == pytest.approx((1 + 2 / 3) / 2)
    assert figures["AUROC"] == 0.75
    nothing = measure(Found(np.zeros(3, bool), np.zeros(3)), np.zeros(3, bool))
    assert [nothing[name] for name in ("F1", "precision", "recall", "flagged")] == [0, 0, 0, 0]
    assert np.isnan([nothing["AUROC"], nothing["AP"]]).all()


def test_calibration_by_hand() -> None:
    # Two bins: .9 on average where all are right, .2 where one of two is
    probs, right = np.array([0.95, 0.95, 0.2, 0.2]), np.array([True, True, True, False])
    assert expected_calibration_error(probs, right) == pytest.approx(0.5 * 0.05 + 0.5 * 0.3)
    assert expected_calibration_error(np.array([1.0, 0.0]), np.array([True, False])) == 0
    figures = calibration(
        np.append(probs, np.nan), np.array([0, 0, 0, 1, 1]), ~np.append(right, True)
    )
    assert figures["estimated"] == pytest.approx(0.425)
    assert figures["true"] == 0.25
    assert figures["covered"] == 1
    # Label 0: (.05 + .05 + .8) / 3 = .3 expected, none wrong; label 1: .8 expected, 1 wrong
    assert figures["by class"] == pytest.approx((3 * 0.3 + 1 * 0.2) / 4)
    # The interval of .3 of three labels begins at .04, that of .8 of one label ends at 1
    assert figures["classes covered"] == 0.5
    sure = calibration(np.full(100, 0.99), np.zeros(100, int), np.ones(100, bool))
    assert sure["covered"] == 0


@pytest.mark.parametrize("noise", NOISE)
def test_noise_is_drawn_by_seed_at_its_rate(noise: str, features: FeatureSet) -> None:
    task = make_task(features, PLAIN, noise, 1)
    assert task.given.dtype == np.int64
    assert 0 <= task.given.min() <= task.given.max() < 5
    assert np.array_equal(task.wrong, task.given != features.labels)
    assert np.array_equal(make_task(features, PLAIN, noise, 1).given, task.given)
    rate = 0.0 if noise == NO_NOISE else int(noise.split()[-2]) / 100
    if "classes" in noise:
        rate /= 5  # in one of five classes
    # Symmetric noise may draw the true label again; that of the image has a rate of its own
    # for every sample, normal and cut at 0
    assert task.wrong.mean() == pytest.approx(rate, abs=0.0 if rate == 0 else 0.1)
    if noise != NO_NOISE:
        assert not np.array_equal(make_task(features, PLAIN, noise, 2).given, task.given)


@pytest.mark.parametrize("absorbed", [True, False])
def test_a_tenth_of_the_classes_loses_its_labels_to_one_other_or_to_all(absorbed: bool) -> None:
    truth = np.repeat(np.arange(20), 50)
    noisy = lost_noise(truth, 20, 0.8, 0, absorbed)
    lost = [label for label in range(20) if np.any(noisy[truth == label] != label)]
    assert len(lost) == 2
    for label in lost:
        wrong = noisy[(truth == label) & (noisy != truth)]
        assert len(wrong) == 40
        assert (len(np.unique(wrong)) == 1) == absorbed


@pytest.mark.parametrize("variant", VARIANTS)
def test_a_harder_set_fits_together(variant: str, features: FeatureSet) -> None:
    for noise in HARD:
        task = make_task(features, variant, noise, 0)
        k = task.num_classes
        assert len(task.features) == len(task.given) == len(task.wrong)
        assert task.given.max() < k
        assert 0 < task.wrong.mean() < 0.45
        assert task.texts is None if variant == NO_TEXT else len(task.texts) == k
        assert np.array_equal(make_task(features, variant, noise, 0).given, task.given)


def test_harder_sets_are_what_they_say() -> None:
    data = make_clusters(2000, 12, spread=0.3)
    features = FeatureSet("clusters", data.images, data.truth, data.texts)

    def change(variant: str) -> FeatureSet:
        return VARIANTS[variant](features, np.random.RandomState(0))

    sizes = np.sort(np.bincount(change("imbalance 1:50").labels))
    assert sizes[-1] / sizes[0] == pytest.approx(50, rel=0.2)
    merged = np.sort(np.bincount(change("catch-all class").labels))
    assert len(merged) == 10
    assert merged[-1] == pytest.approx(3 * merged[0], rel=0.02)
    assert len(change("10 classes").texts) == 10
    assert len(change("300 samples").labels) == 300
    half, all_ = change("half of the names random").texts, change("all names random").texts
    same = [int(np.isclose(texts, data.texts).all(axis=1).sum()) for texts in (half, all_)]
    assert same == [6, 0]
    right = [np.mean((data.images @ t.T).argmax(1) == data.truth) for t in (data.texts, half, all_)]
    assert right[0] > right[1] > right[2]
    assert right[2] < 0.3


def test_the_whole_run_visits_every_setting_once() -> None:
    whole = list(settings(["a", "b"], 2, quick=False))
    harder = [setting for setting in whole if setting.variant != PLAIN]
    assert len(whole) - len(harder) == 2 * 2 * len(NOISE)
    assert len(whole) == len(set(whole))
    for variant in VARIANTS.keys() - {PLAIN}:
        seeds = [setting.seed for setting in harder if setting.variant == variant]
        draws = 10 if variant in ("3 classes", "300 samples") else 1
        assert sorted(seeds) == sorted([*range(draws)] * 2 * len(HARD)), variant
    quick = list(settings(["a", "b"], 1, quick=True))
    assert len(quick) == 6
    assert set(quick) < set(whole)


def test_every_method_finds_easy_errors(records: list[dict[str, Any]]) -> None:
    for name in METHODS:
        assert records[0]["methods"][name]["AUROC"] > 0.9, name
        assert records[0]["methods"][name]["F1"] > 0.6, name
    ours = records[0]["ours"]
    assert ours["true"] == pytest.approx(0.16, abs=0.02)
    assert ours["estimated"] == pytest.approx(ours["true"], abs=0.1)
    assert records[3]["ours"]["language weight"] == 0


def test_tables_hold_means_and_spread(records: list[dict[str, Any]]) -> None:
    assert json.loads(json.dumps(records[0])) == records[0]
    lines = list(report.summary(records))
    f1 = [record["methods"]["kNN"]["F1"] for record in records[:2]]
    start = next(i for i, line in enumerate(lines) if line.startswith("F1 by row"))
    row = lines[start + 4]
    assert row.startswith(f"| clusters | {PLAIN} | symmetric 20 % |")
    assert f"{np.mean(f1):.3f}" in row
    assert f"± {abs(f1[0] - f1[1]) / np.sqrt(2):.3f}" in row
    for heading in ("Means over all rows with noise (2 rows)", "No noise"):
        assert any(line.startswith(heading) for line in lines)
    took = lines[next(i for i, line in enumerate(lines) if line.startswith("Seconds")) + 4]
    name, *seconds = [cell.strip() for cell in took.strip("|").split("|")]
    assert name == "clusters" and all(float(number) > 0 for number in seconds[2:])
    raw = list(report.raw(records))
    assert len([line for line in raw if line.startswith("| clusters")]) == 3
    for table in (lines, raw):
        for previous, line in pairwise(table):
            if previous.startswith("|") and line.startswith("|"):
                assert previous.count("|") == line.count("|")


def test_rows_in_which_ours_is_behind_are_named(records: list[dict[str, Any]]) -> None:
    behind = json.loads(json.dumps(records[3]))
    behind["methods"]["ours"].update(F1=0.1234, AUROC=1.0)
    table = list(report.summary([behind]))
    start = next(i for i, line in enumerate(table) if line.startswith("Rows in which ours"))
    rows = table[start + 4 : table.index("", start + 4)]
    assert len(rows) == 1
    assert f"| clusters | {NO_TEXT} | symmetric 20 % | F1 | 0.123 |" in rows[0]


def test_an_interrupted_run_goes_on(
    features: FeatureSet,
    records: list[dict[str, Any]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    wanted = [Setting(*record["setting"]) for record in records[:2]]
    monkeypatch.setattr(detection, "load_sets", lambda folder: [features])
    monkeypatch.setattr(detection, "settings", lambda *_: wanted)
    kept = tmp_path / "records.jsonl"
    kept.write_text(json.dumps(records[0]) + "\n")
    for _ in range(2):
        assert main(["--records", str(kept), "--raw"]) == 0
    printed = capsys.readouterr()
    assert printed.err.count("clusters") == 1  # the second, once
    assert len(kept.read_text().splitlines()) == 2
    assert "| clusters | as it is | symmetric 20 % | 240, 5 | 2 |" in printed.out


def test_without_data_it_says_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--data", str(tmp_path), "--quick"]) == 2
    assert "image_features_vitb32.npz is not there" in capsys.readouterr().err


def test_the_real_sets_are_as_described() -> None:
    try:
        sets = load_sets(DEFAULT_FOLDER)
    except DataMissingError as error:
        pytest.skip(str(error))
    shapes = {data.name: (len(data.labels), len(data.texts)) for data in sets}
    assert shapes == {"caltech101": (3051, 62), "dtd": (2820, 47), "ucf101": (5681, 101)}
    for data in sets:
        assert np.isfinite(data.features).all()
        assert set(data.labels) == set(range(len(data.texts)))
