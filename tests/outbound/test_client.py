from __future__ import annotations

import asyncio
import gzip
import socket
import ssl
import tracemalloc
import zlib
from collections.abc import Awaitable, Callable
from functools import partial
from ipaddress import IPv4Address, ip_address, ip_network
from typing import Any

import pytest
from aiohttp import web
from aiohttp.abc import AbstractResolver, ResolveResult
from aiohttp.test_utils import TestServer

from openmeet_appservice.outbound.client import (
    MAX_ANSWER_BYTES,
    Answer,
    GuardedClient,
    NoAnswer,
    Reason,
)
from openmeet_appservice.outbound.guard import Guard

from .special_purpose import NETWORKS, Network, samples, wrappings

LOOPBACK = Guard([ip_network("127.0.0.0/8"), ip_network("::1/128")])
HEADERS = {"Content-Type": "application/json"}
NAME = "openmeet.example"


class Receiver:
    """Answers as each test says and remembers what came."""

    def __init__(self) -> None:
        self.seen: list[tuple[str, bytes, dict[str, str]]] = []
        self.answer: Callable[[web.Request], Awaitable[web.StreamResponse]] = self._ok

    async def _ok(self, request: web.Request) -> web.StreamResponse:
        return web.Response(text="taken", headers={"Retry-After": "7", "Set-Cookie": "a=b"})

    async def __call__(self, request: web.Request) -> web.StreamResponse:
        body = await request.read()
        self.seen.append((request.path, body, {k.lower(): v for k, v in request.headers.items()}))
        return await self.answer(request)


@pytest.fixture
def receiver() -> Receiver:
    return Receiver()


@pytest.fixture
async def server(receiver: Receiver, aiohttp_server: Any) -> TestServer:
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", receiver.__call__)
    server: TestServer = await aiohttp_server(app)
    return server


def client(guard: Guard = LOOPBACK, *, total_seconds: float = 20, **more: Any) -> GuardedClient:
    return GuardedClient(guard, total_seconds=total_seconds, user_agent="test/1", **more)


async def post(url: object, guard: Guard = LOOPBACK, **more: Any) -> Answer | NoAnswer:
    async with client(guard, **more) as ours:
        return await ours.post(str(url), b'{"a": 1}', HEADERS)


async def test_the_body_arrives_as_it_is(server: TestServer, receiver: Receiver) -> None:
    answer = await post(server.make_url("/hook"))
    assert isinstance(answer, Answer)
    assert (answer.status, answer.body_start) == (200, b"taken")
    assert answer.headers == {"content-type": "text/plain; charset=utf-8", "retry-after": "7"}
    path, body, headers = receiver.seen[0]
    assert (path, body) == ("/hook", b'{"a": 1}')
    assert headers["user-agent"] == "test/1"
    assert headers["content-type"] == "application/json"


async def test_no_cookie_comes_back(server: TestServer, receiver: Receiver) -> None:
    async with client() as ours:
        for _ in range(2):
            await ours.post(f"http://localhost:{server.port}/", b"", HEADERS)
    assert "cookie" not in receiver.seen[1][2]


async def test_a_connection_is_used_again(server: TestServer, receiver: Receiver) -> None:
    peers = set()

    async def note(request: web.Request) -> web.StreamResponse:
        assert request.transport is not None
        peers.add(request.transport.get_extra_info("peername"))
        return web.Response()

    receiver.answer = note
    async with client() as ours:
        for _ in range(3):
            await ours.post(str(server.make_url("/")), b"", HEADERS)
    assert len(peers) == 1


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "[::ffff:127.0.0.1]"])
@pytest.mark.parametrize("scheme", ["http", "https"])
async def test_loopback_is_not_called_unless_allowed(
    server: TestServer, receiver: Receiver, host: str, scheme: str
) -> None:
    answer = await post(f"{scheme}://{host}:{server.port}/", Guard())
    assert isinstance(answer, NoAnswer)
    assert answer.reason in {Reason.ADDRESS_REFUSED, Reason.URL_REFUSED}
    assert not receiver.seen


