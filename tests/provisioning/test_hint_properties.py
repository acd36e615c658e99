"""However hints are lost, doubled, late or in another order: in the end all is as OpenMeet has it."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from cryptography.fernet import Fernet
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import Connection

from openmeet_appservice.domain.kinds import EntityKind
from openmeet_appservice.domain.names import Template
from openmeet_appservice.domain.tenant_settings import LookupSettings
from openmeet_appservice.outbound.client import Answer, NoAnswer
from openmeet_appservice.outbound.guard import Guard
from openmeet_appservice.provisioning import entity_writes
from openmeet_appservice.provisioning.entities import wanted_spec
from openmeet_appservice.provisioning.entity_writes import Place
from openmeet_appservice.provisioning.kinds import people
from openmeet_appservice.provisioning.parts import Parts
from openmeet_appservice.provisioning.specs import Attendee, EventSpec
from openmeet_appservice.provisioning.writes import Write
from openmeet_appservice.store import hints, schema, tenants
from openmeet_appservice.store.database import open_database
from openmeet_appservice.store.ids import new_id
from openmeet_appservice.store.secretbox import SecretBox
from openmeet_appservice.store.wakeups import Wakeups

from .conftest import BOT, LOOKUP_SECRET, SERVER, Clock
from .lookups import NOBODY, Json, OpenMeet, World, answer, build, member, wanted

SLUGS = ("a", "b", "c")
PEOPLE = ("ada", "bob", "eve")
ROLES = ("host", "speaker", "participant")
HOUR = 3_600_000

Step = tuple[Any, ...]

slugs, users = st.sampled_from(SLUGS), st.sampled_from(PEOPLE)
changes = st.one_of(
    st.tuples(st.just("set"), slugs, st.integers(0, 9), st.dictionaries(users, st.sampled_from(ROLES))),
    st.tuples(st.just("join"), slugs, users, st.sampled_from(ROLES)),
    st.tuples(st.just("leave"), slugs, users),
    st.tuples(st.just("delete"), slugs),
)
steps = st.one_of(
    changes,
    changes,
    # Hints need not fit to what has changed: some come late, twice, for nothing, or are lost.
    st.tuples(st.just("hint"), slugs, st.one_of(st.none(), users), st.booleans()),
    st.tuples(st.just("hint"), slugs, st.one_of(st.none(), users), st.booleans()),
    st.tuples(st.just("put"), slugs, st.booleans()),
    st.tuples(st.just("follow")),
    st.tuples(st.just("wait"), st.sampled_from([1, 1_000, 60_000, HOUR])),
    st.tuples(st.just("down"), st.booleans()),
    # What happens while OpenMeet, having read its data, is about to answer.
    st.tuples(st.just("meanwhile"), changes),
)


class Playing:
    """OpenMeet, the service, and what lies between them."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.down = False
        self.meanwhile: list[Step] = []
        self.heard: set[str] = set()
        """What was hinted at or written since OpenMeet has it. Of anything else nobody can know here."""
        world.openmeet.says = self._says

    def _says(self, request: Json) -> Answer | NoAnswer | None:
        if self.down:
            return NOBODY
        # It is read before what happens meanwhile, and answered after.
        said = self.world.openmeet.truth(request)
        if self.meanwhile:
            self.change(*self.meanwhile.pop())
        self.world.clock.ms += 1
        return said

    def change(self, what: str, slug: str, *more: Any) -> None:
        """Change something on OpenMeet."""
        things = self.world.openmeet.things
        thing = things.get(("event", slug))
        if what == "set":
            number, listed = more
            spec = {"name": f"Event {number}", "visibility": "public", "status": "published"}
            things["event", slug] = {
                "spec": spec,
                "members": [member(user, role) for user, role in sorted(listed.items())],
            }
        elif what == "delete":
            things.pop(("event", slug), None)
            self.heard.discard(f"event {slug}")
        elif thing is not None:
            user, role = more[0], more[1] if len(more) > 1 else None
            kept = [one for one in thing["members"] if one["user"] != user]
            added = [] if role is None else [member(user, role)]
            things["event", slug] = {**thing, "members": kept + added}

    async def do(self, what: str, *more: Any) -> None:
        """Make one step."""
        world, database = self.world, self.world.parts.database
        world.clock.ms += 1
        match what:
            case "hint":
                slug, user, deleted = more
                self._hear(slug)
                await database.write(
                    hints.add, "t1", "event", slug, user=user, deleted=deleted, now=world.clock.ms
                )
            case "put":
                await self._put(*more)
            case "follow":
                await world.follow()
            case "wait":
                world.clock.ms += more[0]
            case "down":
                self.down = more[0]
            case "meanwhile":
                self.meanwhile.append(more[0])
            case _:
                self.change(what, *more)

    async def _put(self, slug: str, with_as_of: bool) -> None:
        """OpenMeet writes how something is, by the ordinary API."""
        thing = self.world.openmeet.things.get(("event", slug))
        if thing is None:
            return
        self._hear(slug)
        now = self.world.clock.ms
        spec = wanted_spec(EventSpec.model_validate(thing["spec"]))
        listed = people([Attendee.model_validate(one) for one in thing["members"]], "/members")
        write = Write(now=now, as_of=now if with_as_of else None, if_match=None)
        place = Place("t1", EntityKind.EVENT, slug)
        await self.world.parts.database.write(entity_writes.put, self.world.parts, place, spec, listed, write)

    async def rest(self) -> None:
        """Let OpenMeet be well, and enough time pass for whatever was lost to be found."""
        self.down, self.meanwhile = False, []
        await self.world.worker._enrol_all()
        for _ in range(16):
            await self.world.later(HOUR)

    def _hear(self, slug: str) -> None:
        if ("event", slug) in self.world.openmeet.things:
            self.heard.add(f"event {slug}")

    async def check(self) -> None:
        """See that all is as OpenMeet has it, and nothing that nobody has heard of is missed."""
        state, truth = await self.state(), self.truth()
        assert state == {key: one for key, one in truth.items() if key in state.keys() | self.heard}
        assert await self.world.waiting() == 0

    def truth(self) -> Json:
        """How OpenMeet has it."""
        return {
            f"event {slug}": (thing["spec"]["name"], {one["user"]: one["role"] for one in thing["members"]})
            for (_, slug), thing in self.world.openmeet.things.items()
        }

    async def state(self) -> Json:
        """How it is wanted here."""
        found = await self.world.parts.database.read(wanted)
        return {key: (one["spec"]["name"], one["members"]) for key, one in found.items()}


