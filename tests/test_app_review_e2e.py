"""A review in the App: select, accept, confirm in the open sample, undo, and the report.

Pictures for the documentation are taken as in test_app_e2e.py.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import fiftyone as fo
import pytest
from app_browser import (
    close_sample,
    field,
    open_form,
    open_operator,
    open_panel,
    open_review,
    open_sample,
    select,
    settle,
    submit,
    take_picture,
    wait_for_count,
    wait_until,
)
from fiftyone import ViewField as F

import clipcleaner_plugin as cc

if TYPE_CHECKING:
    from app_browser import App
    from playwright.sync_api import Locator, Page

pytestmark = pytest.mark.e2e

Labels = dict[str, tuple[str, str | None]]


def reviewed(dataset: fo.Dataset) -> Labels:
    """Sample id → label and decision, as they are in the database now."""
    return {
        str(d["_id"]): (d["ground_truth"]["label"], d.get("ground_truth_review"))
        for d in dataset._sample_collection.find()
    }


def test_a_review(noisy_digits: fo.Dataset, results: Any, app: App) -> None:
    worst = results.mislabeled_view().values("id")
    suggested = dict(zip(*noisy_digits.values(["id", "clipcleaner_suggestion.label"]), strict=True))
    before = reviewed(noisy_digits)
    with app(noisy_digits) as page:
        panel = open_panel(page)
        panel.get_by_role("button", name=f"Mislabeled {len(worst)}").click()
        wait_for_count(page, len(worst))

        select(page, 0, 1, 2)
        form = open_review(page, panel, "Accept suggestions")
        form.get_by_text("3 selected samples").wait_for()
        form.get_by_text("will get a new label").wait_for()
        take_picture(page, "app-review")
        assert reviewed(noisy_digits) == before, "nothing is done before it is asked for"
        submit(form, "Relabel")
        page.get_by_text("3 samples relabeled").first.wait_for()
        wait_for_count(page, len(worst) - 3)
        panel.get_by_text(f"{len(worst) - 3} of {len(before)} labels still look wrong").wait_for()
        after = reviewed(noisy_digits)
        relabeled = [i for i in worst if after[i][1] == "relabeled"]
        assert relabeled == worst[:3]
        assert {i: after[i][0] for i in relabeled} == {i: suggested[i] for i in relabeled}

        confirm_in_modal(page, noisy_digits)
        wait_for_count(page, len(worst) - 4)
        assert reviewed(noisy_digits)[worst[3]] == (before[worst[3]][0], "confirmed")

        # Nothing selected: it is about the view, and the form says so
        form = open_review(page, panel, "Drop")
        form.get_by_text(f"all {len(worst) - 4} samples of the current view").wait_for()
        form.get_by_role("button", name="Cancel").click()
        form.wait_for(state="detached")

        for _ in range(2):
            form = open_review(page, panel, "Undo")
            form.get_by_text("will be as before").wait_for()
            submit(form, "Undo")
            form.wait_for(state="detached")
        wait_for_count(page, len(worst))
        panel.get_by_text(f"{len(worst)} of {len(before)} labels look wrong").wait_for()
        assert reviewed(noisy_digits) == before


def test_the_buttons_above_the_grid_and_the_keyboard(
    noisy_digits: fo.Dataset, results: Any, app: App
) -> None:
    worst, clean = results.mislabeled_view().values("id"), results.clean_view().values("id")
    earlier = [results.confirm_labels(noisy_digits.select(i)).action for i in clean[:20]]
    before = reviewed(noisy_digits)
    with app(noisy_digits) as page:
        form = open_operator(page, "Load CLIPCleaner view")
        submit(form, "Load")
        wait_for_count(page, len(worst))
        take_picture(page, "app-buttons")
        for done, (button, submits, says) in enumerate(
            (("accept", "Relabel", "relabeled"), ("confirm", "Confirm", "confirmed"))
        ):
            select(page, 0)
            form = open_form(page, button)
            form.get_by_text("1 selected sample").wait_for()
            submit(form, submits)
            page.get_by_text(f"1 sample {says}").first.wait_for()
            wait_for_count(page, len(worst) - done - 1)
            assert reviewed(noisy_digits)[worst[done]][1] == says

        # The third without its button, nor any other
        select(page, 0)
        form = choose_by_keyboard(page, "Drop from training")
        form.get_by_text("1 selected sample").wait_for()
        form.get_by_text("will be left out").wait_for()
        submit_by_keyboard(page, form)
        wait_for_count(page, len(worst) - 3)
        assert reviewed(noisy_digits)[worst[2]][1] == "dropped"

        # 23 actions are in force: the first is in no list, but it is found
        form = open_form(page, "undo")
        form.get_by_text("3 earlier ones: search for them").wait_for()
        field(form, "Search").fill(str(earlier[0]))
        form.get_by_text("3 earlier ones").wait_for(state="detached")
        form.get_by_text("will be as before").wait_for()
        submit(form, "Undo")
        page.get_by_text("Undone on 1 sample").first.wait_for()
    after = {**before, clean[0]: (before[clean[0]][0], None)}
    changed = {i for i, found in reviewed(noisy_digits).items() if found != after[i]}
    assert changed == set(worst[:3])


def choose_by_keyboard(page: Page, label: str) -> Locator:
    """Finds an operator without the mouse, and returns its form."""
    page.keyboard.press("`")
    page.locator('input[data-cy="operators-browser-search"]').wait_for()
    page.keyboard.type(label)
    page.locator('[data-cy="operators-browser"]').get_by_text(label, exact=True).wait_for()
    page.keyboard.press("Enter")
    return page.locator('[data-cy="operators-prompt-modal"]')


def submit_by_keyboard(page: Page, form: Locator) -> None:
    """Presses a form's keys until it is gone: one that is being validated misses them."""

    def is_gone() -> bool:
        settle(page)
        if form.count():
            page.keyboard.press("Control+Enter")
        settle(page)
        return form.count() == 0

    wait_until(is_gone, "the form is submitted", page)


