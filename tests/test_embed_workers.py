"""Processes that decode images: how many, and that the user's process is left alone."""

from __future__ import annotations

import multiprocessing
import subprocess
import sys
import textwrap
import traceback
from pathlib import Path

import pytest
import torch
from projection import COUNT, IDENTITY, Projection, ShrinkToTensor, embed_quietly

from clipcleaner_plugin import loader
from clipcleaner_plugin.store import EmbeddingStore


@pytest.fixture
def store(tmp_path: Path) -> EmbeddingStore:
    return EmbeddingStore("dataset", IDENTITY, tmp_path / "store")


def test_number_of_workers(monkeypatch: pytest.MonkeyPatch) -> None:
    def choose(requested: int | None, batches: int) -> int:
        return loader.choose_num_workers(requested, batches, 4, ShrinkToTensor())

    monkeypatch.setattr(loader, "_cpus", lambda: 4)
    assert [choose(None, b) for b in (1, 2, 3, 4, 100)] == [0, 2, 3, 4, 4]
    assert [choose(2, b) for b in (1, 2, 100)] == [1, 2, 2]
    assert choose(0, 100) == 0
    monkeypatch.setattr(loader, "_cpus", lambda: 64)
    assert choose(None, 1000) == 8
    monkeypatch.setattr(loader, "_forking", lambda: False)
    assert (choose(None, 100), choose(3, 100)) == (0, 3)


def test_little_shared_memory_means_few_workers(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    batch_bytes = 3 * 12 * 12 * 4 * 32
    for batches_that_fit, workers in ((0, 0), (2, 0), (3, 1), (8, 2), (300, 4)):
        monkeypatch.setattr(loader, "_shared_memory", lambda n=batches_that_fit: n * batch_bytes)
        caplog.clear()
        assert loader.choose_num_workers(4, 100, 32, ShrinkToTensor()) == workers
        assert ("--shm-size" in caplog.text) is (workers < 4)


def test_the_random_state_of_the_user_is_left_alone(
    images: tuple[list[str], list[str]], store: EmbeddingStore
) -> None:
    torch.manual_seed(7)
    expected = torch.rand(3)
    torch.manual_seed(7)
    embed_quietly(*images, Projection(), store, num_workers=1, batch_size=16)
    assert torch.equal(torch.rand(3), expected)


def _embed_in_child(images: tuple[list[str], list[str]], root: Path, log: Path) -> None:
    try:
        torch.set_num_threads(1)
        store = EmbeddingStore("d", IDENTITY, root)
        embed_quietly(*images, Projection(), store, num_workers=2, batch_size=8)
        assert len(store) == COUNT
        log.write_text("fine")
    except BaseException:
        log.write_text(traceback.format_exc())


def test_a_daemonic_process_decodes_by_itself(
    images: tuple[list[str], list[str]], tmp_path: Path
) -> None:
    process = multiprocessing.get_context("fork").Process(
        target=_embed_in_child, args=(images, tmp_path / "s", tmp_path / "log"), daemon=True
    )
    process.start()
    process.join()
    assert (tmp_path / "log").read_text() == "fine"


SPAWN = """
    import importlib.util, multiprocessing, os, sys

    def plugin_only():
        # as the root __init__.py of the plugin does: no path leads to the package
        init = os.path.join(sys.argv[1], "clipcleaner_plugin", "__init__.py")
        spec = importlib.util.spec_from_file_location("clipcleaner_plugin", init)
        module = importlib.util.module_from_spec(spec)
        sys.modules["clipcleaner_plugin"] = module
        spec.loader.exec_module(module)

    if __name__ == "__main__":
        # this process needs no database either
        os.environ["FIFTYONE_DISABLE_SERVICES"] = "1"
        del os.environ["FIFTYONE_DATABASE_URI"]
        try:
            import clipcleaner_plugin
        except ModuleNotFoundError:
            plugin_only()
        # a worker that asked for this database would wait, and fail
        os.environ["FIFTYONE_DATABASE_URI"] = "mongodb://127.0.0.1:9"
        del os.environ["FIFTYONE_DISABLE_SERVICES"]
        multiprocessing.set_start_method("spawn")
        sys.path.append(sys.argv[2])
        from projection import IDENTITY, Projection, make_images
        from pathlib import Path
        from clipcleaner_plugin.embed import embed_images
        from clipcleaner_plugin.store import EmbeddingStore
        ids, paths = make_images(Path("images"), 12)
        Path(paths[5]).write_text("no image")
        path = list(sys.path)
        store = EmbeddingStore("d", IDENTITY, "store")
        report = embed_images(
            ids, paths, Projection(), store, num_workers=1, batch_size=4, progress=False
        )
        assert os.environ["FIFTYONE_DATABASE_URI"].endswith(":9") and sys.path == path
        assert "FIFTYONE_DISABLE_SERVICES" not in os.environ
        assert report.failures.keys() == {ids[5]}, report
        print("computed", report.computed)
"""


def test_spawned_workers_need_neither_database_nor_installation(
    tmp_path: Path, repo_root: Path
) -> None:
    script = tmp_path / "spawn.py"
    script.write_text(textwrap.dedent(SPAWN))
    done = subprocess.run(
        [sys.executable, str(script), str(repo_root), str(repo_root / "tests")],
        cwd=tmp_path, capture_output=True, text=True, timeout=600,
    )  # fmt: skip
    assert done.stdout.splitlines()[-1:] == ["computed 11"], done.stderr
