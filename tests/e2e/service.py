"""The real program: its folder, its configuration, its process."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from aiohttp import ClientSession

import openmeet_appservice
from openmeet_appservice.config import Config, load_config
from openmeet_appservice.dev import leash
from openmeet_appservice.dev.ports import LOOPBACK, is_free

from .waiting import LONG, until, until_true

_ROOT = Path(openmeet_appservice.__file__).parents[1]


@dataclass(frozen=True, slots=True)
class Ports:
    """The ports of one session's programs. Synapse's registration fixes that of the service."""

    synapse: int
    appservice: int
    behind: int
    """Where the service listens for Synapse when a gate has its port."""
    towards_synapse: int
    provisioning: int
    ops: int
    receiver: int
    spare: int


def choose_ports() -> Ports:
    """Return free ports below those that the system gives to outgoing connections.

    Above, such a connection could take the port of a program that a test has just killed. Test processes
    that run at the same time search in different places.
    """
    first = 12_000 + os.getpid() % 1000 * 20
    free = (port for port in range(first, 32_700) if is_free(port))
    return Ports(*(next(free) for _ in range(8)))


@dataclass(slots=True)
class Installation:
    """A folder with a configuration, as `init` wrote it, and what the environment says beside it."""

    folder: Path
    config_file: Path
    ports: Ports
    environment: dict[str, str]
    processes: list[Process] = field(default_factory=list)

    def config(self) -> Config:
        """Return the configuration as the program reads it."""
        return load_config(self.config_file, self.environment)

    @property
    def provisioning_url(self) -> str:
        """Where the provisioning API is."""
        return f"http://{LOOPBACK}:{self.ports.provisioning}"

    @property
    def ops_url(self) -> str:
        """Where health is told."""
        return f"http://{LOOPBACK}:{self.ports.ops}"

    def process(self) -> Process:
        """Return the service as a process, not started."""
        process = Process(self, self.folder / f"service-{len(self.processes) + 1}.log")
        self.processes.append(process)
        return process

    def run(self, *words: str, timeout: float = LONG) -> subprocess.CompletedProcess[str]:
        """Run another command of the program to its end."""
        return subprocess.run(
            [sys.executable, "-m", "openmeet_appservice", *words],
            cwd=self.folder,
            env=_whole(self.environment),
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
        )

    def logs(self) -> str:
        """Return the logs of every process so far."""
        return "\n".join(f"--- {process.log.name}\n{process.output()}" for process in self.processes)


@dataclass(slots=True)
class Process:
    """One run of ``openmeet-appservice run``."""

    installation: Installation
    log: Path
    popen: subprocess.Popen[bytes] | None = None

    def launch(self) -> None:
        """Start it, and wait for nothing. It dies with this process, however that ends."""
        words = [sys.executable, "-I", leash.__file__, str(os.getpid())]
        words += ["-m", "openmeet_appservice", "run", "-c", str(self.installation.config_file)]
        with self.log.open("ab") as log:
            self.popen = subprocess.Popen(
                words,
                cwd=self.installation.folder,
                env=_whole(self.installation.environment),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
            )

    async def start(self, session: ClientSession) -> None:
        """Start it and return once it says that it is ready."""
        self.launch()
        await self.ready(session)

    async def ready(self, session: ClientSession) -> None:
        """Return once it says that it is ready."""

        async def look() -> bool:
            assert self.is_running, f"it ended by itself ({self.exit_code}):\n{self.output()}"
            async with session.get(f"{self.installation.ops_url}/ready") as answer:
                return answer.status == 200

        await until(look, "the service is ready")

    @property
    def is_running(self) -> bool:
        """Whether it lives."""
        return self.popen is not None and self.popen.poll() is None

    @property
    def exit_code(self) -> int | None:
        """How it ended, None while it lives."""
        return None if self.popen is None else self.popen.poll()

    def kill(self) -> None:
        """End it with SIGKILL; fine when it has ended."""
        if self.popen is not None:
            if self.is_running:
                self.popen.kill()
            self.popen.wait()

    def ask_to_end(self) -> None:
        """Send SIGTERM, and wait for nothing."""
        assert self.popen is not None
        self.popen.send_signal(signal.SIGTERM)

    async def ended(self, limit: float = LONG) -> int:
        """Return the exit code, once it has ended by itself."""
        await until_true(lambda: not self.is_running, f"the process ends\n{self.output()}", limit)
        assert self.exit_code is not None
        return self.exit_code

    async def terminate(self, limit: float = 30.0) -> int:
        """End it with SIGTERM and return the exit code."""
        self.ask_to_end()
        return await self.ended(limit)

    def output(self) -> str:
        """Return what it has printed and logged."""
        return self.log.read_text(errors="replace") if self.log.exists() else ""


def new_installation(
    template: Path, folder: Path, ports: Ports, server_name: str, overrides: Mapping[str, str]
) -> Installation:
    """Return an installation in *folder* with the secrets of the *template*'s configuration.

    Parameters
    ----------
    template
        The folder that `init` wrote; Synapse knows its registration.
    overrides
        Variables by section and key, such as ``{"WEBHOOKS__TIMEOUT": "5s"}``.
    """
    folder.mkdir(parents=True, exist_ok=True)
    config_file = folder / "config.yaml"
    shutil.copy2(template / "config.yaml", config_file)
    settings = {
        "HOMESERVER__URL": f"http://{LOOPBACK}:{ports.synapse}",
        "HOMESERVER__SERVER_NAME": server_name,
        "APPSERVICE__LISTEN": f"{LOOPBACK}:{ports.appservice}",
        "PROVISIONING__LISTEN": f"{LOOPBACK}:{ports.provisioning}",
        "OPS__LISTEN": f"{LOOPBACK}:{ports.ops}",
        "WEBHOOKS__ALLOWED_NETWORKS": "[127.0.0.0/8]",
        "WEBHOOKS__TIMEOUT": "3s",
        "WEBHOOKS__RETRY": "[" + ", ".join(["200ms", "500ms", *["1s"] * 120]) + "]",
        "LOGGING__LEVEL": "DEBUG",
        **overrides,
    }
    environment = {f"OPENMEET_AS_{name}": value for name, value in settings.items()}
    return Installation(folder, config_file, ports, environment)


def _whole(environment: Mapping[str, str]) -> dict[str, str]:
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("OPENMEET_AS_")}
    return {**inherited, "PYTHONPATH": str(_ROOT), **environment}
