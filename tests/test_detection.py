"""The benchmark of detection: its noise, its figures, its table, on made-up features."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from feature_clusters import make_clusters

from benchmarks import detection
from benchmarks.data import DEFAULT_FOLDER, DataMissingError, FeatureSet, load_sets
from benchmarks.detection import METHODS, NOISE, Found, main, make_case, measure, run
from benchmarks.noise import lookalike_noise, projected_noise


@pytest.fixture
def features() -> FeatureSet:
    data = make_clusters(400, 5, spread=0.3)
    return FeatureSet("clusters", data.images, data.truth, data.texts)


@pytest.mark.parametrize("draw", [projected_noise, lookalike_noise])
def test_noise_that_depends_on_the_image(draw: Any, features: FeatureSet) -> None:
    def noisy(seed: int) -> np.ndarray:
        return draw(features.features, features.labels, 5, 0.3, seed)

    labels = noisy(1)
    wrong = labels != features.labels
    assert wrong.mean() == pytest.approx(0.3, abs=0.06)
    assert 0 <= labels.min() <= labels.max() < 5
    assert np.array_equal(noisy(1), labels)
    assert not np.array_equal(noisy(2), labels)


def test_lookalike_noise_hits_the_ambiguous(features: FeatureSet) -> None:
    labels = lookalike_noise(features.features, features.labels, 5, 0.3, 0)
    wrong = labels != features.labels
    own = np.sum(features.features * features.texts[features.labels], axis=1)
    assert wrong.sum() == 120
    assert own[wrong].mean() < own[~wrong].mean()
    taken_for = np.sum(features.features * features.texts[labels], axis=1)[wrong]
    others = (features.features @ features.texts.T).mean(axis=1)[wrong]
    assert taken_for.mean() > others.mean()


def test_projected_noise_treats_equals_alike(features: FeatureSet) -> None:
    rows = np.repeat(features.features[:20], 30, axis=0)
    truth = np.repeat(features.labels[:20], 30)
    labels = projected_noise(rows, truth, 5, 0.3, 0)
    spread = [len(set(labels[i : i + 30]) - {truth[i]}) for i in range(0, 600, 30)]
    assert np.mean(spread) < 3  # of four wrong classes, each image goes to few


def test_figures_by_hand() -> None:
    found = Found(np.array([True, True, False, False]), np.array([0.1, 0.4, 0.3, 0.9]))
    f1, precision, recall, auroc = measure(found, np.array([True, False, True, False]))
    assert (f1, precision, recall) == (0.5, 0.5, 0.5)
    assert auroc == 1.0
    nothing = measure(Found(np.zeros(3, bool), np.zeros(3)), np.zeros(3, bool))
    assert nothing[:3].tolist() == [0, 0, 0]
    assert np.isnan(nothing[3])


def test_every_method_finds_easy_errors(features: FeatureSet) -> None:
    pytest.importorskip("cleanlab", reason="cleanlab is a dependency of development only")
    case = make_case(features, "symmetric 20 %", 0)
    assert set(METHODS) == {"ours", "paper rule", "cleanlab", "equal weights", "visual alone"}
    for name, method in METHODS.items():
        f1, _, _, auroc = measure(method(case), case.wrong)
        assert f1 > 0.7, name
        assert auroc > 0.9, name


def test_the_report_has_a_row_for_every_noise(
    features: FeatureSet, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("cleanlab", reason="cleanlab is a dependency of development only")
    monkeypatch.setattr(detection, "EXPONENTS", (2, 6))
    lines = list(run([features], seeds=2, exponents=True))
    rows = [line for line in lines if line.startswith("| clusters")]
    assert len(rows) == 2 * (len(NOISE) - 1) + 1
    widths = {line.count("|") for line in rows[: len(NOISE) - 1]}
    assert widths == {lines[2].count("|")} == {lines[3].count("|")}
    assert all("±" in row for row in rows[: len(NOISE) - 1])


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
