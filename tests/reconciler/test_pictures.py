"""Room avatars from pictures, against a real Synapse and a server of pictures."""

from __future__ import annotations

import asyncio
import random
import ssl
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from ipaddress import ip_network

import pytest
import pytest_asyncio
from aiohttp import web
from aiohttp.test_utils import TestServer
from sqlalchemy import update

from openmeet_appservice.domain.pictures import MAX_BYTES
from openmeet_appservice.outbound.client import GuardedClient
from openmeet_appservice.outbound.guard import Guard
from openmeet_appservice.reconciler.picture_worker import SLOTS_OF_A_TENANT, PictureWorker
from openmeet_appservice.store import pictures, tables
from openmeet_appservice.store.entities import Entity
from openmeet_appservice.store.members import Standing
from openmeet_appservice.store.sync import SyncError

from .conftest import TENANT, TOKEN, Service, names, until
from .proxy import refused

pytestmark = pytest.mark.asyncio(loop_scope="session")

PNG = b"\x89PNG\r\n\x1a\n"


@dataclass(slots=True)
class Gallery:
    """Serves pictures by path, and remembers who asked for what."""

    shown: dict[str, bytes] = field(default_factory=dict)
    seen: list[tuple[str, str | None]] = field(default_factory=list)
    answer: Callable[[web.Request], Awaitable[web.StreamResponse]] | None = None
    url: str = ""

    async def handle(self, request: web.Request) -> web.StreamResponse:
        self.seen.append((request.path, request.headers.get("If-None-Match")))
        if self.answer is not None:
            return await self.answer(request)
        content = self.shown.get(request.path)
        if content is None:
            return web.Response(status=404)
        etag = f'"{content[-4:].hex()}"'
        if request.headers.get("If-None-Match") == etag:
            return web.Response(status=304)
        return web.Response(body=content, content_type="image/png", headers={"ETag": etag})


@pytest_asyncio.fixture(loop_scope="session")
async def gallery(server_tls: ssl.SSLContext) -> AsyncIterator[Gallery]:
    made = Gallery()
    app = web.Application()
    app.router.add_get("/{path:.*}", made.handle)
    server = TestServer(app, handler_cancellation=True, shutdown_timeout=0.1)
    await server.start_server(ssl=server_tls)
    made.url = str(server.make_url("/")).rstrip("/")
    yield made
    await server.close()


def now() -> int:
    return time.time_ns() // 1_000_000


@dataclass(slots=True)
class Painter:
    """The picture worker on a service's database."""

    service: Service
    task: asyncio.Task[None] | None = None
    client: GuardedClient | None = None

    async def start(self, tls: ssl.SSLContext) -> None:
        guard = Guard([ip_network("127.0.0.0/8")])
        self.client = GuardedClient(guard, total_seconds=5, user_agent="test/1", ssl_context=tls)
        await self.client.__aenter__()
        self.resume()

    def resume(self) -> None:
        assert self.client is not None
        worker = PictureWorker(
            self.service.database,
            self.service.client(self.service.proxy.url),
            self.client,
            self.service.wakeups,
            now=now,
            sleep=asyncio.sleep,
            random_number=random.random,
        )
        self.task = asyncio.create_task(worker.run())

    async def kill(self) -> None:
        assert self.task is not None
        self.task.cancel()
        await asyncio.gather(self.task, return_exceptions=True)

    async def stop(self) -> None:
        await self.kill()
        assert self.client is not None
        await self.client.__aexit__(None, None, None)

    async def later(self) -> None:
        """Let the time come at which what failed is tried again."""
        waits = tables.pictures.c.error.is_not(None)
        change = update(tables.pictures).where(waits, tables.pictures.c.due_at > now()).values(due_at=now())
        assert await self.service.database.write(lambda connection: connection.execute(change).rowcount)
        self.service.wakeups.wake("pictures")

    async def recheck(self, thing: Entity) -> None:
        """Have its picture asked for again, as a resync does."""
        await self.service.database.write(pictures.recheck, TENANT, "entity", thing.ref, now=now())
        self.service.wakeups.wake("pictures")

    @property
    def uploads(self) -> int:
        return self.service.proxy.count("POST", "/_matrix/media/v3/upload")

    async def avatar(self, thing: Entity) -> str | None:
        """Return the URI of the room's avatar, None for none."""
        state = await self.service.state(await self.service.room_id(thing))
        found: str | None = state.get("m.room.avatar", {}).get("url")
        return found

    async def lacks(self, thing: Entity, code: str) -> SyncError:
        """Return what is told to be lacking, once Synapse agrees with the rest."""

        async def look() -> bool:
            status = await self.service.status(thing.ref)
            return (
                status.observed_generation == status.generation
                and status.error is not None
                and status.error.code == code
            )

        await until(look, f"{code} is told")
        error = (await self.service.status(thing.ref)).error
        assert error is not None
        return error


