"""The format of bundles: what is read, and what is refused in which words."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from training_bundles import DIGITS, make_bundle, read_rows, write_bundle

from training.bundle import BundleError, read_bundle


def row(**changes: Any) -> dict[str, Any]:
    base = {"id": "a", "image": "a.png", "label": "one", "suggested": None, "selected": True}
    return {**base, "clean_score": 0.5, "split": "train", **changes}


def test_a_bundle_is_read(tmp_path: Path) -> None:
    rows = [
        row(),
        row(id="b", label="two", selected=False, clean_score=None, split="test", trusted="one"),
        row(id="c", image="deep/er/ü c.png", split="val", suggested="nine", clean_score=1, more=3),
    ]
    write_bundle(tmp_path, rows)
    bundle = read_bundle(tmp_path)
    assert bundle.classes == DIGITS and bundle.ids == ("a", "b", "c") and len(bundle) == 3
    assert bundle.paths[2] == str(tmp_path / "deep/er/ü c.png")
    assert bundle.labels.tolist() == [1, 2, 1]
    assert bundle.trusted.tolist() == [-1, 1, -1] and bundle.truth.tolist() == [1, 1, 1]
    assert bundle.selected.tolist() == [True, False, True]
    assert np.array_equal(bundle.clean_score, [0.5, np.nan, 1.0], equal_nan=True)
    assert {k: v.tolist() for k, v in bundle.splits.items()} == {
        "train": [0],
        "val": [2],
        "test": [1],
    }


def test_the_digest_covers_manifest_and_header(tmp_path: Path) -> None:
    write_bundle(tmp_path, [row()])
    digest = read_bundle(tmp_path).digest
    assert read_bundle(tmp_path).digest == digest
    write_bundle(tmp_path, [row(selected=False)])
    assert read_bundle(tmp_path).digest != digest
    write_bundle(tmp_path, [row()], dataset="other")
    assert read_bundle(tmp_path).digest != digest


@pytest.mark.parametrize(
    ("header", "words"),
    [
        ({"format": "coco"}, "no training bundle"),
        ({"version": 2}, "format version 2.*newer release"),
        ({"version": "1"}, "'version' is '1'"),
        ({"version": True}, "'version' is True"),
        ({"classes": ["one"]}, "1 classes"),
        ({"classes": "one"}, "list of names"),
        ({"classes": ["one", "two", "one"]}, "'one' is listed twice"),
        ({"referenced": "yes"}, "'referenced' is 'yes'"),
        ({"referenced": True}, "--referenced"),
    ],
)
def test_a_wrong_header_is_refused(tmp_path: Path, header: dict[str, Any], words: str) -> None:
    write_bundle(tmp_path, [row()], **header)
    with pytest.raises(BundleError, match=words):
        read_bundle(tmp_path)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"label": "cat"}, "'label' is 'cat', which is not in the 'classes'"),
        ({"label": None}, "'label' is None"),
        ({"suggested": "cat"}, "'suggested' is 'cat'"),
        ({"trusted": "cat"}, "'trusted' is 'cat'"),
        ({"trusted": ["one"]}, "'trusted' is"),
        ({"selected": 1}, "'selected' is 1"),
        ({"clean_score": 1.5}, "'clean_score' is 1.5"),
        ({"clean_score": float("nan")}, "'clean_score' is nan"),
        ({"clean_score": True}, "'clean_score' is True"),
        ({"split": "training"}, "'split' is 'training'"),
        ({"id": ""}, "'id' is ''"),
        ({"id": 7}, "'id' is 7"),
        ({"id": "z"}, "'z' is also in line 1"),
        ({"image": "../a.png"}, "leads out"),
        ({"image": "images/../../a.png"}, "leads out"),
        ({"image": "..\\a.png"}, "leads out"),
        ({"image": "C:a.png"}, "leads out"),
        ({"image": "/etc/a.png"}, "absolute path"),
        ({"image": "C:\\a.png"}, "absolute path"),
        ({"image": ""}, "'image' is ''"),
        ({"image": "a\0.png"}, "'image' is"),
        ({"image": None}, "'image' is None"),
    ],
)
def test_a_wrong_entry_is_refused_with_its_line(
    tmp_path: Path, changes: dict[str, Any], words: str
) -> None:
    write_bundle(tmp_path, [row(id="z"), row(**{"id": "bad", **changes})])
    with pytest.raises(BundleError, match=words) as caught:
        read_bundle(tmp_path)
    assert "line 2" in str(caught.value)
    if "id" not in changes:
        assert "'bad'" in str(caught.value)


def test_absolute_paths_need_both_the_bundle_and_the_user(tmp_path: Path) -> None:
    write_bundle(tmp_path, [row(image="/data/a.png"), row(id="b")], referenced=True)
    with pytest.raises(BundleError, match="--referenced"):
        read_bundle(tmp_path)
    bundle = read_bundle(tmp_path, referenced=True)
    assert bundle.paths == ("/data/a.png", str(tmp_path / "a.png"))
    write_bundle(tmp_path, [row(image="/data/a.png")], referenced=False)
    with pytest.raises(BundleError, match="absolute path"):
        read_bundle(tmp_path, referenced=True)
    write_bundle(tmp_path, [row(image="../a.png")], referenced=True)
    with pytest.raises(BundleError, match="leads out"):
        read_bundle(tmp_path, referenced=True)


def test_an_unfinished_or_damaged_bundle_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match="no such folder"):
        read_bundle(tmp_path / "absent")
    with pytest.raises(BundleError, match="export was interrupted"):
        read_bundle(tmp_path)
    write_bundle(tmp_path, [row(split="test")])
    with pytest.raises(BundleError, match="nothing to train on"):
        read_bundle(tmp_path)
    manifest = tmp_path / "manifest.jsonl"
    manifest.write_text(json.dumps(row()) + "\n" + json.dumps(row(id="b"))[:20])
    with pytest.raises(BundleError, match="line 2: damaged JSON"):
        read_bundle(tmp_path)
    manifest.write_text("[1]\n")
    with pytest.raises(BundleError, match="line 1: not a JSON object"):
        read_bundle(tmp_path)
    manifest.write_bytes(b"\xff\xfe\n")
    with pytest.raises(BundleError, match="not UTF-8"):
        read_bundle(tmp_path)
    manifest.unlink()
    with pytest.raises(BundleError, match="missing"):
        read_bundle(tmp_path)
    (tmp_path / "bundle.json").write_text("{")
    with pytest.raises(BundleError, match="damaged JSON"):
        read_bundle(tmp_path)


def test_the_bundles_of_these_tests_have_the_noise_they_say(tmp_path: Path) -> None:
    make_bundle(tmp_path / "b", train=1000, val=10, test=10, noise=0.4, precision=0.9)
    train = [r for r in read_rows(tmp_path / "b") if r["split"] == "train"]
    wrong = np.array([r["label"] != r["trusted"] for r in train])
    selected = np.array([r["selected"] for r in train])
    assert abs(wrong.mean() - 0.4) < 0.04 and abs(wrong[selected].mean() - 0.1) < 0.03
