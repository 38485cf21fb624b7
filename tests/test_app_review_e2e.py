"""A review in the App: select, accept, confirm in the open sample, undo, and the report.

Pictures for the documentation are taken as in test_app_e2e.py.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import fiftyone as fo
import pytest
from app_browser import (
    field,
    open_operator,
    open_page,
    serve,
    submit,
    take_picture,
    wait_for_count,
    wait_until,
)
from fiftyone import ViewField as F
from noisy_digits import noisy_demo

import clipcleaner_plugin as cc

if TYPE_CHECKING:
    from playwright.sync_api import Locator, Page

pytestmark = pytest.mark.e2e

Labels = dict[str, tuple[str, str | None]]


@pytest.fixture
def noisy() -> Iterator[fo.Dataset]:
    """Digits with planted errors, and a run that found them."""
    dataset = noisy_demo("handwritten-digits")
    cc.apply_clipcleaner(dataset, model=cc.TINY_CLIP, pretrained=None, progress=False)
    yield dataset
    dataset.delete()


def reviewed(dataset: fo.Dataset) -> Labels:
    """Sample id → label and decision, as they are in the database now."""
    return {
        str(d["_id"]): (d["ground_truth"]["label"], d.get("ground_truth_review"))
        for d in dataset._sample_collection.find()
    }


def test_a_review(noisy: fo.Dataset, repo_root: Path, chromium: str, tmp_path: Path) -> None:
    results = cc.load_results(noisy)
    worst = results.mislabeled_view().values("id")
    suggested = dict(zip(*noisy.values(["id", "clipcleaner_suggestion.label"]), strict=True))
    before = reviewed(noisy)
    with (
        serve(noisy.name, repo_root, tmp_path / "server.log") as address,
        open_page(address, chromium, tmp_path / "page.png") as page,
    ):
        form = open_operator(page, "Load CLIPCleaner view")
        submit(form, "Load")
        wait_for_count(page, len(worst))

        for place in range(3):
            select(page, place)
        form = open_form(page, "accept")
        form.get_by_text("3 selected samples").wait_for()
        form.get_by_text("will get a new label").wait_for()
        take_picture(page, "app-review")
        assert reviewed(noisy) == before, "nothing is done before it is asked for"
        submit(form, "Relabel")
        page.get_by_text("3 samples relabeled").first.wait_for()
        wait_for_count(page, len(worst) - 3)
        after = reviewed(noisy)
        relabeled = [i for i in worst if after[i][1] == "relabeled"]
        assert relabeled == worst[:3]
        assert {i: after[i][0] for i in relabeled} == {i: suggested[i] for i in relabeled}

        confirm_in_modal(page, noisy)
        wait_for_count(page, len(worst) - 4)
        assert reviewed(noisy)[worst[3]] == (before[worst[3]][0], "confirmed")

        # Nothing selected: it is about the view, and the form says so
        form = open_form(page, "drop")
        form.get_by_text(f"all {len(worst) - 4} samples of the current view").wait_for()
        form.get_by_role("button", name="Cancel").click()
        form.wait_for(state="detached")

        for _ in range(2):
            form = open_operator(page, "Undo CLIPCleaner review")
            form.get_by_text("will be as before").wait_for()
            submit(form, "Undo")
            form.wait_for(state="detached")
        wait_for_count(page, len(worst))
        assert reviewed(noisy) == before


def test_the_list_is_measured(
    noisy: fo.Dataset, repo_root: Path, chromium: str, tmp_path: Path
) -> None:
    with (
        serve(noisy.name, repo_root, tmp_path / "server.log") as address,
        open_page(address, chromium, tmp_path / "page.png") as page,
    ):
        form = open_operator(page, "Start CLIPCleaner review")
        field(form, "Number of samples").fill("40")
        submit(form, "Draw")
        wait_for_count(page, 40)
        noisy.reload()
        decide_by_the_truth(noisy.load_saved_view("clipcleaner: review sample"))

        form = open_operator(page, "CLIPCleaner review report")
        form.get_by_text("40 of 40 samples decided").wait_for()
        form.get_by_text("Set the threshold of the run").click()
        form.get_by_text("will be flagged: at least 80%").wait_for()
        take_picture(page, "app-review-report")
        submit(form, "Set threshold")
        form.get_by_text(re.compile("^Thresholds ")).wait_for()
        threshold = cc.review_report(noisy).threshold(0.8)
        assert cc.load_results(noisy).thetas.theta_score == threshold


def decide_by_the_truth(sample: fo.DatasetView) -> None:
    """Decides about all samples, as a reviewer does who makes no mistakes."""
    for label in sample.distinct("trusted_label.label"):
        wrong = (F("trusted_label.label") == label) & (F("ground_truth.label") != label)
        cc.accept_suggestions(sample.match(wrong), label=label)
    cc.confirm_labels(sample)


def select(page: Page, place: int) -> None:
    """Ticks the sample at a place of the grid; its box appears where the mouse is."""
    sample = page.locator('[data-cy="fo-grid"] [data-cy="looker"]').nth(place)
    sample.hover()
    box = sample.bounding_box()
    assert box is not None
    page.mouse.click(box["x"] + 19, box["y"] + 19)


def open_form(page: Page, icon: str) -> Locator:
    page.locator(f'img[src*="{icon}.svg"]').last.click()
    return page.locator('[data-cy="operators-prompt-modal"]')


def confirm_in_modal(page: Page, noisy: fo.Dataset) -> None:
    page.locator('[data-cy="fo-grid"] [data-cy="looker"]').first.click()
    page.locator('[data-cy="modal"]').wait_for()
    page.locator('[data-cy="modal"] [data-cy="looker"]').or_(
        page.locator('[data-cy="modal-looker-container"]')
    ).first.wait_for()
    form = open_form(page, "confirm")
    form.get_by_text("the sample that is open").wait_for()
    submit(form, "Confirm")
    wait_until(
        lambda: noisy._sample_collection.count_documents({"ground_truth_review": "confirmed"}) == 1,
        "the confirmation",
        page,
    )
    form.wait_for(state="detached")

    def closed() -> bool:
        page.keyboard.press("Escape")  # a busy page may miss it
        return page.locator('[data-cy="modal"]').count() == 0

    wait_until(closed, "the closing of the sample", page)
