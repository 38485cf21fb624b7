"""The panel in the App: what a click shows, thresholds there and back, a run of a worker.

Pictures for the documentation are taken as in test_app_e2e.py.
"""

from __future__ import annotations

import contextlib
import csv
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import fiftyone as fo
import pytest
from app_browser import (
    choose,
    click_at,
    click_cell,
    field,
    finish,
    grid_count,
    open_operator,
    open_panel,
    settle,
    submit,
    take_picture,
    wait_for_count,
    wait_until,
)
from fiftyone.operators.delegated import DelegatedOperationService

import clipcleaner_plugin as cc
from clipcleaner_plugin.plots import COLORS

if TYPE_CHECKING:
    from app_browser import App
    from playwright.sync_api import Locator, Page

pytestmark = pytest.mark.e2e


def bars(panel: Locator, least: int = 3) -> list[Locator]:
    """The bars of a plot that are high enough to be hit."""
    panel.locator("g.trace.bars g.point path").first.wait_for()
    found = panel.locator("g.trace.bars g.point path").all()
    boxes = [(bar, bar.bounding_box()) for bar in found]
    return [bar for bar, box in boxes if box and min(box["width"], box["height"]) >= least]


def verdicts(dataset: fo.Dataset) -> list[str]:
    dataset.reload()
    return dataset.values("clipcleaner_verdict")


def slide(page: Page, panel: Locator, place: int, share: float) -> None:
    slider = panel.locator(".MuiSlider-root").nth(place)
    slider.wait_for()
    settle(page)
    box = slider.bounding_box()
    assert box is not None
    slider.click(position={"x": share * box["width"], "y": box["height"] / 2})


def test_a_click_shows_its_samples(noisy_digits: fo.Dataset, results: Any, app: App) -> None:
    n = results.counts()
    with app(noisy_digits) as page:
        panel = open_panel(page)
        panel.get_by_text(f"{n['mislabeled']} of {len(noisy_digits)} labels look wrong").wait_for()

        panel.get_by_role("button", name=f"Uncertain {n['uncertain']}").click()
        wait_for_count(page, n["uncertain"])
        panel.get_by_role("button", name=f"Mislabeled {n['mislabeled']}").click()
        wait_for_count(page, n["mislabeled"])
        take_picture(page, "app-panel")

        histogram = results.statistics().histogram
        drawn = [verdict for verdict in COLORS if any(histogram[verdict])]
        for verdict in ("uncertain", "clean"):  # side by side in the last bin
            trace = panel.locator("g.trace.bars").nth(drawn.index(verdict))
            click_at(page, trace.locator("g.point path").last)
            wait_for_count(page, len(results.view(verdict, scores=(31 / 32, 1))))

        panel.get_by_role("tab", name="Confusions").click()
        panel.get_by_text("Click a cell").wait_for()
        given, suggested, pairs = results.confusions()[0]
        click_cell(page, panel, given, suggested)
        wait_for_count(page, pairs)
        take_picture(page, "app-panel-confusions")

        panel.get_by_role("tab", name="Classes").click()
        panel.get_by_text("Words agree:").wait_for()
        worst = max(
            results.statistics().classes.items(),
            key=lambda item: item[1].mislabeled / item[1].count,
        )
        click_at(page, bars(panel)[0])
        wait_for_count(page, worst[1].mislabeled)
        take_picture(page, "app-panel-classes")

        form = more_views(page, panel)
        form.get_by_text("Near the threshold").click()
        take_picture(page, "app-views")
        submit(form, "Load")
        wait_for_count(page, len(results.view("near_threshold")))
        assert noisy_digits.count_values("clipcleaner_verdict") == {k: v for k, v in n.items() if v}


def more_views(page: Page, panel: Locator) -> Locator:
    panel.get_by_role("button", name="More views").click()
    form = page.locator('[data-cy="operators-prompt-modal"]')
    form.get_by_text("Samples to show").wait_for()
    return form


def test_thresholds_are_tried_applied_and_taken_back(
    noisy_digits: fo.Dataset, results: Any, app: App
) -> None:
    before, thetas = verdicts(noisy_digits), results.thetas
    with app(noisy_digits) as page:
        panel = open_panel(page)
        panel.get_by_role("tab", name="Thresholds").click()
        preview = panel.get_by_text(re.compile("→.*clean"))

        slide(page, panel, 2, 0.99)
        preview.wait_for()
        promised = re.search(r"clean [\d,]+ → ([\d,]+)", preview.inner_text())
        assert promised is not None
        take_picture(page, "app-panel-thresholds")
        assert verdicts(noisy_digits) == before, "nothing is changed before it is applied"

        panel.get_by_role("button", name="Apply", exact=True).click()
        changed = panel.get_by_role("button", name=f"Clean {promised[1]}")
        changed.wait_for()
        assert verdicts(noisy_digits).count("clean") == int(promised[1]) < before.count("clean")

        page.reload()  # panels come back; none of its handlers may change anything then
        changed.wait_for()
        back = panel.get_by_role("button", name="Back to 0.50 / 0.80 / 0.50")
        back.wait_for()
        assert verdicts(noisy_digits).count("clean") == int(promised[1])
        assert grid_count(page) == len(noisy_digits)
        back.click()
        panel.get_by_role("button", name=f"Clean {before.count('clean')}").wait_for()
        assert verdicts(noisy_digits) == before
        assert cc.load_results(noisy_digits).thetas == thetas


