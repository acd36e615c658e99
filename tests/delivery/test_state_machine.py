"""Delivery as a state machine: whatever happens in whatever order, the order holds and nothing is lost.

Hypothesis draws what happens: events come in, batches are claimed, answered, lost or answered too late,
processes die, time passes, endpoints are changed, and what was sent is asked for again. All of it runs on the
real store with the real transactions of delivery; only HTTP is a model (`delivery_model`), which knows what
the receiver took. At the end everything works again, and everything that was meant has to arrive.
"""

from __future__ import annotations

import asyncio
import itertools
import shutil
import tempfile
from collections.abc import Callable, Coroutine
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar, Concatenate, ParamSpec, TypeVar

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    precondition,
    rule,
    run_state_machine_as_test,
)
from sqlalchemy import Connection, insert, select, text

from openmeet_appservice.delivery.claim import Job, claim
from openmeet_appservice.delivery.judging import judge, says_nothing_new
from openmeet_appservice.delivery.loop import Claimed
from openmeet_appservice.delivery.policy import Try, decide
from openmeet_appservice.delivery.results import Result, record
from openmeet_appservice.delivery.settings import DeliverySettings
from openmeet_appservice.delivery.shares import Shares
from openmeet_appservice.domain.arrival import Arrival, read_event
from openmeet_appservice.domain.replay import Asked, Counts, Only
from openmeet_appservice.outbound import client
from openmeet_appservice.store import dead_letters, endpoints, event_log, lanes, schema
from openmeet_appservice.store import tables as t
from openmeet_appservice.store.database import Database, open_database
from openmeet_appservice.store.endpoint_row import Wanted
from openmeet_appservice.store.replays import replay
from openmeet_appservice.store.tables import metadata

from .delivery_model import Endpoint, Model, Room

P = ParamSpec("P")
T = TypeVar("T")

BOT = "@bot:example.org"
SETTINGS = DeliverySettings(bot=BOT, retry=(5.0,), max_batch=3, lease=90_000)
ROOMS = (("t1", "!a"), ("t1", "!b"), ("t2", "!c"))
ANSWERS = (*["taken"] * 6, "lost", "timed_out", "500", "503", "400", "422", "413", "410")
WATCHED = (t.lanes, t.batches, t.replays, t.dead_letters, t.delivery_attempts)


