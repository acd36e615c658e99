"""What holds for every plan: wherever the work stops, it can go on, and it comes to an end."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any, TypeAlias

from hypothesis import given, settings
from hypothesis import strategies as st

from openmeet_appservice.domain.actions import Action, CreateRoom, Invite, Join, Kick, SetState
from openmeet_appservice.domain.kinds import Wanted
from openmeet_appservice.domain.plan import Plan, plan
from openmeet_appservice.domain.power_levels import bot_level, highest_level
from openmeet_appservice.domain.rooms import ActualRoom, DesiredMember, DesiredRoom

Apply: TypeAlias = Callable[[ActualRoom | None, Action, DesiredRoom], ActualRoom]

BOT = "@bot:hs.test"
USERS = [f"@u{number}:hs.test" for number in range(30)]
ALIASES = ["#event-a-t1:hs.test", "#event-b-t1:hs.test", "#_openmeet_c0ffee:hs.test"]
VERSIONS = st.sampled_from(["11", "12"])

members = st.lists(
    st.builds(
        DesiredMember, st.sampled_from([*USERS, BOT]), st.sampled_from([0, 25, 50, 100, -1]), st.booleans()
    ),
    max_size=30,
).map(tuple)


@st.composite
def desired_rooms(draw: st.DrawFn) -> DesiredRoom:
    wanted = draw(st.sampled_from([Wanted.OPEN, Wanted.OPEN, Wanted.CLOSED, Wanted.NONE]))
    if wanted is not Wanted.OPEN:
        return DesiredRoom(wanted=wanted, bot=BOT)
    alias = draw(st.sampled_from([None, ALIASES[0]]))
    return DesiredRoom(
        wanted=wanted,
        bot=BOT,
        name=draw(st.sampled_from(["Board games", "Card games"])),
        topic=draw(st.sampled_from(["", "Bring dice"])),
        avatar=draw(st.sampled_from([None, "", "mxc://hs.test/a"])),
        version=draw(VERSIONS),
        federate=draw(st.booleans()),
        join_rule=draw(st.sampled_from(["public", "invite"])),
        listed=draw(st.booleans()),
        private=draw(st.booleans()),
        alias=alias,
        alternatives=draw(st.sampled_from([(), (ALIASES[1],)])) if alias else (),
        members=draw(members),
        removals_confirmed=draw(st.booleans()),
    )


def _contents(version: str) -> st.SearchStrategy[dict[str, Any]]:
    own = {BOT: 100} if version == "11" else {}
    levels = st.dictionaries(st.sampled_from(USERS), st.sampled_from([25, 50, 99, 100]), max_size=30)
    options: dict[str, st.SearchStrategy[Any]] = {
        "m.room.power_levels": levels.map(lambda users: {"users": {**users, **own}}),
        "m.room.name": st.sampled_from([{}, {"name": "Board games"}, {"name": 7}]),
        "m.room.topic": st.sampled_from([{}, {"topic": "Bring dice", "m.topic": {}}]),
        "m.room.avatar": st.sampled_from([{}, {"url": "mxc://hs.test/a", "info": {}}, {"url": "mxc://x/b"}]),
        "m.room.join_rules": st.sampled_from(
            [{"join_rule": rule} for rule in ("public", "invite", "restricted", "knock")]
        ),
        "m.room.guest_access": st.sampled_from([{}, {"guest_access": "can_join"}]),
        "m.room.history_visibility": st.sampled_from([{"history_visibility": "shared"}]),
        "m.room.canonical_alias": st.sampled_from(
            [{}, {"alias": ALIASES[1]}, {"alias": ALIASES[0], "alt_aliases": [ALIASES[1]]}]
        ),
    }
    return st.fixed_dictionaries({}, optional=options)


@st.composite
def actual_rooms(draw: st.DrawFn) -> ActualRoom:
    version = draw(VERSIONS)
    memberships = st.sampled_from(["join", "invite", "leave", "ban", "knock"])
    aliases = draw(st.frozensets(st.sampled_from(ALIASES)))
    return ActualRoom(
        room_id="!room",
        version=version,
        members={
            **draw(st.dictionaries(st.sampled_from(USERS), memberships)),
            BOT: draw(st.sampled_from(["join", "join", "join", "invite"])),
        },
        state=draw(_contents(version)),
        listed=draw(st.booleans()),
        aliases=aliases,
        alias_target=draw(st.sampled_from([None, "!other"])),
        alias_target_is_ours=draw(st.booleans()),
        taken={} if ALIASES[1] in aliases else draw(st.sampled_from([{}, {ALIASES[1]: "!other"}])),
        ours=frozenset(draw(st.lists(st.sampled_from(USERS)))),
    )


def _fitting(actual: ActualRoom | None, desired: DesiredRoom) -> ActualRoom | None:
    """*actual* with an alias target that does not contradict its aliases."""
    if actual is None or desired.alias is None:
        return actual and replace(actual, alias_target=None)
    here = desired.alias in actual.aliases
    return replace(actual, alias_target="!room") if here else actual


def _settle(actual: ActualRoom | None, desired: DesiredRoom, apply: Apply) -> ActualRoom | None:
    for _ in range(4):
        for action in plan(desired, actual).actions:
            actual = apply(actual, action, desired)
    return actual


rooms = st.none() | actual_rooms()


@given(desired=desired_rooms(), actual=rooms)
@settings(deadline=None)
def test_it_ends(desired: DesiredRoom, actual: ActualRoom | None, apply: Apply) -> None:
    settled = _settle(_fitting(actual, desired), desired, apply)
    assert plan(desired, settled).actions == ()


@given(desired=desired_rooms(), actual=rooms, stop=st.integers(0, 80))
@settings(deadline=None)
def test_it_may_stop_anywhere(
    desired: DesiredRoom, actual: ActualRoom | None, stop: int, apply: Apply
) -> None:
    start = _fitting(actual, desired)
    stopped = start
    for action in plan(desired, start).actions[:stop]:
        stopped = apply(stopped, action, desired)
    assert _settle(stopped, desired, apply) == _settle(start, desired, apply)


@given(desired=desired_rooms(), actual=rooms, then=desired_rooms(), stop=st.integers(0, 80))
@settings(deadline=None)
def test_it_may_be_overtaken(
    desired: DesiredRoom,
    actual: ActualRoom | None,
    then: DesiredRoom,
    stop: int,
    apply: Apply,
) -> None:
    room = _fitting(actual, desired)
    for action in plan(desired, room).actions[:stop]:
        room = apply(room, action, desired)
    settled = _settle(_fitting(room, then), then, apply)
    assert plan(then, settled).actions == ()


@given(desired=desired_rooms(), actual=rooms)
def test_it_is_the_same_each_time(desired: DesiredRoom, actual: ActualRoom | None) -> None:
    shuffled = replace(desired, members=desired.members[::-1])
    assert plan(desired, actual) == plan(desired, actual) == plan(shuffled, actual)


@given(desired=desired_rooms(), actual=rooms)
def test_power_stays_within_reach(desired: DesiredRoom, actual: ActualRoom | None) -> None:
    version = desired.version if actual is None else actual.version
    before = actual.content("m.room.power_levels").get("users", {}) if actual else {}
    for content in _power_levels(plan(desired, actual)):
        users = dict(content["users"])
        assert users.pop(BOT, None) == (100 if version == "11" else None)
        for user, level in users.items():
            out_of_reach = version == "11" and before.get(user, 0) >= 100
            assert level == before[user] if out_of_reach else level <= highest_level(version)
        assert max(content["events"].values()) == bot_level(version)
        assert content["state_default"] == bot_level(version)


@given(desired=desired_rooms(), actual=rooms)
def test_the_bot_stays_and_nobody_is_unbanned(desired: DesiredRoom, actual: ActualRoom | None) -> None:
    for action in plan(desired, actual).actions:
        if isinstance(action, Kick | Invite | Join):
            assert action.user_id != BOT
            assert actual is not None
            assert actual.members.get(action.user_id) != "ban"


@given(desired=desired_rooms(), actual=actual_rooms())
def test_only_members_come_and_only_others_go(desired: DesiredRoom, actual: ActualRoom) -> None:
    entitled = {member.user_id for member in desired.members}
    for action in plan(desired, actual).actions:
        if isinstance(action, Kick):
            assert action.user_id not in entitled
            assert actual.members[action.user_id] in ("join", "invite")
        elif isinstance(action, Invite | Join):
            assert action.user_id in entitled


@given(desired=desired_rooms(), actual=actual_rooms(), number=st.integers(0, 40))
def test_many_are_never_removed_unasked(desired: DesiredRoom, actual: ActualRoom, number: int) -> None:
    crowd = {f"@p{n}:hs.test": "join" for n in range(number)}
    crowded = replace(
        actual,
        members={**actual.members, **crowd},
        ours=actual.ours | crowd.keys(),
    )
    found = plan(desired, crowded)
    gone = [action for action in found.actions if isinstance(action, Kick)]
    inside = [u for u, m in crowded.members.items() if m in ("join", "invite") and u != BOT]
    many = len(gone) > 20 and len(gone) > len(inside) / 5
    assert not many or desired.removals_confirmed or desired.wanted is not Wanted.OPEN
    if found.held:
        assert not gone
        assert set(found.held.users) <= set(inside)


def _power_levels(found: Plan) -> list[dict[str, Any]]:
    contents = []
    for action in found.actions:
        if isinstance(action, SetState) and action.event_type == "m.room.power_levels":
            contents.append(dict(action.content))
        if isinstance(action, CreateRoom):
            contents.append(dict(action.content["power_level_content_override"]))
    return contents
