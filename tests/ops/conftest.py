"""An installation as `init` leaves it, and what the doctor works with."""

from __future__ import annotations

import itertools
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from openmeet_appservice import wiring
from openmeet_appservice.config import Config, load_config
from openmeet_appservice.homeserver import open_session
from openmeet_appservice.installation import Answers, initialise
from openmeet_appservice.ops.doctor import Finding, Tools, examine
from openmeet_appservice.outbound.client import Answer, NoAnswer
from openmeet_appservice.store.database import Database

SERVER_NAME = "hs.test"

Configure = Callable[..., Config]


@dataclass(slots=True)
class Receiver:
    """Takes webhooks as told, without a network."""

    result: Answer | NoAnswer = field(default_factory=lambda: Answer(204, b"", {}, 0.01))
    taken: list[tuple[str, bytes, Mapping[str, str]]] = field(default_factory=list)

    async def post(self, url: str, body: bytes, headers: Mapping[str, str]) -> Answer | NoAnswer:
        self.taken.append((url, body, headers))
        return self.result


@dataclass(slots=True)
class Doctor:
    """Examines an installation; *now* is what its clock shows, None for the real time."""

    receiver: Receiver = field(default_factory=Receiver)
    now: int | None = None
    _names: itertools.count[int] = field(default_factory=lambda: itertools.count(1))

    async def examine(self, config: Config, folder: Path) -> list[Finding]:
        """Return all findings."""
        database = wiring.open_database(config)
        try:
            async with open_session("tests") as session:
                tools = Tools(database, session, self.receiver, self._now, self._name)
                return await examine(config, folder / "config.yaml", tools)
        finally:
            await database.close()

    def _now(self) -> int:
        return wiring.now() if self.now is None else self.now

    def _name(self) -> str:
        return f"doctor{next(self._names):010d}"


@pytest.fixture
def doctor() -> Doctor:
    """The doctor, with a receiver that takes everything."""
    return Doctor()


@pytest.fixture(scope="session")
def configure() -> Configure:
    """Set an installation up in a folder (or read it again) with some keys changed by the environment."""

    def made(folder: Path, url: str = "http://127.0.0.1:1", **changed: str) -> Config:
        path = folder / "config.yaml"
        if not path.exists():
            initialise(Answers(url, SERVER_NAME), folder)
        # Nothing may be asked that happens to run on this machine.
        changed = {"ops__listen": "127.0.0.1:1", **changed}
        return load_config(path, {f"OPENMEET_AS_{key.upper()}": value for key, value in changed.items()})

    return made


@pytest.fixture
async def migrated(configure: Configure, tmp_path: Path) -> AsyncIterator[Database]:
    """The database of the installation in ``tmp_path``, ready for use."""
    config = configure(tmp_path)
    database = wiring.open_database(config)
    await wiring.prepare_database(database, config, migrate=True)
    yield database
    await database.close()


Of = Callable[[list[Finding], str], Finding]


@pytest.fixture(scope="session")
def of() -> Of:
    """Return the one finding of a name."""

    def one(findings: list[Finding], name: str) -> Finding:
        found = [finding for finding in findings if finding.name == name]
        assert len(found) == 1, findings
        return found[0]

    return one
