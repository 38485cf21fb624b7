"""The FiftyOne App in a headless browser: a server of its own, and the steps that a user takes."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from PIL import Image
from ports import free_port

if TYPE_CHECKING:
    import fiftyone as fo
    from playwright.sync_api import Locator, Page, Request

    # What the fixture ``app`` is: opens the App on a dataset
    App = Callable[[fo.Dataset], AbstractContextManager[Page]]

_ARGS = [
    "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync",
    "--disable-background-networking", "--disable-component-update", "--disable-dev-shm-usage",
]  # fmt: skip
_SERVER = """
import sys, fiftyone as fo
dataset = fo.load_dataset(sys.argv[1])
fo.launch_app(dataset, remote=True, port=int(sys.argv[2]), address="127.0.0.1").wait(-1)
"""
# Two frames: React has drawn what came, and asked for what it needs next
_TWO_FRAMES = "() => new Promise(done => requestAnimationFrame(() => requestAnimationFrame(done)))"
# A click counts only where plotly knows the point, and someone listens
_HOVERED = """mark => {
    const plot = mark.closest('.js-plotly-plot')
    return plot._hoverdata?.length > 0 && plot._ev?.listeners('plotly_click').length > 0
}"""
# Where a mark of a plot can be seen: a bar on a logarithmic axis goes on far below the plot
_VISIBLE = """mark => {
    const plot = mark.closest('.js-plotly-plot')
    const areas = [...plot.querySelectorAll('.nsewdrag')].map(area => area.getBoundingClientRect())
    const box = mark.getBoundingClientRect()
    const left = Math.max(box.left, Math.min(...areas.map(area => area.left)))
    const right = Math.min(box.right, Math.max(...areas.map(area => area.right)))
    const top = Math.max(box.top, Math.min(...areas.map(area => area.top)))
    const bottom = Math.min(box.bottom, Math.max(...areas.map(area => area.bottom)))
    return {x: left, y: top, width: right - left, height: bottom - top}
}"""
_PICTURE_BYTES = 400_000  # those of photos are larger, and get a palette of 256 colors
_TIMEOUT = 240  # seconds; every step is polled, so that only a failure takes as long

# Of each open page: the calls of operators and panels that have no answer yet
_unanswered: dict[Page, set[Request]] = {}


def need_chromium() -> str:
    """Returns the path of a browser; skips the test where there is none.

    Where REQUIRE_BROWSER is set, as in .ci/run, the test fails instead.
    """
    found = find_chromium()
    if found:
        return found
    said = "no Chromium: apt-get install chromium, or playwright install chromium"
    if os.environ.get("REQUIRE_BROWSER"):
        pytest.fail(said)
    pytest.skip(said)


def find_chromium() -> str | None:
    """Returns the path of a Chromium or Chrome, or $CHROMIUM; None where there is none."""
    own = os.environ.get("CHROMIUM")
    if own:
        return own
    for name in ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable"):
        found = shutil.which(name)
        if found:
            return found
    with contextlib.suppress(Exception):
        from playwright.sync_api import sync_playwright

        with sync_playwright() as p:
            if Path(p.chromium.executable_path).exists():
                return str(p.chromium.executable_path)
    return None


@contextlib.contextmanager
def serve(dataset: str, plugins_dir: Path, log: Path) -> Iterator[str]:
    """Serves a dataset in the App, from a process that shares this one's database.

    Yields:
        the address of the dataset's page
    """
    port = free_port()
    env = {**os.environ, "FIFTYONE_PLUGINS_DIR": str(plugins_dir)}
    command = [sys.executable, "-c", _SERVER, dataset, str(port)]
    with log.open("w") as out:
        server = subprocess.Popen(command, env=env, stdout=out, stderr=out, start_new_session=True)
    try:
        _wait_for_server(f"http://127.0.0.1:{port}", server, log)
        yield f"http://127.0.0.1:{port}/datasets/{dataset}"
    except Exception:
        print(f"the server said: {log.read_text()[-3000:]}")
        raise
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(server.pid, signal.SIGTERM)
        server.wait()


def _wait_for_server(address: str, server: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + _TIMEOUT
    while time.monotonic() < deadline and server.poll() is None:
        with contextlib.suppress(OSError):
            urllib.request.urlopen(address, timeout=2).close()
            return
        time.sleep(0.2)
    raise RuntimeError(f"the App's server did not start: {log.read_text()[-3000:]}")


@contextlib.contextmanager
def open_page(address: str, chromium: str, failure: Path) -> Iterator[Page]:
    """Opens the App's page and waits for its first samples; nothing but the server is reached.

    Args:
        address: of the page
        chromium: path of the browser
        failure: where to put a picture of the page if the test fails
    """
    from playwright.sync_api import sync_playwright

    host = address.split("/")[2]

    def local(url: str) -> bool:
        return host in url or url.startswith(("data:", "blob:"))

    with sync_playwright() as p:
        browser = p.chromium.launch(executable_path=chromium, args=_ARGS)
        page = browser.new_page(viewport={"width": 1440, "height": 900})
        page.set_default_timeout(1000 * _TIMEOUT)
        page.route("**/*", lambda r: r.continue_() if local(r.request.url) else r.abort())
        _watch_calls(page)
        # An advertisement that comes sooner or later, or never, and lies above the buttons
        page.add_locator_handler(page.get_by_text("Dismiss", exact=True), lambda ad: ad.click())
        page.goto(address)
        page.locator('[data-cy="fo-grid"] [data-cy="looker"]').first.wait_for()
        try:
            yield page
        except Exception:
            page.screenshot(path=str(failure))
            print(f"the page as it was: {failure}")
            raise
        finally:
            del _unanswered[page]
            browser.close()


def _watch_calls(page: Page) -> None:
    calls = _unanswered[page] = set()
    page.on("request", lambda call: calls.add(call) if "/operators/execute" in call.url else None)
    page.on("requestfinished", lambda call: calls.discard(call))
    page.on("requestfailed", lambda call: calls.discard(call))


def settle(page: Page) -> None:
    """Waits until operators and panels have answered, and the page asks them nothing more.

    What an answer draws anew loses the mouse that is upon it.
    """

    def is_settled() -> bool:
        if _unanswered[page]:
            return False
        page.evaluate(_TWO_FRAMES)
        return not _unanswered[page]

    wait_until(is_settled, "the answers of operators and panels", page)


def open_operator(page: Page, label: str) -> Locator:
    """Finds an operator in the operator browser and returns its form."""
    page.keyboard.press("`")
    page.locator('input[data-cy="operators-browser-search"]').fill(label)
    page.locator('[data-cy="operators-browser"]').get_by_text(label, exact=True).click()
    return page.locator('[data-cy="operators-prompt-modal"]')


def field(form: Locator, label: str) -> Locator:
    """Returns the input below a label."""
    return form.locator(f"xpath=//*[text()='{label}']/following::input[1]")


def choose(page: Page, form: Locator, label: str, option: str) -> None:
    """Chooses an option of the dropdown below a label."""
    form.locator(f"xpath=//*[text()='{label}']/following::*[@role='combobox'][1]").click()
    page.get_by_role("option", name=re.compile(rf"^{re.escape(option)}\b")).click()


def submit(form: Locator, label: str = "Execute") -> None:
    """Presses a form's button, as soon as the App has validated the form."""
    form.get_by_role("button", name=label, exact=True).click()


