"""Crops of objects: what is cut out, embedded, kept and gone on with."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import fiftyone as fo
import numpy as np
import pytest
from boxed import FIELD, MODEL, canvases, of_objects
from fiftyone.utils.patches import extract_patch
from PIL import Image

import clipcleaner_plugin as cc
import clipcleaner_plugin.__main__ as cli
from clipcleaner_plugin.crops import MediaReader, make_crop
from clipcleaner_plugin.images import ImageReadError

Maker = Callable[..., fo.Dataset]
ROOT = f"{FIELD}.{FIELD}."

pytestmark = pytest.mark.usefixtures("quiet")


@pytest.mark.parametrize("alpha", [None, 0.25, -0.4])
def test_crops_are_those_of_fiftyone(tmp_path: Path, alpha: float | None) -> None:
    rng = np.random.default_rng(0)
    pixels = rng.integers(256, size=(83, 131, 3), dtype=np.uint8)
    path = tmp_path / "noise.png"
    Image.fromarray(pixels).save(path)
    read = MediaReader()
    for _ in range(50):
        corner = rng.random(2) * 0.5
        box = [*corner.tolist(), *(0.2 + rng.random(2) * (0.8 - corner)).tolist()]
        ours = np.asarray(read(make_crop(str(path), box, alpha)))
        detection = fo.Detection(bounding_box=box)
        np.testing.assert_array_equal(ours, extract_patch(pixels, detection, alpha=alpha))


@pytest.mark.parametrize(
    ("box", "left"),
    [([-0.5, 0.5, 1.0, 1.0], (0, 50, 50, 100)), ([0.9, -1, 5, 3], (90, 0, 100, 100))],
)
def test_boxes_that_leave_the_image_are_cut_off(tmp_path: Path, box: Any, left: Any) -> None:
    pixels = np.random.default_rng(0).integers(256, size=(100, 100, 3), dtype=np.uint8)
    path = tmp_path / "noise.png"
    Image.fromarray(pixels).save(path)
    found = np.asarray(MediaReader()(make_crop(str(path), box)))
    x0, y0, x1, y1 = left
    np.testing.assert_array_equal(found, pixels[y0:y1, x0:x1])


def test_a_box_in_a_turned_photo_is_in_what_one_sees(tmp_path: Path) -> None:
    image = Image.new("RGB", (40, 20), "black")
    image.paste("white", (0, 0, 20, 20))
    exif = Image.Exif()
    exif[0x0112] = 6  # shown turned by a quarter: the white half is above
    image.save(tmp_path / "turned.png", exif=exif)
    above = MediaReader()(make_crop(str(tmp_path / "turned.png"), [0, 0, 1, 0.5]))
    assert above.size == (20, 20) and above.getextrema() == ((255, 255),) * 3


BAD = {
    "has no area": [0.2, 0.2, 0.0, 0.3],
    "outside of the image": [1.5, 0.2, 0.3, 0.3],
    "not four finite numbers": [0.1, float("nan"), 0.5, 0.5],
    "fewer than 4 a side": [0.2, 0.2, 0.01, 0.5],
}


def test_a_bad_box_costs_one_object_and_is_reported(dataset: Maker, tmp_path: Path) -> None:
    samples = canvases(tmp_path / "canvases", 60)
    bad = [fo.Detection(label="one", bounding_box=box) for box in BAD.values()]
    samples[3][FIELD].detections[1:1] = bad
    made = dataset(samples)
    results = made.apply_clipcleaner(FIELD, progress=False, **MODEL)
    failures = results.record["failures"]
    assert set(failures) == {found.id for found in bad}
    for words, found in zip(BAD, bad, strict=True):
        assert words in failures[found.id]
    assert results.counts()["unscorable"] == len(bad)
    assert results.summary().unscorable == {"unreadable image or box": len(bad)}
    with pytest.raises(ImageReadError, match="has no area"):
        made.apply_clipcleaner(FIELD, skip_failures=False, progress=False, **MODEL)


def test_only_what_changed_is_embedded_again(dataset: Maker, tmp_path: Path) -> None:
    made = dataset(canvases(tmp_path / "canvases", 30))
    first, second = made.limit(2)

    def computed(**options: Any) -> tuple[str, ...]:
        return cc.compute_embeddings(
            made, patches_field=FIELD, progress=False, **MODEL, **options
        ).computed_ids

    ids = made.values(f"{ROOT}id", unwind=True)
    assert computed() == tuple(ids)
    before = cc.load_embeddings(made, cc.TINY_CLIP, None, patches_field=FIELD)
    assert list(before) == ids
    assert computed() == ()
    moved = second[FIELD].detections[0]
    moved.bounding_box[0] += 0.05
    second.save()
    assert computed() == (moved.id,)
    with Image.open(first.filepath) as image:
        image.transpose(Image.Transpose.FLIP_LEFT_RIGHT).save(first.filepath)
    assert computed() == tuple(found.id for found in first[FIELD].detections)
    assert computed(alpha=0.3) == tuple(ids)
    assert computed() == tuple(ids)
    after = cc.load_embeddings(made, cc.TINY_CLIP, None, patches_field=FIELD)
    same = [i for i in ids if np.allclose(before[i], after[i], atol=1e-5)]
    assert len(same) == len(ids) - 1 - len(first[FIELD].detections)


def test_from_a_shell(dataset: Maker, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    made = dataset(canvases(tmp_path / "canvases", 40))
    tiny = ["--model", cc.TINY_CLIP, "--num-workers", "0", "--alpha", "0.2"]
    assert cli.main(["embed", made.name, "--patches-field", FIELD, *tiny]) == 0
    assert "40 computed, 0 reused, 0 unreadable" in capsys.readouterr().out
    assert cli.main(["score", made.name, "--label-field", FIELD, *tiny]) == 0
    assert "40 objects" in capsys.readouterr().out
    assert cc.compute_embeddings(made, patches_field=FIELD, alpha=0.2, **MODEL).reused == 40


_APPLY = """
import sys, time
import fiftyone as fo
import clipcleaner_plugin as cc

fo.config.show_progress_bars = False  # what they draw would share lines with the numbers

def report(bar):
    print(bar.iteration, flush=True)
    while bar.iteration >= 60:  # however late the kill comes
        time.sleep(1)

fo.load_dataset(sys.argv[1]).apply_clipcleaner(
    "detections", model=cc.TINY_CLIP, pretrained=None, num_workers=0, batch_size=4,
    progress=report,
)
"""


def test_a_run_that_was_killed_goes_on_where_it_was(dataset: Maker, tmp_path: Path) -> None:
    made = dataset(canvases(tmp_path / "canvases", 100), persistent=True)
    command = [sys.executable, "-c", _APPLY, made.name]
    process = subprocess.Popen(command, env=os.environ, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    for line in process.stdout:
        if line.strip().isdecimal() and int(line) >= 24:
            break
    process.kill()  # -9
    process.wait()
    report = cc.compute_embeddings(made, patches_field=FIELD, progress=False, **MODEL)
    assert 24 <= report.reused < 100 and report.reused + report.computed == 100
    whole = made.clone()
    for one in (made, whole):
        one.apply_clipcleaner(FIELD, progress=False, **MODEL)
    expected, found = (of_objects(d, "clipcleaner_score") for d in (whole, made))
    whole.delete()
    # Vectors differ in their last bits between batches, and by these rows come into folds
    np.testing.assert_allclose(found, expected, atol=0.01)
