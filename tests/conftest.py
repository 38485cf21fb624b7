"""Runs every test against a FiftyOne of its own: database server, plugins folder, data, stores.

Two FiftyOne processes of one user share a running database service whatever FIFTYONE_DATABASE_DIR
says, so an App that is open elsewhere would hand its real database to the tests. A private
``mongod`` behind FIFTYONE_DATABASE_URI avoids that; every process that a test starts inherits it.
"""

from __future__ import annotations

import atexit
import contextlib
import importlib.util
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import hypothesis
import pytest
from app_browser import need_chromium
from ports import free_port

if TYPE_CHECKING:
    import fiftyone as fo

pytest_plugins = ["shared_fixtures"]

REPO_ROOT = Path(__file__).resolve().parent.parent
SHARED_DATA = REPO_ROOT.parent / "shared" / "data"


def _bundled_mongod() -> Path | None:
    """The mongod in FiftyOne's package; not imported, because its config is read at import."""
    spec = importlib.util.find_spec("fiftyone")
    for folder in (spec and spec.submodule_search_locations) or ():
        candidate = Path(folder) / "db" / "bin" / "mongod"
        if os.access(candidate, os.X_OK):
            return candidate
    return None


def _die_with_parent() -> None:
    """Linux: the kernel ends the server even where the test process is killed outright."""
    import ctypes

    ctypes.CDLL(None).prctl(1, 15)  # PR_SET_PDEATHSIG, SIGTERM


def _start_mongod(binary: Path, root: Path) -> tuple[subprocess.Popen[bytes], str]:
    port = free_port()
    (root / "db").mkdir()
    log = root / "mongod.log"
    proc = subprocess.Popen(
        [
            *(str(binary), "--dbpath", str(root / "db"), "--logpath", str(log)),
            *("--bind_ip", "127.0.0.1", "--port", str(port), "--nounixsocket"),
            *("--wiredTigerCacheSizeGB", "0.5"),
        ],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        # A Ctrl-C must reach the tests only: they still talk to the database while they clean up.
        start_new_session=True,
        preexec_fn=_die_with_parent if sys.platform == "linux" else None,
    )
    deadline = time.monotonic() + 300
    while time.monotonic() < deadline and proc.poll() is None:
        # Not by connecting: another server may have been quicker to take the port
        if log.exists() and '"Waiting for connections"' in log.read_text(errors="replace"):
            return proc, f"mongodb://127.0.0.1:{port}"
        time.sleep(0.05)
    proc.kill()
    tail = log.read_text(errors="replace")[-2000:] if log.exists() else "(no log)"
    raise RuntimeError(f"The test database did not start: {binary} on port {port}. Log: {tail}")


def _drop_database(uri: str, name: str) -> None:
    import pymongo

    with contextlib.suppress(Exception):
        pymongo.MongoClient(uri, serverSelectionTimeoutMS=2000).drop_database(name)


def _isolate() -> None:
    """Points this process at throw-away folders and a database, before it imports FiftyOne."""
    root = Path(tempfile.mkdtemp(prefix="clipcleaner-tests-"))
    atexit.register(shutil.rmtree, root, ignore_errors=True)
    own_uri = os.environ.pop("FIFTYONE_DATABASE_URI", None)
    for name in [n for n in os.environ if n.startswith(("FIFTYONE_", "CLIPCLEANER_"))]:
        del os.environ[name]
    (root / "plugins").mkdir()
    os.environ.update(
        {
            "FIFTYONE_DATABASE_DIR": str(root / "db"),
            "FIFTYONE_DEFAULT_DATASET_DIR": str(root / "datasets"),
            "FIFTYONE_DATASET_ZOO_DIR": str(root / "datasets"),
            "FIFTYONE_MODEL_ZOO_DIR": str(root / "models"),
            "FIFTYONE_PLUGINS_DIR": str(root / "plugins"),
            "FIFTYONE_CONFIG_PATH": str(root / "config.json"),
            "FIFTYONE_APP_CONFIG_PATH": str(root / "app_config.json"),
            "FIFTYONE_DO_NOT_TRACK": "1",
            "FIFTYONE_ALLOW_LEGACY_ORCHESTRATORS": "true",
            "CLIPCLEANER_STORE_DIR": str(root / "embeddings"),
            # No test needs the network: a hub must fail at once, not after a minute.
            "HF_HUB_OFFLINE": "1",
            # Products of matrices are the same bits each time, in every process; and the tiny ones
            # of the tests are slower on several threads.
            "OMP_NUM_THREADS": "1",
        }
    )
    binary = _bundled_mongod()
    if binary is not None:
        proc, uri = _start_mongod(binary, root)
        atexit.register(proc.wait, 20)
        atexit.register(proc.terminate)
    elif own_uri:
        uri, name = own_uri, f"clipcleaner-tests-{uuid.uuid4().hex[:12]}"
        os.environ["FIFTYONE_DATABASE_NAME"] = name
        atexit.register(_drop_database, uri, name)
    else:
        raise RuntimeError("No database: run `make setup`, or set FIFTYONE_DATABASE_URI")
    os.environ["FIFTYONE_DATABASE_URI"] = uri


# In the background of a shell script SIGINT is ignored, and processes started here would inherit it
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

# How long an example takes is a matter of the machine
hypothesis.settings.register_profile(
    "tests", deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow]
)
hypothesis.settings.load_profile("tests")


def pytest_configure(config: pytest.Config) -> None:
    distributes = config.getoption("numprocesses", None) and not hasattr(config, "workerinput")
    if not distributes:  # each worker of pytest-xdist has a database of its own
        _isolate()


@pytest.fixture(scope="session")
def repo_root() -> Path:
    """The checkout that the tests belong to."""
    return REPO_ROOT


@pytest.fixture
def dataset() -> Iterator[Callable[..., fo.Dataset]]:
    """``dataset(samples=None, persistent=False)`` makes datasets that go after the test."""
    import fiftyone as fo

    made: list[str] = []

    def make(samples: list[fo.Sample] | None = None, persistent: bool = False) -> fo.Dataset:
        name = f"test-{uuid.uuid4().hex[:12]}"
        made.append(name)
        created = fo.Dataset(name, persistent=persistent)
        if samples:
            created.add_samples(samples, progress=False)
        return created

    yield make
    for name in made:
        if fo.dataset_exists(name):
            fo.delete_dataset(name)


@pytest.fixture(scope="session")
def chromium() -> str:
    """Path of a Chromium or Chrome, or $CHROMIUM; without one the test cannot be run."""
    return need_chromium()


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder with real photos and features beside the checkout; skips where it is absent."""
    if not SHARED_DATA.is_dir():
        pytest.skip("no real data: the folder ../shared/data beside the checkout is absent")
    return SHARED_DATA
