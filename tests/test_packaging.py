"""What is shipped, and that the places that state versions agree."""

from __future__ import annotations

import re
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path
from typing import Any

import pytest
import yaml
from checkouts import REPO_ROOT, build_wheel, copy_checkout, run
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet

from clipcleaner_plugin import __version__, doctor

tomllib: Any = pytest.importorskip("tomllib" if sys.version_info >= (3, 11) else "tomli")


@pytest.fixture(scope="module")
def project() -> dict[str, Any]:
    content: dict[str, Any] = tomllib.loads((REPO_ROOT / "pyproject.toml").read_text())
    return content["project"]


@pytest.fixture(scope="module")
def metadata() -> dict[str, Any]:
    content: dict[str, Any] = yaml.safe_load((REPO_ROOT / "fiftyone.yml").read_text())
    return content


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return copy_checkout(tmp_path_factory.mktemp("clone") / "fiftyone-clipcleaner")


@pytest.fixture(scope="module")
def wheel(checkout: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_wheel(checkout, tmp_path_factory.mktemp("wheel"))


def _names(wheel: Path) -> set[str]:
    with zipfile.ZipFile(wheel) as z:
        return {n for n in z.namelist() if not n.endswith("/")}


def test_the_wheel_has_every_module_and_nothing_at_the_top_level(wheel: Path) -> None:
    names = _names(wheel)
    for folder in ("clipcleaner_plugin", "operators", "training"):
        # Modules of a package that pyproject.toml does not list would be missing
        for path in (REPO_ROOT / folder).rglob("*.py"):
            inside = "" if folder == "clipcleaner_plugin" else "clipcleaner_plugin/"
            assert f"{inside}{path.relative_to(REPO_ROOT).as_posix()}" in names
    assert {n.split("/")[0] for n in names} == {
        "clipcleaner_plugin",
        f"clipcleaner_fiftyone-{__version__}.dist-info",
    }


def test_the_wheel_has_the_plugin_and_the_embedded_model(wheel: Path) -> None:
    names = _names(wheel)
    root = "clipcleaner_plugin/plugin_root/"
    shipped = {n.removeprefix(root) for n in names if n.startswith(root)}
    assets = {f"assets/{p.name}" for p in (REPO_ROOT / "assets").iterdir()}
    assert shipped == {"__init__.py", "fiftyone.yml"} | assets
    model = "clipcleaner_plugin/assets/tiny_clip_digits/"
    assert {f"{model}open_clip_config.json", f"{model}open_clip_model.safetensors"} <= names
    assert "clipcleaner_plugin/py.typed" in names
    prompts = (REPO_ROOT / "clipcleaner_plugin" / "datasets" / "prompts").iterdir()
    assert {f"clipcleaner_plugin/datasets/prompts/{path.name}" for path in prompts} <= names
    assert wheel.stat().st_size < 8e6


def test_a_source_distribution_builds_the_same_wheel(
    checkout: Path, wheel: Path, tmp_path: Path
) -> None:
    code = "import sys; from setuptools import build_meta; build_meta.build_sdist(sys.argv[1])"
    run(sys.executable, "-c", code, tmp_path, cwd=checkout)
    (archive,) = tmp_path.glob("*.tar.gz")
    with tarfile.open(archive) as tar:
        tar.extractall(tmp_path / "sdist", filter="data")
    (unpacked,) = (tmp_path / "sdist").iterdir()
    assert _names(build_wheel(unpacked, tmp_path / "wheel")) == _names(wheel)


def test_every_place_states_the_same_version(
    wheel: Path, metadata: dict[str, Any], project: dict[str, Any]
) -> None:
    assert metadata["version"] == __version__
    assert wheel.name.startswith(f"clipcleaner_fiftyone-{__version__}-")
    assert "version" in project["dynamic"]
    newest = re.search(r"^## (\S+)", (REPO_ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    assert newest is not None and newest.group(1) == __version__


def test_every_place_states_the_same_bounds(
    metadata: dict[str, Any], project: dict[str, Any]
) -> None:
    stated = {}
    for text in project["dependencies"]:
        requirement = Requirement(text)
        stated[requirement.name] = str(requirement.specifier).removeprefix(">=")
    assert doctor.LOWER_BOUNDS.items() <= stated.items()
    assert metadata["fiftyone"]["version"] == f">={stated['fiftyone']}"
    pythons = SpecifierSet(project["requires-python"])
    inside = [f"3.{minor}" for minor in range(20) if f"3.{minor}" in pythons]
    ends = [".".join(map(str, version)) for version in doctor.PYTHONS]
    assert [inside[0], inside[-1]] == ends


def test_tests_are_collected_whatever_the_folder_is_called(checkout: Path) -> None:
    """pytest may import the __init__.py of the root as a package without a parent."""
    tests = checkout / "tests"
    tests.mkdir()
    (tests / "conftest.py").write_text("")
    (tests / "test_one.py").write_text("def test_one():\n    pass\n")
    for mode in ("prepend", "importlib"):
        done = subprocess.run(
            [sys.executable, "-m", "pytest", "-q", f"--import-mode={mode}", "tests", "."],
            cwd=checkout,
            capture_output=True,
            text=True,
            timeout=600,
            check=False,
        )
        assert "1 passed" in done.stdout, done.stdout + done.stderr


def test_the_readme_shows_pictures_that_exist() -> None:
    text = (REPO_ROOT / "README.md").read_text()
    links = re.findall(r"\]\(((?!http|#)[^)]+)\)", text)
    assert links, "no picture, no link?"
    absent = [link for link in links if not (REPO_ROOT / link.split("#")[0]).exists()]
    assert absent == []
