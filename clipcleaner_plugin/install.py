"""Puts the plugin where FiftyOne looks for plugins; pip alone never does.

FiftyOne walks its plugins folder and takes every folder that holds a ``fiftyone.yml``. A checkout
is linked there as it stands. An installed wheel carries the same parts inside the package; they are
linked, or copied, side by side into a folder of that shape. FiftyOne's own
``fiftyone plugins download`` uses the same place, so that each way replaces the other.
"""

from __future__ import annotations

import json
import logging
import os
import shutil
import subprocess
import sys
import tempfile
import uuid
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

logger = logging.getLogger(__name__)

PLUGIN_NAME = "@clipcleaner/clipcleaner"
_METADATA = ("fiftyone.yml", "fiftyone.yaml")
_NOT_COPIED = shutil.ignore_patterns("__pycache__", "*.pyc")


@dataclass(frozen=True)
class LoadedPlugin:
    """What FiftyOne made of the plugin in a fresh process.

    Attributes:
        path: the folder that it was loaded from; None where FiftyOne does not find the plugin
        version: the version in that folder's ``fiftyone.yml``
        operators: names of the operators and panels that are registered
        missing: names that ``fiftyone.yml`` promises and that are not registered
        errors: tracebacks of what failed to load
        shadowed: further folders with the same plugin, which FiftyOne ignores
    """

    path: Path | None
    version: str | None = None
    operators: tuple[str, ...] = ()
    missing: tuple[str, ...] = ()
    errors: tuple[str, ...] = ()
    shadowed: tuple[Path, ...] = field(default=())

    @property
    def ok(self) -> bool:
        """Whether FiftyOne found the plugin and everything in it works."""
        return self.path is not None and not self.missing and not self.errors


class InstallError(RuntimeError):
    """The plugin could not be put into the plugins folder; the text says why and what to do."""


def plugins_dir() -> Path:
    """The folder that FiftyOne searches for plugins."""
    import fiftyone as fo

    return Path(fo.config.plugins_dir).expanduser()


def install(folder: str | os.PathLike[str] | None = None, copy: bool = False) -> Path:
    """Puts this plugin into a plugins folder, in place of an older version of itself.

    Args:
        folder (None): the plugins folder. By default, the one that FiftyOne searches
        copy (False): copy everything. By default the code is linked, so that an edit of a
            checkout takes effect by itself, and so that the App runs the code of an upgraded
            package (install again for operators that are new in it). Where the file system has
            no links it is copied anyway

    Returns:
        the plugin's folder

    Raises:
        InstallError: if something that is not this plugin is in the way, or the folder cannot be
            written to
    """
    base = Path(folder).expanduser() if folder is not None else plugins_dir()
    target = base / PLUGIN_NAME
    for found in find_plugin(base):
        if not copy and found.resolve() == _checkout():
            logger.info("%s is this very plugin already", found)
            return found
        if found != target:
            _refuse_second(found)
    _refuse_foreign(target)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        if copy:
            _replace(target, copy=True)
        else:
            _link_or_copy(target)
    except OSError as e:
        raise InstallError(f"Cannot write to {target.parent}: {e}") from e
    return target


def uninstall(folder: str | os.PathLike[str] | None = None) -> list[Path]:
    """Takes this plugin out of a plugins folder: links anywhere, and what was installed there.

    Args:
        folder (None): the plugins folder. By default, the one that FiftyOne searches

    Returns:
        what was removed: links, or folders with copies. Empty if there was none

    Raises:
        InstallError: if one of them is a git checkout or a folder that somebody put there by hand,
            which may hold work of theirs, or cannot be removed
    """
    base = Path(folder).expanduser() if folder is not None else plugins_dir()
    found = list(find_plugin(base))
    if (base / PLUGIN_NAME).is_symlink() and base / PLUGIN_NAME not in found:
        found.append(base / PLUGIN_NAME)  # a link whose target is gone
    for path in found:
        _refuse_checkout(path)
        if not path.is_symlink() and path != base / PLUGIN_NAME:
            raise InstallError(
                f"{path} is a copy that neither this program nor FiftyOne has put there: it may "
                "hold changes of yours. Nothing was removed; delete it yourself"
            )
    for path in found:
        try:
            _remove(path)
            if path.parent != base and not any(path.parent.iterdir()):
                path.parent.rmdir()
        except OSError as e:
            raise InstallError(f"Cannot remove {path}: {e}") from e
    return found


def find_plugin(base: Path) -> Iterator[Path]:
    """Yields the folders below ``base`` that hold this plugin, searched as FiftyOne does."""
    for root, dirs, files in os.walk(base, followlinks=True):
        if any(name in files for name in _METADATA):
            if _plugin_name(Path(root)) == PLUGIN_NAME:
                yield Path(root)
            dirs.clear()
        dirs[:] = [d for d in dirs if not d.startswith(".")]


