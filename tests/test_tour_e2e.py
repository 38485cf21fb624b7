"""The tour of the documentation, on photos with CLIP's own features: find, review, decide, export.

Pictures for docs/tour.md are taken where SCREENSHOTS names a folder::

    SCREENSHOTS=docs/images make test ARGS=tests/test_tour_e2e.py
"""

from __future__ import annotations

import csv
import re
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import fiftyone as fo
import pytest
from app_browser import (
    choose,
    click_cell,
    close_sample,
    field,
    finish,
    open_operator,
    open_panel,
    open_review,
    open_sample,
    submit,
    take_picture,
    wait_for_count,
)
from caltech_photos import Photos, noisy_photos
from fiftyone import ViewField as F
from tour_review import decide_by_the_truth

import clipcleaner_plugin as cc

if TYPE_CHECKING:
    from app_browser import App
    from playwright.sync_api import Page

pytestmark = pytest.mark.e2e


@pytest.fixture
def photos(shared_data: Path, tmp_path: Path) -> Iterator[Photos]:
    made = noisy_photos(shared_data, tmp_path / "photos")
    yield made
    made.dataset.delete()


def test_the_tour(photos: Photos, app: App, tmp_path: Path) -> None:
    dataset = photos.dataset
    results = cc.apply_clipcleaner(
        dataset, embeddings=photos.embeddings, text_features=photos.texts, progress=False
    )
    found = results.evaluate("true_label")
    assert found["precision"] > 0.95 and found["recall"] > 0.85
    n = results.counts()
    with app(dataset) as page:
        # Find
        panel = open_panel(page)
        panel.get_by_role("button", name=f"Mislabeled {n['mislabeled']}").click()
        wait_for_count(page, n["mislabeled"])
        take_picture(page, "tour-find")
        open_sample(page)
        page.mouse.move(1250, 500)
        page.mouse.wheel(0, 650)  # to what the run says of the photo
        reason = results.mislabeled_view().first().clipcleaner_reason
        page.locator('[data-cy="modal"]').get_by_text(reason).wait_for()
        close_sample(page)

        # Review
        panel.get_by_role("tab", name="Confusions").click()
        given, suggested, pairs = results.confusions()[0]
        click_cell(page, panel, given, suggested)
        wait_for_count(page, pairs)
        take_picture(page, "tour-review")

        # Decide
        form = open_review(page, panel, "Accept suggestions")
        form.get_by_text(f"all {pairs} samples of the current view").wait_for()
        form.get_by_text("will get a new label").wait_for()
        take_picture(page, "tour-decide")
        submit(form, "Relabel")
        page.get_by_text(f"{pairs} samples relabeled").first.wait_for()
        relabeled = dataset.match(F("ground_truth_review") == "relabeled")
        for field_of_labels in ("ground_truth", "true_label"):
            assert relabeled.count_values(f"{field_of_labels}.label") == {suggested: pairs}

        measure(page, dataset)
        export(page, tmp_path / "clean")
    with (tmp_path / "clean" / "labels.csv").open() as table:
        assert len(list(csv.DictReader(table))) > n["clean"] + pairs


def measure(page: Page, dataset: fo.Dataset) -> None:
    """Draws a sample, decides about it by the truth, and looks at the report."""
    form = open_operator(page, "Start CLIPCleaner review")
    field(form, "Number of samples").fill("100")
    submit(form, "Draw")
    wait_for_count(page, 100)
    dataset.reload()
    decide_by_the_truth(dataset.load_saved_view("clipcleaner: review sample"))
    form = open_operator(page, "CLIPCleaner review report")
    form.get_by_text(re.compile("of 100 samples decided")).wait_for()
    take_picture(page, "tour-measure")
    form.get_by_role("button", name="Cancel").click()
    form.wait_for(state="detached")


def export(page: Page, folder: Path) -> None:
    """Exports the clean photos and the corrected ones as a table."""
    form = open_operator(page, "Export CLIPCleaner run")
    choose(page, form, "Format", "CSV table")
    form.get_by_text(re.compile("^Also mislabeled samples")).click()
    field(form, "Folder").fill("~/clean-photos")
    form.get_by_text("Confidence", exact=True).wait_for()
    take_picture(page, "tour-export")
    field(form, "Folder").fill(str(folder))
    submit(form)
    finish(page)
    assert folder.is_dir()
