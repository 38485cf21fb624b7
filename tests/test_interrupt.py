"""Embedding runs that are killed: nothing that was reported stored is lost, nothing is mixed up.

One server process imports everything once; each run is a fork of it in a process group of its own,
so that it dies with a ``kill -9`` and gets Ctrl-C as from a terminal, workers included. A run that
is to be stopped comes no further than a number of images: however late the signal, there is work
left.
"""

from __future__ import annotations

import contextlib
import os
import random
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from projection import make_images

from clipcleaner_plugin.embed import EmbeddingReport, embed_images
from clipcleaner_plugin.models import TINY_CLIP, load_model, model_identity
from clipcleaner_plugin.store import EmbeddingStore

IDENTITY = model_identity(TINY_CLIP)
COUNT, BATCH = 900, 10
KILLS, BETWEEN_KILLS = 20, 40
INTERRUPTS, BETWEEN_INTERRUPTS = 3, 100
NO_LIMIT = COUNT + 1

SERVER = """
    import os, signal, sys, time, traceback
    from pathlib import Path
    import torch
    from clipcleaner_plugin.embed import embed_images
    from clipcleaner_plugin.models import TINY_CLIP, load_model
    from clipcleaner_plugin.store import EmbeddingStore

    torch.set_num_threads(1)
    model = load_model(TINY_CLIP, device="cpu")

    def run(root, log, workers, limit, paths):
        os.setsid()
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # the progress bar
        signal.signal(signal.SIGINT, signal.default_int_handler)
        store = EmbeddingStore("d", model.identity, root)

        def report(bar):
            os.write(log, b"stored %d\\n" % bar.iteration)
            while bar.iteration >= limit:
                time.sleep(0.02)  # one long sleep may miss a signal that comes just before it

        os.write(log, b"start\\n")
        ids = ["id" + Path(path).stem for path in paths]
        embed_images(
            ids, paths, model, store,
            batch_size=10, num_workers=workers, progress=report,
        )
        os.write(log, b"done\\n")

    paths = sorted(str(path) for path in Path(sys.argv[1]).iterdir())
    print("ready", flush=True)
    for line in sys.stdin:
        root, log, workers, limit = line.split()
        pid = os.fork()
        if pid == 0:
            descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
            try:
                run(root, descriptor, int(workers), int(limit), paths)
            except BaseException as err:
                os.write(descriptor, f"raised {type(err).__name__}\\n".encode())
                os.write(2, traceback.format_exc().encode())
            finally:
                os._exit(0)
        print(pid, flush=True)
        _, status = os.waitpid(pid, 0)
        print("killed" if os.WIFSIGNALED(status) else "ended", flush=True)
"""


