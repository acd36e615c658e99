"""What OpenMeet is asked, and a stand-in for it that answers, well or badly."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import Connection, select

from openmeet_appservice.domain.kinds import Access
from openmeet_appservice.domain.rooms import RoomSettings
from openmeet_appservice.outbound.client import Answer, NoAnswer, Reason
from openmeet_appservice.provisioning.alias_worker import AliasWorker
from openmeet_appservice.provisioning.hint_work import HintWork
from openmeet_appservice.provisioning.hint_worker import HintWorker
from openmeet_appservice.provisioning.lookup import Lookup
from openmeet_appservice.provisioning.lookup_rest import Rests
from openmeet_appservice.provisioning.parts import Parts
from openmeet_appservice.store import hints
from openmeet_appservice.store.lookup_tables import hints as hint_rows
from openmeet_appservice.store.tables import entities as entity_rows
from openmeet_appservice.store.tables import members as member_rows
from openmeet_appservice.store.tables import users

from .conftest import Clock

Json = dict[str, Any]
SPEC: Json = {"name": "Games", "visibility": "public", "status": "published"}
NOBODY = NoAnswer(Reason.TIMED_OUT, "There was no answer in time.", 15.0)
ROOMS = RoomSettings(
    alias="{kind}-{slug}-{tenant}",
    private_alias=False,
    version=None,
    federate=False,
    access=Access.MEMBERS,
    power_levels={},
    chat_statuses=frozenset(),
)


def answer(status: int, body: object = None, **headers: str) -> Answer:
    """An answer of OpenMeet; bytes are sent as they are."""
    raw = body if isinstance(body, bytes) else b"" if body is None else json.dumps(body).encode()
    return Answer(status, raw, {k.replace("_", "-"): v for k, v in headers.items()}, 0.01)


def member(user: str, role: str = "participant", **more: Any) -> Json:
    """A member of an event."""
    return {"user": user, "role": role, **more}


@dataclass
class OpenMeet:
    """Knows *things* by kind and slug, and answers as they are unless *says* has something else to say."""

    things: dict[tuple[str, str], Json] = field(default_factory=dict)
    says: Callable[[Json], Answer | NoAnswer | None] | None = None
    asked: list[Json] = field(default_factory=list)
    headers: list[Mapping[str, str]] = field(default_factory=list)
    urls: list[str] = field(default_factory=list)
    page: int = 1000

    async def __call__(self, url: str, body: bytes, headers: dict[str, str]) -> Answer | NoAnswer:
        """Answer one request."""
        request: Json = json.loads(body)
        self.asked.append(request)
        self.headers.append(headers)
        self.urls.append(url)
        said = self.says(request) if self.says is not None else None
        return said if said is not None else self.truth(request)

    def truth(self, request: Json) -> Answer:
        """The right answer."""
        thing = self.things.get((request["kind"], request["slug"].lower()))
        if thing is None:
            return answer(404)
        if "members" not in thing:
            return answer(200, thing)
        if "user" in request:
            listed = [one for one in thing["members"] if one["user"].lower() == request["user"].lower()]
            return answer(200, {**thing, "members": listed})
        first = int(request.get("members_page_token", 0))
        after = first + self.page
        token = str(after) if after < len(thing["members"]) else None
        listed = thing["members"][first:after]
        return answer(200, {**thing, "members": listed, "next_members_page_token": token})


@dataclass
class World:
    """Everything that asks, with a clock that stands still."""

    parts: Parts
    clock: Clock
    openmeet: OpenMeet
    worker: HintWorker
    aliases: AliasWorker

    async def follow(self) -> None:
        """Follow all hints that are due, in the order in which they are."""
        await self.worker.once()

    async def later(self, milliseconds: int) -> None:
        """Let time pass and follow what is due then."""
        self.clock.ms += milliseconds
        await self.worker.once()

    async def waiting(self) -> int:
        """How many hints have not been followed."""
        return (await self.parts.database.read(hints.waiting)).number

    async def turns(self) -> dict[str, int]:
        """When each thing is due, by slug."""
        query = select(hint_rows.c.slug, hint_rows.c.due_at)
        return dict(await self.parts.database.read(lambda c: [tuple(row) for row in c.execute(query)]))

    async def state(self) -> dict[str, Json]:
        """Everything that is wanted, by kind and slug."""
        return await self.parts.database.read(wanted)


def wanted(connection: Connection) -> dict[str, Json]:
    """Read what is wanted of every live event and group, members by slug."""
    found: dict[str, Json] = {}
    rows = connection.execute(select(entity_rows).where(entity_rows.c.archived_at.is_(None))).all()
    slugs = {row.id: row.slug for row in connection.execute(select(users.c.id, users.c.slug))}
    for row in rows:
        listed = connection.execute(
            select(member_rows).where(member_rows.c.tenant == row.tenant, member_rows.c.entity_ref == row.id)
        )
        found[f"{row.kind} {row.slug_key}"] = {
            "spec": json.loads(row.spec),
            "external_id": row.external_id,
            "members": {slugs[one.user_ref]: one.role for one in listed},
        }
    return found


def build(parts: Parts, clock: Clock, openmeet: OpenMeet) -> World:
    """Return a world in which *openmeet* is asked."""
    numbers = itertools.count()
    lookup = Lookup(
        openmeet,
        parts.lookups,
        parts.lookup_secrets,
        lambda prefix: f"{prefix}_{next(numbers)}",
        clock,
        lambda: clock.ms / 1000,
    )
    work = HintWork(parts, lookup, Rests(clock, lambda: 0.5), lambda: 0.5)

    async def no_sleep(_: float) -> None:
        raise AssertionError("nothing here sleeps")

    return World(
        parts,
        clock,
        openmeet,
        HintWorker(work, lambda: clock.ms / 1000, no_sleep),
        AliasWorker(parts, lookup, ROOMS, no_sleep),
    )
