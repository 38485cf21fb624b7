"""Virtual environments on machines whose Python has neither ensurepip nor pip."""

from __future__ import annotations

import functools
import hashlib
import http.server
import os
import shutil
import subprocess
import sys
import sysconfig
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tools"))
import make_venv


@pytest.fixture
def bare_python(tmp_path: Path) -> Path:
    """A Python like Debian's without python3-venv and python3-pip: links to this one's library."""
    stdlib = Path(sysconfig.get_path("stdlib"))
    lib = tmp_path / "bare" / "lib" / stdlib.name
    lib.mkdir(parents=True)
    for entry in stdlib.iterdir():
        if entry.name not in ("ensurepip", "site-packages", "dist-packages"):
            (lib / entry.name).symlink_to(entry)
    python = tmp_path / "bare" / "bin" / "python3"
    python.parent.mkdir()
    shutil.copy2(os.path.realpath(sys.executable), python)
    return python


@pytest.fixture
def index(tmp_path: Path) -> Iterator[str]:
    """A package index that has nothing but the pip that came with this Python."""
    ensurepip = pytest.importorskip("ensurepip")
    places = (Path(ensurepip.__file__).parent / "_bundled", Path("/usr/share/python-wheels"))
    wheel = next((w for p in places for w in p.glob("pip-*-py3-none-any.whl")), None)
    if wheel is None:
        pytest.skip("this Python brings no pip wheel along")
    page = tmp_path / "index" / "simple" / "pip" / "index.html"
    page.parent.mkdir(parents=True)
    shutil.copy2(wheel, page.parent)
    digest = hashlib.sha256(wheel.read_bytes()).hexdigest()
    page.write_text(f'<html><a href="{wheel.name}#sha256={digest}">{wheel.name}</a></html>')
    handler = functools.partial(
        http.server.SimpleHTTPRequestHandler, directory=str(tmp_path / "index")
    )
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}/simple"
    server.shutdown()
    server.server_close()


def _make(python: Path, folder: Path, index: str) -> subprocess.CompletedProcess[str]:
    env = {k: v for k, v in os.environ.items() if not k.startswith(("PIP_", "PYTHON"))}
    env |= {"PIP_INDEX_URL": index, "PIP_CONFIG_FILE": os.devnull, "no_proxy": "127.0.0.1"}
    return subprocess.run(
        [str(python), make_venv.__file__, str(folder)],
        env=env,
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )


def test_pip_comes_from_the_index_where_python_has_none(
    bare_python: Path, index: str, tmp_path: Path
) -> None:
    folder = tmp_path / "venv"
    done = _make(bare_python, folder, index)
    assert done.returncode == 0, done.stderr
    python = str(folder / "bin" / "python")
    installed = subprocess.run([python, "-m", "pip", "list"], capture_output=True, text=True)
    assert installed.returncode == 0, installed.stderr
    prefix = subprocess.run(
        [python, "-c", "import sys, pip; print(sys.prefix, pip.__file__)"],
        capture_output=True,
        text=True,
    )
    assert prefix.stdout.count(str(folder)) == 2

    marker = folder / "mine"
    marker.touch()
    assert _make(bare_python, folder, "http://127.0.0.1:9/simple").returncode == 0
    assert marker.exists(), "an environment that works is kept"


def test_one_sentence_says_what_to_install_where_no_index_answers(
    bare_python: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "venv"
    done = _make(bare_python, folder, "http://127.0.0.1:9/simple")
    assert done.returncode == 1
    assert len(done.stderr.splitlines()) == 1, done.stderr
    assert "apt-get install python3." in done.stderr


def test_what_an_interrupted_call_left_is_finished_and_a_dead_python_replaced(
    tmp_path: Path,
) -> None:
    folder = tmp_path / "venv"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(folder)], check=True)
    make_venv.make_venv(folder)
    python = folder / "bin" / "python"
    assert subprocess.run([python, "-m", "pip", "--version"], capture_output=True).returncode == 0

    for link in (folder / "bin").glob("python*"):
        link.unlink()
    python.symlink_to(tmp_path / "gone")
    make_venv.make_venv(folder)
    assert subprocess.run([python, "-m", "pip", "--version"], capture_output=True).returncode == 0


def test_a_folder_that_is_no_environment_loses_nothing(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("years of work")
    make_venv.make_venv(tmp_path)
    assert (tmp_path / "thesis.tex").read_text() == "years of work"


def test_a_python_of_the_wrong_version_is_named(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(sys, "version_info", (3, 9, 2))
    with pytest.raises(make_venv.SetupError, match=r"Python 3\.10 to 3\.12 is needed .* is 3\.9"):
        make_venv.make_venv(tmp_path / "venv")
    assert not (tmp_path / "venv").exists()


def test_newest_wheel_leaves_out_pre_releases_yanked_ones_and_other_pythons() -> None:
    page = """
    <a href="/w/pip-9.0.3-py3-none-any.whl#sha256=aa">old</a>
    <a href="/w/pip-24.0-py3-none-any.whl#sha256=bb" data-requires-python="&gt;=3.7">good</a>
    <a href="/w/pip-25.0b1-py3-none-any.whl#sha256=cc">beta</a>
    <a href="/w/pip-26.0-py3-none-any.whl#sha256=dd" data-yanked="bad">yanked</a>
    <a href="/w/pip-27.0-py3-none-any.whl#sha256=ee" data-requires-python="&gt;=3.99">future</a>
    <a href="/w/pip-28.0.tar.gz#sha256=ff">source</a>
    """
    url, sha256 = make_venv.newest_wheel(page, "https://example.org/simple/pip/")
    assert url == "https://example.org/w/pip-24.0-py3-none-any.whl"
    assert sha256 == "bb"


def test_an_index_without_pip_is_named() -> None:
    with pytest.raises(ValueError, match=r"example\.org/simple/pip/ lists no wheel of pip"):
        make_venv.newest_wheel("<html></html>", "https://example.org/simple/pip/")
