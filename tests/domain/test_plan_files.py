"""The plan, case by case. The cases are in ``plans/``; how to write one is told there."""

from __future__ import annotations

import re
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
    Access,
    AttendeeStatus,
    EntityKind,
    EntityStatus,
    JoinPolicy,
    Visibility,
)
from openmeet_appservice.domain.plan import Plan, plan
from openmeet_appservice.domain.rooms import (
    ActualRoom,
    DesiredRoom,
    EntityFacts,
    MemberFacts,
    RoomSettings,
    desired_room,
)

Apply: TypeAlias = Callable[[ActualRoom | None, Action, DesiredRoom], ActualRoom]

CASES = sorted((Path(__file__).parent / "plans").glob("*.yaml"))
SERVER = "hs.test"
BOT = f"@bot:{SERVER}"
_RANGE = re.compile(r"(\d+)\.\.(\d+)")


def _spread(text: Any) -> list[Any]:
    """``@p1..3`` as three, and short ids in full."""
    if not isinstance(text, str):
        return [text]
    found = _RANGE.search(text)
    numbers = range(int(found[1]), int(found[2]) + 1) if found else [None]
    each = [text if n is None else _RANGE.sub(str(n), text) for n in numbers]
    return [f"{one}:{SERVER}" if re.fullmatch(r"[@#][^:\s]+", one) else one for one in each]


def _expand(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _expand(item) for key, item in value.items() for name in _spread(key)}
    if isinstance(value, list):
        return [one for item in value for one in _several(item)]
    return _spread(value)[0]


def _several(item: Any) -> list[Any]:
    """A list entry; one whose ``user_id`` is a range stands for several."""
    if isinstance(item, dict) and "user_id" in item:
        return [{**_expand(item), "user_id": user} for user in _spread(item["user_id"])]
    return [_expand(item)] if isinstance(item, dict | list) else _spread(item)


def _desired(data: Mapping[str, Any], *, has_room: bool) -> DesiredRoom:
    unknown = data.keys() - {
        "entity",
        "members",
        "settings",
        "default_version",
        "removals_confirmed",
        "guarded",
    }
    assert not unknown, f"unknown keys {unknown}"
    desired = desired_room(
        _entity(data.get("entity", {}), has_room=has_room),
        [_member(user, what) for user, what in data.get("members", {}).items()],
        _settings(data.get("settings", {})),
        bot=BOT,
        default_version=data.get("default_version", "12"),
        removals_confirmed=data.get("removals_confirmed", False),
    )
    return replace(desired, guarded=data.get("guarded", False))


def _entity(data: Mapping[str, Any], *, has_room: bool) -> EntityFacts:
    given: dict[str, Any] = {
        "kind": "event",
        "name": "Board games",
        "status": "published",
        "visibility": "public",
        "alias": f"#event-games-t1:{SERVER}",
        "has_room": has_room,
        **data,
    }
    types: dict[str, Callable[[Any], Any]] = {
        "kind": EntityKind,
        "status": EntityStatus,
        "visibility": Visibility,
        "access": Access,
        "alternatives": tuple,
    }
    for name, make in types.items():
        if name in given:
            given[name] = make(given[name])
    return EntityFacts(**given)


def _member(user: str, what: str) -> MemberFacts:
    words = what.split(" ")
    role, _, status = words[0].partition("/")
    flags = dict.fromkeys(words[1:], True)
    return MemberFacts(user, role, AttendeeStatus(status) if status else None, **flags)


def _settings(data: Mapping[str, Any]) -> RoomSettings:
    settings = RoomSettings(
        alias="{kind}-{slug}-{tenant}",
        private_alias=False,
        version=None,
        federate=False,
        access=Access(data.get("access", "members")),
        power_levels=DEFAULT_POWER_LEVELS,
        chat_statuses=frozenset(map(AttendeeStatus, data["chat_statuses"]))
        if "chat_statuses" in data
        else DEFAULT_CHAT_STATUSES,
        join=JoinPolicy(data.get("join", "auto")),
    )
    rest = {name: v for name, v in data.items() if name not in ("access", "chat_statuses", "join")}
    return replace(settings, **rest)


