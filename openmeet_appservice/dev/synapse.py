"""A real Synapse to throw away: for `dev` and for the tests.

It runs as a child process on the loopback address, without federation and without rate limits. On
Linux it dies with this process, however that ends (see `leash`); elsewhere `Synapse.stop` must be
called.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import importlib.metadata
import os
import signal
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from aiohttp import ClientError, ClientSession, ClientTimeout

from openmeet_appservice.dev import leash, ports
from openmeet_appservice.dev.person import Account, call
from openmeet_appservice.dev.synapse_config import SynapseSettings, lay_out
from openmeet_appservice.errors import SynapseNotStarted, UsageError

__all__ = ["Synapse", "SynapseSettings", "installed_version"]

_POLL_SECONDS = 0.05
_TAIL_LINES = 40


def installed_version() -> str:
    """Return the version of the installed Synapse.

    Raises
    ------
    UsageError
        It is not installed.
    """
    try:
        return importlib.metadata.version("matrix-synapse")
    except importlib.metadata.PackageNotFoundError as error:
        raise UsageError("Synapse is not installed: pip install 'openmeet-appservice[dev]'") from error


class Synapse:
    """One Synapse in one folder, started and stopped any number of times.

    Not tied to an event loop: it may be started in one and stopped in another. A start must come from
    a thread that lives as long as Synapse is to live, because Linux ends it with that thread.

    Parameters
    ----------
    settings
        What it is to be.
    sleep
        Waits some seconds.
    monotonic
        A clock in seconds that never goes back.
    """

    def __init__(
        self,
        settings: SynapseSettings,
        *,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self.settings = settings
        self._sleep = sleep
        self._monotonic = monotonic
        self._process: subprocess.Popen[bytes] | None = None
        self._shared_secret = ""

    @property
    def url(self) -> str:
        """Where the client-server API is, without a slash at the end."""
        return self.settings.url

    @property
    def pid(self) -> int | None:
        """The process id of the running Synapse, None while there is none."""
        return self._process.pid if self._process and self.is_running else None

    @property
    def is_running(self) -> bool:
        """Whether the process lives; whether it answers yet is another question."""
        return self._process is not None and self._process.poll() is None

    async def start(self, timeout: float = 60.0) -> None:
        """Start Synapse and return once it answers; does nothing while it runs.

        Parameters
        ----------
        timeout
            How many seconds it may take.

        Raises
        ------
        UsageError
            Synapse is not installed, or something else listens on its port.
        SynapseNotStarted
            It ended, or did not answer in time. The message ends with the last lines of its log.
        """
        if self.is_running:
            return
        installed_version()
        # Otherwise the server that has the port would be taken for ours.
        if not ports.is_free(self.settings.port):
            raise UsageError(f"port {self.settings.port} is taken: Synapse cannot listen there")
        self._shared_secret = lay_out(self.settings)
        self._process = _spawn(self.settings)
        try:
            await self._wait_until_it_answers(self._monotonic() + timeout, timeout)
        except BaseException:
            self.kill()
            raise

    async def stop(self, grace: float = 10.0) -> None:
        """End Synapse with SIGTERM, and after *grace* seconds with SIGKILL; fine when it has ended."""
        if self._process is None:
            return
        deadline = self._monotonic() + grace
        try:
            self._signal(signal.SIGTERM)
            while self.is_running and self._monotonic() < deadline:
                await self._sleep(_POLL_SECONDS)
        finally:
            self.kill()

    def kill(self) -> None:
        """End Synapse at once with SIGKILL; fine when it has ended."""
        if self._process is None:
            return
        self._signal(signal.SIGKILL)
        self._process.wait()
        self._process = None

    def log_tail(self, lines: int = _TAIL_LINES) -> str:
        """Return the last lines of what Synapse printed and of what it logged."""
        printed = _last_lines(self.settings.output_file, lines)
        logged = _last_lines(self.settings.log_file, lines)
        return "\n".join([*printed, *logged])

    async def register_user(self, name: str, password: str, admin: bool = False) -> Account:
        """Make the account *name*, a server admin if wanted, and log in.

        Uses Synapse's registration with a shared secret, which proves knowledge of the secret by an
        HMAC-SHA1 over the nonce and the fields, each ended by a NUL but the last (Synapse's manual,
        *Shared-Secret Registration*).

        Raises
        ------
        HomeserverRefused
            Such as 400 ``M_USER_IN_USE``.
        """
        url = f"{self.url}/_synapse/admin/v1/register"
        async with ClientSession() as session:
            nonce = (await call(session, "GET", url))["nonce"]
            fields = [nonce, name, password, "admin" if admin else "notadmin"]
            proof = hmac.new(self._shared_secret.encode(), "\0".join(fields).encode(), hashlib.sha1)
            body: dict[str, Any] = {
                "nonce": nonce,
                "username": name,
                "password": password,
                "admin": admin,
                "mac": proof.hexdigest(),
            }
            answer = await call(session, "POST", url, body=body)
        return Account(answer["user_id"], answer["device_id"], answer["access_token"])

    async def _wait_until_it_answers(self, deadline: float, timeout: float) -> None:
        async with ClientSession(timeout=ClientTimeout(total=5)) as session:
            while not await self._answers(session):
                if not self.is_running:
                    code = self._process.returncode if self._process else None
                    raise SynapseNotStarted(
                        f"Synapse ended while starting (exit code {code}):\n{self.log_tail()}"
                    )
                if self._monotonic() > deadline:
                    raise SynapseNotStarted(
                        f"Synapse did not answer within {timeout:g} s:\n{self.log_tail()}"
                    )
                await self._sleep(_POLL_SECONDS)

    async def _answers(self, session: ClientSession) -> bool:
        try:
            async with session.get(f"{self.url}/_matrix/client/versions") as response:
                return response.status == 200
        except (ClientError, TimeoutError):
            return False

    def _signal(self, number: signal.Signals) -> None:
        if self._process is not None and self.is_running:
            self._process.send_signal(number)


def _spawn(settings: SynapseSettings) -> subprocess.Popen[bytes]:
    python = [sys.executable, "-I", leash.__file__, str(os.getpid())]
    synapse = ["-P", "-m", "synapse.app.homeserver", "-c", str(settings.config_file)]
    with settings.output_file.open("wb") as output:
        # A session of its own: Ctrl-C at the terminal is for us, who then stop it in order.
        return subprocess.Popen(  # noqa: S603 # every word of the command is ours
            python + synapse,
            cwd=settings.folder,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )


def _last_lines(file: Path, lines: int) -> list[str]:
    """Return the last *lines* lines of *file*, reading no more than 256 KiB; none if it is missing."""
    if not file.exists():
        return []
    with file.open("rb") as stream:
        stream.seek(max(0, file.stat().st_size - 256 * 1024))
        return stream.read().decode("utf-8", "replace").splitlines()[-lines:]