@asynccontextmanager
async def playing() -> AsyncIterator[Playing]:
    """A database of its own, with the tenant ``t1``."""
    with tempfile.TemporaryDirectory() as folder:
        database = open_database(f"sqlite:///{Path(folder) / 'test.db'}")
        clock = Clock()
        parts = Parts(
            database=database,
            wakeups=Wakeups(),
            now=clock,
            clock=lambda: clock.ms / 1000,
            new_id=new_id,
            puppets=Template("openmeet_{tenant}_{user}", SERVER),
            aliases=Template("{kind}-{slug}-{tenant}", SERVER),
            bot=BOT,
            secrets=SecretBox([Fernet.generate_key().decode()]),
            check_url=Guard().check_url,
            post=_nobody,
            lookups=LookupSettings("https://openmeet.test/", 3.0, 15.0, 21600.0),
            lookup_secrets=(LOOKUP_SECRET,),
        )

        def prepare(connection: Connection) -> None:
            schema.migrate(connection)
            tenants.create(connection, "t1", name="One", settings={}, now=clock.ms)

        try:
            await database.write(prepare)
            yield Playing(build(parts, clock, OpenMeet()))
        finally:
            await database.close()


async def _nobody(*_: object) -> Answer:
    return answer(500)


@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large]
)
@given(played=st.lists(steps, max_size=40))
def test_in_the_end_all_is_as_openmeet_has_it(played: list[Step]) -> None:
    async def play() -> None:
        async with playing() as game:
            for step in played:
                await game.do(*step)
            await game.rest()
            await game.check()

    asyncio.run(play())


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(played=st.lists(changes, min_size=1, max_size=12), data=st.data())
def test_hints_in_any_order_and_number_end_alike(played: list[Step], data: st.DataObject) -> None:
    """As long as each change was hinted at once, nobody has to wait for its turn."""
    told = [(slug, what == "delete") for what, slug, *_ in played]
    doubled = [*told, *data.draw(st.lists(st.sampled_from(told), max_size=8))]
    order = data.draw(st.permutations(doubled))

    async def play() -> None:
        async with playing() as game:
            for step in played:
                await game.do(*step)
            for slug, deleted in order:
                await game.do("hint", slug, None, deleted)
                if data.draw(st.booleans()):
                    await game.do("follow")
            for _ in range(3):
                await game.world.later(1_000)
            assert await game.state() == game.truth()
            assert await game.world.waiting() == 0

    asyncio.run(play())
