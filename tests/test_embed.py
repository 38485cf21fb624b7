"""Image files to stored vectors: what is computed or reused, what fails and what that costs."""

from __future__ import annotations

import itertools
import multiprocessing
import os
import random
import signal
import subprocess
import sys
import textwrap
import traceback
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from projection import DIM, IDENTITY, Projection, ShrinkToTensor, expected_vectors, make_images

from clipcleaner_plugin import loader
from clipcleaner_plugin.embed import embed_images
from clipcleaner_plugin.images import ImageReadError
from clipcleaner_plugin.planning import cut_batches
from clipcleaner_plugin.store import EmbeddingStore

COUNT = 50


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> tuple[list[str], list[str]]:
    """Ids and paths of images that no test changes."""
    return make_images(tmp_path_factory.mktemp("images"), COUNT)


@pytest.fixture
def store(tmp_path: Path) -> EmbeddingStore:
    return EmbeddingStore("dataset", IDENTITY, tmp_path / "store")


def embed_quietly(
    ids: list[str], paths: list[str], model: object, store: EmbeddingStore, **options
):  # type: ignore[no-untyped-def]
    return embed_images(ids, paths, model, store, **{"progress": False, **options})  # type: ignore[arg-type]


@pytest.mark.parametrize("num_workers", [0, 2, None])
@pytest.mark.parametrize("batch_size", [1, 7, COUNT, 1000])
def test_every_id_gets_its_own_vector(
    images: tuple[list[str], list[str]],
    store: EmbeddingStore,
    num_workers: int | None,
    batch_size: int,
) -> None:
    if num_workers == 2 and batch_size == 1:
        batch_size = 2
    ids, paths = images
    order = random.Random(3).sample(range(COUNT), COUNT)
    ids, paths = [ids[i] for i in order], [paths[i] for i in order]

    report = embed_quietly(
        ids, paths, Projection(), store, batch_size=batch_size, num_workers=num_workers
    )

    assert (report.computed, report.reused, report.failures) == (COUNT, 0, {})
    assert report.computed_ids == tuple(ids)
    np.testing.assert_allclose(store.read(ids), expected_vectors(paths), atol=1e-6)


def test_workers_change_no_bit(images: tuple[list[str], list[str]], tmp_path: Path) -> None:
    vectors = []
    for number, workers in enumerate([0, 0, 1, 2]):
        store = EmbeddingStore("d", IDENTITY, tmp_path / str(number))
        embed_quietly(*images, Projection(), store, num_workers=workers, batch_size=16)
        vectors.append(store.read(images[0]).tobytes())
    assert len(set(vectors)) == 1


def test_second_call_computes_nothing(
    images: tuple[list[str], list[str]], store: EmbeddingStore
) -> None:
    embed_quietly(*images, Projection(), store)
    before = store.read(images[0]).tobytes()

    def load() -> Projection:
        raise AssertionError("the model is not needed")

    report = embed_quietly(*images, load, store)

    assert (report.computed, report.reused, report.failures) == (0, COUNT, {})
    assert store.read(images[0]).tobytes() == before
    assert len(list(store.folder.glob("*.index"))) == 1


def test_model_is_loaded_once(images: tuple[list[str], list[str]], store: EmbeddingStore) -> None:
    loaded: list[Projection] = []

    def load() -> Projection:
        loaded.append(Projection())
        return loaded[-1]

    report = embed_quietly(*images, load, store, batch_size=4)
    assert (len(loaded), report.computed) == (1, COUNT)


def test_only_changed_files_are_computed_again(tmp_path: Path, store: EmbeddingStore) -> None:
    ids, paths = make_images(tmp_path / "images", 10)
    embed_quietly(ids, paths, Projection(), store)
    old = store.read(ids)

    Image.new("RGB", (14, 14), (9, 99, 199)).save(paths[2])  # another size in bytes
    info = os.stat(paths[5])
    content = Path(paths[6]).read_bytes()  # as long as 5 in pixels, written over it with a new time
    Path(paths[5]).write_bytes(content)
    os.utime(paths[5], ns=(info.st_atime_ns, info.st_mtime_ns + 1))
    report = embed_quietly(ids, paths, Projection(), store)

    assert report.computed_ids == (ids[2], ids[5])
    assert report.reused == 8
    np.testing.assert_allclose(store.read(ids), expected_vectors(paths), atol=1e-6)
    unchanged = [i for i in range(10) if i not in (2, 5)]
    np.testing.assert_array_equal(store.read(ids)[unchanged], old[unchanged])