@pytest_asyncio.fixture(loop_scope="session")
async def painter(running: Service, client_tls: ssl.SSLContext) -> AsyncIterator[Painter]:
    made = Painter(running)
    await made.start(client_tls)
    yield made
    await made.stop()


async def test_a_picture_becomes_the_avatar_changes_and_goes(
    running: Service, gallery: Gallery, painter: Painter
) -> None:
    gallery.shown = {"/a.png": PNG + b"aaaa", "/b.png": PNG + b"bbbb"}
    event = await running.put("fair", image_url=f"{gallery.url}/a.png", who={"ada": "host"})
    await running.settled(event)
    first = await painter.avatar(event)
    assert first is not None
    async with running.proxy.session.get(
        f"{running.proxy.target}/_matrix/client/v1/media/download/{first.removeprefix('mxc://')}",
        headers={"Authorization": f"Bearer {TOKEN}"},
    ) as answer:
        assert await answer.read() == PNG + b"aaaa"
    await running.put("fair", image_url=f"{gallery.url}/b.png")
    await running.settled(event)
    second = await painter.avatar(event)
    assert second not in (None, first)
    await running.put("fair")
    await running.settled(event)
    assert await painter.avatar(event) is None
    await running.put("fair", image_url=f"{gallery.url}/a.png")
    await running.settled(event)
    assert await painter.avatar(event) == first
    assert (len(gallery.seen), painter.uploads) == (2, 2), "what is known is neither fetched nor uploaded"


async def test_the_same_picture_is_uploaded_once(
    running: Service, gallery: Gallery, painter: Painter
) -> None:
    gallery.shown = dict.fromkeys(("/same.png", "/signed.png"), PNG + b"same")
    first = await running.put("one", image_url=f"{gallery.url}/same.png")
    await running.settled(first)
    avatar = await painter.avatar(first)
    occurrences = [await running.put(f"n{n}", image_url=f"{gallery.url}/same.png") for n in range(3)]
    signed = await running.put("signed", image_url=f"{gallery.url}/signed.png?signature=x")
    for thing in (*occurrences, signed):
        await running.settled(thing)
        assert await painter.avatar(thing) == avatar
    assert [path for path, _ in gallery.seen] == ["/same.png", "/signed.png"]
    assert painter.uploads == 1
    made = [seen for seen in running.proxy.seen if seen.path.endswith("/state/m.room.avatar/")]
    assert len(made) <= 2, "a room made after its picture is known is made with it"


