"""Writing files that hold secrets: whole or not at all, and for their owner only."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Mapping
from pathlib import Path

from openmeet_appservice.errors import UsageError


def write_private_files(texts: Mapping[Path, str], *, force: bool) -> None:
    """Write each text to its path, mode 0600.

    Every file is complete on disk before the first gets its name, so a crash leaves an old file or a
    new one, never a part.

    Parameters
    ----------
    texts
        What to write, by path. Missing folders are made.
    force
        Whether files that exist are replaced.

    Raises
    ------
    UsageError
        Without *force*: some of the files exist (all are named). Or a file cannot be written. Either way
        nothing was changed, unless the disk failed between two names.
    """
    existing = [str(path) for path in texts if path.exists() or path.is_symlink()]
    if existing and not force:
        verb = "exists" if len(existing) == 1 else "exist"
        raise UsageError(
            f"{' and '.join(existing)} {verb} already, with secrets that may be in use. "
            "Nothing was written; --force overwrites."
        )
    written: dict[Path, str] = {}
    try:
        for path, text in texts.items():
            path.parent.mkdir(parents=True, exist_ok=True)
            written[path] = _write_beside(path, text)
        for path, temporary in list(written.items()):
            os.replace(temporary, path)
            del written[path]
            _sync_folder(path.parent)
    except OSError as error:
        raise UsageError(f"{error.filename}: cannot be written: {error.strerror}") from error
    finally:
        for temporary in written.values():
            os.unlink(temporary)


def _write_beside(path: Path, text: str) -> str:
    # mkstemp makes the file with mode 0600, so no other user can open it at any moment.
    descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
    except BaseException:
        os.unlink(temporary)
        raise
    return temporary


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
