"""``adopt`` on a homeserver as OpenMeet's in-process service leaves it."""

from __future__ import annotations

import sqlite3
from dataclasses import dataclass
from typing import Any

import orjson
import pytest

from openmeet_appservice.dev.person import call

from .conftest import BOT, Stage
from .old_openmeet import OldOpenMeet, leave_behind
from .openmeet import Json, OpenMeet, event
from .service import Installation
from .waiting import until

ADOPTED = {
    "games": "10",
    "cards": "11",
    "darts": "12",
    "chess": "10",
    "secret": "10",
    "draft": "10",
    "Upper": "10",
}
ADOPTED |= {"kicked": "10", "society": "10"}
REFUSED = {
    "shut": "not_inside",
    "banned": "not_inside",
    "foreign": "no_power",
    "foreign12": "not_the_creator",
    "closed": "not_inside",
    "club": "other_name",
}
GROUPS = {"chess", "club", "society"}
PRIVATE = {"secret", "closed"}


@dataclass(slots=True)
class Move:
    """An installation that takes the former service's place."""

    stage: Stage
    installation: Installation
    old: OldOpenMeet
    openmeet: OpenMeet

    def adopt(self, *words: str) -> tuple[int, Json]:
        """Run ``adopt --json`` and return its exit code and what it says."""
        ran = self.installation.run("adopt", "--json", *words)
        assert ran.returncode in (0, 1), ran.stderr
        found = orjson.loads(ran.stdout)
        for one in found["refused"]:
            # Whether the renamed group comes before the newer one of that slug is chance.
            if one["slug"] == "club" and one["code"] == "in_use":
                one["code"] = "other_name"
        return ran.returncode, found

    async def state(self, slug: str) -> dict[tuple[str, str], Json]:
        """Return the whole state of a former room."""
        return await self.stage.homeserver(self.installation).state(self.old.rooms[slug].room_id)

    def path(self, slug: str) -> str:
        """Return the path of an entity in the API."""
        return f"/{'groups' if slug in GROUPS else 'events'}/{slug}"

    async def seen(self) -> dict[Any, Any]:
        """Return everything that an onlooker can see of the former rooms."""
        found: dict[Any, Any] = {}
        for slug, room in self.old.rooms.items():
            found[slug, "alias"] = await self.stage.homeserver(self.installation).resolve(room.alias)
        for slug in (*ADOPTED.keys() - {"kicked"}, "foreign", "foreign12"):
            found[slug, "state"] = await self.state(slug)
        ada = self.old.accounts["ada"]
        found["listed"] = sorted(room["room_id"] for room in await ada.public_rooms())
        for slug in ("kicked", "shut", "banned"):
            found[slug, "members"] = sorted(await ada.joined_members(self.old.rooms[slug].room_id))
        return found

    def rows(self) -> dict[str, list[Any]]:
        """Return every row of the database."""
        url = self.installation.config().database.url.get_secret_value()
        with sqlite3.connect(url.removeprefix("sqlite:///")) as connection:
            names = [
                row[0] for row in connection.execute("SELECT name FROM sqlite_master WHERE type='table'")
            ]
            return {name: sorted(map(repr, connection.execute(f'SELECT * FROM "{name}"'))) for name in names}


def people(state: dict[tuple[str, str], Json]) -> dict[str, str]:
    return {key: content["membership"] for (kind, key), content in state.items() if kind == "m.room.member"}


def powers(state: dict[tuple[str, str], Json]) -> dict[str, int]:
    return dict(state["m.room.power_levels", ""].get("users", {}))


async def move_in(stage: Stage) -> Move:
    """Leave a homeserver behind, and tell the new service what OpenMeet knows; it is not running."""
    installation = stage.install()
    token = installation.config().appservice.as_token.get_secret_value()
    old = OldOpenMeet(stage.session, stage.synapse.url, token, BOT, stage.tenant)
    await leave_behind(old)
    assert installation.run("migrate").returncode == 0
    assert installation.run("tenant", "add", stage.tenant).returncode == 0
    lines = []
    for slug in (*ADOPTED, *REFUSED, "empty", "new"):
        spec = event(slug.title(), {})
        del spec["members"]
        spec["visibility"] = "private" if slug in PRIVATE else "public"
        spec["status"] = "draft" if slug == "draft" else "published"
        kind = "group" if slug in GROUPS else "event"
        lines.append({"op": "put", "kind": kind, "slug": slug, "spec": spec})
    file = installation.folder / "openmeet.ndjson"
    file.write_bytes(b"\n".join(map(orjson.dumps, lines)) + b"\n")
    ran = installation.run("import", str(file), "--tenant", stage.tenant)
    assert ran.returncode == 0, (ran.stdout, ran.stderr)
    key = installation.run("keys", "add", "--tenant", stage.tenant, "--json")
    openmeet = OpenMeet(
        stage.session, installation.provisioning_url, orjson.loads(key.stdout)["api_key"], stage.tenant
    )
    return Move(stage, installation, old, openmeet)


