"""The lock files: every package has its hash, no place to fetch from is named, both say the same."""

from __future__ import annotations

import re
from configparser import ConfigParser
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
LOCKS = ["requirements.lock", "requirements-run.lock"]


def locked(name: str) -> dict[str, str]:
    """The version of each package in the lock file *name*."""
    text = (ROOT / name).read_text()
    return dict(re.findall(r"(?m)^([a-z0-9-]+)(?:\[[a-z,]+\])?==(\S+)", text))


def declared(*extras: str) -> set[str]:
    """The packages that `setup.cfg` asks for."""
    config = ConfigParser()
    config.read(ROOT / "setup.cfg")
    lines = [
        config["options"]["install_requires"],
        *(config["options.extras_require"][extra] for extra in extras),
    ]
    names = re.findall(r"(?m)^([A-Za-z0-9._-]+)", "\n".join(lines))
    return {re.sub(r"[._-]+", "-", name).lower() for name in names}


@pytest.mark.parametrize("name", LOCKS)
def test_every_package_is_pinned_with_hashes(name: str) -> None:
    entries = re.split(r"(?m)^(?=\w)", (ROOT / name).read_text())[1:]
    assert len(entries) > 20
    for entry in entries:
        assert re.match(r"[a-z0-9-]+(\[[a-z,]+\])?==\S+ ", entry), entry
        assert "--hash=sha256:" in entry


@pytest.mark.parametrize("name", LOCKS)
def test_no_place_to_fetch_from_is_written_down(name: str) -> None:
    text = (ROOT / name).read_text()
    assert not re.search(r"://|--index|--find-links|--extra|--trusted|/(home|root|tmp)/", text)


def test_what_is_declared_is_locked() -> None:
    assert declared("build", "dev", "test") <= locked("requirements.lock").keys()
    assert declared("build") <= locked("requirements-run.lock").keys()


def test_what_runs_is_what_was_tested() -> None:
    run, work = locked("requirements-run.lock"), locked("requirements.lock")
    assert {name: work.get(name) for name in run} == run
