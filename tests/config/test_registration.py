"""The registration claims what the templates make, and nothing of anybody else."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from ruamel.yaml import YAML

from openmeet_appservice.config import Config, config_from_text
from openmeet_appservice.domain.names import (
    CONTROL_ALIAS_LOCALPART,
    SLUG,
    TENANT_ID,
    Template,
    full_alias,
    full_user_id,
    temporary_alias_localpart,
)
from openmeet_appservice.installation import Answers, config_text, fresh_secrets
from openmeet_appservice.registration import registration, registration_text

Load = Callable[..., Config]
SERVER = "matrix.example.org"
TENANTS = st.from_regex(TENANT_ID, fullmatch=True)
SLUGS = st.from_regex(SLUG, fullmatch=True)
KINDS = st.sampled_from(["event", "group"])


def make_config() -> Config:
    answers = Answers("http://localhost:8008", SERVER)
    return config_from_text(config_text(answers, fresh_secrets())).or_raise()


CONFIG = make_config()
NAMESPACES = registration(CONFIG)["namespaces"]


def claimed(kind: str, name: str) -> bool:
    """Tell whether Synapse would see *name* as ours: it uses `re.match`, so only the start is fixed."""
    return any(re.match(entry["regex"], name) for entry in NAMESPACES[kind])


@given(TENANTS, SLUGS)
def test_every_puppet_is_claimed_here_and_nowhere_else(tenant: str, user: str) -> None:
    template = Template(CONFIG.users.puppet_localpart, SERVER)
    user_id = full_user_id(template.localpart(tenant=tenant, user=user), SERVER)
    assert claimed("users", user_id)
    for foreign in (f"{user_id}.evil.test", f"{user_id}:8448", user_id.replace(".", "x"), f"x{user_id}"):
        assert not claimed("users", foreign)
    assert not claimed("users", f"@{user_id.partition(':')[0][1:]}:other.test")


@given(KINDS, TENANTS, SLUGS)
def test_every_alias_is_claimed_here_and_nowhere_else(kind: str, tenant: str, slug: str) -> None:
    template = Template(CONFIG.rooms.alias, SERVER)
    alias = full_alias(template.localpart(kind=kind, slug=slug, tenant=tenant), SERVER)
    assert claimed("aliases", alias)
    for foreign in (f"{alias}.evil.test", alias.replace(".", "x"), alias.replace(SERVER, "other.test")):
        assert foreign == alias or not claimed("aliases", foreign)


@given(KINDS, TENANTS, SLUGS)
def test_an_alias_typed_in_capitals_is_asked_for(kind: str, tenant: str, slug: str) -> None:
    assert claimed("aliases", f"#{kind}-{slug.upper()}-{tenant.upper()}:{SERVER}")


@pytest.mark.parametrize("localpart", ["openmeet-bot", "openmeet_t1_ada-x8z1q0", "openmeet_t1_a=b/c+d.e"])
def test_claimed_users(localpart: str) -> None:
    assert claimed("users", f"@{localpart}:{SERVER}")


@pytest.mark.parametrize(
    "localpart",
    [
        "ada",
        "openmeet",
        "openmeet_",
        "openmeet_t1",
        "openmeet_t1_",
        "openmeet__ada",
        "openmeet-bot2",
        "openmeet_T1_ada",
    ],
)
def test_people_s_own_names_stay_theirs(localpart: str) -> None:
    assert not claimed("users", f"@{localpart}:{SERVER}")


@pytest.mark.parametrize(
    "localpart",
    ["event-", "meetup-a-t1", "event-a", "_openmeet_", "_openmeet", "_openmeet_a-b", "a-event-a-t1"],
)
def test_other_aliases_stay_free(localpart: str) -> None:
    assert not claimed("aliases", f"#{localpart}:{SERVER}")


def test_the_service_s_own_aliases_are_claimed() -> None:
    for localpart in (CONTROL_ALIAS_LOCALPART, temporary_alias_localpart("0123456789abcdef")):
        assert claimed("aliases", f"#{localpart}:{SERVER}")
        assert not claimed("aliases", f"#{localpart}:other.test")


def test_text_of_the_templates_is_no_pattern(load: Load) -> None:
    config = load(
        "users: {puppet_localpart: 'o.m+{tenant}_{user}'}\nrooms: {alias: 'o(m)*.{kind}-{slug}-{tenant}'}"
    )
    namespaces = registration(config)["namespaces"]
    user, alias = namespaces["users"][1]["regex"], namespaces["aliases"][0]["regex"]
    assert re.match(user, "@o.m+t1_ada:example.org")
    assert not re.match(user, "@oxm+t1_ada:example.org")
    assert not re.match(user, "@o.mmt1_ada:example.org")
    assert re.match(alias, "#o(m)*.event-a-t1:example.org")
    assert not re.match(alias, "#om.event-a-t1:example.org")


def test_the_rest_of_the_registration(load: Load) -> None:
    made = registration(load())
    del made["namespaces"]
    assert made == {
        "id": "openmeet",
        "url": "http://localhost:29350",
        "as_token": "a" * 40,
        "hs_token": "h" * 40,
        "sender_localpart": "openmeet-bot",
        "rate_limited": False,
        "receive_ephemeral": True,
        "de.sorunome.msc2409.push_ephemeral": True,
        "protocols": [],
    }
    assert NAMESPACES["rooms"] == []
    assert all(entry["exclusive"] is True for kind in NAMESPACES.values() for entry in kind)


def test_during_a_rotation_it_holds_the_new_tokens(load: Load, minimal: str) -> None:
    new = f"appservice:\n  as_token_next: {'b' * 32}\n  hs_token_next: {'i' * 32}"
    made = registration(load(text=minimal.replace("appservice:", new)))
    assert (made["as_token"], made["hs_token"]) == ("b" * 32, "i" * 32)


def test_the_text_says_the_same() -> None:
    read: dict[str, Any] = YAML(typ="safe").load(registration_text(CONFIG))
    assert read == registration(CONFIG)


def test_synapse_takes_it() -> None:
    appservice = pytest.importorskip("synapse.config.appservice")
    taken = appservice._load_appservice(
        SERVER, YAML(typ="safe").load(registration_text(CONFIG)), "registration.yaml"
    )
    assert taken.supports_ephemeral
    assert not taken.is_rate_limited()
    assert taken.is_exclusive_user(f"@openmeet_t1_ada:{SERVER}")
    assert taken.is_exclusive_user(f"@openmeet-bot:{SERVER}")
    assert not taken.is_exclusive_user(f"@ada:{SERVER}")
    assert taken.is_exclusive_alias(f"#event-a-t1:{SERVER}")
    assert not taken.is_exclusive_alias(f"#general:{SERVER}")
