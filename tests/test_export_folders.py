"""Folders of exports: what is there already, what is left alone, kills, full disks."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path
from typing import Any

import fiftyone as fo
import pytest
from exports import N, by_id, tree

import clipcleaner_plugin as cc
from training.bundle import BundleError, read_bundle

pytestmark = pytest.mark.usefixtures("quiet")

Maker = Callable[..., fo.Dataset]


# --- what is there already


def test_the_same_export_again_writes_nothing(untouched: fo.Dataset, tmp_path: Path) -> None:
    for form in ("bundle", "image_tree", "csv"):
        folder = tmp_path / form
        assert not cc.export_cleaned(untouched, "clipcleaner", folder, format=form).reused
        before = {p: p.lstat().st_mtime_ns for p in folder.rglob("*")}
        assert cc.export_cleaned(untouched, "clipcleaner", folder, format=form).reused
        assert {p: p.lstat().st_mtime_ns for p in folder.rglob("*")} == before
        next(p for p in folder.rglob("*.png")).unlink()
        with pytest.raises(FileExistsError, match="holds an earlier export"):
            cc.export_cleaned(untouched, "clipcleaner", folder, format=form)


def test_copies_do_where_links_are_asked_for_but_not_the_other_way_round(
    untouched: fo.Dataset, tmp_path: Path
) -> None:
    results = cc.load_results(untouched)
    results.export(tmp_path / "copied")
    assert results.export(tmp_path / "copied", export_media="symlink").reused
    results.export(tmp_path / "linked", export_media="symlink")
    with pytest.raises(FileExistsError, match="overwrite=True"):
        results.export(tmp_path / "linked")
    results.export(tmp_path / "linked", overwrite=True)
    assert not any(p.is_symlink() for p in (tmp_path / "linked" / "images").iterdir())


def test_an_earlier_bundle_is_replaced_only_when_asked(
    untouched: fo.Dataset, tmp_path: Path
) -> None:
    folder = tmp_path / "b"
    cc.export_cleaned(untouched, "clipcleaner", folder)
    (folder / "runs" / "mixfix").mkdir(parents=True)
    (folder / "runs" / "mixfix" / "last.pt").write_bytes(b"weights")
    view = untouched.limit(50)
    before = tree(folder)
    with pytest.raises(FileExistsError, match="overwrite=True replaces it"):
        cc.export_cleaned(view, "clipcleaner", folder)
    assert tree(folder) == before
    cc.export_cleaned(view, "clipcleaner", folder, overwrite=True)
    assert len(read_bundle(folder)) == len(list((folder / "images").iterdir())) == 50
    assert (folder / "runs" / "mixfix" / "last.pt").read_bytes() == b"weights"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["b"]


@pytest.mark.parametrize("content", ["photo.jpg", "bundle.json", "file"])
def test_what_no_export_wrote_is_never_replaced(
    untouched: fo.Dataset, tmp_path: Path, content: str
) -> None:
    target = tmp_path / "mine"
    if content == "file":
        target.write_text("mine")
    else:
        target.mkdir()
        (target / content).write_text('{"format": "something else"}')
    with pytest.raises(FileExistsError, match="mine"):
        cc.export_cleaned(untouched, "clipcleaner", target, overwrite=True)
    kept = target if content == "file" else target / content
    assert kept.read_text() and not (tmp_path / "mine.partial").exists()


def test_files_beside_a_bundle_protect_it(untouched: fo.Dataset, tmp_path: Path) -> None:
    cc.export_cleaned(untouched, "clipcleaner", tmp_path / "b")
    (tmp_path / "b" / "notes.txt").write_text("mine")
    with pytest.raises(FileExistsError, match=r"'notes\.txt', which no export wrote"):
        cc.export_cleaned(untouched.limit(50), "clipcleaner", tmp_path / "b", overwrite=True)
    assert len(read_bundle(tmp_path / "b")) == N


def test_a_dataset_that_lives_in_the_export_is_not_pulled_from_under_it(
    digits: fo.Dataset, tmp_path: Path
) -> None:
    cc.export_cleaned(digits, "clipcleaner", tmp_path / "b")
    images = {p.stem: str(p) for p in (tmp_path / "b" / "images").iterdir()}
    digits.set_values("filepath", images, key_field="id")
    with pytest.raises(FileExistsError, match="which the export would replace"):
        cc.export_cleaned(
            digits.limit(50), "clipcleaner", tmp_path / "b", overwrite=True, export_media="symlink"
        )
    assert len(read_bundle(tmp_path / "b")) == N


def test_links_of_an_earlier_attempt_are_never_written_through(
    digits: fo.Dataset, tmp_path: Path
) -> None:
    """Stopped while linking, then another image under the same id, then a copy."""
    first = digits.first()
    old = Path(first.filepath)
    content = old.read_bytes()

    def stop(bar: Any) -> None:
        if bar.iteration == N:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        cc.export_cleaned(
            digits, "clipcleaner", tmp_path / "b", export_media="symlink", progress=stop
        )
    first.filepath = digits.last().filepath
    first.save()
    cc.export_cleaned(digits, "clipcleaner", tmp_path / "b")
    assert old.read_bytes() == content
    bundle = read_bundle(tmp_path / "b")
    copy = Path(by_id(bundle, bundle.paths)[first.id])
    assert not copy.is_symlink() and copy.read_bytes() == Path(first.filepath).read_bytes()


# --- interruptions

_EXPORT = """
    import os, signal, sys, time
    sys.path[:0] = {paths!r}
    import fiftyone as fo
    import clipcleaner_plugin as cc

    fo.config.show_progress_bars = False  # what they draw would share lines with the numbers

    def report(bar):
        print(bar.iteration, flush=True)
        while bar.iteration >= {limit}:
            time.sleep(1)

    cc.export_cleaned(fo.load_dataset({name!r}), "clipcleaner", {out!r}, progress=report)
