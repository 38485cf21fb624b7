"""Fixtures of several test files: runs to review and to export, the App in a browser.

A test file that means something else by one of these names defines it itself.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

if TYPE_CHECKING:
    import fiftyone as fo
    from app_browser import App
    from noisy_features import Noisy
    from PIL import Image
    from playwright.sync_api import Page


@pytest.fixture
def plugin(monkeypatch: pytest.MonkeyPatch, repo_root: Path) -> None:
    """FiftyOne finds the plugin in the checkout."""
    import fiftyone as fo

    monkeypatch.setattr(fo.config, "plugins_dir", str(repo_root))


@pytest.fixture
def quiet(monkeypatch: pytest.MonkeyPatch) -> None:
    """FiftyOne draws no progress bars."""
    import fiftyone as fo

    monkeypatch.setattr(fo.config, "show_progress_bars", False)


@pytest.fixture(scope="module")
def finished_run() -> Iterator[Noisy]:
    """240 labels, 40 of them wrong, and a run that found them; ``noisy`` is a clone of it."""
    from noisy_features import run_on_features

    with run_on_features() as made:
        yield made


@pytest.fixture
def noisy(finished_run: Noisy) -> Iterator[Noisy]:
    """A dataset with planted errors and a run that found them, for the test alone."""
    import fiftyone as fo

    copy = finished_run.copy()
    yield copy
    if fo.dataset_exists(copy.dataset.name):
        copy.dataset.delete()


@pytest.fixture
def digits(dataset: Callable[..., fo.Dataset], tmp_path: Path) -> fo.Dataset:
    """100 digits and a run on vectors of their pixels, for the test alone."""
    from exports import add_run

    return add_run(dataset(), tmp_path / "source")


@pytest.fixture(scope="module")
def untouched(tmp_path_factory: pytest.TempPathFactory) -> Iterator[fo.Dataset]:
    """The same for tests that change nothing in it."""
    import fiftyone as fo
    from exports import add_run

    made = add_run(fo.Dataset(), tmp_path_factory.mktemp("source"))
    yield made
    fo.delete_dataset(made.name)


@pytest.fixture(scope="session")
def images(tmp_path_factory: pytest.TempPathFactory) -> tuple[list[str], list[str]]:
    """Ids and paths of 50 small images that no test changes."""
    from projection import COUNT, make_images

    return make_images(tmp_path_factory.mktemp("images"), COUNT)


@pytest.fixture
def picture() -> Image.Image:
    """40 x 24 pixels of noise."""
    from PIL import Image

    pixels = np.random.default_rng(0).integers(0, 256, (40, 24, 3), dtype=np.uint8)
    return Image.fromarray(pixels)


@pytest.fixture
def hub_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache for the hub's client, which is offline in tests."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    return tmp_path / "hub"


@pytest.fixture
def noisy_digits() -> Iterator[fo.Dataset]:
    """The dataset of the demo, a share of its labels redrawn."""
    from noisy_digits import noisy_demo

    dataset = noisy_demo("handwritten-digits")
    yield dataset
    dataset.delete()


@pytest.fixture
def results(noisy_digits: fo.Dataset) -> Any:
    """A run of the embedded CLIP on ``noisy_digits``."""
    import clipcleaner_plugin as cc

    return cc.apply_clipcleaner(noisy_digits, model=cc.TINY_CLIP, pretrained=None, progress=False)


@pytest.fixture
def app(repo_root: Path, chromium: str, tmp_path: Path) -> App:
    """``with app(dataset) as page:`` opens the App, with a server of its own, in a browser."""
    from app_browser import open_page, serve

    @contextlib.contextmanager
    def open_app(dataset: fo.Dataset) -> Iterator[Page]:
        with (
            serve(dataset.name, repo_root, tmp_path / "server.log") as address,
            open_page(address, chromium, tmp_path / "page.png") as page,
        ):
            yield page

    return open_app
