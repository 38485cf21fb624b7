"""What is wrong with an installation and what to do: ``python -m clipcleaner_plugin doctor``."""

from __future__ import annotations

import logging
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from packaging.version import Version

if TYPE_CHECKING:
    from .stores import StoreInfo

logger = logging.getLogger(__name__)

Status = Literal["OK", "WARN", "FAIL"]

# The same bounds as in pyproject.toml, for copies of the plugin that were never pip-installed
LOWER_BOUNDS = {
    "fiftyone": "1.10",
    "torch": "2.4",
    "torchvision": "0.19",
    "open_clip_torch": "3.0",
    "scikit-learn": "1.3",
    "numpy": "1.24",
}
PYTHONS = ((3, 10), (3, 12))
# Enough for FiftyOne 1.10; its later versions bound the others themselves
_WEB = "see 'Tested with' in the README"
_GIB = 2**30
# A million vectors of 512 float32 numbers take 2 GB
_COMFORTABLE, _NECESSARY = 5 * _GIB, _GIB // 2


@dataclass(frozen=True)
class Check:
    """One finding.

    Attributes:
        name: what was looked at
        status: "OK"; "WARN" (works, or is not needed by all); "FAIL" (must be mended)
        found: what was found
        advice: what to do; empty for "OK"
    """

    name: str
    status: Status
    found: str
    advice: str = ""

    def __str__(self) -> str:
        """The finding on one line, the advice on a second."""
        line = f"{self.status:<4}  {self.name:<15}  {self.found}"
        return f"{line}\n{'':<23}-> {self.advice}" if self.advice else line


def examine(model: str | None = None, pretrained: str | None = None) -> Iterator[Check]:
    """Looks at everything that the plugin needs, one thing after the other.

    Args:
        model (None): also say whether this model's weights are at hand, or need a download; see
            :func:`clipcleaner_plugin.apply_clipcleaner`
        pretrained (None): the tag or file of its weights

    Yields:
        a :class:`Check` per thing, as soon as it is known
    """
    yield _python()
    for package in LOWER_BOUNDS:
        yield _package(package)
    checks: list[tuple[str, Callable[[], Check]]] = [
        ("mongod", _mongod),
        ("database", _database),
        ("App", _app),
        ("device", _device),
        ("plugin", _plugin),
        ("embedded", _embedded_model),
        ("store", _store),
        ("stored", _stored),
    ]
    if model is not None:
        checks.append(("model", lambda: _model(model, pretrained)))
    for name, check in checks:
        yield _guarded(name, check)


def _guarded(name: str, check: Callable[[], Check]) -> Check:
    """A broken installation breaks in ways that nobody foresaw: still report, and go on."""
    try:
        return check()
    except Exception as e:
        logger.debug("The check of %s failed", name, exc_info=True)
        text = " ".join(str(e).split())[:300]
        return Check(name, "FAIL", f"{type(e).__name__}: {text}", "mend this first, then retry")


def _python() -> Check:
    oldest, newest = PYTHONS
    found = f"{'.'.join(map(str, sys.version_info[:3]))} ({sys.executable})"
    if oldest <= sys.version_info[:2] <= newest:
        return Check("Python", "OK", found)
    wanted = " to ".join(".".join(map(str, v)) for v in PYTHONS)
    return Check("Python", "WARN", found, f"the tests ran on Python {wanted}: use one of these")


def _package(name: str) -> Check:
    lowest = LOWER_BOUNDS[name]
    install = f"{sys.executable} -m pip install '{name}>={lowest}'"
    try:
        found = version(name)
    except PackageNotFoundError:
        return Check(name, "FAIL", "is not installed", install)
    if Version(found) < Version(lowest):
        return Check(name, "FAIL", f"{found} is older than {lowest}", install)
    return Check(name, "OK", found)


def _mongod() -> Check:
    from .mongod import database_server

    server = database_server()
    if server.ok:
        return Check("mongod", "OK", server.message)
    repair = "" if server.uri else f"{sys.executable} -m clipcleaner_plugin.mongod tries to mend it"
    return Check("mongod", "FAIL", server.message, repair)


def _database() -> Check:
    import fiftyone as fo

    from .mongod import database_server

    if not database_server().ok:
        return Check("database", "FAIL", "not tried: no server", "mend mongod first")
    where = "the configured server" if fo.config.database_uri else fo.config.database_dir
    return Check("database", "OK", f"answers, {len(fo.list_datasets())} datasets ({where})")


def _app(module: str = "fiftyone.server.app") -> Check:
    """FiftyOne before 1.22 does not limit its web libraries, whose newer versions break it."""
    done = subprocess.run(
        [sys.executable, "-c", f"import {module}"], capture_output=True, text=True, check=False
    )
    if done.returncode == 0:
        return Check("App", "OK", "its server can be started")
    advice = f"{sys.executable} -m pip install --upgrade fiftyone, or to keep your version: {_WEB}"
    found = f"its server does not start (scripts work): {_last_line(done.stderr)}"
    return Check("App", "FAIL", found, advice)