class Delivery(RuleBasedStateMachine):
    """See the module. Those below say where each example gets an empty database."""

    loop: ClassVar[asyncio.AbstractEventLoop]

    @classmethod
    def open_empty(cls) -> Database:
        """Return an empty database."""
        raise NotImplementedError

    def __init__(self) -> None:
        super().__init__()
        self.database = self.open_empty()
        self.now = 1_795_374_000_000
        self.ids = itertools.count(1)
        self.jobs: list[Job] = []
        rooms = [Room(tenant, room_id) for tenant, room_id in ROOMS]
        self.ours = Endpoint("t1", "ours", {"t1"})
        self.platform = Endpoint("", "platform", {"t1", "t2"})
        self.model = Model(rooms, [])
        self.wanted = {"ours": Wanted("https://a.example"), "platform": Wanted("https://b.example")}

    # -- what there is

    @initialize(before=st.tuples(*[st.integers(0, 3)] * 3))
    def begin(self, before: tuple[int, ...]) -> None:
        """Make tenants and rooms, some events, and then the endpoints."""
        self.write(_furnish)
        for room, count in zip(self.rooms, before, strict=True):
            self.append(room, count)
        self.model.endpoints = [self.ours, self.platform]
        for endpoint in self.model.endpoints:
            self.put(endpoint)

    @rule(room=st.integers(0, 2), count=st.integers(1, 5))
    def events_come_in(self, room: int, count: int) -> None:
        self.append(self.rooms[room], count)

    # -- what workers do

    @rule(slots=st.integers(1, 6))
    def claim(self, slots: int) -> None:
        self.jobs += self.claimed(slots).jobs

    @rule(kinds=st.lists(st.sampled_from(ANSWERS), min_size=1, max_size=4))
    def work(self, kinds: list[str]) -> None:
        """A worker does all that is due, and goes on with what that makes due, for a while."""
        answers = itertools.cycle(kinds)
        for _ in range(3):
            for job in self.claimed(6).jobs:
                self.settle(job, next(answers), None)

    @precondition(lambda self: self.jobs)
    @rule(data=st.data(), kind=st.sampled_from(ANSWERS), later=st.sampled_from(ANSWERS))
    def answer_too_late(self, data: st.DataObject, kind: str, later: str) -> None:
        """The lease ends and others go on before a job is answered, and then it is."""
        late = self.some_job(data)
        self.now += SETTINGS.lease
        others = self.claimed(6).jobs
        self.settle(late, kind, None)
        for job in others[1:]:
            self.settle(job, later, None)
        self.jobs += others[:1]

    @precondition(lambda self: self.jobs)
    @rule(data=st.data(), kind=st.sampled_from(ANSWERS), rest=st.sampled_from([None, "30"]))
    def answer(self, data: st.DataObject, kind: str, rest: str | None) -> None:
        """A job is answered; if it has lost its lease meanwhile, too late."""
        self.settle(self.some_job(data), kind, rest)

    @precondition(lambda self: self.jobs)
    @rule(data=st.data(), took=st.booleans())
    def crash(self, data: st.DataObject, took: bool) -> None:
        """Nobody ever says what came of a job."""
        self.lose(self.some_job(data), took)

    @precondition(lambda self: self.jobs)
    @rule(data=st.data())
    def give_back(self, data: st.DataObject) -> None:
        job = self.some_job(data)
        _, _, lane = self.model.of(job)
        held = self.write(lanes.give_back, job.lane, due_at=self.now)
        assert held == (lane.holder is job)
        if held:
            lane.holder = None

    @rule(took=st.booleans())
    def restart(self, took: bool) -> None:
        """The only process dies and another begins."""
        while self.jobs:
            self.lose(self.jobs.pop(), took)
        self.write(lanes.release_all, now=self.now)
        for endpoint in self.model.endpoints:
            for lane in endpoint.lanes.values():
                lane.holder = None

    @rule(milliseconds=st.sampled_from([1, 6_000, 31_000, 90_000, 700_000]))
    def time_passes(self, milliseconds: int) -> None:
        self.now += milliseconds

    # -- what people do

    @rule(ours=st.booleans())
    def pause(self, ours: bool) -> None:
        endpoint = self.endpoint(ours)
        self.change(endpoint, lambda c, found: endpoints.pause(c, found, now=self.now))
        endpoint.paused = True

    @rule(ours=st.booleans())
    def resume(self, ours: bool) -> None:
        endpoint = self.endpoint(ours)
        self.change(endpoint, lambda c, found: endpoints.resume(c, found, now=self.now))
        endpoint.paused = False

    @rule(ours=st.booleans())
    def rotate_secret(self, ours: bool) -> None:
        secret = self.new_id("secret")
        self.change(
            self.endpoint(ours),
            lambda c, found: endpoints.rotate_secret(
                c, found, secret_encrypted=secret, old_until=None, now=self.now
            ),
        )

    @rule(
        ours=st.booleans(),
        most=st.sampled_from([None, 1, 2]),
        exhausted=st.sampled_from([None, "park", "skip", "skip"]),
    )
    def change_endpoint(self, ours: bool, most: int | None, exhausted: str | None) -> None:
        endpoint = self.endpoint(ours)
        wanted = self.wanted[endpoint.name]
        self.wanted[endpoint.name] = replace(wanted, max_batch=most, on_exhausted=exhausted)
        self.put(endpoint)

    @rule(tenant=st.sampled_from(["t1", "t2"]), count=st.integers(0, 2))
    def serve_one_tenant_for_a_while(self, tenant: str, count: int) -> None:
        wanted, tenants = self.wanted["platform"], self.platform.tenants
        for served, said in (((tenant,), tenants & {tenant}), (None, {"t1", "t2"})):
            self.wanted["platform"] = replace(wanted, tenants=served)
            self.platform.tenants = said
            self.put(self.platform)
            self.append(self.rooms[0], count)

    @rule(count=st.integers(0, 2))
    def take_no_events_for_a_while(self, count: int) -> None:
        wanted = self.wanted["ours"]
        for takes in (False, True):
            self.ours.takes_events = takes
            self.wanted["ours"] = replace(wanted, types=None if takes else ("endpoint.disabled",))
            self.put(self.ours)
            self.append(self.rooms[0], count)

    @rule(
        ours=st.booleans(),
        only=st.sampled_from(Only),
        room=st.sampled_from([None, None, 0, 1, 2]),
        begin=st.integers(1, 8),
        age=st.sampled_from([None, None, 1, 6_000, 200_000]),
    )
    def replay(self, ours: bool, only: Only, room: int | None, begin: int, age: int | None) -> None:
        rooms = self.rooms if room is None else [self.rooms[room]]
        narrowed: dict[str, Any] = {}
        if room is not None:
            narrowed = {"tenant": rooms[0].tenant, "room_ref": rooms[0].ref, "from_sequence": begin}
        since = None if age is None else self.now - age
        self.ask(self.endpoint(ours), Asked(only, since=since, **narrowed), rooms)

    @rule(ours=st.booleans(), data=st.data())
    def redrive(self, ours: bool, data: st.DataObject) -> None:
        """Some of the dead letters are sent again."""
        endpoint = self.endpoint(ours)
        found = self.letters(endpoint)
        some = [letter for letter in found if data.draw(st.booleans())]
        asked = Asked(Only.FAILED, letters=tuple(letter.id for letter in some))
        self.ask(endpoint, asked, self.rooms, [(one.room_ref, one.first, one.last) for one in some])

    # -- the end

    def teardown(self) -> None:
        """Everything works again: then everything arrives."""
        try:
            if self.model.endpoints:
                self.drain()
        finally:
            self.run(self.database.close())

    def drain(self) -> None:
        self.jobs.clear()
        for endpoint in self.model.endpoints:
            self.change(endpoint, lambda c, found: endpoints.resume(c, found, now=self.now))
            endpoint.paused = False
            self.ask(endpoint, Asked(Only.FAILED), self.rooms)
        for _ in range(1000):
            claimed = self.claimed(16)
            for job in claimed.jobs:
                self.settle(job, "taken", None)
            if not claimed.jobs:
                if all(row.due_at is None for row in self.rows(t.lanes)):
                    break
                self.now += SETTINGS.lease
        self.model.check_nothing_is_owed()
        for table in (t.batches, t.replays):
            assert self.rows(table) == []
        for row in self.rows(t.lanes):
            assert (row.due_at, row.waiting_since, row.lease_until, row.parked_at) == (None,) * 4
            assert (row.narrow, row.attempts) == (None, 0)

    # -- how it is done

    @property
    def rooms(self) -> list[Room]:
        return list(self.model.rooms.values())

    def endpoint(self, ours: bool) -> Endpoint:
        return self.ours if ours else self.platform

    def new_id(self, prefix: str) -> str:
        return f"{prefix}_{next(self.ids):06}"

    def run(self, doing: Coroutine[Any, Any, T]) -> T:
        return self.loop.run_until_complete(doing)

    def write(self, do: Callable[Concatenate[Connection, P], T], *args: P.args, **kwargs: P.kwargs) -> T:
        return self.run(self.database.write(do, *args, **kwargs))

    def rows(self, table: Any) -> list[Any]:
        return self.write(lambda c: list(c.execute(select(table).order_by(*table.primary_key.columns))))

    def some_job(self, data: st.DataObject) -> Job:
        return self.jobs.pop(data.draw(st.integers(0, len(self.jobs) - 1)))

    def append(self, room: Room, count: int) -> None:
        arrivals = []
        for _ in range(count):
            arrival = read_event({"event_id": self.new_id("$event"), "room_id": room.room_id})
            assert isinstance(arrival, Arrival)
            arrivals.append(arrival)
        if arrivals:
            self.write(event_log.append, arrivals, now=self.now, bot=BOT)
            self.model.stored(room, [arrival.event_id for arrival in arrivals], self.now)

    def put(self, endpoint: Endpoint) -> None:
        secret = "s"
        self.write(
            endpoints.put,
            endpoint.owner,
            endpoint.name,
            self.wanted[endpoint.name],
            secret_encrypted=None,
            fresh_secret_encrypted=secret,
            now=self.now,
            new_id=self.new_id,
        )
        endpoint.drop_lanes(self.rooms)

    def change(self, endpoint: Endpoint, do: Callable[[Connection, Any], Any]) -> None:
        def change(connection: Connection) -> None:
            endpoints.lock(connection, endpoint.owner)
            do(connection, endpoints.get(connection, endpoint.owner, endpoint.name))

        self.write(change)

    def claimed(self, slots: int) -> Claimed[Job]:
        claimed = self.write(claim, Shares(slots), SETTINGS, now=self.now, new_id=self.new_id)
        for job in claimed.jobs:
            self.model.claimed(job)
        return claimed

    def lose(self, job: Job, took: bool) -> None:
        if took:
            self.model.accept(job)

    def settle(self, job: Job, kind: str, rest: str | None) -> None:
        """Do what a worker does with an answer."""
        if kind in ("taken", "lost"):
            self.model.accept(job)
        answer = _answer(kind, rest)
        wanted, lane = job.endpoint.wanted.on_exhausted, job.lane
        decision = decide(
            answer,
            Try(job.events, lane.attempts, lane.refusals),
            retry=SETTINGS.retry,
            skip=wanted == "skip",
            now=self.now,
            random=0.5,
        )
        result = Result(job, answer, decision, self.now)
        if not says_nothing_new(result.tried):
            self.write(judge, result.tried, random=0.5, new_id=self.new_id)
        held = self.model.of(job)[2].holder is job
        before = None if held else [self.rows(table) for table in WATCHED]
        assert self.write(record, result, new_id=self.new_id) == held
        if held:
            self.model.recorded(job, decision)
        else:
            assert [self.rows(table) for table in WATCHED] == before

    def letters(self, endpoint: Endpoint) -> list[dead_letters.DeadLetter]:
        def read(connection: Connection) -> list[dead_letters.DeadLetter]:
            found = endpoints.get(connection, endpoint.owner, endpoint.name)
            assert found is not None
            return dead_letters.list_page(connection, found.key, limit=500)

        return self.write(read)

    def ask(
        self,
        endpoint: Endpoint,
        asked: Asked,
        rooms: list[Room],
        letters: list[tuple[str, int, int]] | None = None,
    ) -> None:
        found = self.write(endpoints.get, endpoint.owner, endpoint.name)
        assert found is not None
        given: dict[str, Any] = {"now": lambda: self.now, "new_id": self.new_id}
        dry = self.run(replay(self.database, found.key, asked, dry_run=True, **given))
        done = self.run(replay(self.database, found.key, asked, **given))
        begin, since = asked.from_sequence or 1, asked.since or 0
        expected = self.model.replayed(endpoint, asked.only, rooms, begin, since, letters)
        assert (dry, done) == (Counts(*expected), Counts(*expected))


