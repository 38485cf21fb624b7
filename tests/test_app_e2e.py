"""From a noisy dataset to its wrong labels, in the App, through forms, as a user does it.

Pictures for the documentation are taken where SCREENSHOTS names a folder::

    SCREENSHOTS=docs/images make test ARGS=tests/test_app_e2e.py
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import fiftyone as fo
import pytest
from app_browser import (
    choose,
    field,
    finish,
    grid_count,
    open_operator,
    open_panel,
    settle,
    submit,
    take_picture,
    wait_for_count,
)

import clipcleaner_plugin as cc
from clipcleaner_plugin.embeddings import dataset_store

if TYPE_CHECKING:
    from app_browser import App
    from playwright.sync_api import Page

pytestmark = pytest.mark.e2e


def test_wrong_labels_are_found_and_shown(noisy_digits: fo.Dataset, app: App) -> None:
    with app(noisy_digits) as page:
        form = open_operator(page, "Apply CLIPCleaner")
        choose(page, form, "Label field", "ground_truth")
        field(form, "Model").click()
        page.get_by_role("option", name="tiny-clip-digits").click()
        form.get_by_text("Weights").wait_for(state="detached")
        form.get_by_text("embeddings to compute").wait_for()
        take_picture(page, "app-form")
        submit(form)
        toast = page.get_by_text(re.compile(r"labels look wrong|CLIPCleaner failed")).first
        toast.wait_for()
        assert f"of {len(noisy_digits)} labels look wrong" in toast.inner_text()
        finish(page)

        found = planted_errors_found(noisy_digits)
        wait_for_count(page, found)

        load(page, "Clean")
        wait_for_count(page, noisy_digits.match({"clipcleaner_verdict": "clean"}).count())
        load(page, "Mislabeled")
        wait_for_count(page, found)
        take_picture(page, "app-mislabeled")
        assert grid_count(page) == found

        form = open_operator(page, "Get CLIPCleaner run info")
        submit(form, "Show")
        form.get_by_text("Estimated noise rate").wait_for()
        take_picture(page, "app-run-info")


def test_only_new_samples_are_embedded_and_decisions_kept(
    noisy_digits: fo.Dataset, app: App
) -> None:
    later = noisy_digits[-60:]
    added = [fo.Sample(s.filepath, ground_truth=s.ground_truth.copy()) for s in later]
    noisy_digits.delete_samples(later)
    options = {"model": cc.TINY_CLIP, "pretrained": None, "theta_cons": 0.7, "progress": False}
    results = cc.apply_clipcleaner(noisy_digits, key="digits", **options)
    store = dataset_store(noisy_digits, results.config.model_identity)
    worst = results.mislabeled_view().values("id")
    results.confirm_labels(worst[:4])
    results.accept_suggestions(worst[4:8])
    results.drop(worst[8:10])
    decided = noisy_digits.values("ground_truth_review")
    noisy_digits.add_samples(added, progress=False)
    n = len(noisy_digits)
    assert store.rows() == n - 60
    with app(noisy_digits) as page:
        panel = open_panel(page)
        panel.get_by_text("60 samples of the dataset are not in this run").wait_for()
        settle(page)
        panel.get_by_role("button", name="Apply again").click()
        form = page.locator('[data-cy="operators-prompt-modal"]')
        # Nothing is chosen: the form begins with what the run was made with
        form.get_by_text(f"{n} samples, 60 embeddings to compute").wait_for()
        form.get_by_text("only those of new or changed images are computed").wait_for()
        submit(form)
        page.get_by_text(f"of {n} labels look wrong").first.wait_for()
        finish(page)
        noisy_digits.reload()
        waiting = noisy_digits.load_saved_view("digits: mislabeled").values("id")
        wait_for_count(page, len(waiting))
        panel.get_by_text(f"{len(waiting)} of {n} labels still look wrong").wait_for()
        assert not panel.get_by_text("not in this run").count()
    assert dataset_store(noisy_digits, results.config.model_identity).rows() == n
    assert noisy_digits.values("ground_truth_review") == decided + [None] * 60
    again = cc.load_results(noisy_digits, "digits")
    assert (again.config.model, again.config.theta_cons) == (cc.TINY_CLIP, 0.7)
    verdict = dict(zip(*noisy_digits.values(["id", "digits_verdict"]), strict=True))
    assert None not in verdict.values()
    assert {verdict[i] for i in worst[:8]} == {"clean"}, "what a reviewer vouches for is trusted"
    assert {verdict[i] for i in worst[8:10]} == {"unscorable"}
    assert not set(worst[:10]) & set(waiting)


def planted_errors_found(dataset: fo.Dataset) -> int:
    """Checks in the database that the mislabeled view holds the planted errors."""
    dataset.reload()
    view = dataset.load_saved_view("clipcleaner: mislabeled")
    pairs = ["ground_truth.label", "trusted_label.label"]
    wrong = {i for i, a, b in zip(*dataset.values(["id", *pairs]), strict=True) if a != b}
    shown = set(view.values("id"))
    assert len(wrong) > 200
    assert len(shown & wrong) / len(shown) >= 0.9, "precision"
    assert len(shown & wrong) / len(wrong) >= 0.9, "recall"
    return len(shown)


def load(page: Page, verdict: str) -> None:
    form = open_operator(page, "Load CLIPCleaner view")
    form.get_by_text(re.compile(rf"^{verdict} \(\d")).click()
    submit(form, "Load")
    form.wait_for(state="detached")