class Believer(Guard):
    """Believes every URL, so that only the dialled address is judged."""

    def check_url(self, text: str) -> str:
        return text


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "[::ffff:127.0.0.1]"])
@pytest.mark.parametrize("scheme", ["http", "https"])
async def test_the_dialled_address_is_judged_whatever_the_url_said(
    server: TestServer, receiver: Receiver, host: str, scheme: str
) -> None:
    answer = await post(f"{scheme}://{host}:{server.port}/", Believer())
    assert isinstance(answer, NoAnswer)
    assert answer.reason is Reason.ADDRESS_REFUSED
    assert "127.0.0.1" in answer.detail or "::1" in answer.detail
    assert not receiver.seen


async def test_without_tls_an_address_must_be_allowed_by_name_of_its_network() -> None:
    answer = await post("http://8.8.8.8/", Believer([ip_network("127.0.0.0/8")]))
    assert isinstance(answer, NoAnswer)
    assert answer.reason is Reason.ADDRESS_REFUSED


class Names(AbstractResolver):
    """Knows the names that a test gave, each answer in its turn, the last for ever."""

    def __init__(self, *answers: list[str]) -> None:
        self._answers = list(answers)
        self.asked = 0

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        addresses = self._answers[min(self.asked, len(self._answers) - 1)]
        self.asked += 1
        return [
            ResolveResult(hostname=host, host=address, port=port, family=_family(address), proto=0, flags=0)
            for address in addresses
        ]

    async def close(self) -> None:
        return


def _family(address: str) -> socket.AddressFamily:
    return socket.AF_INET6 if ip_address(address).version == 6 else socket.AF_INET


async def post_by_name(
    server: TestServer,
    guard: Guard,
    *answers: list[str],
    host: str = "openmeet.example",
    scheme: str = "https",
) -> Answer | NoAnswer:
    return await post(f"{scheme}://{host}:{server.port}/", guard, new_resolver=lambda: Names(*answers))


@pytest.mark.parametrize("network", NETWORKS, ids=str)
async def test_no_name_leads_to_a_special_purpose_address(network: Network, unused_tcp_port: int) -> None:
    """Told by the resolver, alone or beside a good one, and dialled from a URL that nobody judged."""
    for address in samples(network):
        for answers in ([str(address)], ["93.184.215.14", str(address)]):
            answer = await post(
                f"https://openmeet.example:{unused_tcp_port}/", Guard(), new_resolver=partial(Names, answers)
            )
            assert isinstance(answer, NoAnswer)
            assert answer.reason is Reason.ADDRESS_REFUSED, (address, answer)
        shown = f"[{address}]" if address.version == 6 else address
        answer = await post(f"https://{shown}:{unused_tcp_port}/", Believer())
        assert isinstance(answer, NoAnswer)
        assert answer.reason is Reason.ADDRESS_REFUSED, (address, answer)


async def test_nor_does_one_lead_to_such_an_address_in_another_form(unused_tcp_port: int) -> None:
    url = f"https://openmeet.example:{unused_tcp_port}/"
    answers = [
        [str(form)]
        for address in map(IPv4Address, ("127.0.0.1", "10.0.0.1", "169.254.169.254"))
        for form in wrappings(address)
    ]
    for addresses in answers:
        answer = await post(url, Guard(), new_resolver=partial(Names, addresses))
        assert isinstance(answer, NoAnswer)
        assert answer.reason is Reason.ADDRESS_REFUSED, addresses


async def test_a_name_whose_address_changed_after_it_was_judged(
    server: TestServer, receiver: Receiver
) -> None:
    """DNS rebinding: whoever judges a name and dials it later dials something else."""
    names = Names(["93.184.215.14"], ["127.0.0.1"])
    guard = Guard()
    url = f"https://openmeet.example:{server.port}/"
    guard.check_url(url)
    judged = await names.resolve("openmeet.example")
    guard.check_answers("openmeet.example", [ip_address(answer["host"]) for answer in judged])
    answer = await post(url, guard, new_resolver=lambda: names)
    assert names.asked == 2
    assert isinstance(answer, NoAnswer)
    assert answer.reason is Reason.ADDRESS_REFUSED
    assert not receiver.seen


