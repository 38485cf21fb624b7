"""The doctor: what it finds in a sound installation, and in one broken on purpose."""

from __future__ import annotations

import shutil
import sys
from collections import namedtuple
from pathlib import Path

import pytest

from clipcleaner_plugin import __main__ as cli
from clipcleaner_plugin import __version__, doctor
from clipcleaner_plugin.doctor import Check
from clipcleaner_plugin.install import install
from clipcleaner_plugin.models import TINY_CLIP

Usage = namedtuple("Usage", "total used free")


@pytest.fixture
def plugins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A plugins folder that FiftyOne searches, here and in new processes."""
    import fiftyone as fo

    monkeypatch.setenv("FIFTYONE_PLUGINS_DIR", str(tmp_path))
    monkeypatch.setattr(fo.config, "plugins_dir", str(tmp_path))
    return tmp_path


def test_a_sound_installation_passes(plugins: Path, capsys: pytest.CaptureFixture[str]) -> None:
    install(plugins)
    assert cli.main(["doctor", "--model", TINY_CLIP]) == 0
    out = capsys.readouterr().out
    assert "FAIL" not in out
    lines = {line.split()[1]: line for line in out.splitlines() if not line.startswith(" ")}
    found = set(lines)
    assert found >= {*doctor.LOWER_BOUNDS, "Python", "mongod", "database", "device", "plugin"}
    assert found >= {"embedded", "store", "model"}
    assert "stored" in lines  # what it says depends on what other tests have left there
    for name in ("mongod", "database", "App", "plugin", "embedded", "store", "model"):
        assert lines[name].startswith("OK"), lines[name]
    assert f"version {__version__}" in lines["plugin"]


def test_a_failure_sets_the_exit_status_and_the_rest_is_still_examined(
    plugins: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("CLIPCLEANER_STORE_DIR", str(tmp_path / "file" / "store"))
    assert cli.main(["doctor", "--model", "ViT-B-3000"]) == 1
    captured = capsys.readouterr()
    assert "FAIL  store" in captured.out
    assert "CLIPCLEANER_STORE_DIR" in captured.out
    assert "FAIL  model" in captured.out
    assert "2 to mend" in captured.err


def test_plugin_absent_broken_or_of_another_version(plugins: Path) -> None:
    absent = doctor._plugin()
    assert absent.status == "WARN"
    assert str(plugins) in absent.found
    assert "-m clipcleaner_plugin install" in absent.advice

    target = install(plugins, copy=True)
    metadata = target / "fiftyone.yml"
    text = metadata.read_text()
    metadata.write_text(text.replace(__version__, "0.0.1"))
    old = doctor._plugin()
    assert old.status == "FAIL"
    assert "0.0.1" in old.found and __version__ in old.found

    metadata.write_text(text + "  - not_there\n")
    incomplete = doctor._plugin()
    assert incomplete.status == "FAIL"
    assert "missing: not_there" in incomplete.found

    metadata.write_text(text)
    (target / "__init__.py").write_text("def register(plugin): raise KeyError('spanner')")
    broken = doctor._plugin()
    assert broken.status == "FAIL"
    assert "spanner" in broken.found


def test_packages_are_compared_with_the_bounds(monkeypatch: pytest.MonkeyPatch) -> None:
    assert doctor._package("torch").status == "OK"
    monkeypatch.setitem(doctor.LOWER_BOUNDS, "torch", "999")
    old = doctor._package("torch")
    assert old.status == "FAIL"
    assert "is older than 999" in old.found
    monkeypatch.setitem(doctor.LOWER_BOUNDS, "no-such-package", "1")
    absent = doctor._package("no-such-package")
    assert absent.status == "FAIL"
    assert "pip install 'no-such-package>=1'" in absent.advice


def test_python_versions(monkeypatch: pytest.MonkeyPatch) -> None:
    assert doctor._python().status == "OK"
    monkeypatch.setattr(sys, "version_info", (3, 13, 0))
    assert doctor._python().status == "WARN"


@pytest.mark.parametrize(("free", "status"), [(0.1, "FAIL"), (1.0, "WARN"), (50.0, "OK")])
def test_free_disk_space(monkeypatch: pytest.MonkeyPatch, free: float, status: str) -> None:
    def disk_usage(path: Path) -> Usage:
        return Usage(100 * 2**30, 0, int(free * 2**30))

    monkeypatch.setattr(shutil, "disk_usage", disk_usage)
    assert doctor._store().status == status


def test_a_dead_database_server_fails_fast(monkeypatch: pytest.MonkeyPatch) -> None:
    import fiftyone as fo

    monkeypatch.setattr(fo.config, "database_uri", "mongodb://127.0.0.1:9")
    server = doctor._mongod()
    assert server.status == "FAIL"
    assert "no server answers there" in server.found
    assert doctor._database().found == "not tried: no server"


def test_weights_are_looked_for_where_open_clip_keeps_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    absent = doctor._model("RN50", "yfcc15m")
    assert absent.status == "WARN"
    assert "needs the network" in absent.advice

    import open_clip

    url = open_clip.get_pretrained_cfg("RN50", "yfcc15m")["url"]
    cached = tmp_path / ".cache" / "clip" / Path(url).name
    cached.parent.mkdir(parents=True)
    cached.touch()
    assert doctor._model("RN50", "yfcc15m") == Check(
        "model", "OK", f"RN50/yfcc15m: weights at {cached}"
    )


def test_hub_models_are_looked_for_in_the_hub_cache(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import huggingface_hub.file_download as file_download

    monkeypatch.setattr(file_download.constants, "HF_HUB_CACHE", str(tmp_path))
    assert doctor._model("hf-hub:acme/clip", None).status == "WARN"
    revision = "a" * 40
    repository = tmp_path / "models--acme--clip"
    weights = repository / "snapshots" / revision / "open_clip_model.safetensors"
    weights.parent.mkdir(parents=True)
    weights.touch()
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text(revision)
    found = doctor._model("hf-hub:acme/clip", None)
    assert found.status == "OK"
    assert str(weights) in found.found


def test_a_server_that_cannot_be_imported_is_named_with_the_way_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert doctor._app().status == "OK"
    (tmp_path / "broken_server.py").write_text("from strawberry.extensions import NoSuchThing\n")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    broken = doctor._app("broken_server")
    assert broken.status == "FAIL"
    assert "cannot import name 'NoSuchThing'" in broken.found
    assert "--upgrade fiftyone" in broken.advice


def test_what_nobody_foresaw_is_reported() -> None:
    def explode() -> Check:
        raise OSError("libcudart.so.99: cannot open shared object file")

    check = doctor._guarded("device", explode)
    assert check.status == "FAIL"
    assert "libcudart" in check.found
