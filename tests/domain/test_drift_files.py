"""What is done about changes of others, case by case. The cases are in ``drifts/``."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

from openmeet_appservice.domain.drift import DriftPolicy, drift_policy
from openmeet_appservice.domain.plan import plan
from openmeet_appservice.domain.rooms import ActualRoom, DesiredRoom
from openmeet_appservice.domain.verdict import Memory, Verdict, judge, read_memory

from .test_plan_files import Apply, _actual, _compared, _desired, _expand

CASES = sorted((Path(__file__).parent / "drifts").glob("*.yaml"))
NOW = 1_790_000_000_000
MINUTE = 60_000


def _read(path: Path) -> dict[str, Any]:
    case: dict[str, Any] = _expand(YAML(typ="safe", pure=True).load(path.read_text()))
    assert {"about", "field", "said", "expect"} <= case.keys(), "these four keys are needed"
    assert case.keys() <= {"about", "field", "said", "says", "changed", "corrections", "first", "expect"}
    return case


def remembered(desired: DesiredRoom, actual: ActualRoom, policy: DriftPolicy) -> Memory:
    """Return what is remembered of a room that is as it should be."""
    settled = plan(desired, actual)
    assert settled.actions == ()
    return judge(settled, desired, actual, Memory("r"), policy, now=NOW - 1).settled(refused=False)


@pytest.mark.parametrize("path", CASES, ids=lambda path: path.stem)
def test_drift(path: Path, apply: Apply) -> None:
    case = _read(path)
    for chosen, expect in case["expect"].items():
        policy = drift_policy({case["field"]: chosen} if case["field"] else {})
        verdict = _judged(case, policy, apply)
        assert _seen(verdict, expect) == {
            "actions": expect.get("actions", []),
            "corrected": expect.get("corrected", []),
            "accepted": expect.get("accepted", []),
            "known": expect.get("known", 0),
            "notes": expect.get("notes", []),
        }, f"{case['about']} ({chosen})"


def _judged(case: Mapping[str, Any], policy: DriftPolicy, apply: Apply) -> Verdict:
    said = _desired(case["said"], has_room=True)
    says = _desired(case.get("says", case["said"]), has_room=True)
    before = _actual({"after": case["said"]}, said, apply)
    actual = _actual({"after": case["said"], **case.get("changed", {})}, says, apply)
    memory = remembered(said, before, policy)
    # Through the store and back, as it is between two runs.
    memory = Memory("r") if case.get("first") else read_memory(memory.to_text(), "r")
    counts = {
        name: tuple(NOW - minutes * MINUTE for minutes in ago)
        for name, ago in case.get("corrections", {}).items()
    }
    memory = Memory(memory.room, memory.said, memory.accepted, counts)
    return judge(plan(says, actual), says, actual, memory, policy, now=NOW)


def _seen(verdict: Verdict, expect: Mapping[str, Any]) -> dict[str, Any]:
    compared = _compared(verdict.plan, expect)
    return {
        "actions": compared["actions"],
        "corrected": sorted(verdict.corrected),
        "accepted": sorted({step.field.value for step in verdict.accepted}),
        "known": len(verdict.known),
        "notes": compared["notes"],
    }


def test_every_field_is_tried_with_each_policy() -> None:
    tried = {(case["field"], chosen) for case in map(_read, CASES) for chosen in case["expect"]}
    chosen = {"name", "topic", "aliases", "join_rule", "power_levels"}
    assert {(name, policy) for name in chosen for policy in ("correct", "accept")} <= tried
    assert {("bans", "keep"), ("bans", "accept")} <= tried
