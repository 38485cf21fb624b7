"""Ports for servers of the tests."""

from __future__ import annotations

import itertools
import os
import socket

# Below those that the system hands to any client that connects, and in an order of this process's
# own: what is free when it is asked for must still be free when the server has started
_FIRST, _COUNT = 15_000, 10_000
_ports = itertools.count(97 * os.getpid())


def free_port() -> int:
    """Returns a port of 127.0.0.1 that nothing listens on, another one each time."""
    for number in itertools.islice(_ports, _COUNT):
        port = _FIRST + number % _COUNT
        with socket.socket() as s:
            try:
                s.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port
    raise RuntimeError("no port is free")