class Gullible(Guard):
    """Believes every answer of a resolver, as if it had changed behind our back."""

    def check_answers(self, host: str, addresses: Any, *, plain: bool = False) -> None:
        return


async def test_the_socket_s_address_is_judged_whatever_the_resolver_said(
    server: TestServer, receiver: Receiver
) -> None:
    answer = await post_by_name(server, Gullible(), ["127.0.0.1"])
    assert isinstance(answer, NoAnswer)
    assert answer.reason is Reason.ADDRESS_REFUSED
    assert not receiver.seen


@pytest.mark.parametrize("answers", [["127.0.0.1", "10.1.2.3"], ["10.1.2.3", "127.0.0.1"]])
async def test_one_refused_address_refuses_the_name(
    server: TestServer, receiver: Receiver, answers: list[str]
) -> None:
    answer = await post_by_name(server, LOOPBACK, answers, scheme="http")
    assert isinstance(answer, NoAnswer)
    assert answer.reason is Reason.ADDRESS_REFUSED
    assert "10.1.2.3" in answer.detail
    assert not receiver.seen


async def test_an_allowed_host_is_called_wherever_it_is(server: TestServer, receiver: Receiver) -> None:
    guard = Guard((), ["openmeet.example"])
    assert isinstance(await post_by_name(server, guard, ["127.0.0.1"], scheme="http"), Answer)
    assert len(receiver.seen) == 1
    for host in ("x.openmeet.example", "127.0.0.1"):
        refused = await post_by_name(server, guard, ["127.0.0.1"], host=host, scheme="http")
        assert isinstance(refused, NoAnswer)
    metadata = await post_by_name(server, guard, ["127.0.0.1", "169.254.169.254"], scheme="http")
    assert isinstance(metadata, NoAnswer)
    assert metadata.reason is Reason.ADDRESS_REFUSED
    assert len(receiver.seen) == 1


async def test_a_connection_to_an_allowed_host_serves_no_other(
    server: TestServer, receiver: Receiver
) -> None:
    guard = Guard((), ["openmeet.example"])
    async with client(guard, new_resolver=lambda: Names(["127.0.0.1"])) as ours:
        assert isinstance(await ours.post(f"http://openmeet.example:{server.port}/", b"", HEADERS), Answer)
        other = await ours.post(f"https://other.example:{server.port}/", b"", HEADERS)
    assert isinstance(other, NoAnswer)
    assert other.reason is Reason.ADDRESS_REFUSED


async def test_two_who_wait_for_the_same_name_are_both_refused(unused_tcp_port: int) -> None:
    url = f"https://openmeet.example:{unused_tcp_port}/"
    async with client(Guard(), new_resolver=lambda: Names(["10.0.0.1"])) as ours:
        found = await asyncio.gather(*(ours.post(url, b"", HEADERS) for _ in range(3)))
    assert [getattr(one, "reason", None) for one in found] == [Reason.ADDRESS_REFUSED] * 3


async def test_a_redirect_is_an_answer(server: TestServer, receiver: Receiver) -> None:
    async def away(request: web.Request) -> web.StreamResponse:
        raise web.HTTPFound("/elsewhere")

    receiver.answer = away
    answer = await post(server.make_url("/"))
    assert isinstance(answer, Answer)
    assert (answer.status, answer.headers["location"]) == (302, "/elsewhere")
    assert len(receiver.seen) == 1


@pytest.mark.parametrize("variable", ["HTTP_PROXY", "http_proxy", "ALL_PROXY"])
async def test_no_proxy_of_the_environment_is_used(
    server: TestServer, monkeypatch: pytest.MonkeyPatch, variable: str
) -> None:
    monkeypatch.setenv(variable, "http://127.0.0.1:9")
    assert isinstance(await post(server.make_url("/")), Answer)


