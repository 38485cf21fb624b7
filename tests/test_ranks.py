"""Embedding by several processes: the same vectors as by one, and a dead process costs nothing."""

from __future__ import annotations

import multiprocessing
import os
import shutil
import subprocess
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import fiftyone as fo
import fiftyone.core.utils as fou
import numpy as np
import pytest
import torch
from midway import wait_at
from ports import free_port
from projection import make_images

from clipcleaner_plugin import ranks as ranks_module
from clipcleaner_plugin.embed import EmbeddingReport, embed_images
from clipcleaner_plugin.embeddings import ModelSource, dataset_store
from clipcleaner_plugin.models import TINY_CLIP, model_identity
from clipcleaner_plugin.ranks import follow, joined, lead
from clipcleaner_plugin.store import EmbeddingStore

IDENTITY = model_identity(TINY_CLIP)
COUNT, BATCH = 75, 8


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> tuple[list[str], list[str]]:
    return make_images(tmp_path_factory.mktemp("images"), COUNT)


def source() -> ModelSource:
    return ModelSource(TINY_CLIP, None, None, "cpu")


def one_rank(
    rank: int,
    environment: dict[str, str],
    work: Callable[[], Any],
    answers: multiprocessing.SimpleQueue[Any],
) -> None:
    os.environ.update(environment, RANK=str(rank), LOCAL_RANK=str(rank))
    torch.set_num_threads(1)
    try:
        with joined() as ranks:
            if ranks is not None and ranks.rank > 0:
                follow(ranks)
                answers.put((rank, None))
            else:
                answers.put((rank, work(ranks)))  # type: ignore[call-arg]
    except BaseException:
        answers.put((rank, traceback.format_exc()))