def _actual(data: Mapping[str, Any], desired: DesiredRoom, apply: Apply) -> ActualRoom:
    room: ActualRoom | None = ActualRoom("!room", version="12", members={BOT: "join"})
    if "after" in data:
        before = _desired(data["after"], has_room=False)
        room = None
        for _ in range(2):
            for action in plan(before, room).actions:
                room = apply(room, action, before)
    assert room is not None, "`after` must be something that has a room"
    given = {name: value for name, value in data.items() if name != "after"}
    state = {**room.state, **given.pop("state", {})}
    given["state"] = {name: content for name, content in state.items() if content is not None}
    given["members"] = {**room.members, **given.get("members", {})}
    given["aliases"] = frozenset(given.get("aliases", room.aliases))
    target = room.room_id if desired.alias in given["aliases"] else None
    given["alias_target"] = given.get("alias_target", target)
    strangers = ("@bot", "@stranger")
    puppets = [user for user in given["members"] if not user.startswith(strangers)]
    given["ours"] = frozenset(given.get("ours", puppets))
    for name in ("our_bans", "kept_out", "came", "returners"):
        given[name] = frozenset(given.get(name, getattr(room, name)))
    return replace(room, **given)


def _read(path: Path) -> dict[str, Any]:
    case: dict[str, Any] = _expand(YAML(typ="safe", pure=True).load(path.read_text()))
    assert case.keys() == {"about", "desired", "actual", "expect"}, "these four keys are needed"
    assert case["expect"].keys() <= {"actions", "held", "notes"}, "unknown keys in `expect`"
    return case


def _seen(whole: Mapping[str, Any], wanted: Mapping[str, Any]) -> dict[str, Any]:
    """The part of *whole* that *wanted* talks about, on two levels."""
    seen = {name: whole.get(name, "(absent)") for name in wanted}
    content = seen.get("content")
    if isinstance(content, Mapping) and isinstance(wanted.get("content"), dict) and wanted["content"]:
        seen["content"] = {name: content.get(name, "(absent)") for name in wanted["content"]}
    return seen


@pytest.mark.parametrize("path", CASES, ids=lambda path: path.stem)
def test_plan(path: Path, apply: Apply) -> None:
    case = _read(path)
    desired = _desired(case["desired"], has_room=case["actual"] is not None)
    actual = None if case["actual"] is None else _actual(case["actual"], desired, apply)
    found = plan(desired, actual)
    expect = case["expect"]
    assert _compared(found, expect) == {
        "actions": expect.get("actions", []),
        "held": expect.get("held"),
        "notes": expect.get("notes", []),
    }, case["about"]
    _check_that_it_ends(desired, actual, apply)


def _compared(found: Plan, expect: Mapping[str, Any]) -> dict[str, Any]:
    data = found.to_json()
    for part in ("actions", "notes"):
        wanted = expect.get(part, [])
        data[part] = [
            _seen(one, wanted[index]) if index < len(wanted) else one for index, one in enumerate(data[part])
        ]
    if data["held"] and expect.get("held"):
        data["held"] = _seen(data["held"], expect["held"])
    return data


def _check_that_it_ends(desired: DesiredRoom, actual: ActualRoom | None, apply: Apply) -> None:
    for _ in range(3):
        for action in plan(desired, actual).actions:
            actual = apply(actual, action, desired)
    assert plan(desired, actual).actions == ()


def test_there_are_cases() -> None:
    assert len(CASES) >= 25


def test_every_case_of_the_folder_is_run() -> None:
    here = Path(__file__).parent / "plans"
    others = {path.name for path in here.iterdir()} - {path.name for path in CASES}
    assert others == {"README.md"}
