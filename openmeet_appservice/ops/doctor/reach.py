"""Whether the service runs, and whether Synapse reaches it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import orjson
from aiohttp import ClientError, ClientSession, ClientTimeout

from openmeet_appservice.config import Config
from openmeet_appservice.domain.addresses import Address
from openmeet_appservice.errors import HomeserverError
from openmeet_appservice.homeserver import Homeserver
from openmeet_appservice.intake.advice import advice
from openmeet_appservice.ops.doctor.finding import Finding, ok, problem, warning

_SECONDS = ClientTimeout(total=10, sock_connect=5)
# Where to connect to a listener of all addresses.
_HERE = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104
_START = "Start it: `openmeet-appservice run`."


async def check_service(config: Config, session: ClientSession) -> tuple[list[Finding], bool]:
    """Ask the service on this machine whether it is ready, and return whether it runs at all."""
    listen = config.ops.listen
    url = f"http://{Address(_HERE.get(listen.host, listen.host), listen.port)}/ready"
    try:
        async with session.get(url, timeout=_SECONDS, allow_redirects=False) as response:
            status, body = response.status, await response.read()
    except (ClientError, TimeoutError):
        return [warning("service", f"it does not run here: nothing answers at {url}", _START)], False
    answer = _parsed(body)
    match answer:
        case {"ready": True, "degraded": [*degraded]} if status == 200:
            findings = [_degraded(str(one)) for one in degraded]
            return findings or [ok("service", "it runs and is ready")], True
        case {"ready": False, "reasons": [*reasons]} if status == 503:
            what = f"it runs, but is not ready: {', '.join(map(str, reasons))}"
            remedy = "Wait until it has started; if that does not end, its log says why."
            return [problem("service", what, remedy)], True
    what = f"something else answers at {url} (HTTP {status})"
    return [problem("service", what, f"Stop the other program or change `ops.listen`. {_START}")], False


async def check_ping(homeserver: Homeserver, new_name: Callable[[], str], *, runs: bool) -> Finding:
    """Have Synapse call us, and return how that went.

    Parameters
    ----------
    runs
        Whether the service was seen to run; where it was not, starting it is the first thing to try.
    """
    try:
        milliseconds = await homeserver.ping(f"doctor-{new_name()}")
    except HomeserverError as error:
        return problem(
            "ping", str(error), advice(error) if runs else f"{_START} Where it runs: {advice(error)}"
        )
    return ok("ping", f"Synapse reached us in {milliseconds} ms")


def _degraded(reason: str) -> Finding:
    remedy = "Its log says more; it goes on trying by itself."
    return warning("service", f"it runs, but is degraded: {reason}", remedy)


def _parsed(body: bytes) -> Any:
    try:
        return orjson.loads(body)
    except ValueError:
        return None