def _device() -> Check:
    import torch

    if torch.cuda.is_available():
        free, total = torch.cuda.mem_get_info()
        name = torch.cuda.get_device_name()
        memory = f"{free / _GIB:.1f} of {total / _GIB:.1f} GiB free"
        return Check("device", "OK", f"CUDA: {name}, {memory}")
    if torch.backends.mps.is_available():
        return Check("device", "OK", "MPS (Apple silicon)")
    cuda = torch.version.cuda
    why = (
        f"this torch is made for CUDA {cuda} and sees no GPU" if cuda else "this torch has no CUDA"
    )
    found = f"CPU, {os.cpu_count()} cores; {why}"
    advice = "fine for thousands of images; for more, use a machine with a GPU"
    return Check("device", "WARN", found, advice)


def _plugin() -> Check:
    from . import __version__
    from .install import load_in_fresh_process, plugins_dir

    loaded = load_in_fresh_process()
    install = f"{sys.executable} -m clipcleaner_plugin install"
    if loaded.path is None:
        if loaded.errors:
            return Check("plugin", "FAIL", _last_line(loaded.errors[0]), install)
        absent = f"not in {plugins_dir()}, so the App does not show it (scripts work)"
        enable = "if it was disabled: fiftyone plugins enable @clipcleaner/clipcleaner"
        return Check("plugin", "WARN", absent, f"{install}; {enable}")
    if not loaded.ok:
        what = [_last_line(e) for e in loaded.errors] or [f"missing: {', '.join(loaded.missing)}"]
        return Check("plugin", "FAIL", f"{loaded.path} does not load: {what[0]}", install)
    if loaded.version != __version__:
        found = f"version {loaded.version} at {loaded.path}, but the package is {__version__}"
        return Check("plugin", "FAIL", found, install)
    if loaded.shadowed:
        found = f"loaded from {loaded.path}; there is a second one at {loaded.shadowed[0]}"
        return Check("plugin", "WARN", found, "remove one of the two")
    count = len(loaded.operators)
    return Check("plugin", "OK", f"version {loaded.version}, {count} operators ({loaded.path})")


def _embedded_model() -> Check:
    from .models import TINY_CLIP, load_model

    model = load_model(TINY_CLIP, device="cpu")
    model.encode_texts(["a photo of a zero"])
    return Check("embedded", "OK", f"{model.identity} runs")


def _store() -> Check:
    from .store import store_root

    root = store_root()
    existing = next(p for p in (root, *root.parents) if p.exists())
    try:
        with tempfile.TemporaryFile(dir=existing):
            pass
    except OSError as e:
        found = f"{root} cannot be written to: {e.strerror or e}"
        return Check("store", "FAIL", found, "set CLIPCLEANER_STORE_DIR to a folder of yours")
    free = shutil.disk_usage(existing).free
    found = f"{root}, {free / _GIB:.1f} GiB free"
    if free >= _COMFORTABLE:
        return Check("store", "OK", found)
    advice = "free some space, or set CLIPCLEANER_STORE_DIR to a larger disk"
    return Check("store", "WARN" if free >= _NECESSARY else "FAIL", found, advice)


def _stored() -> Check:
    from .mongod import database_server

    if not database_server().ok:
        return Check("stored", "FAIL", "not tried: no server", "mend mongod first")
    from .stores import list_stores

    stores = list_stores()
    found = f"embeddings of {len(stores)} models and datasets, {_gib(stores)}"
    orphans = [info for info in stores if info.use == "orphan"]
    if not orphans:
        return Check("stored", "OK", found)
    found += f"; {len(orphans)} of datasets that this database does not have, {_gib(orphans)}"
    advice = f"{sys.executable} -m clipcleaner_plugin prune lists them, and can delete them"
    return Check("stored", "WARN", found, advice)


def _gib(stores: list[StoreInfo]) -> str:
    return f"{sum(info.size for info in stores) / _GIB:.1f} GiB"


def _model(model: str, pretrained: str | None) -> Check:
    from .model_source import HUB_PREFIX, resolve

    if model.startswith(HUB_PREFIX):
        weights = _in_hub_cache(model.removeprefix(HUB_PREFIX), "")
        name = model
    else:
        try:
            source = resolve(model, pretrained)
        except (ValueError, TypeError) as e:
            return Check("model", "FAIL", str(e), "name another model")
        weights = source.weights or _downloaded(source.tag or {})
        name = source.readable
    if weights is not None:
        return Check("model", "OK", f"{name}: weights at {weights}")
    advice = "the first use downloads them and needs the network; afterwards they are cached"
    return Check("model", "WARN", f"{name}: no weights on this machine yet", advice)


def _downloaded(tag: Any) -> Path | None:
    """Where open_clip keeps the weights of a pretrained tag, if it has them already."""
    repository, _, filename = str(tag.get("hf_hub", "")).rpartition("/")
    if repository:
        found = _in_hub_cache(repository, filename)
        if found is not None:
            return found
    url = str(tag.get("url", ""))
    path = Path("~/.cache/clip").expanduser() / os.path.basename(url)
    return path if url and path.is_file() else None


def _in_hub_cache(repository: str, filename: str) -> Path | None:
    from huggingface_hub import try_to_load_from_cache
    from open_clip.constants import HF_SAFE_WEIGHTS_NAME, HF_WEIGHTS_NAME

    names = [filename] if filename else [HF_SAFE_WEIGHTS_NAME, HF_WEIGHTS_NAME]
    for name in names:
        found = try_to_load_from_cache(repository, name)
        if isinstance(found, str):
            return Path(found)
    return None


def _last_line(text: str) -> str:
    lines = text.strip().splitlines()
    return lines[-1].strip() if lines else "unknown error"
