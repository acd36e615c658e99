from __future__ import annotations

import asyncio

import aiohttp
import pytest
from aiohttp import web

from openmeet_appservice.domain.addresses import Address
from openmeet_appservice.errors import UsageError
from openmeet_appservice.web.server import Listener

LOOPBACK = Address("127.0.0.1", 0)


async def hello(request: web.Request) -> web.Response:
    return web.Response(text="hello")


def app_with(handler: object = hello) -> web.Application:
    app = web.Application()
    app.router.add_get("/", handler)  # type: ignore[arg-type]
    return app


async def test_a_listener_serves_and_stops() -> None:
    listener = Listener("the test", app_with(), LOOPBACK, drain_seconds=1)
    await listener.start()
    url = listener.url
    assert not url.endswith(":0")
    async with aiohttp.ClientSession() as session:
        async with session.get(url) as response:
            assert await response.text() == "hello"
        await listener.stop()
        await listener.stop()
        with pytest.raises(aiohttp.ClientConnectorError):
            await session.get(url)


async def test_a_taken_port_is_named() -> None:
    first = Listener("the first", app_with(), LOOPBACK, drain_seconds=1)
    await first.start()
    port = int(first.url.rpartition(":")[2])
    second = Listener("the second", app_with(), Address("127.0.0.1", port), drain_seconds=1)
    with pytest.raises(UsageError, match=rf"127\.0\.0\.1:{port} for the second.*already in use"):
        await second.start()
    await second.stop()
    await first.stop()


@pytest.mark.parametrize("host", ["192.0.2.1", "no-such-host.invalid"])
async def test_an_address_of_somebody_else_is_named(host: str) -> None:
    listener = Listener("the test", app_with(), Address(host, 0), drain_seconds=1)
    with pytest.raises(UsageError, match=host.replace(".", r"\.")):
        await listener.start()


async def test_stopping_lets_a_request_end() -> None:
    entered, gate = asyncio.Event(), asyncio.Event()

    async def slow(request: web.Request) -> web.Response:
        entered.set()
        await gate.wait()
        return web.Response(text="done")

    listener = Listener("the test", app_with(slow), LOOPBACK, drain_seconds=20)
    await listener.start()
    async with aiohttp.ClientSession() as session, asyncio.timeout(20):
        answer = asyncio.create_task(session.get(listener.url))
        await entered.wait()
        stopping = asyncio.create_task(listener.stop())
        while await _connects(listener.url):
            await asyncio.sleep(0.005)
        done, _ = await asyncio.wait({stopping}, timeout=0.2)
        assert not done
        gate.set()
        assert await (await answer).text() == "done"
        await stopping


async def test_stopping_cuts_off_what_does_not_end() -> None:
    entered = asyncio.Event()

    async def endless(request: web.Request) -> web.Response:
        entered.set()
        await asyncio.Event().wait()
        raise AssertionError

    listener = Listener("the test", app_with(endless), LOOPBACK, drain_seconds=0.05)
    await listener.start()
    async with aiohttp.ClientSession() as session, asyncio.timeout(20):
        answer = asyncio.create_task(session.get(listener.url))
        await entered.wait()
        await listener.stop()
        with pytest.raises(aiohttp.ClientError):
            await answer


async def _connects(url: str) -> bool:
    host, _, port = url.removeprefix("http://").rpartition(":")
    try:
        _, writer = await asyncio.open_connection(host, int(port))
    except OSError:
        return False
    writer.close()
    await writer.wait_closed()
    return True