class Server:
    """Runs embedding jobs in forks of a process that has imported everything."""

    def __init__(self, images: Path, tests: Path, scratch: Path) -> None:
        path = os.pathsep.join([str(tests.parent), str(tests)])
        self._errors = (scratch / "stderr").open("w+")
        self._process = subprocess.Popen(
            [sys.executable, "-c", textwrap.dedent(SERVER), str(images)],
            env={**os.environ, "FIFTYONE_DISABLE_SERVICES": "1", "PYTHONPATH": path},
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._errors, text=True,
        )  # fmt: skip
        assert self._answer() == "ready"

    def _answer(self) -> str:
        assert self._process.stdout is not None
        return self._process.stdout.readline().strip()

    def start(self, root: Path, log: Path, workers: int, limit: int) -> int:
        assert self._process.stdin is not None
        self._process.stdin.write(f"{root} {log} {workers} {limit}\n")
        self._process.stdin.flush()
        return int(self._answer())

    def wait(self) -> str:
        return self._answer()

    def errors(self) -> str:
        self._errors.seek(0)
        return self._errors.read()

    def close(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait(20)
        self._errors.close()


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    """As in the server: the last bit of a product depends on the number of threads."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[str], list[str]]:
    folder = tmp_path_factory.mktemp("images")
    return folder, *make_images(folder, COUNT)


@pytest.fixture(scope="module")
def server(
    images: tuple[Path, list[str], list[str]],
    repo_root: Path,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Server]:
    scratch = tmp_path_factory.mktemp("server")
    server = Server(images[0], repo_root / "tests", scratch)
    yield server
    server.close()


@pytest.fixture(scope="module")
def uninterrupted(
    images: tuple[Path, list[str], list[str]], tmp_path_factory: pytest.TempPathFactory
) -> np.ndarray:
    """(900, d) the vectors of a run that nothing disturbed."""
    _, ids, paths = images
    store = EmbeddingStore("d", IDENTITY, tmp_path_factory.mktemp("whole"))
    embed(ids, paths, store)
    return store.read(ids)


def embed(ids: list[str], paths: list[str], store: EmbeddingStore) -> EmbeddingReport:
    """A run in this process that nothing disturbs."""
    model = load_model(TINY_CLIP, device="cpu")
    return embed_images(ids, paths, model, store, batch_size=BATCH, num_workers=0, progress=False)


def reported(log: Path) -> int:
    """How many images the log of a run calls stored."""
    lines = log.read_text().split("\n") if log.exists() else []
    return max([0, *(int(line.split()[1]) for line in lines[:-1] if line.startswith("stored"))])


def wait_for(log: Path, count: int) -> None:
    deadline = time.monotonic() + 300
    while reported(log) < count:
        assert time.monotonic() < deadline, log.read_text()
        time.sleep(0.002)


def wait_until_empty(group: int) -> None:
    """Waits until no process of a group is left."""
    deadline = time.monotonic() + 300
    while members(group):
        assert time.monotonic() < deadline, f"processes of group {group} live on: {members(group)}"
        time.sleep(0.05)


def members(group: int) -> list[int]:
    """The processes of a group, but not dead ones that nobody has collected (as in a container)."""
    found = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            state, _, process_group = path.read_text().rpartition(")")[2].split()[:3]
            if int(process_group) == group and state not in "ZX":
                found.append(int(path.parent.name))
    return found


def check_prefix(
    root: Path, stored: int, images: tuple[Path, list[str], list[str]], uninterrupted: np.ndarray
) -> tuple[EmbeddingStore, int]:
    """What is stored is right, and all that was reported; returns the store and how many it has."""
    ids = images[1]
    store = EmbeddingStore("d", IDENTITY, root)
    present = len(store)
    assert present >= stored
    # a prefix, so work goes on where it stopped
    assert store.stamps().keys() == set(ids[:present])
    if present:
        np.testing.assert_array_equal(store.read(ids[:present]), uninterrupted[:present])
    return store, present


def check_and_finish(
    root: Path, stored: int, images: tuple[Path, list[str], list[str]], uninterrupted: np.ndarray
) -> None:
    """What is stored is right and all that was reported; a last run computes exactly the rest."""
    _, ids, paths = images
    store, present = check_prefix(root, stored, images, uninterrupted)
    report = embed(ids, paths, store)

    assert report.reused == present
    assert report.computed_ids == tuple(ids[present:])
    assert report.failures == {}
    assert store.read(ids).tobytes() == uninterrupted.tobytes()


def test_kill_9_again_and_again(
    server: Server,
    images: tuple[Path, list[str], list[str]],
    uninterrupted: np.ndarray,
    tmp_path: Path,
) -> None:
    assert KILLS * BETWEEN_KILLS < COUNT
    rng = random.Random(20)
    stored = 0
    groups = []
    for attempt in range(KILLS):
        log = tmp_path / f"log{attempt}"
        groups.append(server.start(tmp_path / "store", log, 2 * (attempt % 2), BETWEEN_KILLS))
        wait_for(log, BATCH)
        time.sleep(rng.uniform(0, 0.03))  # into a batch: decoding, encoding or writing
        os.kill(groups[-1], signal.SIGKILL)
        assert server.wait() == "killed"
        stored += reported(log)
        check_prefix(tmp_path / "store", stored, images, uninterrupted)
    assert stored >= KILLS * BATCH
    check_and_finish(tmp_path / "store", stored, images, uninterrupted)
    for group in groups:
        wait_until_empty(group)  # orphaned workers notice by themselves


@pytest.mark.parametrize("workers", [0, 2])
def test_ctrl_c(
    server: Server,
    images: tuple[Path, list[str], list[str]],
    uninterrupted: np.ndarray,
    tmp_path: Path,
    workers: int,
) -> None:
    rng = random.Random(workers)
    stored = 0
    before = len(server.errors())
    for attempt in range(INTERRUPTS):
        log = tmp_path / f"log{attempt}"
        group = server.start(tmp_path / "store", log, workers, BETWEEN_INTERRUPTS)
        wait_for(log, BATCH * rng.randint(1, 4))
        time.sleep(rng.uniform(0, 0.02))
        os.killpg(group, signal.SIGINT)
        assert server.wait() == "ended"
        wait_until_empty(group)
        assert log.read_text().endswith("raised KeyboardInterrupt\n"), server.errors()
        stored += reported(log)
    # only the main process of each run reports it: workers do not complain
    assert server.errors()[before:].count("\nKeyboardInterrupt") == INTERRUPTS
    check_and_finish(tmp_path / "store", stored, images, uninterrupted)


def test_ctrl_c_at_the_start(
    server: Server,
    images: tuple[Path, list[str], list[str]],
    uninterrupted: np.ndarray,
    tmp_path: Path,
) -> None:
    """While the workers start: an interrupt in the middle of a fork is easily lost."""
    stored = 0
    for delay in (0.0, 0.03, 0.06):
        log = tmp_path / f"log{delay}"
        group = server.start(tmp_path / "store", log, 2, BETWEEN_INTERRUPTS)
        deadline = time.monotonic() + 300
        while not log.exists() or "start" not in log.read_text():
            assert time.monotonic() < deadline
            time.sleep(0.001)
        time.sleep(delay)
        os.killpg(group, signal.SIGINT)
        assert server.wait() == "ended"
        wait_until_empty(group)
        assert log.read_text().endswith("raised KeyboardInterrupt\n"), server.errors()
        stored += reported(log)
    check_and_finish(tmp_path / "store", stored, images, uninterrupted)


def test_two_runs_at_once(
    server: Server,
    images: tuple[Path, list[str], list[str]],
    uninterrupted: np.ndarray,
    tmp_path: Path,
) -> None:
    """Both do the whole work into one store; every vector is right."""
    log = tmp_path / "log"
    server.start(tmp_path / "store", log, 0, NO_LIMIT)
    wait_for(log, BATCH)
    _, ids, paths = images
    store = EmbeddingStore("d", IDENTITY, tmp_path / "store")
    report = embed(ids, paths, store)
    assert server.wait() == "ended"
    assert log.read_text().endswith("done\n"), server.errors()
    assert report.reused >= BATCH and report.computed + report.reused == COUNT
    check_and_finish(tmp_path / "store", COUNT, images, uninterrupted)
