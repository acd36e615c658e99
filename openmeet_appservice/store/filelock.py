"""One `run` for each SQLite file: a lock file beside it, held for as long as the process lives."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path

from openmeet_appservice import errors


class FileLock:
    """The lock beside the database *path*. The operating system frees it when the process ends."""

    def __init__(self, path: Path) -> None:
        self.path = path.with_name(path.name + ".lock")
        self._descriptor: int | None = None

    def take(self) -> None:
        """Take the lock.

        Raises
        ------
        DatabaseInUse
            Another process holds it.
        DatabaseUnavailable
            The folder does not exist or may not be written to.
        """
        try:
            descriptor = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise errors.DatabaseUnavailable(
                f"{self.path} cannot be made: {error.strerror}; check the folder in database.url"
            ) from error
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(descriptor)
            raise errors.DatabaseInUse(
                f"another process runs on {self.path.with_suffix('')}: stop it first, "
                "or use PostgreSQL for more than one"
            ) from None
        self._descriptor = descriptor

    def release(self) -> None:
        """Give the lock back; harmless when it is not held."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None
