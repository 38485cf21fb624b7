"""Errors planted in a dataset: beside the true labels, recorded, and the same again."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import fiftyone as fo
import numpy as np
import pytest

import clipcleaner_plugin as cc
from clipcleaner_plugin.noise import draw_noise

CLASSES = ["cat", "dog", "owl"]
TRUE = [CLASSES[i % 3] for i in range(60)]


@pytest.fixture
def photos(dataset: Callable[..., fo.Dataset]) -> fo.Dataset:
    """60 samples of three classes; the last ten are tagged test, one has no label."""
    made = dataset(
        [
            fo.Sample(
                filepath=f"/photos/{i}.jpg",
                tags=["test" if i >= 50 else "train"],
                ground_truth=None if i == 7 else fo.Classification(label=label, confidence=0.5),
            )
            for i, label in enumerate(TRUE)
        ]
    )
    return made


def labels(samples: Any, field: str = "noisy_label") -> list[str | None]:
    found: list[str | None] = samples.values(f"{field}.label")
    return found


@pytest.mark.parametrize(
    ("kind", "options", "pairs"),
    [
        ("symmetric", {}, None),
        ("asymmetric", {}, None),
        ("asymmetric", {"pairs": {"owl": "cat"}}, [(2, 0)]),
    ],
)
def test_the_draw_is_that_of_the_arrays(
    photos: fo.Dataset, kind: str, options: dict[str, Any], pairs: Any
) -> None:
    before = photos.values("ground_truth")
    record = cc.inject_noise(photos, kind, 0.5, seed=3, **options)
    numbers = np.array([-1 if i == 7 else i % 3 for i in range(60)])
    drawn = draw_noise(numbers, 3, kind, 0.5, 3, pairs)
    assert labels(photos) == [None if k < 0 else CLASSES[k] for k in drawn]
    assert photos.values("ground_truth") == before
    assert record["samples"] == 59 and record["changed"] == int((drawn != numbers).sum()) > 0


def test_the_draw_is_recorded(photos: fo.Dataset) -> None:
    record = cc.inject_noise(photos, "asymmetric", 0.2, 9, pairs=[("cat", "dog")])
    photos.reload()
    assert photos.info["clipcleaner_noise"] == {"noisy_label": record}
    assert record == {
        "kind": "asymmetric",
        "label_field": "ground_truth",
        "classes": CLASSES,
        "rate": 0.2,
        "seed": 9,
        "pairs": [["cat", "dog"]],
        "samples": 59,
        "changed": 4,
    }
    first = labels(photos)
    again = cc.inject_noise(photos, **{k: record[k] for k in ("kind", "rate", "seed", "pairs")})
    assert again == record and labels(photos) == first
    cc.inject_noise(photos, seed=9, noisy_field="more")
    assert set(photos.info["clipcleaner_noise"]) == {"noisy_label", "more"}


def test_samples_outside_the_view_keep_their_labels(photos: fo.Dataset) -> None:
    cc.inject_noise(photos.match_tags("train"), rate=1.0)
    test = photos.match_tags("test")
    assert labels(test) == labels(test, "ground_truth")
    assert labels(photos.match_tags("train")) != TRUE[:50]


def test_the_order_of_classes_is_the_datasets_own(photos: fo.Dataset) -> None:
    photos.default_classes = ["owl", "cat", "dog"]
    cc.inject_noise(photos, "asymmetric", 1.0)
    following = {"owl": "cat", "cat": "dog", "dog": "owl", None: None}
    assert labels(photos) == [following[label] for label in labels(photos, "ground_truth")]


@pytest.mark.parametrize("words", [True, False], ids=["names", "numbers"])
def test_noise_from_a_file(photos: fo.Dataset, tmp_path: Path, words: bool) -> None:
    view = photos.match_tags("test")
    noisy = ["owl"] * 10
    rows = [(a, b) if words else (CLASSES.index(a), CLASSES.index(b))
            for a, b in zip(TRUE[50:], noisy, strict=True)]  # fmt: skip
    path = tmp_path / "noise.csv"
    path.write_text("label,label_noisy\n" + "".join(f"{a},{b}\n" for a, b in rows))
    record = cc.inject_noise(view, "file", file=path)
    assert labels(photos)[50:] == noisy and labels(photos)[:7] == TRUE[:7]
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    assert record["file"] == {"name": "noise.csv", "sha256": digest}
    assert record["changed"] == sum(label != "owl" for label in TRUE[50:])


@pytest.mark.parametrize(
    ("text", "match"),
    [
        (
            "label,label_noisy\n" + "cat,dog\n" * 10,
            r"line 2: its label is 'cat', .* 'owl': .*order",
        ),
        ("label_noisy\nfox\n" + "dog\n" * 9, "line 2: label_noisy 'fox' is no class and no number"),
        ("label_noisy\n" + "3\n" * 10, "label_noisy '3' is no class and no number from 0 to 2"),
        ("label_noisy\n" + "dog\n" * 9, "has 9 rows for 10 samples"),
        ("noisy\n" + "dog\n" * 10, "has no column 'label_noisy', only noisy"),
        ("", "has no column 'label_noisy', only none"),
        ("label_noisy\n\udcff", "cannot read noise from"),
    ],
)
def test_files_that_do_not_fit(photos: fo.Dataset, tmp_path: Path, text: str, match: str) -> None:
    path = tmp_path / "noise.csv"
    path.write_bytes(text.encode("utf-8", "surrogateescape"))
    with pytest.raises(ValueError, match=match):
        cc.inject_noise(photos.match_tags("test"), "file", file=path)
    assert not photos.has_sample_field("noisy_label")


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"kind": "random"}, "choose one of symmetric, asymmetric, file"),
        ({"kind": "file"}, "kind='file' needs file="),
        ({"file": "noise.csv"}, "the other kinds take none"),
        ({"pairs": {"cat": "dog"}}, "only for kind='asymmetric'"),
        ({"kind": "asymmetric", "pairs": {"cat": "fox"}}, "'fox' is not in the class list"),
        ({"rate": 2.0}, r"rate=2\.0"),
        ({"label_field": "labels"}, "there is no field 'labels'"),
        ({"noisy_field": "ground_truth"}, "choose another field, so that they are kept"),
        ({"noisy_field": "mine"}, "'mine' was not written by inject_noise and is left alone"),
        ({"classes": ["cat", "dog"]}, "label 'owl' is not in the class list"),
    ],
)
def test_bad_options(photos: fo.Dataset, options: dict[str, Any], match: str) -> None:
    photos.add_sample_field("mine", fo.StringField)
    with pytest.raises(ValueError, match=match):
        cc.inject_noise(photos, **options)
    assert not photos.has_sample_field("noisy_label") and "clipcleaner_noise" not in photos.info


def test_a_file_says_nothing_of_unlabelled_samples(photos: fo.Dataset, tmp_path: Path) -> None:
    path = tmp_path / "noise.csv"
    path.write_text("label_noisy\n" + "dog\n" * 60)
    with pytest.raises(ValueError, match="1 samples have no label: give a view"):
        cc.inject_noise(photos, "file", file=path)
