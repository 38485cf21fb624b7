"""The ways into the FiftyOne App, each in processes and environments of their own."""

from __future__ import annotations

import functools
import http.server
import json
import os
import shutil
import threading
from pathlib import Path

import pytest
import yaml
from checkouts import (
    REPO_ROOT,
    build_wheel,
    copy_checkout,
    make_environment,
    pip_install,
    run,
)

from clipcleaner_plugin import __main__ as cli
from clipcleaner_plugin import __version__
from clipcleaner_plugin import install as installing
from clipcleaner_plugin.install import PLUGIN_NAME, InstallError, find_plugin, install, uninstall

_MANIFEST = yaml.safe_load((Path(__file__).parents[1] / "fiftyone.yml").read_text())
OPERATORS = {*_MANIFEST["operators"], *_MANIFEST["panels"]}
PROBE = """
import json
import fiftyone.operators as foo

registry = foo.OperatorRegistry()
import clipcleaner_plugin
from clipcleaner_plugin import trainer
print(json.dumps(dict(
    trainer=[str(trainer.trainer_folder() / "train.py"), *trainer.presets()],
    operators=[op.uri for op in registry.list_operators() if op.uri.startswith("@clipcleaner/")],
    errors=registry.list_errors(),
    library=clipcleaner_plugin.__file__,
)))
"""


def loaded(python: Path, plugins: Path, tmp_path: Path) -> dict[str, object]:
    """What FiftyOne loads from a plugins folder in a new process."""
    done = run(python, "-c", PROBE, env=_env(plugins), cwd=tmp_path)
    report: dict[str, object] = json.loads(done.stdout.splitlines()[-1])
    assert report["errors"] == []
    names = {uri.rpartition("/")[2] for uri in report["operators"]}  # type: ignore[attr-defined]
    assert names >= OPERATORS
    script, *presets = report["trainer"]  # type: ignore[misc]
    assert Path(script).is_file() and presets[0] == "auto"
    return report