@pytest.mark.usefixtures("results")
def test_the_list_is_measured(noisy_digits: fo.Dataset, app: App) -> None:
    with app(noisy_digits) as page:
        form = open_operator(page, "Start CLIPCleaner review")
        field(form, "Number of samples").fill("40")
        submit(form, "Draw")
        wait_for_count(page, 40)
        noisy_digits.reload()
        decide_by_the_truth(noisy_digits.load_saved_view("clipcleaner: review sample"))

        form = open_operator(page, "CLIPCleaner review report")
        form.get_by_text("40 of 40 samples decided").wait_for()
        form.get_by_text("Set the threshold of the run").click()
        form.get_by_text("will be flagged: at least 80%").wait_for()
        submit(form, "Set threshold")
        form.get_by_text(re.compile("^Thresholds ")).wait_for()
        threshold = cc.review_report(noisy_digits).threshold(0.8)
        assert cc.load_results(noisy_digits).thetas.theta_score == threshold


def decide_by_the_truth(sample: fo.DatasetView) -> None:
    """Decides about all samples, as a reviewer does who makes no mistakes."""
    for label in sample.distinct("trusted_label.label"):
        wrong = (F("trusted_label.label") == label) & (F("ground_truth.label") != label)
        cc.accept_suggestions(sample.match(wrong), label=label)
    cc.confirm_labels(sample)


def confirm_in_modal(page: Page, dataset: fo.Dataset) -> None:
    open_sample(page)
    form = open_form(page, "confirm")
    form.get_by_text("the sample that is open").wait_for()
    submit(form, "Confirm")
    wait_until(
        lambda: (
            dataset._sample_collection.count_documents({"ground_truth_review": "confirmed"}) == 1
        ),
        "the confirmation",
        page,
    )
    form.wait_for(state="detached")
    close_sample(page)