def start_ranks(
    size: int, work: Callable[[Any], Any]
) -> tuple[list[multiprocessing.process.BaseProcess], Any]:
    """Runs ``work(ranks)`` in rank 0 and ``follow`` in the others, in forks of this process."""
    context = multiprocessing.get_context("fork")
    answers = context.SimpleQueue()
    environment = {
        **{"WORLD_SIZE": str(size), "LOCAL_WORLD_SIZE": str(size)},
        **{"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port())},
    }
    processes = [
        context.Process(target=one_rank, args=(rank, environment, work, answers))
        for rank in range(size)
    ]
    for process in processes:
        process.start()
    return list(processes), answers


def run_ranks(size: int, work: Callable[[Any], Any]) -> dict[int, Any]:
    """Returns what each rank answers."""
    processes, answers = start_ranks(size, work)
    found = dict(answers.get() for _ in processes)
    for process in processes:
        process.join()
    return found


def embed_with(
    size: int, images: tuple[list[str], list[str]], root: Path, **options: Any
) -> EmbeddingReport:
    store = EmbeddingStore("d", IDENTITY, root)
    options = {"batch_size": BATCH, "num_workers": 0, "progress": False, **options}
    found = run_ranks(size, lambda ranks: lead(ranks, *images, source(), store, **options))
    assert all(found[rank] is None for rank in range(1, size)), found
    report = found[0]
    assert isinstance(report, EmbeddingReport), report
    return report


@pytest.fixture(scope="module")
def alone(
    images: tuple[list[str], list[str]], tmp_path_factory: pytest.TempPathFactory
) -> np.ndarray:
    """(75, d) the vectors of a run by one process."""
    store = EmbeddingStore("d", IDENTITY, tmp_path_factory.mktemp("alone"))
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    embed_images(*images, source(), store, batch_size=BATCH, num_workers=0, progress=False)
    torch.set_num_threads(threads)
    return store.read(images[0])


@pytest.mark.parametrize("size", [2, 3])
def test_any_number_of_ranks_gives_the_same_bits(
    images: tuple[list[str], list[str]], alone: np.ndarray, tmp_path: Path, size: int
) -> None:
    report = embed_with(size, images, tmp_path)
    assert report.computed_ids == tuple(images[0])
    assert (report.reused, report.failures) == (0, {})
    store = EmbeddingStore("d", IDENTITY, tmp_path)
    assert store.read(images[0]).tobytes() == alone.tobytes()
    # every rank did its part, and none did another's
    lines = [len(p.read_text().splitlines()) for p in store.folder.glob("*.index")]
    assert len(lines) == size and sum(lines) == -(-COUNT // BATCH) and min(lines) >= 10 // size


def test_ranks_resume_what_one_process_began_and_the_other_way_round(
    images: tuple[list[str], list[str]], alone: np.ndarray, tmp_path: Path
) -> None:
    ids, paths = images
    store = EmbeddingStore("d", IDENTITY, tmp_path)
    embed_images(ids[:20], paths[:20], source(), store, batch_size=4, num_workers=0, progress=False)
    report = embed_with(2, (ids[:60], paths[:60]), tmp_path)
    assert (report.reused, report.computed_ids) == (20, tuple(ids[20:60]))
    report = embed_images(*images, source(), store, num_workers=0, progress=False)
    assert (report.reused, report.computed_ids) == (60, tuple(ids[60:]))
    np.testing.assert_allclose(store.read(ids), alone, atol=1e-6)


def test_nothing_to_do(images: tuple[list[str], list[str]], tmp_path: Path) -> None:
    embed_with(2, images, tmp_path)
    report = embed_with(2, images, tmp_path)
    assert (report.computed, report.reused) == (0, COUNT)


def test_more_ranks_than_batches(images: tuple[list[str], list[str]], tmp_path: Path) -> None:
    ids, paths = images
    report = embed_with(3, (ids[:5], paths[:5]), tmp_path)
    assert report.computed_ids == tuple(ids[:5])


def test_broken_files_of_all_ranks_are_reported_in_order(tmp_path: Path) -> None:
    ids, paths = make_images(tmp_path / "images", 40)
    for bad in (3, 12, 30):  # of batches 0, 1 and 3
        Path(paths[bad]).write_text("no image")
    os.remove(paths[20])
    report = embed_with(2, (ids, paths), tmp_path / "store")
    assert list(report.failures) == [ids[i] for i in (3, 12, 20, 30)]
    assert report.computed == 36


def test_an_error_of_any_rank_is_named(tmp_path: Path) -> None:
    ids, paths = make_images(tmp_path / "images", 20)
    Path(paths[9]).write_text("no image")  # batch 1, so rank 1
    store = EmbeddingStore("d", IDENTITY, tmp_path / "store")
    options = {"batch_size": BATCH, "num_workers": 0, "skip_failures": False, "progress": False}
    found = run_ranks(2, lambda ranks: lead(ranks, ids, paths, source(), store, **options))
    assert f"sample {ids[9]}: {paths[9]}: not an image" in found[1]
    assert "Error" in found[0]  # it waits for rank 1, and does not call the work done


def test_where_rank_0_fails_the_others_say_that_they_lost_it(tmp_path: Path) -> None:
    store = EmbeddingStore("d", IDENTITY, tmp_path)
    found = run_ranks(2, lambda ranks: lead(ranks, ["a", "a"], ["x", "y"], source(), store))
    assert "sample id 'a' occurs twice" in found[0]
    assert "rank 1 has lost the others" in found[1]


def leave_early(port: int) -> None:
    """Does what rank 0 does first, and ends as soon as rank 1 has asked it for something."""
    store = torch.distributed.TCPStore("127.0.0.1", port, 2, True, wait_for_workers=False)
    while store.num_keys() < 2:
        time.sleep(0.01)
    os._exit(0)


def test_rank_0_fails_while_the_others_join(monkeypatch: pytest.MonkeyPatch) -> None:
    variables = {"RANK": "1", "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1"}
    for name, value in {**variables, "MASTER_PORT": str(free_port())}.items():
        monkeypatch.setenv(name, value)
    rank_0 = multiprocessing.get_context("fork").Process(
        target=leave_early, args=(int(os.environ["MASTER_PORT"]),)
    )
    rank_0.start()
    with pytest.raises(RuntimeError, match="rank 1 has lost the others"), joined():
        pass
    rank_0.join()


def test_a_folder_that_is_not_shared_is_noticed(
    images: tuple[list[str], list[str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A machine whose disk holds something else under the same path."""
    monkeypatch.setattr(ranks_module, "_SECONDS_TO_SEE", 0.5)
    store = EmbeddingStore("d", IDENTITY, tmp_path / "mine")
    original = ranks_module.EmbeddingStore

    def elsewhere(dataset_id: str, identity: str, root: str) -> EmbeddingStore:
        return original(dataset_id, identity, tmp_path / "other disk")

    monkeypatch.setattr(ranks_module, "EmbeddingStore", elsewhere)
    found = run_ranks(2, lambda ranks: lead(ranks, *images, source(), store, batch_size=BATCH))
    assert "rank 1 on " in found[1] and "does not see" in found[1]
    assert "CLIPCLEANER_STORE_DIR" in found[1]


def test_stores_of_machines_without_a_common_disk_are_merged_by_copying(
    images: tuple[list[str], list[str]], alone: np.ndarray, tmp_path: Path
) -> None:
    """What docs/scaling.md tells those to do that have no shared folder."""
    ids, paths = images
    for root, part in (("a", slice(0, 40)), ("b", slice(40, None))):
        store = EmbeddingStore("d", IDENTITY, tmp_path / root)
        embed_images(
            ids[part], paths[part], source(), store,
            batch_size=BATCH, num_workers=0, progress=False,
        )  # fmt: skip
    shutil.copytree(tmp_path / "b", tmp_path / "a", dirs_exist_ok=True)
    merged = EmbeddingStore("d", IDENTITY, tmp_path / "a")
    np.testing.assert_allclose(merged.read(ids), alone, atol=1e-6)
    report = embed_images(*images, source(), merged, progress=False)
    assert (report.computed, report.reused) == (0, COUNT)


def test_one_process_is_not_a_group(monkeypatch: pytest.MonkeyPatch) -> None:
    with joined() as ranks:
        assert ranks is None
    for name, value in (("RANK", "0"), ("WORLD_SIZE", "1"), ("MASTER_ADDR", "127.0.0.1")):
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("MASTER_PORT", "1")
    with joined() as ranks:
        assert ranks is None


# -- as users start it ----------------------------------------------------------------------------


def test_torchrun_makes_up_for_a_killed_rank(
    dataset: Callable[..., fo.Dataset], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, paths = make_images(tmp_path / "images", 120)
    made = dataset([fo.Sample(path) for path in paths], persistent=True)
    sample_ids, files = made.values(["id", "filepath"])
    store = dataset_store(made, IDENTITY)

    with monkeypatch.context() as patched:
        patched.setattr(fou.ProgressBar, "update", fou.ProgressBar.update)  # put back afterwards
        wait_at(24)
        processes, _ = start_ranks(
            2, lambda ranks: lead(ranks, sample_ids, files, source(), store, batch_size=4)
        )
    while len(list(store.folder.glob("*.index"))) < 2 or len(store) < 40:
        assert all(process.is_alive() for process in processes)
        time.sleep(0.01)
    for process in reversed(processes):  # as torchrun ends the others
        process.kill()
        process.join()
    kept = len(store)
    assert 40 <= kept < 120

    command = [
        *(sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"),
        *("-m", "clipcleaner_plugin.embed", made.name, "--embeddings-field", "vectors"),
        *("--model", TINY_CLIP, "--batch-size", "4", "--num-workers", "0"),
        *("--device", "cpu"),  # as before it was killed: a GPU rounds otherwise
    ]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert f"{120 - kept} computed, {kept} reused, 0 unreadable" in done.stdout

    whole = EmbeddingStore("alone", IDENTITY, tmp_path)
    embed_images(sample_ids, files, source(), whole, batch_size=4, progress=False)
    expected = whole.read(sample_ids)
    np.testing.assert_allclose(store.read(sample_ids), expected, atol=1e-6)
    made.reload()
    np.testing.assert_array_equal(np.stack(made.values("vectors")), store.read(sample_ids))


def test_the_module_is_the_command(dataset: Callable[..., fo.Dataset], tmp_path: Path) -> None:
    _, paths = make_images(tmp_path / "images", 3)
    made = dataset([fo.Sample(path) for path in paths], persistent=True)
    done = subprocess.run(
        [sys.executable, "-W", "error::RuntimeWarning", "-m", "clipcleaner_plugin.embed"]
        + [made.name, "--model", TINY_CLIP],
        capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "3 computed, 0 reused, 0 unreadable" in done.stdout
