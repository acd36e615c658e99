from __future__ import annotations

from typing import Any

from openmeet_appservice.domain.people import BANNED, BANNED_BEFORE
from openmeet_appservice.domain.reading import read_state


def _event(kind: str, content: Any, state_key: Any = "", **more: Any) -> dict[str, Any]:
    return {"type": kind, "state_key": state_key, "content": content, **more}


def test_reads_what_matters() -> None:
    create = {"room_version": "12", "net.openmeet.claim": "c0ffee"}
    found = read_state(
        [
            _event("m.room.create", create, sender="@bot:hs.test"),
            _event("m.room.name", {"name": "Board games"}),
            _event("m.room.member", {"membership": "join"}, "@ada:hs.test"),
            _event("m.room.member", {"membership": "ban"}, "@bad:hs.test"),
            _event("m.space.child", {"via": ["hs.test"]}, "!other"),
        ]
    )
    assert (found.version, found.claim, found.creator) == ("12", "c0ffee", "@bot:hs.test")
    assert found.members == {"@ada:hs.test": "join", "@bad:hs.test": "ban"}
    assert found.state == {"m.room.create": create, "m.room.name": {"name": "Board games"}}


def test_a_room_without_a_version_has_the_first() -> None:
    assert read_state([_event("m.room.create", {})]).version == "1"


def test_odd_shapes_count_as_absent() -> None:
    found = read_state(
        [
            {},
            _event("m.room.create", {"room_version": 12, "net.openmeet.claim": ["x"]}, sender=7),
            _event("m.room.name", None),
            _event("m.room.member", {"membership": 3}, "@odd:hs.test"),
            _event("m.room.member", {"membership": "join"}, None),
            _event("m.room.topic", {"topic": "x"}, None),
        ]
    )
    assert (found.version, found.claim, found.creator) == ("1", None, None)
    assert found.members == {"@odd:hs.test": "leave"}
    assert "m.room.name" not in found.state
    assert "m.room.topic" not in found.state


def test_a_ban_that_was_carried_over_is_not_the_bots_own() -> None:
    def ban(user: str, reason: str) -> dict[str, Any]:
        content = {"membership": "ban", "reason": reason}
        return _event("m.room.member", content, user, sender="@bot:hs.test")

    found = read_state([ban("@dan:hs.test", BANNED), ban("@cyd:hs.test", BANNED_BEFORE)])
    assert found.banned_by == {"@dan:hs.test": "@bot:hs.test", "@cyd:hs.test": ""}
