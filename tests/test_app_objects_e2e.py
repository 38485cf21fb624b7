"""A run on objects in the App: applied from the form, patches reviewed and taken back.

Pictures for the documentation are taken as in test_app_e2e.py.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import fiftyone as fo
import pytest
from app_browser import (
    choose,
    close_sample,
    field,
    finish,
    open_form,
    open_operator,
    open_review,
    open_sample,
    select,
    submit,
    take_picture,
    wait_for_count,
)
from boxed import FIELD, canvases

import clipcleaner_plugin as cc

if TYPE_CHECKING:
    from app_browser import App
    from playwright.sync_api import Page

pytestmark = pytest.mark.e2e

ROOT = f"{FIELD}.{FIELD}."


@pytest.fixture
def digits_in_boxes(tmp_path: Path) -> Iterator[fo.Dataset]:
    dataset = fo.Dataset("digits-in-boxes")
    dataset.add_samples(canvases(tmp_path / "canvases", 200), progress=False)
    yield dataset
    dataset.delete()


def decisions(dataset: fo.Dataset) -> dict[str, tuple[str, str | None]]:
    """Object id → label and decision, as they are in the database now."""
    return {
        str(found["_id"]): (found["label"], found.get("review"))
        for sample in dataset._sample_collection.find()
        for found in sample[FIELD][FIELD]
    }


def test_objects_are_found_and_reviewed(digits_in_boxes: fo.Dataset, app: App) -> None:
    dataset = digits_in_boxes
    with app(dataset) as page:
        form = open_operator(page, "Apply CLIPCleaner")
        choose(page, form, "Label field", FIELD)
        form.get_by_text("Padding").wait_for()
        field(form, "Model").click()
        page.get_by_role("option", name="tiny-clip-digits").click()
        form.get_by_text("200 objects, 200 embeddings to compute").wait_for()
        submit(form)
        finish(page)
        page.get_by_text("of 200 labels look wrong").first.wait_for()

        dataset.reload()
        worst = cc.load_results(dataset).mislabeled_view()
        ids, suggested = worst.values(["id", f"{FIELD}.clipcleaner_suggestion"])
        assert len(ids) > 30
        wait_for_count(page, len(ids))
        enlarge(page)
        take_picture(page, "app-patches")

        before = decisions(dataset)
        open_sample(page)
        form = open_form(page, "confirm")
        form.get_by_text("the object that is open").wait_for()
        submit(form, "Confirm")
        page.get_by_text("1 object confirmed").first.wait_for()
        close_sample(page)
        wait_for_count(page, len(ids) - 1)
        assert decisions(dataset) == {**before, ids[0]: (before[ids[0]][0], "confirmed")}

        panel = page.locator('[data-cy="panel-content-clipcleaner"]')
        for left, action, button, said in (
            (len(ids) - 2, "Accept suggestions", "Relabel", "relabeled"),
            (len(ids) - 3, "Drop", "Drop", "dropped"),
        ):
            select(page, 0)
            form = open_review(page, panel, action)
            form.get_by_text("1 selected object").wait_for()
            submit(form, button)
            page.get_by_text(f"1 object {said}").first.wait_for()
            wait_for_count(page, left)
        panel.get_by_text(f"{len(ids) - 3} of 200 labels still look wrong").wait_for()
        assert decisions(dataset)[ids[1]] == (suggested[1], "relabeled")
        assert decisions(dataset)[ids[2]] == (before[ids[2]][0], "dropped")

        for _ in range(3):
            form = open_review(page, panel, "Undo")
            form.get_by_text("will be as before").wait_for()
            submit(form, "Undo")
            form.wait_for(state="detached")
        wait_for_count(page, len(ids))
        assert decisions(dataset) == before

        # Applied again from the patches in the grid: about the dataset, with the same model
        form = open_operator(page, "Apply CLIPCleaner")
        form.get_by_text("whatever patches the grid shows").wait_for()
        form.get_by_text("200 objects, 0 embeddings to compute").wait_for()
        before_at = begun_at(dataset)
        assert before_at
        submit(form)
        finish(page)
        again_at = begun_at(dataset)
        assert again_at and again_at > before_at
        assert cc.load_results(dataset).record["samples"] == 200


def begun_at(dataset: fo.Dataset) -> str | None:
    """When the run was begun that has come to its end."""
    dataset.reload()
    info = cc.get_run_info(dataset)
    return str(info["timestamp"]) if info["finished"] else None


def enlarge(page: Page) -> None:
    """Shows fewer patches in a row, so that one can read what is said of them."""
    slider = page.locator('[data-cy="slider"]').last
    box = slider.bounding_box()
    assert box is not None
    slider.click(position={"x": 0.87 * box["width"], "y": box["height"] / 2})
