"""The list of Node's packages is complete, pinned, and names no place to fetch from."""

from __future__ import annotations

import json

from .conftest import FOLDER


def test_the_lock_names_no_registry() -> None:
    """So that everybody's own is asked; `.npmrc` keeps it so when the lock is made anew."""
    lock = json.loads((FOLDER / "package-lock.json").read_text())
    assert not [name for name, package in lock["packages"].items() if "resolved" in package]
    assert all("integrity" in package for name, package in lock["packages"].items() if name)
    wanted = json.loads((FOLDER / "package.json").read_text())["dependencies"]
    assert lock["packages"][""]["dependencies"] == wanted
