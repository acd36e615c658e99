from __future__ import annotations

import json
from typing import Any

import pytest

from openmeet_appservice.domain.power_levels import (
    bot_level,
    highest_level,
    listed_levels,
    power_levels,
    supports_creator_power,
)

BOT = "@bot:hs.test"
ADA = "@ada:hs.test"


@pytest.mark.parametrize("version", ["12", "13", "100"])
def test_creators_have_power(version: str) -> None:
    assert supports_creator_power(version)
    assert (bot_level(version), highest_level(version)) == (150, 100)


@pytest.mark.parametrize(
    "version", ["1", "11", "", "12.1", "org.matrix.msc4289", " 12", "１２", "012", "9" * 5000]
)
def test_creators_need_to_be_listed(version: str) -> None:
    assert not supports_creator_power(version)
    assert (bot_level(version), highest_level(version)) == (100, 99)


def _content(version: str, *, private: bool = False, closed: bool = False) -> dict[str, Any]:
    return power_levels(version, BOT, {ADA: 50}, private=private, closed=closed)


def test_the_bot_is_listed_only_before_version_12() -> None:
    assert _content("12")["users"] == {ADA: 50}
    assert _content("11")["users"] == {ADA: 50, BOT: 100}


def test_only_the_bot_decides_who_may_be_inside() -> None:
    for version, level in (("11", 100), ("12", 150)):
        content = _content(version)
        for name in ("power_levels", "join_rules", "canonical_alias", "encryption", "tombstone"):
            assert content["events"][f"m.room.{name}"] == level
        assert content["state_default"] == level
        assert content["events"]["m.room.name"] == 50


def test_invitations() -> None:
    assert _content("12")["invite"] == 50
    assert _content("12", private=True)["invite"] == 150
    assert _content("11", private=True)["invite"] == 100


def test_nobody_writes_in_a_closed_room() -> None:
    content = _content("11", closed=True)
    assert content["events_default"] == 100
    assert content["invite"] == 100
    assert set(content["events"].values()) == {100}
    assert _content("11")["events_default"] == 0


def test_default_levels_are_not_listed_and_high_ones_are_capped() -> None:
    levels = {"@a:x": 0, "@b:x": 25, "@c:x": 100, "@d:x": 5000, "@e:x": -1}
    assert listed_levels("12", levels).users == {"@b:x": 25, "@c:x": 100, "@d:x": 100, "@e:x": -1}
    assert listed_levels("11", levels).users == {"@b:x": 25, "@c:x": 99, "@d:x": 99, "@e:x": -1}


def test_fixed_levels_are_kept() -> None:
    assert listed_levels("11", {ADA: 50}, {ADA: 100}).users == {ADA: 100}


def test_the_event_stays_small_enough() -> None:
    speakers = {f"@{'s' * 200}{n}:hs.test": 25 for n in range(3000)}
    listed = listed_levels("12", {**speakers, ADA: 100})
    content = power_levels("12", BOT, listed.users, private=False, closed=False)
    assert 40_000 < len(json.dumps(content)) < 60_000
    assert listed.users[ADA] == 100
    assert len(listed.users) + len(listed.left_out) == 3001
    assert listed.left_out