def _env(plugins: Path) -> dict[str, str]:
    env = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
    return env | {"FIFTYONE_PLUGINS_DIR": str(plugins)}


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy whose folder's name is no Python identifier, as a clone's may be."""
    return copy_checkout(tmp_path_factory.mktemp("clone") / "clipcleaner-1.0")


@pytest.fixture
def environment(tmp_path: Path) -> Path:
    return make_environment(tmp_path / "venv")


@pytest.fixture
def plugins(tmp_path: Path) -> Path:
    folder = tmp_path / "plugins"
    folder.mkdir()
    return folder


def test_way_1_wheel_and_install(
    checkout: Path, environment: Path, plugins: Path, tmp_path: Path
) -> None:
    pip_install(environment, build_wheel(checkout, tmp_path / "wheel"))
    command = (environment, "-m", "clipcleaner_plugin", "install")
    done = run(*command, env=_env(plugins), cwd=tmp_path)
    assert "apply_clipcleaner" in done.stdout
    report = loaded(environment, plugins, tmp_path)
    assert str(tmp_path / "venv") in str(report["library"])
    target = plugins / PLUGIN_NAME
    assert (target / "operators").is_symlink()

    run(*command, "--copy", env=_env(plugins), cwd=tmp_path)
    assert not (target / "operators").is_symlink()
    # A copy needs no installed package, say in another environment
    report = loaded(make_environment(tmp_path / "other"), plugins, tmp_path)
    assert str(target) in str(report["library"])


def test_way_2_editable_and_install(
    checkout: Path, environment: Path, plugins: Path, tmp_path: Path
) -> None:
    pip_install(environment, "-e", checkout)
    run(environment, "-m", "clipcleaner_plugin", "install", env=_env(plugins), cwd=tmp_path)
    assert (plugins / PLUGIN_NAME).resolve() == checkout.resolve()
    report = loaded(environment, plugins, tmp_path)
    assert str(checkout) in str(report["library"])


def test_way_3_download_without_pip(
    checkout: Path, environment: Path, plugins: Path, tmp_path: Path
) -> None:
    archive = tmp_path / "served" / "clipcleaner.zip"
    shutil.make_archive(str(archive.with_suffix("")), "zip", checkout.parent, checkout.name)
    handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory=str(archive.parent))
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        url = f"http://127.0.0.1:{server.server_port}/{archive.name}"
        code = "from fiftyone.core.cli import main; main()"
        env = _env(plugins) | {"no_proxy": "127.0.0.1"}
        run(environment, "-c", code, "plugins", "download", url, env=env, cwd=tmp_path)
    finally:
        server.shutdown()
        server.server_close()
    report = loaded(environment, plugins, tmp_path)
    assert str(plugins) in str(report["library"])


def test_way_4_link_without_pip(
    checkout: Path, environment: Path, plugins: Path, tmp_path: Path
) -> None:
    (plugins / "any-name").symlink_to(checkout, target_is_directory=True)
    report = loaded(environment, plugins, tmp_path)
    assert str(plugins / "any-name") in str(report["library"])


def test_installing_twice_changes_nothing(plugins: Path) -> None:
    first = install(plugins)
    assert install(plugins) == first == plugins / PLUGIN_NAME
    assert list(find_plugin(plugins)) == [first]
    assert [p.name for p in first.parent.iterdir()] == ["clipcleaner"]


def test_an_older_version_is_upgraded_in_place(plugins: Path) -> None:
    target = install(plugins, copy=True)
    text = (target / "fiftyone.yml").read_text().replace(__version__, "0.0.1")
    (target / "fiftyone.yml").write_text(text)
    (target / "operators" / "gone_since.py").touch()
    assert install(plugins, copy=True) == target
    assert yaml.safe_load((target / "fiftyone.yml").read_text())["version"] == __version__
    assert not (target / "operators" / "gone_since.py").exists()
    assert not list(target.rglob("__pycache__"))

    install(plugins)
    assert target.is_symlink(), "a link replaces a copy"
    install(plugins, copy=True)
    assert not target.is_symlink(), "and a copy a link"
    assert (REPO_ROOT / "operators" / "__init__.py").exists(), "whose target stays"


@pytest.mark.parametrize("metadata", ["name: '@clipcleaner/other'", "[not a mapping", None])
def test_what_is_not_ours_is_not_overwritten(plugins: Path, metadata: str | None) -> None:
    target = plugins / PLUGIN_NAME
    target.mkdir(parents=True)
    (target / "precious.txt").write_text("keep")
    if metadata is not None:
        (target / "fiftyone.yml").write_text(metadata)
    for copy in (False, True):
        with pytest.raises(InstallError, match="exists and is not this plugin"):
            install(plugins, copy=copy)
    assert (target / "precious.txt").read_text() == "keep"
    assert uninstall(plugins) == []
    assert (target / "precious.txt").exists()


def test_a_git_checkout_is_never_replaced_or_removed(plugins: Path, checkout: Path) -> None:
    target = plugins / PLUGIN_NAME
    shutil.copytree(checkout, target)
    (target / ".git").mkdir()
    with pytest.raises(InstallError, match="git checkout"):
        install(plugins)
    with pytest.raises(InstallError, match="git checkout"):
        uninstall(plugins)
    assert (target / "operators" / "__init__.py").exists()


def test_a_link_whose_target_is_gone_is_replaced_and_removed(plugins: Path) -> None:
    target = plugins / PLUGIN_NAME
    target.parent.mkdir()
    target.symlink_to(plugins / "gone")
    assert install(plugins).resolve() == REPO_ROOT
    target.unlink()
    target.symlink_to(plugins / "gone")
    assert uninstall(plugins) == [target]
    assert list(plugins.iterdir()) == []


def test_a_second_place_is_used_or_refused(plugins: Path, checkout: Path) -> None:
    (plugins / "linked").symlink_to(REPO_ROOT, target_is_directory=True)
    assert install(plugins) == plugins / "linked", "this very checkout is there already"
    (plugins / "linked").unlink()

    shutil.copytree(checkout, plugins / "another")
    with pytest.raises(InstallError, match=r"already at .*another"):
        install(plugins)
    edited = plugins / "another" / "operators" / "__init__.py"
    edited.write_text("# work of somebody")
    with pytest.raises(InstallError, match=r"another is a copy that neither .* delete it yourself"):
        uninstall(plugins)
    assert edited.read_text() == "# work of somebody"
    shutil.rmtree(plugins / "another")
    (plugins / "linked").symlink_to(checkout, target_is_directory=True)
    assert uninstall(plugins) == [plugins / "linked"]
    assert install(plugins) == plugins / PLUGIN_NAME


def test_files_are_copied_where_links_are_impossible(
    plugins: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*args: object, **kwargs: object) -> None:
        raise OSError("Operation not supported")

    monkeypatch.setattr(Path, "symlink_to", refuse)
    target = install(plugins)
    assert not target.is_symlink()
    assert (target / "clipcleaner_plugin" / "__init__.py").is_file()
    assert [p.name for p in target.parent.iterdir()] == ["clipcleaner"]


def test_a_folder_that_cannot_be_written_to_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(InstallError, match=r"Cannot write to .*file"):
        install(tmp_path / "file")


def test_the_command_line_installs_and_uninstalls(
    plugins: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["--plugins-dir", str(plugins)]
    assert cli.main(["install", *arguments]) == 0
    out = capsys.readouterr().out
    assert f"Installed version {__version__}" in out
    assert f"set FIFTYONE_PLUGINS_DIR={plugins}" in out
    assert cli.main(["uninstall", *arguments]) == 0
    assert "Removed" in capsys.readouterr().out
    assert cli.main(["uninstall", *arguments]) == 0
    assert "nothing to remove" in capsys.readouterr().out


def test_the_command_line_tells_what_does_not_load(
    plugins: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def install_broken(folder: Path, copy: bool) -> Path:
        target = install(folder, copy=True)
        broken = "def register(plugin): raise KeyError('spanner')"
        (target / "__init__.py").write_text(broken)
        return target

    monkeypatch.setattr(installing, "install", install_broken)
    assert cli.main(["install", "--plugins-dir", str(plugins)]) == 1
    err = capsys.readouterr().err
    assert "does not load" in err
    assert "spanner" in err

    assert cli.main(["uninstall", "--plugins-dir", str(plugins)]) == 0
    (plugins / PLUGIN_NAME).mkdir(parents=True)
    monkeypatch.undo()
    assert cli.main(["install", "--plugins-dir", str(plugins)]) == 1
    assert capsys.readouterr().err.startswith("error: ")