def test_another_file_under_a_known_id(tmp_path: Path, store: EmbeddingStore) -> None:
    ids, paths = make_images(tmp_path / "images", 3)
    embed_quietly(ids, paths, Projection(), store)
    Image.new("RGB", (30, 30), (1, 200, 3)).save(tmp_path / "other.png")
    paths[1] = str(tmp_path / "other.png")
    report = embed_quietly(ids, paths, Projection(), store)
    assert report.computed_ids == (ids[1],)
    np.testing.assert_allclose(store.read(ids), expected_vectors(paths), atol=1e-6)


def test_one_file_under_two_ids(tmp_path: Path, store: EmbeddingStore) -> None:
    _, (path,) = make_images(tmp_path / "images", 1)
    report = embed_quietly(["a", "b"], [path, path], Projection(), store)
    assert report.computed == 2
    np.testing.assert_allclose(store.read(["a", "b"]), expected_vectors([path] * 2), atol=1e-6)


def test_added_samples(images: tuple[list[str], list[str]], store: EmbeddingStore) -> None:
    ids, paths = images
    embed_quietly(ids[10:20], paths[10:20], Projection(), store)
    report = embed_quietly(ids, paths, Projection(), store, batch_size=8)
    assert (report.computed, report.reused) == (COUNT - 10, 10)
    np.testing.assert_allclose(store.read(ids), expected_vectors(paths), atol=1e-6)


def test_no_samples(store: EmbeddingStore) -> None:
    report = embed_quietly([], [], Projection(), store)
    assert (report.computed, report.reused, report.failures) == (0, 0, {})


# -- failures -------------------------------------------------------------------------------------


def spoil(paths: list[str]) -> dict[int, str]:
    """Spoils some images; returns position → a word of the reason."""
    os.remove(paths[0])
    Path(paths[3]).write_bytes(b"")
    Path(paths[4]).write_bytes(Path(paths[4]).read_bytes()[:-200])
    Path(paths[7]).write_text("no image")
    os.remove(paths[9])
    os.mkdir(paths[9])
    return {0: "no such file", 3: "empty", 4: "truncated", 7: "not an image", 9: "directory"}


@pytest.mark.parametrize("num_workers", [0, 2])
@pytest.mark.parametrize("batch_size", [1, 4, 12])
def test_one_bad_image_costs_one_sample(
    tmp_path: Path, store: EmbeddingStore, num_workers: int, batch_size: int
) -> None:
    ids, paths = make_images(tmp_path / "images", 12)
    bad = spoil(paths)
    good = [i for i in range(12) if i not in bad]

    for computed, reused in ((7, 0), (0, 7)):
        report = embed_quietly(
            ids, paths, Projection(), store, num_workers=num_workers, batch_size=batch_size
        )
        assert (report.computed, report.reused) == (computed, reused)
        assert list(report.failures) == [ids[i] for i in bad]
        for position, word in bad.items():
            reason = report.failures[ids[position]]
            assert reason.startswith(f"{paths[position]}: ") and word in reason

    found = store.read(ids)
    assert np.isnan(found[list(bad)]).all()
    np.testing.assert_allclose(found[good], expected_vectors([paths[i] for i in good]), atol=1e-6)


def test_a_repaired_image_is_computed_by_the_next_call(
    tmp_path: Path, store: EmbeddingStore
) -> None:
    ids, paths = make_images(tmp_path / "images", 12)
    good = Path(paths[7]).read_bytes()
    spoil(paths)
    embed_quietly(ids, paths, Projection(), store)
    Path(paths[7]).write_bytes(good)
    report = embed_quietly(ids, paths, Projection(), store)
    assert (report.computed_ids, len(report.failures)) == ((ids[7],), 4)