async def test_adopt_takes_over_what_it_can_and_lists_the_rest(stage: Stage) -> None:
    move = await move_in(stage)
    before, rows = await move.seen(), move.rows()

    code, found = move.adopt("--dry-run", "--enforce")
    assert code == 1
    assert {one["slug"] for one in found["adopted"]} == ADOPTED.keys() | {"shut", "banned", "closed", "empty"}
    assert {one["slug"] for one in found["adopted"] if one["joins"]} == {
        *("kicked", "shut", "banned", "closed", "empty")
    }
    assert {one["slug"]: one["code"] for one in found["refused"]} == {
        slug: why for slug, why in REFUSED.items() if why != "not_inside"
    }
    assert await move.seen() == before
    assert move.rows() == rows

    code, found = move.adopt()
    assert code == 1
    assert {one["slug"]: one["version"] for one in found["adopted"]} == ADOPTED
    assert {one["slug"] for one in found["adopted"] if one["encrypted"]} == {"secret"}
    assert {one["slug"]: one["code"] for one in found["refused"]} == REFUSED
    assert [one["slug"] for one in found["gone"]] == ["empty"]
    assert found["without_room"] == 1
    for one in (*found["adopted"], *found["refused"]):
        assert one["room_id"] == move.old.rooms[one["slug"]].room_id
    for one in found["refused"]:
        assert one["room_id"] in one["remedy"] or one["alias"] in one["remedy"] or BOT in one["remedy"]

    # Nothing was done to a room yet, but that the bot is back where it was let in.
    after = await move.seen()
    del after["kicked", "members"], before["kicked", "members"]
    del after["empty", "alias"], before["empty", "alias"]
    assert after == before
    assert move.adopt()[1]["adopted"] == []

    await _live_on(move)


async def _live_on(move: Move) -> None:
    """See the service at work in the adopted rooms: nobody is removed or lowered, until that is enforced."""
    before = {slug: await move.state(slug) for slug in ADOPTED}
    service = await move.stage.start(move.installation)
    for slug in ADOPTED:
        if slug != "draft":
            found = await move.openmeet.ready(move.path(slug))
            assert found["matrix"]["room_id"] == move.old.rooms[slug].room_id
    for slug, state in before.items():
        now = await move.state(slug)
        assert people(now) == {**people(state), BOT: "join"}, slug
        assert powers(now) == powers(state), slug
    games = await move.state("games")
    assert games["m.room.name", ""] == {"name": "Games"}
    assert games["m.room.join_rules", ""]["join_rule"] == "invite"
    homeserver = move.stage.homeserver(move.installation)
    # Nobody finds what is private, a draft, or was spelt otherwise; its history is all there.
    for slug in ("secret", "draft", "Upper"):
        assert await homeserver.resolve(move.old.rooms[slug].alias) is None
    secret = await move.openmeet.get("/events/secret")
    assert (secret["matrix"]["alias"], secret["matrix"]["room_id"]) == (
        None,
        move.old.rooms["secret"].room_id,
    )
    # What could not be taken over is told, and gets no second room; what is gone or never was gets one.
    # The slug of a group that was renamed belongs to the newer group now: the old room gives up its alias.
    for slug in REFUSED.keys() - {"club"}:
        failed = await until(lambda slug=slug: _error(move, slug), f"{slug} fails")  # type: ignore[misc]
        assert failed["code"] == "alias_taken", slug
        assert (await move.openmeet.get(move.path(slug)))["matrix"]["room_id"] is None
    for slug in ("new", "empty", "club"):
        made = await move.openmeet.ready(move.path(slug))
        assert made["matrix"]["room_id"] not in {room.room_id for room in move.old.rooms.values()}

    # A whole list comes. Still nobody goes.
    listed = {"members": [{"user": "ada", "role": "host"}]}
    await move.openmeet.put("/events/games/members", listed)
    await move.openmeet.ready("/events/games")
    now = await move.state("games")
    puppet = f"@openmeet_{move.stage.tenant}_ada:{move.old.server}"
    assert people(now) == {**people(games), puppet: "join"}
    assert powers(now) == {**powers(games), puppet: 99}
    await service.terminate()

    code, found = move.adopt("--enforce")
    assert code == 1
    assert [one["slug"] for one in found["enforced"]] == ["games"]
    assert {one["slug"] for one in found["waiting"]} == ADOPTED.keys() - {"games"}
    await move.stage.start(move.installation)

    async def only_the_list() -> bool:
        return {user for user, what in people(await move.state("games")).items() if what == "join"} == {
            BOT,
            puppet,
            move.old.accounts["ada"].user_id,
        }

    # The host of before is the bot's equal, and stays; that is told.
    await until(only_the_list, "only the list is left")
    failed = await until(lambda: _error(move, "games"), "the host is reported")
    assert failed["code"] == "power_out_of_reach"
    darts = people(await move.state("darts"))
    assert darts[move.old.accounts["ben"].user_id] == "join"


