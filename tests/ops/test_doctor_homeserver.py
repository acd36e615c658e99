"""What the doctor says of a homeserver that only a stand-in can be: odd, old, or in another time."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass, field
from email.utils import formatdate
from pathlib import Path
from types import MappingProxyType
from typing import Any

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer
from sqlalchemy import Connection, insert, update

from openmeet_appservice import wiring
from openmeet_appservice.config import Config
from openmeet_appservice.dev import ports
from openmeet_appservice.domain.arrival import dumps
from openmeet_appservice.domain.kinds import EntityKind
from openmeet_appservice.ops.doctor import Finding, Level
from openmeet_appservice.store import entities, service, tables, tenants
from openmeet_appservice.store.database import Database
from openmeet_appservice.store.ids import new_id

Configure = Callable[..., Config]
Of = Callable[[list[Finding], str], Finding]

UNKNOWN_TOKEN = (401, {"errcode": "M_UNKNOWN_TOKEN", "error": "Unrecognised access token"})
UNREGISTERED = (
    403,
    {"errcode": "M_FORBIDDEN", "error": "Application service has not registered this user (@x)"},
)


@dataclass
class StandIn:
    """A homeserver where all is well, but for what a test changes.

    Attributes
    ----------
    answers
        By method and the end of the path: status and body.
    tokens
        Which as_tokens it knows; None for all.
    late
        By how many seconds its clock is behind ours; None to tell no time.
    admin_answer
        Status and body of its admin API's answer about a room; None: that there is none.
    """

    url: str = ""
    bot: str = "@openmeet-bot:hs.test"
    tokens: tuple[str, ...] | None = None
    late: int | None = 0
    admin_answer: tuple[int, Any] | None = None
    answers: dict[tuple[str, str], tuple[int, Any]] = field(default_factory=dict)
    seen: list[tuple[str, str, Any]] = field(default_factory=list)

    async def handle(self, request: web.Request) -> web.Response:
        body = await request.json() if request.can_read_body else None
        self.seen.append((request.method, request.path, body))
        response = self.answer(request)
        if self.late is not None:
            response.headers["Date"] = formatdate(wiring.now() / 1000 - self.late, usegmt=True)
        else:
            response.headers["Date"] = "yesterday"
        return response

    def answer(self, request: web.Request) -> web.Response:
        if self.admin_answer is not None and request.path.startswith("/_synapse/admin/v1/rooms/"):
            return web.json_response(self.admin_answer[1], status=self.admin_answer[0])
        for (method, end), (status, body) in self.answers.items():
            if (method, request.path.endswith(end)) == (request.method, True):
                return web.json_response(body, status=status)
        token = request.headers.get("Authorization", "").removeprefix("Bearer ")
        if self.tokens is not None and token and token not in self.tokens:
            return web.json_response(UNKNOWN_TOKEN[1], status=401)
        if request.path.endswith("whoami") and request.query.get("user_id"):
            return web.json_response(UNREGISTERED[1], status=403)
        body = {
            "versions": {"versions": ["v1.11", "v1.12"]},
            "server_version": {"server_version": "1.150.0"},
            "whoami": {"user_id": self.bot},
            "ping": {"duration_ms": 3},
            "capabilities": {
                "capabilities": {
                    "m.room_versions": {"default": "12", "available": {"11": "stable", "12": "stable"}}
                }
            },
        }.get(request.path.rpartition("/")[2])
        if body is None and request.method == "GET":
            return web.json_response({"errcode": "M_NOT_FOUND", "error": "no"}, status=404)
        return web.json_response(body or {})


@pytest.fixture
async def homeserver() -> AsyncIterator[StandIn]:
    made = StandIn()
    application = web.Application()
    application.router.add_route("*", "/{path:.*}", made.handle)
    async with TestServer(application) as server:
        made.url = str(server.make_url("/")).rstrip("/")
        yield made


Examine = Callable[..., Any]


@pytest.fixture
def examine(homeserver: StandIn, configure: Configure, doctor: Any, tmp_path: Path) -> Examine:
    async def examined(**changed: str) -> list[Finding]:
        config = configure(tmp_path, **{"homeserver__url": homeserver.url, **changed})
        found: list[Finding] = await doctor.examine(config, tmp_path)
        return found

    return examined


async def test_where_all_is_well_only_the_service_is_missing(examine: Examine, migrated: Database) -> None:
    findings = await examine()
    wrong = {finding.name: finding.level for finding in findings if finding.level in ("warning", "problem")}
    assert wrong.pop("database file", None) in (None, Level.WARNING)
    assert wrong == {"service": Level.WARNING}


NO_ADMIN = (403, {"errcode": "M_FORBIDDEN", "error": "You are not a server admin"})
HIDDEN = (404, {"errcode": "M_UNRECOGNIZED", "error": "Unrecognized request"})


@pytest.mark.parametrize(
    ("answer", "level", "words"),
    [
        (None, Level.OK, "an admin's"),
        (NO_ADMIN, Level.PROBLEM, "not a server admin"),
        (UNKNOWN_TOKEN, Level.PROBLEM, "M_UNKNOWN_TOKEN"),
        (HIDDEN, Level.PROBLEM, "admin API"),
    ],
)
async def test_the_admins_token(
    examine: Examine, homeserver: StandIn, of: Of, answer: Any, level: Level, words: str
) -> None:
    assert "admin_token" not in [finding.name for finding in await examine()]
    homeserver.admin_answer = answer
    found = of(await examine(homeserver__admin_token="syt_root"), "admin_token")
    assert (found.level, words in found.what) == (level, True)
    assert not [path for _, path, _ in homeserver.seen if "syt_root" in path]


async def test_no_homeserver(examine: Examine, of: Of, migrated: Database) -> None:
    findings = await examine(homeserver__url=f"http://127.0.0.1:{ports.any_free_port()}")
    assert of(findings, "homeserver").level is Level.PROBLEM
    [skipped] = [finding for finding in findings if finding.what == "not checked: needs the homeserver"]
    for name in ("as_token", "ping", "user namespace", "room directory", "encryption"):
        assert name in skipped.name.split(", ")
        assert name not in [finding.name for finding in findings]
    assert of(findings, "reconciler").level is Level.OK


@pytest.mark.parametrize(
    "answer",
    [
        (200, {"hello": "world"}),
        (200, ["v1.1"]),
        (404, {"errcode": "M_UNRECOGNIZED"}),
        (302, {"versions": []}),
    ],
)
async def test_something_else_answers_at_the_url(
    examine: Examine, homeserver: StandIn, of: Of, answer: tuple[int, Any]
) -> None:
    homeserver.answers["GET", "/versions"] = answer
    found = of(await examine(), "homeserver")
    assert found.level is Level.PROBLEM
    assert str(answer[0]) in found.what
    assert "`homeserver.url`" in str(found.remedy)
    assert [path for _, path, _ in homeserver.seen] == ["/_matrix/client/versions"]


@pytest.mark.parametrize(("late", "words"), [(90, "s ahead of"), (-90, "s behind")])
async def test_clocks_that_differ(
    examine: Examine, homeserver: StandIn, of: Of, late: int, words: str
) -> None:
    homeserver.late = late
    found = of(await examine(), "clock")
    assert found.level is Level.WARNING
    assert words in found.what
    homeserver.late = 10
    assert of(await examine(), "clock").level is Level.OK
    homeserver.late = None
    assert of(await examine(), "clock").level is Level.INFO


@pytest.mark.parametrize(
    ("answer", "level"),
    [
        ((200, {"server_version": "1.131.0"}), Level.PROBLEM),
        ((200, {"server_version": "0.999.0"}), Level.PROBLEM),
        ((200, {"server_version": "1.132.0rc1"}), Level.OK),
        ((200, {"server_version": "2.0.0"}), Level.OK),
        ((200, {"server_version": "own build"}), Level.OK),
        ((200, {}), Level.INFO),
        ((404, {"errcode": "M_UNRECOGNIZED"}), Level.INFO),
    ],
)
async def test_the_release(
    examine: Examine, homeserver: StandIn, of: Of, answer: tuple[int, Any], level: Level
) -> None:
    homeserver.answers["GET", "/server_version"] = answer
    assert of(await examine(), "Synapse").level is level


async def test_delegated_authentication_is_told(examine: Examine, homeserver: StandIn, of: Of) -> None:
    assert "authentication" not in [finding.name for finding in await examine()]
    homeserver.answers["GET", "/_matrix/client/v1/auth_metadata"] = (200, {"issuer": "https://auth.test/"})
    assert of(await examine(), "authentication").level is Level.INFO


async def test_tokens_in_the_middle_of_a_change(
    examine: Examine, homeserver: StandIn, configure: Configure, tmp_path: Path, of: Of
) -> None:
    old = configure(tmp_path).appservice.as_tokens[0]
    new = "n" * 40
    homeserver.tokens = (old,)
    findings = await examine(appservice__as_token_next=new)
    assert [of(findings, key).level for key in ("as_token", "as_token_next")] == [Level.OK, Level.INFO]
    assert "openmeet-appservice registration" in str(of(findings, "as_token_next").remedy)
    homeserver.tokens = (new,)
    findings = await examine(appservice__as_token_next=new)
    assert [of(findings, key).level for key in ("as_token", "as_token_next")] == [Level.INFO, Level.OK]
    assert "Finish the change" in str(of(findings, "as_token").remedy)
    assert of(findings, "ping").level is Level.OK
    homeserver.tokens = ()
    findings = await examine(appservice__as_token_next=new)
    assert [of(findings, key).level for key in ("as_token", "as_token_next")] == [Level.PROBLEM] * 2
    assert "an as_token that Synapse accepts" in str(findings)
    for secret in (old, new):
        assert secret not in str(findings)


@pytest.mark.parametrize(
    ("default", "offered", "configured", "level"),
    [
        ("12", ("11", "12"), None, Level.OK),
        ("10", ("10", "11"), None, Level.PROBLEM),
        ("10", ("10", "11"), "11", Level.OK),
        ("11", ("11",), "12", Level.PROBLEM),
        ("10", ("10",), None, Level.PROBLEM),
    ],
)
async def test_room_versions(
    examine: Examine,
    homeserver: StandIn,
    of: Of,
    default: str,
    offered: tuple[str, ...],
    configured: str | None,
    level: Level,
) -> None:
    available = {"12": "unstable"} | dict.fromkeys(offered, "stable")
    known = {"default": default, "available": available}
    homeserver.answers["GET", "/capabilities"] = (200, {"capabilities": {"m.room_versions": known}})
    found = of(await examine(**({"rooms__version": configured} if configured else {})), "room version")
    assert found.level is level
    if level is Level.PROBLEM and "11" in offered:
        assert found.remedy == 'Set `rooms.version: "11"`.'


async def test_an_answer_that_nobody_foresaw_is_told_and_the_rest_goes_on(
    examine: Examine, homeserver: StandIn, of: Of
) -> None:
    homeserver.answers["GET", "/capabilities"] = (418, {"errcode": "M_TEAPOT", "error": "short and stout"})
    findings = await examine()
    found = of(findings, "room version")
    assert found.level is Level.WARNING
    assert "M_TEAPOT" in found.what
    assert of(findings, "alias namespace").level is Level.OK


ENCRYPTED = 200, {"algorithm": "m.megolm.v1.aes-sha2"}
NOT_INSIDE = 403, {"errcode": "M_FORBIDDEN", "error": "not inside"}


def encryption(room: str) -> tuple[str, str]:
    return "GET", f"/rooms/{room}/state/m.room.encryption/"


async def test_an_encrypted_room_that_nobody_wanted_so_names_the_key(
    examine: Examine, homeserver: StandIn, of: Of, migrated: Database
) -> None:
    await migrated.write(_rooms, "!lost", "!newer", "!older")
    homeserver.answers[encryption("!lost")] = NOT_INSIDE
    homeserver.answers[encryption("!older")] = ENCRYPTED
    assert of(await examine(), "encryption").level is Level.OK, "the newest tells how it is now"
    homeserver.answers[encryption("!newer")] = ENCRYPTED
    found = of(await examine(), "encryption")
    assert (found.level, "!newer" in found.what) == (Level.PROBLEM, True)
    assert "`encryption_enabled_by_default_for_room_type: off`" in str(found.remedy)


async def test_rooms_that_openmeet_wants_encrypted_accuse_nobody(
    examine: Examine, homeserver: StandIn, of: Of, migrated: Database
) -> None:
    await migrated.write(_rooms, "!own", "!tenants", "!plain", wants={"!own": True, "!plain": False})
    await migrated.write(_settings, {"rooms": {"encrypted": True}})
    for room in ("!own", "!tenants"):
        homeserver.answers[encryption(room)] = ENCRYPTED
    assert of(await examine(), "encryption").level is Level.OK
    homeserver.answers[encryption("!plain")] = ENCRYPTED
    assert "!plain" in of(await examine(), "encryption").what


async def test_an_encrypted_control_room_warns_of_private_rooms(
    examine: Examine, homeserver: StandIn, of: Of, migrated: Database
) -> None:
    await migrated.write(_rooms)
    homeserver.answers[encryption("!control")] = ENCRYPTED
    found = of(await examine(), "encryption")
    assert (found.level, "perhaps all" in found.what) == (Level.WARNING, True)
    await migrated.write(_rooms, "!plain")
    found = of(await examine(), "encryption")
    assert (found.level, "perhaps all" in found.what) == (Level.WARNING, False)
    assert "`encryption_enabled_by_default_for_room_type: off`" in str(found.remedy)
    homeserver.answers[encryption("!control")] = NOT_INSIDE
    assert of(await examine(), "encryption").level is Level.OK
    homeserver.answers[encryption("!plain")] = NOT_INSIDE
    assert of(await examine(), "encryption").level is Level.INFO


async def test_the_control_room_is_never_left_in_the_directory(
    examine: Examine, homeserver: StandIn, of: Of, migrated: Database
) -> None:
    await migrated.write(_rooms)
    put = "PUT", "/_matrix/client/v3/directory/list/room/!control"
    assert of(await examine(), "room directory").level is Level.OK
    assert [body["visibility"] for *request, body in homeserver.seen if tuple(request) == put] == [
        "public",
        "private",
    ]
    for body in ("a proxy's page", {"errcode": "M_UNKNOWN", "error": "Internal server error"}):
        homeserver.answers[put] = (500, body)
        homeserver.seen.clear()
        assert of(await examine(), "room directory").level is Level.WARNING
        *_, last = (body for *request, body in homeserver.seen if tuple(request) == put)
        assert last == {"visibility": "private"}


def _rooms(connection: Connection, *newest: str, wants: Mapping[str, bool] = MappingProxyType({})) -> None:
    """Add rooms, the newest first, of entities of which *wants* says whether they are encrypted."""
    service.put(connection, "control_room", "!control")
    if newest:
        tenants.create(connection, "t", name="T", settings={}, now=1)
    for age, room_id in enumerate(newest):
        made = entities.create(
            connection,
            "t",
            EntityKind.EVENT,
            room_id[1:],
            alias=f"#{room_id[1:]}",
            spec={"encrypted": wants.get(room_id)},
            external_id=None,
            as_of=None,
            now=1,
            new_id=new_id,
        )
        assert made is not None
        connection.execute(
            insert(tables.rooms).values(
                tenant="t",
                id=room_id,
                entity_ref=made.ref,
                state="open",
                claim="c",
                lock_alias="#l",
                room_id=room_id,
                log_id="l",
                last_sequence=0,
                created_at=1000 - age,
            )
        )


def _settings(connection: Connection, settings: Mapping[str, Any]) -> None:
    connection.execute(update(tables.tenants).values(settings=dumps(settings)))