def _answer(kind: str, rest: str | None) -> client.Answer | client.NoAnswer:
    if kind in ("lost", "timed_out"):
        return client.NoAnswer(client.Reason.TIMED_OUT, "There was no answer in time.", 15.0)
    headers = {} if rest is None else {"retry-after": rest}
    return client.Answer(200 if kind == "taken" else int(kind), b"", headers, 0.1)


def _furnish(connection: Connection) -> None:
    at = {"created_at": 0, "updated_at": 0, "revision": 1}
    for tenant in ("t1", "t2"):
        connection.execute(
            insert(t.tenants).values(
                tenant=tenant, tenant_id=tenant, name="", settings="{}", last_position=0, **at
            )
        )
    for tenant, room_id in ROOMS:
        connection.execute(
            insert(t.entities).values(
                tenant=tenant,
                id=f"entity_{room_id}",
                kind="event",
                slug="games",
                slug_key=room_id,
                alias="#games:example.org",
                spec="{}",
                members_revision=1,
                removals_confirmed=0,
                **at,
            )
        )
        connection.execute(
            insert(t.rooms).values(
                tenant=tenant,
                id=f"room_{room_id}",
                entity_ref=f"entity_{room_id}",
                state="open",
                claim=f"claim_{room_id}",
                lock_alias="#lock:example.org",
                room_id=room_id,
                room_version="12",
                log_id="log",
                last_sequence=0,
                created_at=0,
            )
        )