def test_a_first_run_is_started_in_the_panel_and_made_by_a_worker(
    noisy_digits: fo.Dataset, app: App, repo_root: Path, tmp_path: Path
) -> None:
    noisy_digits.persistent = True  # a worker loads it by its name
    with app(noisy_digits) as page:
        panel = open_panel(page)
        panel.get_by_text("No run yet").wait_for()
        take_picture(page, "app-panel-empty")
        panel.get_by_role("button", name="Find wrong labels").click()
        form = page.locator('[data-cy="operators-prompt-modal"]')
        field(form, "Model").click()
        page.get_by_role("option", name="tiny-clip-digits").click()
        form.get_by_text("Weights").wait_for(state="detached")
        form.get_by_text("embeddings to compute").wait_for()
        form.get_by_role("button").last.click()
        page.get_by_role("menuitem", name=re.compile("^Schedule")).click()
        submit(form, "Schedule")
        page.get_by_text("successfully scheduled").first.wait_for()
        assert cc.list_runs(noisy_digits) == []
        with worker(repo_root, tmp_path / "worker.log"):
            wait_until(lambda: is_finished(noisy_digits), "the run of the worker", page)
        page.reload()
        found = cc.load_results(noisy_digits).counts()["mislabeled"]
        panel.get_by_text(f"{found} of {len(noisy_digits)} labels look wrong").wait_for()
        panel.get_by_role("button", name=f"Mislabeled {found}").click()
        wait_for_count(page, found)
        export_by_form(page, noisy_digits, tmp_path / "table")
        schedule_training(page, noisy_digits, tmp_path / "bundle")


def export_by_form(page: Page, dataset: fo.Dataset, folder: Path) -> None:
    """Exports the clean samples as a table, and looks at the files."""
    form = open_operator(page, "Export CLIPCleaner run")
    choose(page, form, "Format", "CSV table")
    field(form, "Folder").fill(str(folder))
    form.get_by_text("Labels", exact=True).wait_for()
    submit(form)
    finish(page)
    clean = cc.load_results(dataset).clean_view()
    with (folder / "labels.csv").open() as table:
        rows = list(csv.DictReader(table))
    assert len(rows) == len(clean) == len(list(folder.rglob("*.png")))


def schedule_training(page: Page, dataset: fo.Dataset, folder: Path) -> None:
    """Reads the command lines of a training, schedules it, and finds it in the queue."""
    form = open_operator(page, "Train on CLIPCleaner run")
    field(form, "Epochs").fill("3")
    field(form, "Folder").fill(str(folder))
    form.get_by_text(re.compile(rf"clipcleaner_plugin export {dataset.name} .*{folder}")).wait_for()
    form.get_by_text(re.compile(r"train\.py .*--epochs 3")).wait_for()
    submit(form, "Schedule")
    page.get_by_text("successfully scheduled").last.wait_for()
    service = DelegatedOperationService()
    (queued,) = service.list_operations(dataset_name=dataset.name, run_state="queued")
    service.delete_operation(queued.id)  # no worker of another test shall take it
    assert queued.label == "Training on clipcleaner (mixfix)"
    params = queued.context.request_params["params"]
    assert (params["epochs"], params["export_dir"]) == (3, str(folder))


@contextlib.contextmanager
def worker(plugins_dir: Path, log: Path) -> Iterator[None]:
    """Runs `fiftyone delegated launch` on the database of the tests."""
    command = [str(Path(sys.executable).with_name("fiftyone")), "delegated", "launch"]
    env = {**os.environ, "FIFTYONE_PLUGINS_DIR": str(plugins_dir)}
    with log.open("w") as out:
        process = subprocess.Popen(command, env=env, stdout=out, stderr=out, start_new_session=True)
    try:
        yield
    except BaseException:
        print(f"the worker said: {log.read_text()[-3000:]}")
        raise
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGTERM)
        process.wait(30)


def is_finished(dataset: fo.Dataset) -> bool:
    dataset.reload()
    if not cc.list_runs(dataset):
        return False
    return bool(cc.get_run_info(dataset)["finished"])
