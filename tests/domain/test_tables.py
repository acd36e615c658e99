"""The decision tables, row by row; see ``tables/README.md``."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeAlias

import pytest
from ruamel.yaml import YAML

from openmeet_appservice.domain.actions import Action
from openmeet_appservice.domain.kinds import (
    DEFAULT_CHAT_STATUSES,
    DEFAULT_POWER_LEVELS,
    ROLES,
    Access,
    AttendeeStatus,
    EntityKind,
    EntityStatus,
    Visibility,
    Wanted,
)
from openmeet_appservice.domain.plan import plan
from openmeet_appservice.domain.rooms import (
    ActualRoom,
    DesiredRoom,
    EntityFacts,
    MemberFacts,
    RoomSettings,
    desired_room,
)

Apply: TypeAlias = Callable[[ActualRoom | None, Action, DesiredRoom], ActualRoom]

FOLDER = Path(__file__).parent / "tables"
BOT, ADA, HOST = "@bot:hs.test", "@ada:hs.test", "@host:hs.test"
EVENT = EntityFacts(
    kind=EntityKind.EVENT,
    name="Board games",
    status=EntityStatus.PUBLISHED,
    visibility=Visibility.PUBLIC,
    alias="#event-games-t1:hs.test",
)
SETTINGS = RoomSettings(
    alias="{kind}-{slug}-{tenant}",
    private_alias=False,
    version=None,
    federate=False,
    access=Access.MEMBERS,
    power_levels=DEFAULT_POWER_LEVELS,
    chat_statuses=DEFAULT_CHAT_STATUSES,
)


def table(name: str) -> Any:
    return YAML(typ="safe", pure=True).load((FOLDER / f"{name}.yaml").read_text())


def cells(name: str) -> list[tuple[str, str, Any]]:
    """Return each cell of a table with its row and column."""
    read = table(name)
    return [
        (row, column, value)
        for row, values in read["rows"].items()
        for column, value in zip(read["columns"], values, strict=True)
    ]


def derive(
    *members: MemberFacts,
    entity: EntityFacts = EVENT,
    settings: RoomSettings = SETTINGS,
    version: str = "12",
) -> DesiredRoom:
    return desired_room(entity, members, settings, bot=BOT, default_version=version)


def become(room: ActualRoom | None, desired: DesiredRoom, apply: Apply) -> ActualRoom | None:
    """The room once everything that the plans say is done."""
    for _ in range(3):
        for action in plan(desired, room).actions:
            room = apply(room, action, desired)
    assert plan(desired, room).actions == ()
    if room is None:
        return None
    puppets = frozenset(room.members) - {BOT}
    return replace(room, ours=puppets)


@pytest.mark.parametrize(
    "row",
    table("inside")["rows"],
    ids=lambda row: f"{row['visibility']}-{row['access']}{'-alias' if 'private_alias' in row else ''}",
)
def test_inside(row: Mapping[str, Any]) -> None:
    entity = replace(EVENT, visibility=Visibility(row["visibility"]))
    settings = replace(SETTINGS, access=Access(row["access"]), private_alias=row.get("private_alias", False))
    room = derive(entity=entity, settings=settings)
    assert {
        "join_rule": room.join_rule,
        "listed": room.listed,
        "alias": room.alias is not None,
    } == row["room"]
    outsider = row["outsider"]
    assert outsider["finds"] == (room.listed and room.join_rule == "public")
    assert outsider["resolves"] == (room.alias is not None)
    assert outsider["enters"] == (room.join_rule == "public")
    assert row["admin"]["invites"] == (not room.private)


@pytest.mark.parametrize(("before", "after", "expected"), cells("event_status"))
def test_event_status(before: str, after: str, expected: str, apply: Apply) -> None:
    def wanted(status: str, *, has_room: bool) -> DesiredRoom:
        deleted = status == "deleted"
        entity = replace(
            EVENT,
            status=EntityStatus(before if deleted else status),
            archived=deleted,
            has_room=has_room,
        )
        return derive(MemberFacts(ADA, "participant"), entity=entity)

    was = become(None, wanted(before, has_room=False), apply)
    desired = wanted(after, has_room=was is not None)
    room = become(was, desired, apply)
    assert {
        "none": (Wanted.NONE, None),
        "open": (Wanted.OPEN, "join"),
        "cancelled": (Wanted.OPEN, "join"),
        "closed": (Wanted.CLOSED, "leave"),
    }[expected] == (desired.wanted, room and room.members.get(ADA))
    if room is not None:
        assert room.content("m.room.topic").get("topic", "").startswith("Cancelled") == (
            expected == "cancelled" or (expected == "closed" and before == "cancelled")
        )
        assert room.listed == (expected != "closed")


@pytest.mark.parametrize(("before", "after", "expected"), cells("attendee_status"))
def test_attendee_status(before: str, after: str, expected: str, apply: Apply) -> None:
    first, then = (
        derive(MemberFacts(ADA, "participant", AttendeeStatus(status))) for status in (before, after)
    )
    was = become(None, first, apply)
    assert was is not None
    room = become(was, then, apply)
    assert room is not None
    inside = [one.members.get(ADA) == "join" for one in (was, room)]
    assert {
        "outside": [False, False],
        "comes": [False, True],
        "stays": [True, True],
        "goes": [True, False],
    }[expected] == inside


@pytest.mark.parametrize("version", ["10", "11", "12"])
@pytest.mark.parametrize(
    ("kind", "before", "after", "expected"),
    [(kind, *cell) for kind in (EntityKind.EVENT, EntityKind.GROUP) for cell in cells(f"{kind.value}_roles")],
)
def test_roles(
    kind: EntityKind, before: str, after: str, expected: int | str, version: str, apply: Apply
) -> None:
    entity = replace(EVENT, kind=kind)
    first, then = (derive(MemberFacts(ADA, role), entity=entity, version=version) for role in (before, after))
    room = become(become(None, first, apply), then, apply)
    assert room is not None
    levels = room.content("m.room.power_levels")["users"]
    if expected == "outside":
        assert (room.members.get(ADA) == "join", ADA in levels) == (False, False)
        return
    level = 99 if expected == 100 and version != "12" else expected
    assert (room.members[ADA], levels.get(ADA, 0)) == ("join", level)


def level_of(room: ActualRoom, private: ActualRoom, what: str) -> object:
    """Return what a row of ``powers.yaml`` tells of a room, and of a private one."""
    content = room.content("m.room.power_levels")
    if what == "bot is listed":
        return BOT in content["users"]
    if what == "host":
        return content["users"][HOST]
    if what == "invite into a private room":
        return private.content("m.room.power_levels")["invite"]
    return content["events"][what] if what.startswith("m.room.") else content[what]


@pytest.mark.parametrize(("what", "version", "expected"), cells("powers"))
def test_powers(what: str, version: str, expected: object, apply: Apply) -> None:
    rooms = [
        become(None, derive(MemberFacts(HOST, "host"), entity=entity, version=version), apply)
        for entity in (EVENT, replace(EVENT, visibility=Visibility.PRIVATE))
    ]
    public, private = rooms
    assert public is not None
    assert private is not None
    assert level_of(public, private, what) == expected


def test_the_tables_are_whole() -> None:
    for name, words in (
        ("attendee_status", [status.value for status in AttendeeStatus]),
        ("event_roles", ROLES[EntityKind.EVENT]),
        ("group_roles", ROLES[EntityKind.GROUP]),
    ):
        read = table(name)
        assert list(read["rows"]) == list(words) == read["columns"], name
    statuses = [status.value for status in EntityStatus]
    assert list(table("event_status")["rows"]) == statuses
    assert table("event_status")["columns"] == [*statuses, "deleted"]
    inside = [(row["visibility"], row["access"]) for row in table("inside")["rows"]]
    assert set(inside) == {(visibility.value, access.value) for visibility in Visibility for access in Access}
    rows = set(table("powers")["rows"]) - {"bot is listed", "host", "invite into a private room"}
    content = plan(derive(), None).actions[0].to_json()["content"]["power_level_content_override"]
    assert rows == content["events"].keys() | content.keys() - {"users", "events", "notifications"}