@pytest.mark.parametrize("num_workers", [0, 2])
@pytest.mark.parametrize("content", [b"", b"no image"])
def test_skip_failures_false_names_sample_and_path(
    tmp_path: Path, store: EmbeddingStore, num_workers: int, content: bytes
) -> None:
    ids, paths = make_images(tmp_path / "images", 12)
    Path(paths[6]).write_bytes(content)
    with pytest.raises(ImageReadError) as caught:
        embed_quietly(
            ids,
            paths,
            Projection(),
            store,
            skip_failures=False,
            batch_size=4,
            num_workers=num_workers,
        )
    assert str(caught.value).startswith(f"sample {ids[6]}: {paths[6]}: ")
    assert multiprocessing.active_children() == []
    # an empty file is found before any work; the others by reading, in order
    assert set(ids[:4] if content else []) <= store.stamps().keys() <= set(ids[:6] + ids[7:8])


def test_failures_alone_need_no_model(tmp_path: Path, store: EmbeddingStore) -> None:
    def load() -> Projection:
        raise AssertionError("nothing to compute")

    report = embed_quietly(["a"], [str(tmp_path / "none.png")], load, store)
    assert list(report.failures) == ["a"]
    assert not store.folder.exists()


class NotANumber(Projection):
    """Fails on one image by numbers, as half precision does."""

    def image_features(self, pixels: torch.Tensor) -> torch.Tensor:
        vectors = super().image_features(pixels)
        for row, image in enumerate(pixels):
            if image.min() == image.max():
                vectors[row, row % DIM] = np.nan if image.max() else np.inf
        return vectors


def test_vectors_that_are_no_numbers(tmp_path: Path, store: EmbeddingStore) -> None:
    ids, paths = make_images(tmp_path / "images", 8)
    Image.new("RGB", (9, 9), "black").save(paths[2])
    Image.new("RGB", (9, 9), "white").save(paths[5])
    report = embed_quietly(ids, paths, NotANumber(), store)
    assert report.computed == 6
    assert report.failures.keys() == {ids[2], ids[5]}
    assert "NaN or infinite" in report.failures[ids[2]]
    with pytest.raises(ImageReadError, match=f"sample {ids[2]}: .*NaN or infinite"):
        embed_quietly(ids, paths, NotANumber(), store, skip_failures=False)


class BreaksOnRed(ShrinkToTensor):
    def __call__(self, image: Image.Image) -> torch.Tensor:
        if image.getpixel((0, 0)) == (255, 0, 0):
            raise RuntimeError("too red")
        return super().__call__(image)


@pytest.mark.parametrize("num_workers", [0, 2])
def test_preprocessing_that_fails(tmp_path: Path, store: EmbeddingStore, num_workers: int) -> None:
    ids, paths = make_images(tmp_path / "images", 4)
    Image.new("RGB", (9, 9), "red").save(paths[1])
    model = Projection()
    model.prepare = BreaksOnRed()
    report = embed_quietly(ids, paths, model, store, num_workers=num_workers, batch_size=2)
    assert report.computed == 3
    assert "could not be prepared for the model: RuntimeError: too red" in report.failures[ids[1]]


class DiesOnRed(ShrinkToTensor):
    def __call__(self, image: Image.Image) -> torch.Tensor:
        if image.getpixel((0, 0)) == (255, 0, 0):
            os.kill(os.getpid(), signal.SIGKILL)
        return super().__call__(image)


