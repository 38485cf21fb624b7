"""The check of a clean checkout does not pass over the tests that need a browser."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import app_browser
import pytest


def test_without_a_browser_its_tests_are_skipped_but_not_where_one_is_required(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(app_browser, "find_chromium", lambda: None)
    monkeypatch.delenv("REQUIRE_BROWSER", raising=False)
    with pytest.raises(pytest.skip.Exception, match="no Chromium"):
        app_browser.need_chromium()
    monkeypatch.setenv("REQUIRE_BROWSER", "1")
    with pytest.raises(pytest.fail.Exception, match="no Chromium"):
        app_browser.need_chromium()


def test_a_browser_is_found_by_name_and_by_variable(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    browser = tmp_path / "chromium"
    browser.write_text("#!/bin/sh\n")
    browser.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("CHROMIUM", raising=False)
    assert app_browser.need_chromium() == str(browser)
    monkeypatch.setenv("CHROMIUM", "/elsewhere/chrome")
    assert app_browser.need_chromium() == "/elsewhere/chrome"


def test_the_whole_check_requires_one(repo_root: Path, tmp_path: Path) -> None:
    for name, does in (("make", 'echo "$1 $REQUIRE_BROWSER"'), ("chromium", "")):
        (tmp_path / name).write_text(f"#!/bin/sh\n{does}\n")
        (tmp_path / name).chmod(0o755)
    env = {**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}"}
    env.pop("REQUIRE_BROWSER", None)
    done = subprocess.run(
        [str(repo_root / ".ci" / "run")], env=env, capture_output=True, text=True, check=True
    )
    assert done.stdout.splitlines() == ["test 1", "lint 1"]
