"""What the documentation refers to is there, and what is there is referred to."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

_LINK = re.compile(r"\]\(([^)\s#]+)[^)]*\)")
_PAGES = ("README.md", "CHANGELOG.md", "training/README.md", "docs/*.md", "benchmarks/results/*.md")


@pytest.fixture(scope="module")
def links(repo_root: Path) -> set[tuple[str, Path]]:
    """(page, file) of each link to a file of the checkout."""
    pages = [page for pattern in _PAGES for page in sorted(repo_root.glob(pattern))]
    return {
        (str(page.relative_to(repo_root)), (page.parent / target).resolve())
        for page in pages
        for target in _LINK.findall(page.read_text())
        if "://" not in target and not target.startswith("mailto:")
    }


def test_linked_files_exist(links: set[tuple[str, Path]]) -> None:
    assert len([file for _, file in links if file.suffix == ".png"]) > 10
    assert [(page, str(file)) for page, file in sorted(links) if not file.exists()] == []


def test_every_picture_is_shown_somewhere(repo_root: Path, links: set[tuple[str, Path]]) -> None:
    pictures = {file for file in (repo_root / "docs" / "images").iterdir()}
    assert sorted(file.name for file in pictures - {file for _, file in links}) == []


def test_every_picture_of_the_app_can_be_taken_again(repo_root: Path) -> None:
    tests = "".join(file.read_text() for file in (repo_root / "tests").glob("test_*_e2e.py"))
    taken = set(re.findall(r"take_picture\(page, \"([a-z-]+)\"", tests))
    assert taken == {file.stem for file in (repo_root / "docs" / "images").glob("*.png")}
