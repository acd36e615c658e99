"""The service's processes: each a whole ``openmeet-appservice run``, killed and started again at will."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from aiohttp import ClientError, ClientSession

import openmeet_appservice
from benchmarks.delivery_proof.scenario import SERVER
from openmeet_appservice.config import Config, load_config
from openmeet_appservice.dev import leash
from openmeet_appservice.dev.ports import LOOPBACK, is_free
from openmeet_appservice.installation import Answers, initialise

WEBHOOK_SECONDS = 2.0
"""How long a webhook may take."""

START_SECONDS = 60.0

_ROOT = Path(openmeet_appservice.__file__).parents[1]
_FIRST_PORT, _LAST_PORT = 10_000, 11_999
_SETTINGS = {
    "WEBHOOKS__ALLOWED_NETWORKS": "[127.0.0.0/8]",
    "WEBHOOKS__TIMEOUT": f"{WEBHOOK_SECONDS:g}s",
    "WEBHOOKS__RETRY": "[" + ", ".join(["100ms", "200ms", "500ms", *["1s"] * 500]) + "]",
    "WEBHOOKS__MAX_BATCH": "20",
    "LOGGING__LEVEL": "INFO",
}


def free_ports() -> Iterator[int]:
    """Yield ports that nobody listens on, below those that the system gives to outgoing connections.

    Above, such a connection could take the port of a process that was just killed.
    """
    start = _FIRST_PORT + os.getpid() * 10 % (_LAST_PORT - _FIRST_PORT)
    everything = [*range(start, _LAST_PORT), *range(_FIRST_PORT, start)]
    return (port for port in everything if is_free(port))


@dataclass(slots=True)
class Replica:
    """One of the processes that serve, on ports of its own.

    Parameters
    ----------
    folder
        Where the configuration and the logs are; shared by all replicas.
    environment
        What is configured besides.
    """

    name: str
    folder: Path
    environment: dict[str, str]
    appservice: int
    provisioning: int
    ops: int
    process: subprocess.Popen[bytes] | None = None
    starts: int = 0
    ended_by_itself: list[int] = field(default_factory=list)
    """The exit codes of processes that nobody had killed."""

    @property
    def config(self) -> Config:
        """The configuration as the process reads it."""
        return load_config(self.folder / "config.yaml", self.environment)

    @property
    def url(self) -> str:
        """Where it listens for Synapse."""
        return f"http://{LOOPBACK}:{self.appservice}"

    @property
    def provisioning_url(self) -> str:
        """Where it listens for OpenMeet."""
        return f"http://{LOOPBACK}:{self.provisioning}"

    @property
    def ops_url(self) -> str:
        """Where it tells of its health."""
        return f"http://{LOOPBACK}:{self.ops}"

    @property
    def log(self) -> Path:
        """What it has said in all its lives."""
        return self.folder / f"{self.name}.log"

    def launch(self) -> None:
        """Start it, and wait for nothing. It dies with this process, however that ends."""
        self._note_end()
        words = [sys.executable, "-I", leash.__file__, str(os.getpid()), "-m", "openmeet_appservice"]
        inherited = {name: value for name, value in os.environ.items() if not name.startswith("OPENMEET_AS_")}
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [*words, "run", "-c", str(self.folder / "config.yaml")],
                cwd=self.folder,
                env={**inherited, "PYTHONPATH": str(_ROOT), **self.environment},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
            )
        self.starts += 1

    def kill(self) -> None:
        """End it with SIGKILL; fine when it does not run."""
        self._note_end()
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            self.process = None

    async def terminate(self) -> None:
        """End it with SIGTERM, and wait until it has ended."""
        self._note_end()
        if self.process is not None:
            self.process.terminate()
            code = await asyncio.to_thread(self.process.wait)
            self.process = None
            if code:
                self.ended_by_itself.append(code)

    async def ready(self, session: ClientSession) -> None:
        """Return once it says that it is ready.

        Raises
        ------
        RuntimeError
            It has ended by itself, or takes far too long.
        """
        limit = time.monotonic() + START_SECONDS
        while time.monotonic() < limit:
            if self.process is None or self.process.poll() is not None:
                break
            try:
                async with session.get(f"{self.ops_url}/ready") as answer:
                    if answer.status == 200:
                        return
            except (ClientError, OSError):
                pass
            await asyncio.sleep(0.05)
        raise RuntimeError(f"{self.name} does not become ready:\n{self.log.read_text()[-2000:]}")

    def memory(self) -> int:
        """Return how many bytes of memory it holds (its resident set)."""
        assert self.process is not None
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        line = next(line for line in status.splitlines() if line.startswith("VmRSS:"))
        return int(line.split()[1]) * 1024

    async def metric(self, session: ClientSession, name: str) -> float:
        """Return the sum of all samples of a metric, 0 where there are none."""
        async with session.get(f"{self.ops_url}/metrics") as answer:
            lines = (await answer.text()).splitlines()
        return sum(float(line.split()[-1]) for line in lines if line.split("{")[0].split(" ")[0] == name)

    def _note_end(self) -> None:
        if self.process is not None and (code := self.process.poll()) is not None:
            self.ended_by_itself.append(code)
            self.process = None


def make_replicas(
    folder: Path,
    count: int,
    *,
    homeserver_url: str,
    database_url: str,
    settings: dict[str, str] | None = None,
) -> list[Replica]:
    """Write a configuration into *folder* and return so many replicas that use it, none of them started.

    Parameters
    ----------
    settings
        Such as ``{"WEBHOOKS__TIMEOUT": "5s"}``, besides those that make waits short.
    """
    initialise(Answers(homeserver_url=homeserver_url, server_name=SERVER), folder)
    ports = free_ports()
    replicas = []
    for number in range(count):
        appservice, provisioning, ops = next(ports), next(ports), next(ports)
        every = {
            **_SETTINGS,
            "DATABASE__URL": database_url,
            "APPSERVICE__LISTEN": f"{LOOPBACK}:{appservice}",
            "PROVISIONING__LISTEN": f"{LOOPBACK}:{provisioning}",
            "OPS__LISTEN": f"{LOOPBACK}:{ops}",
            **(settings or {}),
        }
        environment = {f"OPENMEET_AS_{name}": value for name, value in every.items()}
        replicas.append(Replica(f"replica-{number + 1}", folder, environment, appservice, provisioning, ops))
    return replicas