def finish(page: Page) -> None:
    """Waits until an operator that shows its progress is at its end, and closes the progress.

    Closed before, it would open again with the next message.
    """
    done = page.get_by_text("Done", exact=True)  # the last message, and the button

    def is_done() -> bool:
        assert not page.get_by_text(" failed: ").count(), "the operator failed"
        return done.count() == 2

    wait_until(is_done, "the end of an operator", page)
    page.get_by_role("button", name="Done").click()
    done.first.wait_for(state="detached")


def grid_count(page: Page) -> int:
    """Returns the number of samples that the App says it shows; -1 while it says none."""
    shown = page.locator('[data-cy="entry-counts"]')
    match = re.match(r"\s*([\d,]+)", shown.inner_text()) if shown.count() else None
    return int(match[1].replace(",", "")) if match else -1


def wait_for_count(page: Page, n: int) -> None:
    """Waits until the grid shows n samples."""
    deadline = time.monotonic() + _TIMEOUT
    while grid_count(page) != n:
        assert time.monotonic() < deadline, f"the grid shows {grid_count(page)} samples, not {n}"
        page.wait_for_timeout(100)


def take_picture(page: Page, name: str) -> None:
    """Takes a picture for the documentation, where SCREENSHOTS names a folder."""
    folder = os.environ.get("SCREENSHOTS")
    if folder:
        page.mouse.move(5, 5)  # no tooltip in the picture
        page.locator('[data-cy="fo-grid"] [data-cy="looker"]').first.wait_for()
        page.wait_for_timeout(3000)
        Path(folder).mkdir(parents=True, exist_ok=True)
        path = Path(folder) / f"{name}.png"
        page.screenshot(path=str(path))
        if path.stat().st_size > _PICTURE_BYTES:
            picture = Image.open(path).convert("RGB")
            picture.quantize(palette=picture.quantize()).save(path, optimize=True)  # dithered


def wait_until(condition: Callable[[], bool], what: str, page: Page) -> None:
    """Waits for something that the page does not show, such as another process to be done."""
    deadline = time.monotonic() + _TIMEOUT
    while not condition():
        assert time.monotonic() < deadline, f"did not happen: {what}"
        page.wait_for_timeout(200)