async def test_a_resync_asks_whether_it_has_changed(
    running: Service, gallery: Gallery, painter: Painter
) -> None:
    gallery.shown = {"/live.png": PNG + b"old1"}
    event = await running.put("live", image_url=f"{gallery.url}/live.png")
    await running.settled(event)
    first = await painter.avatar(event)
    await running.put("live", image_url=f"{gallery.url}/live.png", topic="More")
    await running.settled(event)
    assert len(gallery.seen) == 1, "other changes fetch nothing"
    await painter.recheck(event)
    await until(_asked(gallery, 2), "it is asked for again")
    assert gallery.seen[1] == ("/live.png", f'"{b"old1".hex()}"')
    gallery.shown = {"/live.png": PNG + b"new1"}
    await painter.recheck(event)

    async def is_another() -> bool:
        return await painter.avatar(event) not in (None, first)

    await until(is_another, "the new picture is shown")
    assert painter.uploads == 2


async def test_a_broken_picture_keeps_nobody_out(
    running: Service, gallery: Gallery, painter: Painter
) -> None:
    url = f"{gallery.url}/late.png"
    event = await running.put("late", image_url=url, who={"ada": "host", "bob": "participant"})
    error = await painter.lacks(event, "image_unavailable")
    assert (error.detail, error.attempts) == ("Its picture: The answer was HTTP 404.", 1)
    assert error.next_at is not None
    assert error.next_at > error.at
    room_id = await running.room_id(event)
    assert await running.inside(room_id) == {running.user_id("ada"), running.user_id("bob")}
    assert await painter.avatar(event) is None
    # Members go on coming meanwhile.
    await running.put("late", image_url=url, who={"ada": "host", "cyd": "participant"})
    await painter.lacks(event, "image_unavailable")
    assert await running.inside(room_id) == {running.user_id("ada"), running.user_id("cyd")}
    assert len(gallery.seen) == 1
    await painter.later()
    await until(_attempts(running, event, 2), "how often it was tried is told")
    assert len(gallery.seen) == 2
    gallery.shown = {"/late.png": PNG + b"late"}
    await painter.later()
    await running.settled(event)
    assert await painter.avatar(event) is not None


async def test_a_failure_leaves_the_avatar_that_there_is(
    running: Service, gallery: Gallery, painter: Painter
) -> None:
    gallery.shown = {"/a.png": PNG + b"aaaa"}
    event = await running.put("keep", image_url=f"{gallery.url}/a.png")
    await running.settled(event)
    avatar = await painter.avatar(event)
    await running.put("keep", name="Kept", image_url=f"{gallery.url}/none.png")
    await painter.lacks(event, "image_unavailable")
    assert await painter.avatar(event) == avatar
    assert names(await running.state(await running.room_id(event)))[0] == "Kept"


async def test_what_is_no_picture_or_nowhere_to_be_called_is_told(
    running: Service, gallery: Gallery, painter: Painter
) -> None:
    gallery.shown = {"/page.png": b"<html>", "/huge.png": PNG + bytes(MAX_BYTES)}
    for path in gallery.shown:
        thing = await running.put(f"no{path[1:5]}", image_url=gallery.url + path)
        await painter.lacks(thing, "image_unusable")
    inner = await running.put("inner", image_url="https://10.1.2.3/a.png")
    assert "10.1.2.3" in (await painter.lacks(inner, "image_refused")).detail
    assert painter.uploads == 0


async def test_slow_servers_of_one_tenant_hold_up_no_other(
    running: Service, gallery: Gallery, painter: Painter
) -> None:
    gate = asyncio.Event()

    async def hang(request: web.Request) -> web.StreamResponse:
        if request.path.startswith("/slow"):
            await gate.wait()
        return web.Response(body=PNG + b"slow", content_type="image/png")

    gallery.answer = hang
    slow = [await running.put(f"slow{n}", image_url=f"{gallery.url}/slow{n}") for n in range(4)]
    await until(_asked(gallery, SLOTS_OF_A_TENANT), "as many as may be are under way")
    for thing in slow:
        await until(_has_room(running, thing), "the room is made")
    quick = f"{gallery.url}/quick"
    await running.database.write(pictures.use, "t2", "entity", "other", quick, now=now())
    running.wakeups.wake("pictures")

    async def is_known() -> bool:
        return (await running.database.read(pictures.of, "t2", "entity", "other", quick)).mxc is not None

    await until(is_known, "the other tenant's picture is fetched")
    asked = [path for path, _ in gallery.seen if path.startswith("/slow")]
    assert len(asked) == SLOTS_OF_A_TENANT
    gate.set()
    for thing in slow:
        await running.settled(thing)