def test_a_killed_worker_ends_the_call_and_loses_nothing(
    tmp_path: Path, store: EmbeddingStore
) -> None:
    """What the kernel does to a worker when memory runs out."""
    ids, paths = make_images(tmp_path / "images", 40)
    Image.new("RGB", (9, 9), "red").save(paths[35])
    model = Projection()
    model.prepare = DiesOnRed()
    done: list[int] = []
    with pytest.raises(RuntimeError, match="worker"):
        embed_quietly(
            ids,
            paths,
            model,
            store,
            num_workers=1,
            batch_size=5,
            progress=lambda bar: done.append(bar.iteration),
        )
    assert multiprocessing.active_children() == []
    # batch 8 kills; it is not handed out before batch 5 is back. The news may come at any moment.
    assert done[-1] >= 25 and len(store) in (done[-1], done[-1] + 5)
    report = embed_quietly(ids, paths, Projection(), store, num_workers=0)
    assert report.reused + report.computed == 40 and report.reused >= done[-1]


# -- memory of the device -------------------------------------------------------------------------


class LittleMemory(Projection):
    """Runs out of memory above a number of images."""

    def __init__(self, limit: int, error: Callable[[], RuntimeError]) -> None:
        super().__init__()
        self._limit, self._error = limit, error

    def image_features(self, pixels: torch.Tensor) -> torch.Tensor:
        if len(pixels) > self._limit:
            self.batch_sizes.append(-len(pixels))
            raise self._error()
        return super().image_features(pixels)


def cuda_error() -> RuntimeError:
    return torch.cuda.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB")


def mps_error() -> RuntimeError:
    return RuntimeError("MPS backend out of memory (MPS allocated: 9.00 GB)")


@pytest.mark.parametrize("error", [cuda_error, mps_error])
def test_out_of_memory_halves_the_batch(
    images: tuple[list[str], list[str]], store: EmbeddingStore, error: Callable[[], RuntimeError]
) -> None:
    ids, paths = images
    model = LittleMemory(5, error)
    report = embed_quietly(ids, paths, model, store, batch_size=20)
    assert report.computed == COUNT
    # 20 → 10 → 5 fits, and stays
    assert model.batch_sizes == [-20, -10, *[5] * 10]
    np.testing.assert_allclose(store.read(ids), expected_vectors(paths), atol=1e-6)


def test_out_of_memory_for_one_image(
    images: tuple[list[str], list[str]], store: EmbeddingStore
) -> None:
    model = LittleMemory(0, cuda_error)
    with pytest.raises(torch.cuda.OutOfMemoryError):
        embed_quietly(*images, model, store, batch_size=8)
    assert model.batch_sizes == [-8, -4, -2, -1]


def test_other_errors_of_the_model_are_not_swallowed(
    images: tuple[list[str], list[str]], store: EmbeddingStore
) -> None:
    model = LittleMemory(5, lambda: RuntimeError("shapes cannot be multiplied"))
    with pytest.raises(RuntimeError, match="shapes cannot be multiplied"):
        embed_quietly(*images, model, store, batch_size=8)
    assert model.batch_sizes == [-8]


# -- progress -------------------------------------------------------------------------------------


def test_progress_counts_samples(tmp_path: Path, store: EmbeddingStore) -> None:
    ids, paths = make_images(tmp_path / "images", 12)
    spoil(paths)  # three of five need no reading: missing, empty, a directory
    seen: list[tuple[int, int, int]] = []
    embed_quietly(
        ids,
        paths,
        Projection(),
        store,
        batch_size=4,
        progress=lambda bar: seen.append((bar.iteration, bar.total, len(store))),
    )
    assert [(done, total) for done, total, _ in seen] == [(2, 9), (6, 9), (9, 9)]
    # a step is reported when it is stored, not before
    assert [stored for _, _, stored in seen] == [2, 4, 7]


@pytest.mark.parametrize(("progress", "drawn"), [(True, True), (False, False)])
def test_progress_bar_is_drawn_on_demand(
    images: tuple[list[str], list[str]],
    store: EmbeddingStore,
    capsys: pytest.CaptureFixture[str],
    progress: bool,
    drawn: bool,
) -> None:
    embed_images(*images, Projection(), store, progress=progress)  # type: ignore[arg-type]
    assert ("/50" in capsys.readouterr().out) is drawn


