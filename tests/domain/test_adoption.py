"""Which rooms of a former service can be taken over, and what an admin is told of the others."""

from __future__ import annotations

from typing import Any

import pytest

from openmeet_appservice.domain.adoption import creators, former_alias, obstacle
from openmeet_appservice.domain.kinds import EntityKind
from openmeet_appservice.domain.reading import RoomState, read_state

BOT = "@openmeet-bot:hs.test"
ALIAS = "#event-games-t1:hs.test"
LEVELS = {"users": {BOT: 100}, "events": {"m.room.power_levels": 100}, "state_default": 50}


def room(version: str, levels: Any = None, creator: str = BOT, **state: dict[str, Any]) -> RoomState:
    create = {"room_version": version, **state.pop("create", {})}
    events = {
        "m.room.create": create,
        "m.room.power_levels": LEVELS if levels is None else levels,
        "m.room.canonical_alias": {"alias": ALIAS},
        **{f"m.room.{name}": content for name, content in state.items()},
    }
    return read_state(
        {"type": name, "state_key": "", "sender": creator, "content": content}
        for name, content in events.items()
    )


def code(state: RoomState) -> str | None:
    found = obstacle("!room", ALIAS, [ALIAS], state, BOT)
    return None if found is None else found.code


@pytest.mark.parametrize("version", ["1", "9", "10", "11", "org.example.odd"])
def test_below_version_12_power_decides(version: str) -> None:
    assert code(room(version)) is None
    assert code(room(version, creator="@other:hs.test")) is None
    assert code(room(version, {**LEVELS, "users": {BOT: 100, "@host:hs.test": 100}})) is None
    assert code(room(version, {**LEVELS, "users": {BOT: 50}})) == "no_power"
    assert code(room(version, {**LEVELS, "users": {}})) == "no_power"
    assert code(room(version, {"users": {BOT: "100"}})) == "no_power"
    assert code(room(version, {})) == "no_power"
    assert code(room(version, {"users": {}, "users_default": 100})) is None


@pytest.mark.parametrize(
    "more",
    [{"events": {"m.room.name": 101}}, {"kick": 101}, {"state_default": 101}, {"users_default": 101}],
)
def test_a_threshold_above_the_bots_power(more: dict[str, Any]) -> None:
    """Fault 29 and 60: the bot could not write the event as it must be."""
    assert code(room("10", {**LEVELS, **more})) == "no_power"
    assert code(room("10", {**LEVELS, "users": {BOT: 101}, **more})) is None


def test_from_version_12_the_creator_decides() -> None:
    levels = {"users": {"@host:hs.test": 100}}
    assert code(room("12", levels)) is None
    assert code(room("12", LEVELS, creator="@other:hs.test")) == "not_the_creator"
    more = {"additional_creators": [BOT, 7]}
    assert code(room("12", levels, creator="@other:hs.test", create=more)) is None
    assert creators(room("12", creator="@a:hs.test", create=more)) == {BOT, "@a:hs.test"}
    assert creators(room("12", create={"additional_creators": BOT})) == {BOT}


def test_a_room_that_was_replaced() -> None:
    found = obstacle("!room", ALIAS, [ALIAS], room("10", tombstone={"replacement_room": "!new"}), BOT)
    assert found is not None
    assert (found.code, "!new" in found.detail) == ("replaced", True)


def test_the_former_name_of_anothers_room() -> None:
    """A renamed group's old alias leads to its room still; whoever has that slug now must not get it."""
    renamed = room("10", canonical_alias={"alias": "#group-chess-t1:hs.test", "alt_aliases": [ALIAS]})
    assert code(renamed) == "other_name"
    assert obstacle("!room", ALIAS, [ALIAS, "#group-chess-t1:hs.test"], renamed, BOT) is None
    assert code(room("10", canonical_alias={})) is None
    assert code(room("10", canonical_alias={"alias": None})) is None


def test_the_remedy_is_a_request_to_send() -> None:
    found = obstacle("!room", ALIAS, [ALIAS], room("10", {"users": {}}), BOT)
    assert found is not None
    assert "/_synapse/admin/v1/rooms/!room/make_room_admin" in found.remedy
    assert f'{{"user_id": "{BOT}"}}' in found.remedy


def test_fault_19_no_tenant_is_read_from_an_alias() -> None:
    """Two entities may have names that look alike; each alias is made of one entity and never taken apart."""
    one = former_alias(EntityKind.EVENT, "games-t2", "t1", "hs.test")
    assert one == "#event-games-t2-t1:hs.test"
    assert former_alias(EntityKind.EVENT, "games", "T1", "hs.test") == "#event-games-T1:hs.test"
    assert former_alias(EntityKind.GROUP, "a" * 255, "t1", "hs.test") is None


def test_fault_20_one_server_name_for_all_names() -> None:
    """The former service had several defaults for it; here it is what `homeserver.server_name` says."""
    assert former_alias(EntityKind.GROUP, "chess", "t1", "hs.test:8448") == "#group-chess-t1:hs.test:8448"