async def test_killed_in_the_middle_it_is_fetched_by_the_next(
    running: Service, gallery: Gallery, painter: Painter
) -> None:
    gate = asyncio.Event()

    async def hang(request: web.Request) -> web.StreamResponse:
        await gate.wait()
        return web.Response(body=PNG + b"kill", content_type="image/png")

    gallery.answer = hang
    event = await running.put("kill", image_url=f"{gallery.url}/kill.png")
    await until(_asked(gallery, 1), "it is asked for")
    await painter.kill()
    assert (await running.status(event.ref)).error is None
    gate.set()
    painter.resume()
    await running.settled(event)
    assert await painter.avatar(event) is not None


async def test_a_homeserver_that_takes_no_picture_now_gets_it_later(
    running: Service, gallery: Gallery, painter: Painter
) -> None:
    gallery.shown = {"/up.png": PNG + b"upup"}

    running.proxy.fail("POST", "/media/v3/upload", refused(413, "M_TOO_LARGE"), times=None)
    event = await running.put("up", image_url=f"{gallery.url}/up.png", who={"ada": "host"})
    await painter.lacks(event, "homeserver_refused")
    assert await running.inside(await running.room_id(event)) == {running.user_id("ada")}
    running.proxy.heal()
    await painter.later()
    await running.settled(event)
    assert await painter.avatar(event) is not None


async def test_a_closed_room_keeps_its_picture_and_asks_for_none(
    running: Service, gallery: Gallery, painter: Painter
) -> None:
    gallery.shown = {"/a.png": PNG + b"aaaa"}
    event = await running.put("shut", image_url=f"{gallery.url}/a.png", who={"ada": Standing("host")})
    await running.settled(event)
    avatar = await painter.avatar(event)
    await running.put("shut", status="draft", image_url=f"{gallery.url}/b.png")
    await running.settled(event)
    assert await painter.avatar(event) == avatar
    draft = await running.put("draft", status="draft", image_url=f"{gallery.url}/b.png")
    await running.settled(draft)
    assert len(gallery.seen) == 1


async def test_while_a_picture_is_awaited_the_room_is_done_but_not_called_so(
    running: Service, gallery: Gallery, painter: Painter
) -> None:
    gate = asyncio.Event()

    async def hang(request: web.Request) -> web.StreamResponse:
        await gate.wait()
        return web.Response(status=500)

    gallery.answer = hang
    event = await running.put("wait", image_url=f"{gallery.url}/wait.png", who={"ada": "host"})

    await until(_has_room(running, event), "the room is made")
    room_id = await running.room_id(event)

    async def ada_is_in() -> bool:
        return running.user_id("ada") in await running.inside(room_id)

    await until(ada_is_in, "the members are inside")
    status = await running.status(event.ref)
    assert (status.observed_generation, status.error) == (0, None)
    gate.set()
    await painter.lacks(event, "image_unavailable")


def _asked(gallery: Gallery, number: int) -> Callable[[], Awaitable[bool]]:
    async def look() -> bool:
        return len(gallery.seen) >= number

    return look


def _attempts(service: Service, thing: Entity, number: int) -> Callable[[], Awaitable[bool]]:
    async def look() -> bool:
        error = (await service.status(thing.ref)).error
        return error is not None and error.attempts == number

    return look


def _has_room(service: Service, thing: Entity) -> Callable[[], Awaitable[bool]]:
    async def look() -> bool:
        return any(room.room_id for room in await service.rooms(thing))

    return look