def click_at(page: Page, target: Locator) -> None:
    """Clicks the middle of what is seen of a mark; it lies below plotly's own mouse layer."""
    target.wait_for(state="attached")
    _click_plot(page, target, lambda: [target.evaluate(_VISIBLE)] * 2)


def _click_plot(page: Page, mark: Locator, find_boxes: Callable[[], list[Any]]) -> None:
    """Clicks a plot where the middles of two boxes cross, once it says that the mouse is upon it.

    Args:
        page: the page
        mark: any part of the plot
        find_boxes: returns boxes at the same x and at the same y as the point to click
    """
    boxes: list[Any] = []

    def has_found_its_place() -> bool:
        nonlocal boxes
        before, boxes = boxes, find_boxes()
        page.evaluate(_TWO_FRAMES)
        return None not in boxes and boxes == before

    settle(page)
    wait_until(has_found_its_place, "a plot has found its place", page)
    x = boxes[0]["x"] + boxes[0]["width"] / 2
    y = boxes[1]["y"] + boxes[1]["height"] / 2

    def is_hovered() -> bool:
        page.mouse.move(5, 5)
        page.mouse.move(x, y)
        page.evaluate(_TWO_FRAMES)
        return bool(mark.evaluate(_HOVERED))

    wait_until(is_hovered, "the plot knows what the mouse is upon", page)
    page.mouse.down()
    page.mouse.up()


def open_panel(page: Page) -> Locator:
    """Opens the panel with its button above the grid."""
    from playwright.sync_api import TimeoutError as PlaywrightTimeoutError

    button = page.locator('img[src*="panel.svg"]')
    panel = page.locator('[data-cy="panel-content-clipcleaner"]')

    def is_open() -> bool:
        button.click()
        with contextlib.suppress(PlaywrightTimeoutError):
            panel.wait_for(timeout=20_000)
        settle(page)
        page.wait_for_timeout(1000)
        return panel.is_visible()

    # A page that has just started may lose the click, or the panel when its session arrives
    settle(page)
    wait_until(is_open, "the panel is open", page)
    return panel


def open_review(page: Page, panel: Locator, label: str) -> Locator:
    """Presses one of the panel's review buttons, which have room where the grid's have none."""
    panel.get_by_role("button", name=label, exact=True).click()
    return page.locator('[data-cy="operators-prompt-modal"]')


def open_form(page: Page, icon: str) -> Locator:
    """Presses one of the plugin's buttons, of the grid or of the open sample, by its icon."""
    page.locator(f'img[src*="{icon}.svg"]').last.click()
    return page.locator('[data-cy="operators-prompt-modal"]')


def open_sample(page: Page) -> None:
    """Opens the first sample of the grid."""
    sample = page.locator('[data-cy="fo-grid"] [data-cy="looker"]').first
    box = sample.bounding_box()
    assert box is not None
    # The upper part of a small one is a box to tick
    sample.click(position={"x": box["width"] / 2, "y": 0.7 * box["height"]})
    page.locator('[data-cy="modal"]').wait_for()
    page.locator('[data-cy="modal"] [data-cy="looker"]').or_(
        page.locator('[data-cy="modal-looker-container"]')
    ).first.wait_for()


def select(page: Page, *places: int) -> None:
    """Ticks the samples at some places of the grid; a box appears where the mouse is."""
    selected = page.locator('[data-cy="action-manage-selected"]')

    def is_ticked(place: int, total: int) -> bool:
        sample = page.locator('[data-cy="fo-grid"] [data-cy="looker"]').nth(place)
        sample.hover()
        box = sample.bounding_box()
        assert box is not None
        page.mouse.click(box["x"] + 19, box["y"] + 19)
        for _ in range(50):
            page.wait_for_timeout(100)
            if selected.count() and selected.inner_text().strip() == str(total):
                return True
        return False

    # A grid that is being drawn may lose the click
    settle(page)
    for total, place in enumerate(places, start=1):
        wait_until(partial(is_ticked, place, total), f"sample {place} is selected", page)


def close_sample(page: Page) -> None:
    """Closes the open sample."""

    def closed() -> bool:
        page.keyboard.press("Escape")  # a busy page may miss it
        return page.locator('[data-cy="modal"]').count() == 0

    wait_until(closed, "the closing of the sample", page)


def click_cell(page: Page, panel: Locator, given: str, suggested: str) -> None:
    """Clicks a cell of the heat map, which is one picture: its place follows from the ticks."""
    image = panel.locator("g.heatmaplayer image")
    image.wait_for()
    column = panel.locator("g.xtick text", has_text=suggested)
    row = panel.locator("g.ytick text", has_text=given)
    _click_plot(page, image, lambda: [column.bounding_box(), row.bounding_box()])
