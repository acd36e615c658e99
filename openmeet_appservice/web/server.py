"""A listener: one aiohttp application on one address."""

from __future__ import annotations

import errno
import logging
import socket

from aiohttp import web

from openmeet_appservice.domain.addresses import Address
from openmeet_appservice.errors import UsageError

log = logging.getLogger(__name__)

KEEPALIVE_SECONDS = 75.0
"""How long an idle connection stays open. aiohttp's own default here is an hour."""


class Listener:
    """Serves an application until it is stopped.

    Parameters
    ----------
    name
        What it serves, for messages: ``the provisioning API``.
    app
        The application.
    address
        Where to listen.
    drain_seconds
        How long requests may go on after `stop` before they are cut off.
    """

    def __init__(self, name: str, app: web.Application, address: Address, *, drain_seconds: float) -> None:
        self._name = name
        self._address = address
        self._runner = web.AppRunner(
            app,
            access_log=None,
            handle_signals=False,
            keepalive_timeout=KEEPALIVE_SECONDS,
            shutdown_timeout=drain_seconds,
        )

    async def start(self) -> None:
        """Listen.

        Raises
        ------
        UsageError
            The address is taken, is not this machine's, or may not be used. Nothing is left open.
        """
        await self._runner.setup()
        site = web.TCPSite(self._runner, self._address.host, self._address.port)
        try:
            await site.start()
        except OSError as error:
            await self._runner.cleanup()
            raise UsageError(
                f"cannot listen on {self._address} for {self._name}: {_reason(error)}"
            ) from error
        log.info("%s listens on %s", self._name, self.url)

    @property
    def url(self) -> str:
        """The base URL, with the port that was really taken."""
        host, port = self._runner.addresses[0][:2]
        return f"http://{Address(host, port)}"

    async def stop(self) -> None:
        """Take no more connections, let requests end within the drain time, close. Repeatable."""
        await self._runner.cleanup()


def _reason(error: OSError) -> str:
    if error.errno == errno.EADDRINUSE:
        return "the address is already in use"
    if error.errno == errno.EADDRNOTAVAIL:
        return "this machine does not have that address"
    if error.errno in {errno.EACCES, errno.EPERM}:
        return "this user may not use that port"
    if isinstance(error, socket.gaierror):
        return "the host name is not known"
    return error.strerror or str(error)