def _search(machine: type[Delivery], examples: int, steps: int, *, derandomize: bool) -> None:
    run_state_machine_as_test(
        machine,
        settings=settings(
            max_examples=examples,
            stateful_step_count=steps,
            deadline=None,
            derandomize=derandomize,
            database=None,
            print_blob=True,
            suppress_health_check=list(HealthCheck),
        ),
    )


@pytest.fixture
def on_sqlite() -> Any:
    """The machine on SQLite files, each a copy of an empty one."""
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        loop = asyncio.new_event_loop()
        empty, names = Path(folder, "empty.db"), itertools.count()
        database = open_database(f"sqlite:///{empty}")
        loop.run_until_complete(database.write(schema.migrate))
        loop.run_until_complete(database.close())

        def open_copy() -> Database:
            path = Path(folder, f"{next(names)}.db")
            shutil.copy(empty, path)
            return open_database(f"sqlite:///{path}")

        yield type("DeliveryOnSQLite", (Delivery,), {"open_empty": staticmethod(open_copy), "loop": loop})
        loop.close()


@pytest.fixture
def on_postgresql(reused_postgresql: str) -> Any:
    """The machine on one PostgreSQL database that is emptied for each example."""
    loop = asyncio.new_event_loop()
    names = ", ".join(f'"{table.name}"' for table in metadata.sorted_tables)

    def open_empty() -> Database:
        database = open_database(reused_postgresql)
        empty = text(f"TRUNCATE {names} RESTART IDENTITY")
        loop.run_until_complete(database.write(lambda connection: connection.execute(empty)))
        return database

    yield type("DeliveryOnPostgreSQL", (Delivery,), {"open_empty": staticmethod(open_empty), "loop": loop})
    loop.close()


def test_order_and_no_loss_hold_on_sqlite(on_sqlite: type[Delivery]) -> None:
    _search(on_sqlite, 30, 40, derandomize=True)


def test_order_and_no_loss_hold_on_postgresql(on_postgresql: type[Delivery]) -> None:
    _search(on_postgresql, 6, 30, derandomize=True)


@pytest.mark.long
def test_order_and_no_loss_hold_whatever_is_tried(on_sqlite: type[Delivery]) -> None:
    _search(on_sqlite, 2000, 60, derandomize=False)
