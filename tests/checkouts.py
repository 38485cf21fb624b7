"""Copies of the project, wheels built from them, and virtual environments to install them into."""

from __future__ import annotations

import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

REPO_ROOT = Path(__file__).resolve().parent.parent
SHIPPED = (
    *("pyproject.toml", "README.md", "LICENSE", "fiftyone.yml", "__init__.py"),
    *("assets", "operators", "training", "clipcleaner_plugin"),
)


def copy_checkout(folder: Path) -> Path:
    """Copies what a build needs to ``folder``, so that it leaves nothing in the real checkout."""
    ignore = shutil.ignore_patterns("__pycache__", "*.egg-info")
    folder.mkdir(parents=True)
    for name in SHIPPED:
        if (REPO_ROOT / name).is_dir():
            shutil.copytree(REPO_ROOT / name, folder / name, ignore=ignore)
        else:
            shutil.copy2(REPO_ROOT / name, folder / name)
    return folder


def run(*command: str | Path, **options: object) -> subprocess.CompletedProcess[str]:
    """Runs a program and returns what it printed; a failure fails the test with its output."""
    done: subprocess.CompletedProcess[str] = subprocess.run(
        [str(c) for c in command],
        **{"capture_output": True, "text": True, "timeout": 600, **options},  # type: ignore[call-overload]
    )
    assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
    return done


def build_wheel(checkout: Path, folder: Path) -> Path:
    """Builds the wheel of a checkout with the build tools of this environment: no network."""
    options = ("--no-deps", "--no-build-isolation", "--no-index", "-q", "-w", folder)
    run(sys.executable, "-m", "pip", "wheel", *options, checkout)
    (wheel,) = folder.glob("*.whl")
    return wheel


def make_environment(folder: Path) -> Path:
    """Makes a virtual environment that sees the installed libraries, but not this project.

    Returns:
        its Python
    """
    run(sys.executable, "-m", "venv", "--without-pip", folder)
    site = next((folder / "lib").iterdir()) / "site-packages"
    libraries = dict.fromkeys((sysconfig.get_path("purelib"), sysconfig.get_path("platlib")))
    # A .pth file adds folders without reading the .pth files in them: an editable installation
    # of this project stays out
    (site / "libraries.pth").write_text("\n".join(libraries) + "\n")
    # But FiftyOne needs setuptools' own: it stands in for distutils, which Python 3.12 dropped
    for library in libraries:
        for shim in Path(library).glob("distutils-precedence.pth"):
            shutil.copy2(shim, site)
    return folder / "bin" / "python"


def pip_install(python: Path, *what: str | Path) -> None:
    """Installs into an environment of :func:`make_environment` without touching anything else."""
    # --ignore-installed: never take the project in the libraries' folder for this one
    options = ("--no-deps", "--no-build-isolation", "--no-index", "--ignore-installed", "-q")
    run(python, "-m", "pip", "install", *options, *what)
