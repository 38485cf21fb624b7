"""Makes a virtual environment with pip, also where Python came without the means to do so.

Debian and Ubuntu split ``ensurepip`` (package python3-venv) and pip off their Python. This program
then takes pip from a package index by itself: PIP_INDEX_URL, else pypi.org. Standard library only.

    python3 tools/make_venv.py .venv
"""

from __future__ import annotations

import hashlib
import html
import os
import re
import subprocess
import sys
import tempfile
import urllib.parse
import urllib.request
from pathlib import Path

OLDEST, NEWEST = (3, 10), (3, 12)
PYPI = "https://pypi.org/simple"


class SetupError(RuntimeError):
    """The environment cannot be made; the text says why and what to do."""


def make_venv(folder: Path) -> None:
    """Makes ``folder`` a virtual environment with a pip that runs; an existing one is kept.

    Args:
        folder: where; what an interrupted call left undone is finished

    Raises:
        SetupError: if this Python is of the wrong version, or no pip can be had
    """
    if not OLDEST <= sys.version_info[:2] <= NEWEST:
        wanted = " to ".join(".".join(map(str, v)) for v in (OLDEST, NEWEST))
        found = ".".join(map(str, sys.version_info[:2]))
        raise SetupError(
            f"Python {wanted} is needed and {sys.executable} is {found}: "
            "name another one, as in `make setup PYTHON=python3.11`"
        )
    python = _python(folder)
    if not _run(python, "--version"):
        # A broken environment, say of a Python that is gone, is emptied; anything else never is
        clear = ["--clear"] if (folder / "pyvenv.cfg").exists() else []
        if not _run(sys.executable, "-m", "venv", "--without-pip", *clear, folder):
            raise SetupError(f"{sys.executable} cannot make virtual environments: {_advice()}")
    if _has_pip(python) or (_run(python, "-m", "ensurepip") and _has_pip(python)):
        return
    with tempfile.TemporaryDirectory() as scratch:
        try:
            wheel = _fetch_pip(Path(scratch))
        except (OSError, ValueError) as e:
            raise SetupError(f"No pip for the virtual environment ({e}): {_advice()}") from e
        # A wheel is a zip file that Python runs from: pip installs itself
        _run(python, wheel / "pip", "install", "--quiet", wheel)
    if not _has_pip(python):
        raise SetupError(f"pip could not be installed into {folder}: {_advice()}")


def _fetch_pip(folder: Path) -> Path:
    """Downloads pip's wheel: with the pip of this Python, else by hand."""
    _run(sys.executable, "-m", "pip", "download", "-q", "--no-deps", "-d", folder, "pip")
    found = sorted(folder.glob("pip-*-py3-none-any.whl"))
    if found:
        return found[-1]
    index = os.environ.get("PIP_INDEX_URL", PYPI).rstrip("/") + "/pip/"
    with urllib.request.urlopen(index, timeout=60) as page:
        url, sha256 = newest_wheel(page.read().decode(), page.geturl())
    with urllib.request.urlopen(url, timeout=60) as answer:
        content = answer.read()
    if sha256 and hashlib.sha256(content).hexdigest() != sha256:
        raise ValueError(f"what {url} sent does not have the checksum that the index states")
    wheel = folder / Path(urllib.parse.urlsplit(url).path).name
    wheel.write_bytes(content)
    return wheel


def newest_wheel(page: str, base: str) -> tuple[str, str | None]:
    """Finds the newest release of pip for this Python on a page of a package index (PEP 503).

    Args:
        page: the HTML
        base: its address, which relative links start from

    Returns:
        a tuple of the wheel's address and its SHA-256 (None where the page states none)

    Raises:
        ValueError: if the page lists no such wheel
    """
    wheels = []
    for tag in re.findall(r"<a\s[^>]*>", page):
        href = re.search(r'href="([^"]+)"', tag)
        link = html.unescape(href.group(1)) if href else ""
        # Releases have plain numbers; the others are pre-releases. Yanked ones are marked
        name = re.search(r"/?pip-(\d+(?:\.\d+)*)-py3-none-any\.whl(?:#|$)", link)
        if name and "data-yanked" not in tag and _supports_this_python(tag):
            wheels.append((tuple(map(int, name.group(1).split("."))), link))
    if not wheels:
        raise ValueError(f"{base} lists no wheel of pip")
    link, _, fragment = urllib.parse.urljoin(base, max(wheels)[1]).partition("#")
    return link, fragment[7:] if fragment.startswith("sha256=") else None


def _supports_this_python(tag: str) -> bool:
    needs = re.search(r'data-requires-python="&gt;=\s*(\d+)\.(\d+)', tag)
    return not needs or sys.version_info[:2] >= (int(needs.group(1)), int(needs.group(2)))


def _advice() -> str:
    version = ".".join(map(str, sys.version_info[:2]))
    return f"install Python's venv (Debian, Ubuntu: apt-get install python{version}-venv) and retry"


def _python(folder: Path) -> Path:
    return folder / ("Scripts/python.exe" if os.name == "nt" else "bin/python")


def _has_pip(python: Path) -> bool:
    return _run(python, "-m", "pip", "--version")


def _run(*command: str | Path) -> bool:
    try:
        return subprocess.run(command, capture_output=True, check=False).returncode == 0
    except OSError:
        return False


if __name__ == "__main__":
    try:
        make_venv(Path(sys.argv[1]))
    except SetupError as error:
        sys.exit(str(error))
