"""Which TCP ports are free on this machine's loopback address."""

from __future__ import annotations

import errno
import socket

LOOPBACK = "127.0.0.1"


def is_free(port: int) -> bool:
    """Tell whether nothing listens on *port* of the loopback address.

    A connection that is only being torn down does not count: Synapse and aiohttp both set
    ``SO_REUSEADDR``, so it would not stop them from listening.
    """
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((LOOPBACK, port))
        except OSError as error:
            if error.errno in (errno.EADDRINUSE, errno.EACCES):
                return False
            raise
    return True


def any_free_port() -> int:
    """Return a port of the loopback address that the system says is free."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.bind((LOOPBACK, 0))
        port: int = probe.getsockname()[1]
        return port


def choose(preferred: int) -> int:
    """Return *preferred* if it is free, else any free port.

    Between the answer and its use another program may take the port; whoever listens finds out.
    """
    return preferred if is_free(preferred) else any_free_port()