@pytest.mark.parametrize("num_workers", [0, 2])
@pytest.mark.parametrize("error", [ZeroDivisionError, KeyboardInterrupt])
def test_what_progress_raises_ends_the_work_and_loses_nothing(
    images: tuple[list[str], list[str]],
    store: EmbeddingStore,
    num_workers: int,
    error: type[BaseException],
) -> None:
    def cancel(bar) -> None:  # type: ignore[no-untyped-def]
        if bar.iteration >= 16:
            raise error

    with pytest.raises(error):
        embed_quietly(
            *images, Projection(), store, batch_size=8, num_workers=num_workers, progress=cancel
        )
    assert multiprocessing.active_children() == []
    assert store.stamps().keys() == set(images[0][:16])

    model = Projection()
    report = embed_quietly(*images, model, store, batch_size=8)

    assert report.computed_ids == tuple(images[0][16:])
    assert model.batch_sizes == [8, 8, 8, 8, 2]
    whole = EmbeddingStore("whole", IDENTITY, store.folder.parents[1])
    embed_quietly(*images, Projection(), whole, batch_size=8)
    assert store.read(images[0]).tobytes() == whole.read(images[0]).tobytes()


# -- arguments ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("ids", "paths", "options", "error", "message"),
    [
        (["a"], [], {}, ValueError, "1 ids need as many filepaths, found 0"),
        (["a", "b", "a"], ["x"] * 3, {}, ValueError, "sample id 'a' occurs twice"),
        ([], [], {"batch_size": 0}, ValueError, "batch_size must be at least 1, found 0"),
        ([], [], {"batch_size": 2.5}, TypeError, "batch_size must be an integer or None"),
        ([], [], {"num_workers": -1}, ValueError, "num_workers must be at least 0, found -1"),
        ([], [], {"num_workers": True}, TypeError, "num_workers must be an integer or None"),
    ],
)
def test_arguments_are_checked(
    store: EmbeddingStore,
    ids: list[str],
    paths: list[str],
    options: dict,
    error: type[Exception],
    message: str,
) -> None:
    with pytest.raises(error, match=message):
        embed_quietly(ids, paths, Projection(), store, **options)


def test_a_store_of_another_model_is_refused(
    images: tuple[list[str], list[str]], store: EmbeddingStore
) -> None:
    with pytest.raises(ValueError, match=r"for model 'random projection \[1\]', not 'other'"):
        embed_quietly(*images, Projection(identity="other"), store)
    assert len(store) == 0


class WrongShape(Projection):
    def image_features(self, pixels: torch.Tensor) -> torch.Tensor:
        return super().image_features(pixels)[:-1]


def test_a_model_that_loses_rows_is_noticed(
    images: tuple[list[str], list[str]], store: EmbeddingStore
) -> None:
    with pytest.raises(ValueError, match=r"vectors of shape \(7, 16\) for 8 images"):
        embed_quietly(*images, WrongShape(), store, batch_size=8)
    assert len(store) == 0


@given(
    positions=st.sets(st.integers(0, 200)).map(sorted),
    batch_size=st.integers(1, 40),
    data=st.data(),
)
def test_batches_resume_where_full_ones_end(
    positions: list[int], batch_size: int, data: st.DataObject
) -> None:
    batches = cut_batches(positions, batch_size)
    assert [p for batch in batches for p in batch] == positions
    assert all(0 < len(batch) <= batch_size for batch in batches)
    # neighbours that would fit together are together, so scattered work fills its batches
    assert all(len(a) + len(b) > batch_size for a, b in itertools.pairwise(batches))
    # a run that was stopped after any number of batches goes on with the same ones
    whole = cut_batches(range(201), batch_size)
    done = data.draw(st.integers(0, len(whole)))
    rest = [p for batch in whole[done:] for p in batch]
    assert cut_batches(rest, batch_size) == whole[done:]


# -- worker processes -----------------------------------------------------------------------------


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
    process.join(60)
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
        cwd=tmp_path, capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    assert done.stdout.splitlines()[-1:] == ["computed 11"], done.stderr