def load_in_fresh_process(folder: str | os.PathLike[str] | None = None) -> LoadedPlugin:
    """Lets FiftyOne load its plugins in a process of its own and reports on this one.

    Args:
        folder (None): the plugins folder. By default, the one that FiftyOne searches

    Returns:
        a :class:`LoadedPlugin`
    """
    env = dict(os.environ)
    if folder is not None:
        env["FIFTYONE_PLUGINS_DIR"] = str(Path(folder).expanduser().resolve())
    with tempfile.TemporaryDirectory() as neutral:
        # Python puts the working folder on sys.path: a checkout there would hide a missing package
        done = subprocess.run(
            [sys.executable, "-c", _PROBE, PLUGIN_NAME],
            env=env,
            cwd=neutral,
            capture_output=True,
            text=True,
            check=False,
        )
    lines = [x for x in done.stdout.splitlines() if x.startswith(_MARK)]
    if done.returncode != 0 or not lines:
        return LoadedPlugin(None, errors=(done.stderr.strip() or "FiftyOne did not start",))
    report = json.loads(lines[-1][len(_MARK) :])
    return LoadedPlugin(
        path=Path(report["path"]) if report["path"] else None,
        version=report["version"],
        operators=tuple(report["operators"]),
        missing=tuple(report["missing"]),
        errors=tuple(report["errors"]),
        shadowed=tuple(Path(p) for p in report["shadowed"]),
    )


_MARK = "clipcleaner-probe:"
_PROBE = f"""
import json, sys
import fiftyone.operators as foo

found = [c for c in foo.OperatorRegistry().plugin_contexts if c.name == sys.argv[1]]
report = dict(path=None, version=None, operators=[], missing=[], errors=[], shadowed=[])
for c in found:
    d = c.plugin_definition
    names = [op.name for op in c.instances]
    promised = list(d.operators)  # the panels too
    report = dict(
        path=str(d.directory),
        version=d.version and str(d.version),
        operators=names,
        missing=[n for n in promised if n not in names],
        errors=[str(e) for e in c.errors],
        shadowed=[str(p) for p in (d.shadow_paths or [])],
    )
print({_MARK!r} + json.dumps(report))
"""


def _package_dir() -> Path:
    return Path(__file__).resolve().parent


def _checkout() -> Path | None:
    """The repository (or downloaded plugin) that this package stands in; None for a wheel."""
    root = _package_dir().parent
    return root if _plugin_name(root) == PLUGIN_NAME and (root / "operators").is_dir() else None


def _entries() -> dict[str, Path]:
    """The files and folders that make up the plugin, by their names in its folder."""
    package = _package_dir()
    root = _checkout()
    shell = root or package / "plugin_root"
    parts = {name: shell / name for name in ("fiftyone.yml", "__init__.py", "assets")}
    parts |= {name: (root or package) / name for name in ("operators", "training")}
    parts["clipcleaner_plugin"] = package
    absent = [str(p) for name, p in parts.items() if not p.exists()]
    if absent:
        raise InstallError(f"This installation is incomplete, install it again: no {absent[0]}")
    return parts


def _plugin_name(folder: Path) -> str | None:
    for name in _METADATA:
        try:
            content: Any = yaml.safe_load((folder / name).read_text(encoding="utf-8"))
        except (OSError, yaml.YAMLError, UnicodeDecodeError):
            continue
        return content.get("name") if isinstance(content, dict) else None
    return None


def _refuse_second(found: Path) -> None:
    raise InstallError(
        f"The plugin is already at {found}, and FiftyOne would use only one of the two. "
        "Keep that one, or take it away"
    )


def _refuse_foreign(target: Path) -> None:
    if not os.path.lexists(target):
        return
    if target.is_symlink() and not target.exists():
        return
    if _plugin_name(target) != PLUGIN_NAME:
        raise InstallError(
            f"{target} exists and is not this plugin (its fiftyone.yml does not say "
            f"{PLUGIN_NAME!r}). Nothing was changed; move it away first"
        )
    if target.resolve() == _package_dir().parent and not target.is_symlink():
        raise InstallError(f"{target} is where this very program runs from: nothing to copy")
    _refuse_checkout(target)


def _refuse_checkout(path: Path) -> None:
    if not path.is_symlink() and (path / ".git").exists():
        raise InstallError(
            f"{path} is a git checkout, which may hold work of yours. Nothing was changed; "
            "update it with git, or move it away first"
        )


def _link_or_copy(target: Path) -> None:
    try:
        _replace(target, copy=False)
    except OSError as e:
        if isinstance(e, PermissionError) and not os.access(target.parent, os.W_OK):
            raise
        logger.info("No links on this file system (%s): copying", e)
        _replace(target, copy=True)


def _replace(target: Path, copy: bool) -> None:
    """Builds the plugin beside ``target`` and moves it there, so that it is never half there."""
    # FiftyOne skips hidden folders: what is being built is no plugin yet
    staging = target.parent / f".{target.name}-{uuid.uuid4().hex[:8]}"
    try:
        _build(staging, copy)
        _remove(target)
        staging.rename(target)
    finally:
        _remove(staging)


def _build(staging: Path, copy: bool) -> None:
    root = _checkout()
    if root is not None and not copy:
        staging.symlink_to(root, target_is_directory=True)
        return
    staging.mkdir()
    for name, source in _entries().items():
        if not source.is_dir():
            # Never links: FiftyOne refuses an entry point that really lies outside of its folder
            shutil.copy2(source, staging / name)
        elif copy:
            shutil.copytree(source, staging / name, ignore=_NOT_COPIED)
        else:
            (staging / name).symlink_to(source, target_is_directory=True)


def _remove(path: Path) -> None:
    if path.is_symlink() or path.is_file():
        path.unlink()
    elif path.exists():
        shutil.rmtree(path)