async def test_only_the_start_of_a_long_answer_is_read(server: TestServer, receiver: Receiver) -> None:
    stopped = asyncio.Event()

    async def endless(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        try:
            while True:
                await response.write(b"x" * 4096)
        finally:
            stopped.set()

    receiver.answer = endless
    answer = await post(server.make_url("/"))
    assert isinstance(answer, Answer)
    assert (answer.status, len(answer.body_start)) == (200, MAX_ANSWER_BYTES)
    async with asyncio.timeout(10):
        await stopped.wait()


BOMB_BYTES = 64 * 1024 * 1024


@pytest.mark.parametrize("coding", ["gzip", "deflate", "br", "zstd", "gzip, gzip"])
async def test_a_packed_answer_is_not_unpacked(server: TestServer, receiver: Receiver, coding: str) -> None:
    packed = bomb(coding)

    async def answer_packed(request: web.Request) -> web.StreamResponse:
        return web.Response(body=packed, headers={"Content-Encoding": coding})

    receiver.answer = answer_packed
    tracemalloc.start()
    try:
        answer = await post(server.make_url("/"))
        _, most = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert isinstance(answer, Answer)
    assert answer.body_start == packed[:MAX_ANSWER_BYTES]
    assert receiver.seen[0][2]["accept-encoding"] == "identity"
    assert most < BOMB_BYTES / 16


def bomb(coding: str) -> bytes:
    """Something small that would be `BOMB_BYTES` of zeros; what it says is enough where we cannot make it."""
    if coding == "deflate":
        return zlib.compress(bytes(BOMB_BYTES))
    packed = gzip.compress(bytes(BOMB_BYTES))
    return gzip.compress(packed) if coding == "gzip, gzip" else packed


async def test_the_status_counts_even_if_the_body_never_ends(server: TestServer, receiver: Receiver) -> None:
    gate = asyncio.Event()

    async def hang(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(status=202, headers={"Content-Length": "50"})
        await response.prepare(request)
        await response.write(b"half")
        await gate.wait()
        return response

    receiver.answer = hang
    answer = await post(server.make_url("/"), total_seconds=0.3)
    gate.set()
    assert isinstance(answer, Answer)
    assert (answer.status, answer.body_start) == (202, b"half")


async def test_an_answer_that_does_not_come(server: TestServer, receiver: Receiver) -> None:
    gate = asyncio.Event()

    async def hang(request: web.Request) -> web.StreamResponse:
        await gate.wait()
        return web.Response()

    receiver.answer = hang
    answer = await post(server.make_url("/"), total_seconds=0.1)
    gate.set()
    assert isinstance(answer, NoAnswer)
    assert answer.reason is Reason.TIMED_OUT


async def raw_server(answer: bytes) -> asyncio.Server:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(answer)
        await writer.drain()
        writer.close()

    return await asyncio.start_server(serve, "127.0.0.1", 0)


@pytest.mark.parametrize(
    "answer", [b"", b"SSH-2.0-OpenSSH\r\n", b"HTTP/1.1 200", b"HTTP/1.1 abc OK\r\n\r\n",
               b"HTTP/1.1 200 OK\r\nX: " + b"a" * 100_000 + b"\r\n\r\n",
               b"HTTP/1.1 200 OK\r\n" + b"X: a\r\n" * 10_000 + b"\r\n"]
)  # fmt: skip
async def test_what_is_no_http_answer(answer: bytes) -> None:
    server = await raw_server(answer)
    async with server:
        port = server.sockets[0].getsockname()[1]
        found = await post(f"http://127.0.0.1:{port}/")
    assert isinstance(found, NoAnswer)
    assert found.reason is Reason.CUT_OFF


async def test_nobody_listens(unused_tcp_port: int) -> None:
    answer = await post(f"http://127.0.0.1:{unused_tcp_port}/s3cret?token=s3cret")
    assert isinstance(answer, NoAnswer)
    assert answer.reason is Reason.NOT_CONNECTED
    assert "s3cret" not in answer.detail


@pytest.mark.parametrize("url", ["https://no-such-host.invalid/", f"https://{'a' * 63}.{'b' * 63}.invalid/"])
async def test_a_host_that_nobody_knows(url: str) -> None:
    answer = await post(url)
    assert isinstance(answer, NoAnswer)
    assert answer.reason is Reason.UNKNOWN_HOST


@pytest.mark.parametrize("url", [f"https://{'a' * 64}.invalid/", "https://a..b.invalid/", "x"])
async def test_a_host_that_is_none_raises_nothing(url: str) -> None:
    assert isinstance(await post(url), NoAnswer)


async def test_tls(
    receiver: Receiver, aiohttp_server: Any, server_tls: ssl.SSLContext, client_tls: ssl.SSLContext
) -> None:
    app = web.Application()
    app.router.add_post("/", receiver.__call__)
    server = await aiohttp_server(app, ssl=server_tls)
    url = f"https://127.0.0.1:{server.port}/"
    assert isinstance(await post(url, ssl_context=client_tls), Answer)
    untrusted = await post(url)
    assert isinstance(untrusted, NoAnswer)
    assert untrusted.reason is Reason.TLS_FAILED
    not_tls = await post(url.replace("https", "http"))
    assert isinstance(not_tls, NoAnswer)


async def test_https_to_a_server_without_tls(server: TestServer) -> None:
    answer = await post(f"https://127.0.0.1:{server.port}/")
    assert isinstance(answer, NoAnswer)
    assert answer.reason is Reason.TLS_FAILED


async def get(url: object, guard: Guard = LOOPBACK, *, limit: int = 1000, **more: Any) -> Answer | NoAnswer:
    async with client(guard, **more) as ours:
        return await ours.get(str(url), {"Accept": "image/png"}, limit=limit)


async def test_a_file_is_read_whole_or_it_is_said_that_it_is_not(
    server: TestServer, receiver: Receiver
) -> None:
    async def file(request: web.Request) -> web.StreamResponse:
        assert request.method == "GET"
        assert request.headers["Accept"] == "image/png"
        return web.Response(body=b"x" * 900, headers={"ETag": '"v1"', "Last-Modified": "then", "Secret": "s"})

    receiver.answer = file
    answer = await get(server.make_url("/"))
    assert isinstance(answer, Answer)
    assert (answer.body_start, answer.end) == (b"x" * 900, "whole")
    assert answer.headers == {
        "content-type": "application/octet-stream",
        "etag": '"v1"',
        "last-modified": "then",
    }
    longer = await get(server.make_url("/"), limit=899)
    assert isinstance(longer, Answer)
    assert (len(longer.body_start), longer.end) == (899, "longer")


async def test_a_file_that_breaks_off_is_not_whole() -> None:
    server = await raw_server(b"HTTP/1.1 200 OK\r\nContent-Length: 50\r\n\r\nhalf")
    async with server:
        answer = await get(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/")
    assert isinstance(answer, Answer)
    assert (answer.status, answer.body_start, answer.end) == (200, b"half", "broken_off")


async def test_a_file_that_trickles_is_given_up(server: TestServer, receiver: Receiver) -> None:
    async def trickle(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        while True:
            await response.write(b"x")
            await asyncio.sleep(0.01)

    receiver.answer = trickle
    answer = await get(server.make_url("/"), total_seconds=0.3, limit=10**9)
    assert isinstance(answer, Answer)
    assert answer.end == "broken_off"


async def test_files_are_guarded_as_well(server: TestServer, receiver: Receiver) -> None:
    for url in (server.make_url("/"), f"https://127.0.0.1:{server.port}/"):
        refused = await get(url, Guard())
        assert isinstance(refused, NoAnswer)
        assert refused.reason in {Reason.ADDRESS_REFUSED, Reason.URL_REFUSED}
    assert not receiver.seen

    async def elsewhere(request: web.Request) -> web.StreamResponse:
        raise web.HTTPFound("http://169.254.169.254/")

    receiver.answer = elsewhere
    redirected = await get(server.make_url("/"))
    assert isinstance(redirected, Answer)
    assert (redirected.status, len(receiver.seen)) == (302, 1)