"""


def start_export(
    name: str, out: Path, repo_root: Path, limit: int = N + 1, **more: Any
) -> subprocess.Popen[str]:
    """Exports in a process of its own, which waits to be killed after so many images."""
    code = textwrap.dedent(_EXPORT).format(
        paths=[str(repo_root)], name=name, out=str(out), limit=limit
    )
    return subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        **more,
    )  # fmt: skip


def test_a_killed_export_never_looks_whole_and_goes_on(
    digits: fo.Dataset, tmp_path: Path, repo_root: Path
) -> None:
    digits.persistent = True
    out = tmp_path / "b"
    child = start_export(digits.name, out, repo_root, limit=60)
    assert child.stdout is not None
    for line in child.stdout:
        if line.strip().isdigit() and int(line) >= 30:
            break
    with pytest.raises(FileExistsError, match="another process is exporting"):
        cc.export_cleaned(digits, "clipcleaner", out)
    child.send_signal(signal.SIGKILL)
    child.communicate()
    partial = tmp_path / "b.partial"
    copied = {p.name: p.stat().st_ino for p in (partial / "images").iterdir()}
    assert 30 <= len(copied) < N and not out.exists()
    with pytest.raises(BundleError, match="export was interrupted"):
        read_bundle(partial)
    torn = partial / "images" / sorted(copied)[0]
    torn.write_bytes(torn.read_bytes()[:-7])
    (partial / "images" / "stale.png").write_bytes(b"of an earlier attempt")

    seen: list[int] = []
    cc.export_cleaned(digits, "clipcleaner", out, progress=lambda bar: seen.append(bar.iteration))
    assert seen[0] >= 29, "what was copied is not copied again"
    whole = read_bundle(out)
    assert len(whole) == N and not partial.exists()
    same = [p for p in (out / "images").iterdir() if copied.get(p.name) == p.stat().st_ino]
    assert len(same) >= 28
    cc.export_cleaned(digits, "clipcleaner", tmp_path / "fresh")
    assert tree(out) == tree(tmp_path / "fresh")


def test_a_kill_between_the_renames_of_a_replacement_loses_nothing(
    untouched: fo.Dataset, tmp_path: Path
) -> None:
    out = tmp_path / "b"
    cc.export_cleaned(untouched, "clipcleaner", out)
    (out / "runs").mkdir()
    (out / "runs" / "weights").write_bytes(b"weights")
    os.rename(out, tmp_path / ".b.clipcleaner-replaced")  # where a replacement would be by now
    cc.export_cleaned(untouched.limit(50), "clipcleaner", out, overwrite=True)
    assert len(read_bundle(out)) == 50 and (out / "runs" / "weights").read_bytes() == b"weights"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["b"]


def test_runs_of_before_and_after_a_killed_replacement_are_kept(
    untouched: fo.Dataset, tmp_path: Path
) -> None:
    out = tmp_path / "b"
    cc.export_cleaned(untouched, "clipcleaner", out)
    (out / "runs" / "before").mkdir(parents=True)
    os.rename(out, tmp_path / ".b.clipcleaner-replaced")
    cc.export_cleaned(untouched.limit(60), "clipcleaner", tmp_path / "new")
    os.rename(tmp_path / "new", out)  # the kill came here; then somebody trains
    (out / "runs" / "after").mkdir(parents=True)
    cc.export_cleaned(untouched.limit(50), "clipcleaner", out, overwrite=True)
    assert sorted(p.name for p in (out / "runs").iterdir()) == ["after", "before"]
    assert sorted(p.name for p in tmp_path.iterdir()) == ["b"]


def test_a_disk_that_refuses_says_so_and_the_export_goes_on_later(
    digits: fo.Dataset, tmp_path: Path, repo_root: Path
) -> None:
    """A limit on the size of files is what a full disk is to the writer: write() fails."""
    import resource

    digits.persistent = True
    big = Path(digits.first().filepath)
    big.write_bytes(big.read_bytes() + bytes(300_000))

    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, 200_000))
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)

    out = tmp_path / "b"
    child = start_export(digits.name, out, repo_root, preexec_fn=limit)
    _, stderr = child.communicate()
    assert child.returncode == 1 and os.strerror(errno.EFBIG) in stderr
    assert f"goes on from {tmp_path / 'b.partial'}" in stderr and not out.exists()
    cc.export_cleaned(digits, "clipcleaner", out)
    assert len(read_bundle(out)) == N


def test_a_full_disk_is_noticed_before_anything_is_copied(
    digits: fo.Dataset, tmp_path: Path
) -> None:
    huge = Path(digits.first().filepath)
    try:
        os.truncate(huge, 2**43)  # 8 TB of holes
    except OSError:
        pytest.skip("the file system has no files of that size")
    with pytest.raises(OSError, match=r"8796\.\d\d GB and .* are free") as caught:
        cc.export_cleaned(digits, "clipcleaner", tmp_path / "b")
    assert caught.value.errno == errno.ENOSPC
    assert not (tmp_path / "b").exists()
    cc.export_cleaned(digits, "clipcleaner", tmp_path / "b", export_media="symlink")
    assert len(read_bundle(tmp_path / "b")) == N
