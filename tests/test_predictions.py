"""Predictions of a trained network in the dataset: written by id, compared by FiftyOne."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import fiftyone as fo
import numpy as np
import pytest

import clipcleaner_plugin as cc

CLASSES = ["cat", "dog", "owl"]
N = 30


@pytest.fixture
def animals(dataset: Callable[..., fo.Dataset]) -> fo.Dataset:
    return dataset(
        [
            fo.Sample(
                filepath=f"/nowhere/{i}.jpg", ground_truth=fo.Classification(label=CLASSES[i % 3])
            )
            for i in range(N)
        ]
    )


def write_run(folder: Path, rows: list[dict[str, Any]], **files: Any) -> Path:
    folder.mkdir()
    lines = "".join(json.dumps(row) + "\n" for row in rows)
    (folder / "predictions.jsonl").write_text(lines, encoding="utf-8")
    for name, content in {"config": {"classes": CLASSES}, **files}.items():
        (folder / f"{name}.json").write_text(json.dumps(content))
    return folder


def predictions(ids: list[str], wrong: int = 6) -> list[dict[str, Any]]:
    """All right but for the first few."""
    return [
        {"id": x, "label": CLASSES[(i + (i < wrong)) % 3], "confidence": 0.5 + i / 100}
        for i, x in enumerate(ids)
    ]


def test_fiftyone_evaluates_what_was_loaded(animals: fo.Dataset, tmp_path: Path) -> None:
    rows = predictions(animals.values("id"))
    run = write_run(tmp_path / "run", rows, results={"recipe": "mixfix"})
    report = cc.load_predictions(animals, run)
    assert (report.loaded, report.unknown, report.unreadable) == (N, [], [])
    assert report.results == {"recipe": "mixfix"} and report.field == "clipcleaner_prediction"
    stored = animals.values(["clipcleaner_prediction.label", "clipcleaner_prediction.confidence"])
    assert list(stored) == [[row["label"] for row in rows], [row["confidence"] for row in rows]]
    evaluation = animals.evaluate_classifications(
        "clipcleaner_prediction", gt_field="ground_truth", eval_key="eval"
    )
    assert evaluation.metrics()["accuracy"] == pytest.approx((N - 6) / N)
    np.testing.assert_array_equal(animals.values("eval"), [i >= 6 for i in range(N)])


def test_ids_that_are_gone_and_images_that_were_unreadable_are_reported(
    animals: fo.Dataset, tmp_path: Path
) -> None:
    ids = animals.values("id")
    rows = predictions(ids)
    rows[3] = {"id": ids[3], "label": None, "confidence": None}
    animals.delete_samples(ids[:2])
    rows.append({"id": "not an id", "label": "cat", "confidence": None})
    report = cc.load_predictions(animals, write_run(tmp_path / "run", rows))
    assert report.unknown == [*ids[:2], "not an id"] and report.unreadable == [ids[3]]
    assert report.loaded == N - 3 == animals.count("clipcleaner_prediction.label")
    assert str(report) == (
        "27 predictions in 'clipcleaner_prediction', 1 images were unreadable, "
        "3 ids are not in the dataset"
    )


def test_a_later_run_leaves_nothing_of_an_earlier_one(animals: fo.Dataset, tmp_path: Path) -> None:
    ids = animals.values("id")
    cc.load_predictions(animals, write_run(tmp_path / "first", predictions(ids)), field="guess")
    later = write_run(tmp_path / "later", [{"id": ids[5], "label": "owl", "confidence": 1}])
    cc.load_predictions(animals[:10], str(later), field="guess")
    animals.reload()
    assert animals.count("guess.label") == 1 and animals[ids[5]]["guess"].label == "owl"
    assert str(later) in json.dumps(animals.get_field("guess").info)


@pytest.mark.parametrize("field", ["ground_truth", "filepath", "not a name"])
def test_fields_of_the_user_are_never_replaced(
    animals: fo.Dataset, tmp_path: Path, field: str
) -> None:
    before = animals.values(["filepath", "ground_truth.label"])
    run = write_run(tmp_path / "run", predictions(animals.values("id")))
    with pytest.raises(ValueError, match=field):
        cc.load_predictions(animals, run, field=field)
    assert animals.values(["filepath", "ground_truth.label"]) == before


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"label": "unicorn"}, "line 5: 'label' is 'unicorn'"),
        ({"label": 7}, "line 5: 'label' is 7"),
        ({"confidence": 1.5}, "line 5: 'confidence' is 1.5"),
        ({"confidence": True}, "line 5: 'confidence' is True"),
        ({"confidence": float("nan")}, "line 5: 'confidence' is nan"),
        ({"id": None}, "line 5: no object with an 'id'"),
    ],
)
def test_a_wrong_line_is_named_and_nothing_written(
    animals: fo.Dataset, tmp_path: Path, change: dict[str, Any], words: str
) -> None:
    rows = predictions(animals.values("id"))
    rows[4] |= change
    with pytest.raises(ValueError, match=words):
        cc.load_predictions(animals, write_run(tmp_path / "run", rows))
    assert not animals.has_sample_field("clipcleaner_prediction")


def test_damaged_foreign_and_missing_runs_are_told_apart(
    animals: fo.Dataset, tmp_path: Path
) -> None:
    rows = predictions(animals.values("id"))
    torn = write_run(tmp_path / "torn", rows)
    text = (torn / "predictions.jsonl").read_text()
    (torn / "predictions.jsonl").write_text(text[:-20])
    with pytest.raises(ValueError, match="line 30: damaged JSON"):
        cc.load_predictions(animals, torn)
    with pytest.raises(ValueError, match="a second prediction for"):
        cc.load_predictions(animals, write_run(tmp_path / "twice", [rows[0], rows[0]]))
    foreign = [{**row, "id": f"{i:024x}"} for i, row in enumerate(rows)]
    with pytest.raises(ValueError, match="made on the export of something else"):
        cc.load_predictions(animals, write_run(tmp_path / "foreign", foreign))
    with pytest.raises(ValueError, match="a training run that has finished"):
        cc.load_predictions(animals, tmp_path)
    assert not animals.has_sample_field("clipcleaner_prediction")
