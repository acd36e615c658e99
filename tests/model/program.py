"""What happens in a run: a list of steps, drawn at random from a seed.

No step depends on what came of the others (one that makes no sense then does nothing), so a run that fails
can be made shorter by leaving steps out.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

Step: TypeAlias = tuple[str, dict[str, Any]]
"""The name of a method of `run.Run`, and what it is called with."""

USERS = ("ada", "bob", "cyd", "dan", "eve")
PLACES = (("event", "chess"), ("event", "go"), ("group", "club"))
ROLES = {
    "event": ("host", "moderator", "speaker", "participant", "guest"),
    "group": ("owner", "admin", "moderator", "member", "guest"),
}
FAULTS = (
    "lost_request",
    "lost_answer",
    "refused_connection",
    "error_before",
    "error_after",
    "gateway_before",
    "gateway_after",
    "limited",
    "slow",
    "hung",
    "dies_within",
)
"""What can befall a request. *slow* is answered in time, *hung* is not."""

AIMS = (
    "POST createRoom",
    "POST createRoom",
    "POST createRoom",
    "GET directory/room",
    "PUT directory/room",
    "DELETE directory/room",
    "GET state",
    "GET aliases",
    "PUT state",
    "POST join",
    "POST invite",
    "POST kick",
    "POST ban",
    "POST unban",
    "POST register",
    "PUT displayname",
    "PUT directory/list",
    "POST leave",
)
"""Kinds of requests, as a method and a part of the path."""

STATES: dict[str, tuple[dict[str, Any], ...]] = {
    "name": ({"name": "Mine"}, {}, {"name": "Chess"}),
    "topic": ({"topic": "Mine"}, {}, {"topic": "Bring tea."}),
    "join_rules": ({"join_rule": "public"}, {"join_rule": "invite"}, {"join_rule": "knock"}),
    "history_visibility": ({"history_visibility": "joined"}, {}, {"history_visibility": "shared"}),
    "guest_access": ({"guest_access": "can_join"}, {}, {"guest_access": "forbidden"}),
    "canonical_alias": ({}, {}, {}),
    "power_levels": (
        {"users": {"ada": 99}},
        {"users": {"bob": 0, "cyd": 50}, "events_default": 50},
        {"users": {"dan": 75, "eve": -1}, "invite": 0, "kick": 0},
    ),
}
"""What people may write over what is wanted; users by their slugs, added to the power levels there are."""


MEDDLING = frozenset({"change_state", "change_member", "stranger", "change_directory"})
"""The steps after which a room is not as it was left."""


def draw(seed: int, length: int) -> list[Step]:
    """Draw a run of *length* steps."""
    dice = random.Random(seed)
    kinds, weights = zip(*_KINDS, strict=True)
    start: list[Step] = [_put(dice, status="published") for _ in range(dice.choice([1, 1, 2]))]
    steps = list(start)
    for kind in dice.choices(kinds, weights, k=length):
        steps += kind(dice)
    return [step for step in steps if step[0] not in MEDDLING] if dice.random() < 0.3 else steps


def shorten(steps: Sequence[Step], fails: Callable[[Sequence[Step]], bool]) -> list[Step]:
    """Leave out as many of *steps* as one can while what is left still fails."""
    left = list(steps)
    size = len(left) // 2
    while size:
        at = 0
        while at < len(left):
            fewer = left[:at] + left[at + size :]
            if fails(fewer):
                left = fewer
            else:
                at += size
        size //= 2
    return left


def _after(dice: random.Random) -> float:
    return dice.choice([0, 0.015, 0.05, 0.2, 1, 60, 60])


def _place(dice: random.Random) -> dict[str, Any]:
    return {"place": dice.choice(PLACES), "seconds": _after(dice)}


def _spec(dice: random.Random) -> dict[str, Any]:
    spec: dict[str, Any] = {
        "name": dice.choice(["Chess", "Evening Chess", "Go"]),
        "visibility": dice.choice(["public", "unlisted", "private"]),
        "status": dice.choice(["published"] * 6 + ["cancelled", "cancelled", "draft", "pending"]),
    }
    for key, values in (
        ("topic", ["Bring a board.", "Bring tea."]),
        ("description", ["We play."]),
        ("access", ["members", "anyone", "anyone"]),
        ("encrypted", [True, False, False]),
    ):
        if dice.random() < 0.4:
            spec[key] = dice.choice(values)
    return spec


def _standing(dice: random.Random) -> dict[str, Any]:
    standing: dict[str, Any] = {"role": dice.randrange(5)}
    if dice.random() < 0.3:
        standing["status"] = dice.choice(["confirmed", "cancelled", "waitlist", "rejected"])
    if dice.random() < 0.15:
        standing["banned"] = True
    if dice.random() < 0.15:
        standing["muted"] = True
    return standing


def _people(dice: random.Random) -> dict[str, dict[str, Any]]:
    return {user: _standing(dice) for user in dice.sample(USERS, dice.randrange(6))}


def _put(dice: random.Random, **fixed: Any) -> Step:
    members = _people(dice) if dice.random() < 0.7 else None
    return "put", {**_place(dice), "spec": {**_spec(dice), **fixed}, "members": members}


def _patch(dice: random.Random) -> Step:
    spec = _spec(dice)
    chosen = dice.sample(sorted(spec), dice.randint(1, 3))
    return "patch", {**_place(dice), "changes": {key: spec[key] for key in chosen}}


def _patch_members(dice: random.Random) -> Step:
    gone = dice.sample(USERS, dice.randrange(3))
    return "patch_members", {**_place(dice), "members": _people(dice), "gone": gone}


def _change_one(dice: random.Random) -> Step:
    member = None if dice.random() < 0.35 else _standing(dice)
    return "change_one_member", {**_place(dice), "user": dice.choice(USERS), "member": member}


def _change_state(dice: random.Random) -> Step:
    kind = dice.choice(sorted(STATES))
    who = dice.choice([None, *USERS])
    return "change_state", {**_place(dice), "who": who, "kind": kind, "number": dice.randrange(3)}


def _change_member(dice: random.Random) -> Step:
    what = dice.choice(["invite", "kick", "ban", "ban", "unban", "leave", "join"])
    return "change_member", {
        **_place(dice),
        "who": dice.choice([None, *USERS, *USERS]),
        "what": what,
        "whom": dice.choice([*USERS, *USERS, None]),
    }


def _requests_fail(dice: random.Random) -> Step:
    if dice.random() < 0.5:
        faults = [dice.choice(FAULTS) if dice.random() < 0.3 else None for _ in range(25)]
        return "requests_fail", {"faults": faults, "seconds": _after(dice)}
    faults = [dice.choice(FAULTS) for _ in range(dice.randint(1, 5))]
    return "requests_fail", {"faults": faults, "aim": dice.choice(AIMS), "seconds": _after(dice)}


def _made_twice(dice: random.Random) -> list[Step]:
    """A room loses its alias, and we die, before it is made."""
    place = {"place": dice.choice(PLACES)}
    spec = {**_spec(dice), "status": "published", "visibility": dice.choice(["public", "unlisted"])}
    return [
        ("delete", {**place, "seconds": _after(dice)}),
        ("making_takes", {"pause": 10}),
        ("put", {**place, "spec": spec, "members": _people(dice), "seconds": dice.choice([15, 25, 35])}),
        ("change_directory", {**place, "what": "delete", "seconds": 0}),
        ("crash", {"steps": 0, "seconds": 0.5}),
        ("making_takes", {"pause": dice.choice([0, 10])}),
    ]


def _alone(kind: Callable[[random.Random], Step]) -> Callable[[random.Random], list[Step]]:
    return lambda dice: [kind(dice)]


_SINGLE: tuple[tuple[Callable[[random.Random], Step], int], ...] = (
    (_put, 4),
    (_patch, 6),
    (lambda dice: ("put_members", {**_place(dice), "members": _people(dice)}), 3),
    (_patch_members, 4),
    (_change_one, 8),
    (lambda dice: ("delete", _place(dice)), 3),
    (lambda dice: ("put_user", {"user": dice.choice(USERS), "name": dice.choice(["Ada L.", "Bo"])}), 3),
    (_change_state, 7),
    (_change_member, 14),
    (
        lambda dice: ("stranger", {**_place(dice), "what": dice.choice(["join", "join", "leave"])}),
        3,
    ),
    (
        lambda dice: (
            "change_directory",
            {**_place(dice), "what": dice.choice(["delete", "take", "misplace", "list", "unlist"])},
        ),
        4,
    ),
    (lambda dice: ("time_passes", {"seconds": dice.choice([0.03, 0.1, 0.5, 5, 400])}), 10),
    (
        lambda dice: ("crash", {"steps": dice.randrange(60), "seconds": dice.choice([0.5, 20])}),
        8,
    ),
    (lambda dice: ("restart", {"timeout": dice.choice([0, 0.02, 10])}), 2),
    (
        lambda dice: (
            "database_fails",
            {
                "transactions": dice.randint(1, 30),
                "late": dice.random() < 0.5,
                "seconds": _after(dice),
            },
        ),
        4,
    ),
    (
        lambda dice: ("pushing", {"held": dice.random() < 0.5, "loses": dice.random() < 0.5}),
        4,
    ),
    (_requests_fail, 12),
    (lambda dice: ("goes_down", {"seconds": dice.choice([0.1, 1, 60])}), 2),
    (lambda dice: ("synapse_restarts", {}), 4),
    (lambda dice: ("making_takes", {"pause": dice.choice([0, 0.5, 10, 30])}), 4),
)

_SEVERAL: tuple[tuple[Callable[[random.Random], list[Step]], int], ...] = ((_made_twice, 2),)

_KINDS = (*((_alone(kind), weight) for kind, weight in _SINGLE), *_SEVERAL)
"""What can be drawn, and how often."""
