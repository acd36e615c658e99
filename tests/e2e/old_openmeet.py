"""A homeserver as OpenMeet's in-process service leaves it.

That service is one bot for all tenants, named by ``MATRIX_APPSERVICE_ID``. It makes every room public and
lists it, lets the homeserver choose alias and canonical alias, invites real accounts named
``@{user}_{tenant}``, and then writes power levels: itself and hosts
100, admins 75, moderators 50, speakers 25.
Rooms of earlier times were encrypted, or made by other bots. People have done to them since what people do.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote

from aiohttp import ClientSession

from openmeet_appservice.dev.person import Person, call

Json = dict[str, Any]


@dataclass(slots=True)
class OldRoom:
    """A room as it was left. *people* are the user ids in it, the bots aside."""

    kind: str
    slug: str
    alias: str
    room_id: str
    people: set[str] = field(default_factory=set)


@dataclass(slots=True)
class OldOpenMeet:
    """The former service at work for one tenant.

    Parameters
    ----------
    url
        Synapse.
    as_token, bot
        Of the application service, and its bot's user id.
    tenant
        As OpenMeet spells it.
    """

    session: ClientSession
    url: str
    as_token: str
    bot: str
    tenant: str
    rooms: dict[str, OldRoom] = field(default_factory=dict)
    accounts: dict[str, Person] = field(default_factory=dict)

    @property
    def server(self) -> str:
        """The homeserver's name."""
        return self.bot.partition(":")[2]

    async def account(self, slug: str) -> Person:
        """Return the real account of a user."""
        if slug not in self.accounts:
            name = f"{slug}_{self.tenant}".lower()
            self.accounts[slug] = await Person.register(self.session, self.url, name, "correct horse")
        return self.accounts[slug]

    async def make(
        self,
        slug: str,
        powers: dict[str, int],
        *,
        kind: str = "event",
        version: str = "10",
        encrypted: bool = False,
        join_rule: str = "public",
        joined: tuple[str, ...] = (),
        master: str | None = None,
    ) -> OldRoom:
        """Make a room, invite everybody in *powers*, let some join, and write all levels.

        *master* gets more power than the bot, which only the making of a room can do.
        """
        localpart = f"{kind}-{slug}-{self.tenant}"
        initial: dict[str, Json] = {
            "m.room.join_rules": {"join_rule": join_rule},
            "m.room.history_visibility": {"history_visibility": "shared"},
            "m.room.guest_access": {"guest_access": "forbidden"},
        }
        if encrypted:
            initial["m.room.encryption"] = {
                "algorithm": "m.megolm.v1.aes-sha2",
                "rotation_period_ms": 604_800_000,
                "rotation_period_msgs": 100,
            }
        content: Json = {
            "name": f"{slug.title()} Chat",
            "topic": f"Chat room for {slug.title()}",
            "visibility": "public",
            "preset": "public_chat" if join_rule == "public" else "private_chat",
            "room_version": version,
            "room_alias_name": localpart,
            "initial_state": [
                {"type": name, "state_key": "", "content": value} for name, value in initial.items()
            ],
        }
        if master is not None:
            over = {self.bot: 100, (await self.account(master)).user_id: 200}
            content["power_level_content_override"] = {"users": over}
        made = await self.ask("POST", "createRoom", body=content)
        room = OldRoom(kind, slug, f"#{localpart}:{self.server}", made["room_id"])
        self.rooms[slug] = room
        for name in powers:
            person = await self.account(name)
            await self.ask("POST", "rooms", room.room_id, "invite", body={"user_id": person.user_id})
            room.people.add(person.user_id)
        for name in joined:
            await (await self.account(name)).join(room.room_id)
        await self.set_powers(room, {(await self.account(n)).user_id: p for n, p in powers.items()}, version)
        return room

    async def set_powers(self, room: OldRoom, levels: dict[str, int], version: str = "10") -> None:
        """Merge levels into those that there are, as the former service did, the bot's with 100."""
        path = ("rooms", room.room_id, "state", "m.room.power_levels", "")
        before = await self.ask("GET", *path)
        own = {} if version == "12" else {self.bot: 100}
        users = {**before.get("users", {}), **own, **levels}
        await self.ask("PUT", *path, body={**before, "users": users})

    async def of_another_bot(self, slug: str, *, version: str = "10", inside: bool = True) -> OldRoom:
        """Leave a room that another bot made, before the bot's id was changed; ours was let in, or not."""
        maker = await self.account(f"bot-{slug}")
        made = await call(
            self.session,
            "POST",
            f"{self.url}/_matrix/client/v3/createRoom",
            body={"preset": "public_chat" if inside else "private_chat", "room_version": version},
            token=maker.account.access_token,
        )
        room = OldRoom("event", slug, f"#event-{slug}-{self.tenant}:{self.server}", made["room_id"])
        await self.ask("PUT", "directory", "room", room.alias, body={"room_id": room.room_id})
        if inside:
            await self.ask("POST", "rooms", room.room_id, "join", body={})
        self.rooms[slug] = room
        return room

    async def rename(self, room: OldRoom, slug: str) -> None:
        """Give a group another slug, as the former service did: the old alias goes on leading to its room."""
        alias = f"#{room.kind}-{slug}-{self.tenant}:{self.server}"
        await self.ask("PUT", "directory", "room", alias, body={"room_id": room.room_id})
        content = {"alias": alias, "alt_aliases": [room.alias]}
        path = ("rooms", room.room_id, "state", "m.room.canonical_alias", "")
        await self.ask("PUT", *path, body=content)
        self.rooms[slug] = OldRoom(room.kind, slug, alias, room.room_id, room.people)

    async def throw_out(self, room: OldRoom, how: str, by: str) -> None:
        """Have somebody ``kick`` or ``ban`` the bot."""
        master = await self.account(by)
        await call(
            self.session,
            "POST",
            f"{self.url}/_matrix/client/v3/rooms/{quote(room.room_id, safe='')}/{how}",
            body={"user_id": self.bot},
            token=master.account.access_token,
        )

    async def ask(self, method: str, *path: str, body: Json | None = None) -> Json:
        """Make a request as the bot."""
        parts = "/".join(quote(part, safe="") for part in path)
        return await call(
            self.session, method, f"{self.url}/_matrix/client/v3/{parts}", body=body, token=self.as_token
        )


