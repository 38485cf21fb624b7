"""What a run on objects refuses, in words."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import fiftyone as fo
import numpy as np
import pytest
from boxed import FIELD, Boxed

Maker = Callable[..., fo.Dataset]
ROOT = f"{FIELD}.{FIELD}."

pytestmark = pytest.mark.usefixtures("quiet")


@pytest.fixture
def boxed(dataset: Maker) -> Boxed:
    return Boxed(dataset)


@pytest.mark.parametrize(
    ("label", "words"),
    [
        (fo.Classifications(classifications=[fo.Classification(label="a")]), "several labels"),
        (fo.Polylines(polylines=[fo.Polyline(label="a")]), r"polyline\.to_detection\(\)"),
        (fo.Keypoints(keypoints=[fo.Keypoint(label="a")]), "put a box around each"),
        (fo.Detection(label="a"), "put each into a Detections field"),
        (fo.Segmentation(), r"segmentation\.to_detections\(\)"),
        (fo.Regression(value=1.0), "is a Regression, but"),
    ],
)
def test_other_labels_are_refused_in_words(dataset: Maker, label: Any, words: str) -> None:
    made = dataset([fo.Sample("/x/1.jpg", labels=label)])
    with pytest.raises(ValueError, match=words) as refused:
        made.apply_clipcleaner("labels")
    assert "Classification or Detections fields here: none" in str(refused.value)


def test_video_frames_and_patches_are_refused_in_words(boxed: Boxed, dataset: Maker) -> None:
    with pytest.raises(ValueError, match="views of patches, clips or frames are not supported"):
        boxed.dataset.to_patches(FIELD).apply_clipcleaner(FIELD)
    video = fo.Sample("/x/1.mp4")
    video.frames[1] = fo.Frame(detections=fo.Detections(detections=[fo.Detection(label="a")]))
    with pytest.raises(ValueError, match="holds video samples; only images are supported"):
        dataset([video]).apply_clipcleaner("frames.detections")


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"alpha": -1}, "alpha must be a number above -1, found -1"),
        ({"embeddings_field": "vectors"}, "kept in the durable store only"),
        ({"embeddings": np.zeros((3, 4))}, "one row an object"),
        ({"classes": ["unicorn"]}, "."),
    ],
)
def test_options_that_do_not_fit_objects(boxed: Boxed, options: Any, words: str) -> None:
    if "classes" in options:
        results = boxed.apply(**options, text_features=boxed.text[:1])
        assert results.counts()["unscorable"] == 240
        return
    with pytest.raises(ValueError, match=words):
        boxed.apply(**options)


def test_alpha_and_patches_field_need_boxes(boxed: Boxed, dataset: Maker) -> None:
    made = dataset([fo.Sample("/x/1.jpg", ground_truth=fo.Classification(label="a"))])
    with pytest.raises(ValueError, match="alpha is about the boxes of objects"):
        made.apply_clipcleaner(alpha=0.1)
    with pytest.raises(ValueError, match="patches_field must hold Detections labels"):
        made.apply_clipcleaner(patches_field="ground_truth")
    with pytest.raises(ValueError, match="have no attribute 'rigth'"):
        boxed.apply().evaluate("rigth")


def test_copies_of_an_object_are_refused(dataset: Maker) -> None:
    copied = fo.Detection(label="a", bounding_box=[0, 0, 1, 1])
    groups = [fo.Detections(detections=[copied]) for _ in range(2)]
    made = dataset([fo.Sample(f"/x/{i}.jpg", detections=d) for i, d in enumerate(groups)])
    with pytest.raises(ValueError, match=f"have the id {copied.id}, as copies do"):
        made.apply_clipcleaner(FIELD, embeddings=np.eye(2), model=None)


def test_views_with_labels_of_their_own_are_refused(boxed: Boxed) -> None:
    view = boxed.dataset.map_labels(FIELD, {"cat": "pet"})
    with pytest.raises(ValueError, match="this view changes the labels of 'detections'"):
        boxed.apply(view)