async def _error(move: Move, slug: str) -> Json | None:
    found = await move.openmeet.get(move.path(slug))
    error: Json | None = found["sync"]["last_error"]
    return error


async def test_a_service_that_runs_too_early_makes_no_second_room(stage: Stage) -> None:
    """Between `import` and `adopt` whatever has a former room fails, and is taken over all the same."""
    move = await move_in(stage)
    before = await stage.homeserver(move.installation).bots_rooms()
    service = await stage.start(move.installation)
    for slug in (*ADOPTED.keys() - {"draft"}, *REFUSED):
        failed = await until(lambda slug=slug: _error(move, slug), f"{slug} fails")  # type: ignore[misc]
        assert failed["code"] == "alias_taken", (slug, failed)
    made = await move.openmeet.ready("/events/new")
    since = await stage.homeserver(move.installation).made_since(before)
    assert since.keys() - {(await move.openmeet.get("/events/empty"))["matrix"]["room_id"]} == {
        made["matrix"]["room_id"]
    }
    await service.terminate()

    _, found = move.adopt()
    assert {one["slug"] for one in found["adopted"]} == ADOPTED.keys()
    await stage.start(move.installation)
    for slug in ADOPTED.keys() - {"draft"}:
        ready = await move.openmeet.ready(move.path(slug))
        assert ready["matrix"]["room_id"] == move.old.rooms[slug].room_id


async def test_fault_60_a_room_of_another_bot_is_taken_over_by_the_remedy(stage: Stage) -> None:
    """The former service gave up rooms made under another bot's id; here the remedy that is told works."""
    move = await move_in(stage)
    _, found = move.adopt()
    remedies = {one["slug"]: one["remedy"] for one in found["refused"]}
    admin = await stage.synapse.register_user(f"admin-{stage.tenant}", "correct horse", admin=True)
    for slug in ("foreign", "closed"):
        room_id = move.old.rooms[slug].room_id
        path = f"/_synapse/admin/v1/rooms/{room_id}/make_room_admin"
        assert f'POST {path} {{"user_id": "{BOT}"}}' in remedies[slug]
        url = stage.synapse.url + path
        await call(stage.session, "POST", url, body={"user_id": BOT}, token=admin.access_token)
    _, found = move.adopt()
    assert {one["slug"] for one in found["adopted"]} == {"foreign", "closed"}
    await stage.start(move.installation)
    for slug in ("foreign", "closed"):
        ready = await move.openmeet.ready(f"/events/{slug}")
        assert ready["matrix"]["room_id"] == move.old.rooms[slug].room_id


async def test_beside_a_running_service_on_sqlite_only_the_dry_run(stage: Stage) -> None:
    installation = stage.install()
    await stage.start(installation)
    await stage.openmeet(installation)
    ran = installation.run("adopt")
    assert ran.returncode == 1
    assert "stop it first" in ran.stderr
    ran = installation.run("adopt", "--dry-run")
    assert ran.returncode == 0, ran.stderr
    assert "nothing was changed" in ran.stdout


@pytest.mark.parametrize("words", [["--tenant", "none"], ["--enforced"]])
def test_wrong_usage(stage: Stage, words: list[str]) -> None:
    installation = stage.install()
    installation.run("migrate")
    assert installation.run("adopt", *words).returncode == 2