async def leave_behind(old: OldOpenMeet) -> None:
    """Make one room of every kind that an installation may have."""
    hosts = {"ada": 100, "ben": 50, "eve": 0}
    await old.make("games", hosts, version="10", joined=("ada", "ben"))
    await old.make("cards", {**hosts, "gus": 25}, version="11", joined=("ada",))
    await old.make("darts", {"ada": 100, "ben": 50}, version="12", joined=("ada", "ben"))
    await old.make("chess", {"ada": 100, "eve": 75}, kind="group", joined=("ada", "eve"))
    await old.make("secret", hosts, encrypted=True, join_rule="invite", joined=("ada", "eve"))
    await old.make("draft", {"ada": 100}, joined=("ada",))
    await old.make("Upper", {"ada": 100}, joined=("ada",))

    kicked = await old.make("kicked", {"ben": 50}, joined=("ada",), master="ada")
    await old.throw_out(kicked, "kick", "ada")
    shut = await old.make("shut", {"ada": 200}, join_rule="invite", joined=("ada",), master="ada")
    await old.throw_out(shut, "kick", "ada")
    banned = await old.make("banned", {"ben": 50}, joined=("ada",), master="ada")
    await old.throw_out(banned, "ban", "ada")

    await old.of_another_bot("foreign")
    await old.of_another_bot("foreign12", version="12")
    await old.of_another_bot("closed", inside=False)
    empty = await old.make("empty", {})
    await old.ask("POST", "rooms", empty.room_id, "leave", body={})
    renamed = await old.make("club", {"ada": 100}, kind="group", joined=("ada",))
    await old.rename(renamed, "society")
