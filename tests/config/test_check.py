"""A configuration is read whole, and each fault is told with its place, all at once."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from openmeet_appservice.config import Config, load_config
from openmeet_appservice.errors import ConfigError

Faults = Callable[..., list[str]]
Load = Callable[..., Config]

LINES = 10
"""How many the minimal configuration has."""


def test_what_is_not_said_has_its_default(load: Load) -> None:
    config = load()
    assert str(config.appservice.listen) == "127.0.0.1:29350"
    assert config.rooms.power_levels.moderator == 50
    assert config.webhooks.timeout.total_seconds() == 15
    assert config.webhooks.retention.days == 30
    assert config.webhooks.max_backlog is None
    assert config.repair.max_age.total_seconds() == 24 * 3600
    assert config.reconciler.full_check is not None
    assert config.reconciler.full_check.days == 7
    assert config.reconciler.max_rate == 2
    assert config.rooms.drift.name == "correct"
    assert config.rooms.drift.bans == "keep"
    assert config.homeserver.url == "http://localhost:8008"


def test_tokens_during_a_rotation(load: Load, minimal: str) -> None:
    appservice = load(
        text=minimal.replace("appservice:", f"appservice:\n  hs_token_next: {'n' * 32}")
    ).appservice
    assert appservice.hs_tokens == ("h" * 40, "n" * 32)
    assert appservice.as_tokens == ("a" * 40,)


def test_a_relative_database_lies_beside_the_file(load: Load, tmp_path: Path) -> None:
    for more, name in [
        ("", "openmeet-appservice.db"),
        ("database: {url: 'sqlite:///data/x.db'}", "data/x.db"),
    ]:
        assert load(more).database.url.get_secret_value() == f"sqlite:///{tmp_path}/{name}"
    assert (
        load("database: {url: sqlite:////srv/x.db}").database.url.get_secret_value() == "sqlite:////srv/x.db"
    )


def test_an_empty_section_is_like_none(load: Load) -> None:
    assert load("webhooks:\nlogging:\n") == load()


@pytest.mark.parametrize(
    ("more", "fault"),
    [
        ("webhooks:\n  timeout: 0s", "2: webhooks.timeout: must be more than 0"),
        ("repair:\n  max_age: 0s", "2: repair.max_age: must be more than 0"),
        ("reconciler:\n  full_check: 0s", "2: reconciler.full_check: must be more than 0"),
        ("reconciler:\n  max_rate: 2", "2: reconciler.max_rate: must be a number and its time, such as 2/s"),
        ("reconciler:\n  max_rate: 0/s", "2: reconciler.max_rate: must be a number and its time"),
        ("rooms:\n  drift: {name: keep}", "2: rooms.drift.name: must be 'correct' or 'accept'"),
        ("rooms:\n  drift: {bans: correct}", "2: rooms.drift.bans: must be 'keep' or 'accept'"),
        ("rooms:\n  drift: {nmae: accept}", "2: rooms.drift.nmae: is not a key; did you mean name?"),
        ("webhooks:\n  timeout: 15", "2: webhooks.timeout: must be a time with its unit, such as 15s, 5m,"),
        ("webhooks:\n  timeout: 6m", "2: webhooks.timeout: must be at most 5m"),
        ("webhooks:\n  timeuot: 15s", "2: webhooks.timeuot: is not a key; did you mean timeout?"),
        ("webhooks:\n  format: text", "2: webhooks.format: is not a key; did you mean logging.format?"),
        ("webhooks:\n  retry: [5s,\n    0s]", "3: webhooks.retry[1]: must be more than 0"),
        ("webhooks: {retry: []}", "1: webhooks.retry: must hold at least 1"),
        ("webhooks: {retry: 5s}", "1: webhooks.retry: must be a list"),
        ("webhooks: {max_batch: '50'}", "1: webhooks.max_batch: must be a whole number"),
        ("webhooks: {max_batch: 0}", "1: webhooks.max_batch: must be at least 1"),
        ("webhooks: {max_backlog: 0}", "1: webhooks.max_backlog: must be at least 1"),
        ("webhooks: {max_backlog: many}", "1: webhooks.max_backlog: must be a whole number"),
        ("webhooks: {retention: 47h}", "1: webhooks.retention: must be at least 2d"),
        ("webhooks: {retention: 30}", "1: webhooks.retention: must be a time with its unit"),
        (
            "webhooks:\n  allowed_networks:\n  - 10.0.0.0/8\n  - nowhere",
            "4: webhooks.allowed_networks[1]: must be a net",
        ),
        (
            "webhooks: {allowed_networks: [10.1.0.0/8]}",
            "1: webhooks.allowed_networks[0]: must be a network: 10.1.0.0",
        ),
        (
            "webhooks: {allowed_hosts: [10.1.0.1]}",
            "1: webhooks.allowed_hosts[0]: must be a name; the address 10.1.0.1 goes into allowed_networks",
        ),
        (
            "webhooks: {allowed_hosts: ['http://openmeet.internal']}",
            "1: webhooks.allowed_hosts[0]: must be a host's name such as openmeet.internal, without",
        ),
        ("lookup: {url: 'https://openmeet.test/'}", "1: lookup: must hold secrets as well as a url"),
        ("lookup: {url: openmeet.test}", "1: lookup.url: must be a URL such as"),
        ("lookup: {secrets: [hush]}", "1: lookup.secrets[0]: must be whsec_ and the base64 of 24 to 64"),
        ("lookup: {secrets: [whsec_AAAA]}", "1: lookup.secrets[0]: must be whsec_ and the base64"),
        ("lookup: {alias_timeout: 31s}", "1: lookup.alias_timeout: must be at most 30s"),
        ("lookup: {alias_timeout: 0s}", "1: lookup.alias_timeout: must be more than 0"),
        ("lookup: {timeout: 6m}", "1: lookup.timeout: must be at most 5m"),
        ("lookup: {resync_interval: 9m}", "1: lookup.resync_interval: must be at least 10m"),
        ("webhoks: {}", "1: webhoks: is not a section; did you mean webhooks?"),
        ("tenants: []", "1: tenants: is not a section"),
        ("logging: [INFO]", "1: logging: must be keys with values, indented below it"),
        ("logging: {level: TRACE}", "1: logging.level: must be 'DEBUG', 'INFO', 'WARNING' or 'ERROR'"),
        ("database: {auto_migrate: maybe}", "1: database.auto_migrate: must be true or false"),
        ("database: {url: mysql://x/y}", "1: database.url: must be sqlite:///FILE or postgresql://"),
        ("database: {url: 'sqlite:///:memory:'}", "1: database.url: must name a file"),
        ("rooms: {version: 9}", "1: rooms.version: must be 11 or 12, or null"),
        ("rooms: {access: member}", "1: rooms.access: must be 'members' or 'anyone'"),
        (
            "rooms: {chat_statuses: [confirmed, confirmed]}",
            "1: rooms.chat_statuses: must hold each value once",
        ),
        ("rooms: {join: slowly}", "1: rooms.join: must be 'auto', 'eager' or 'lazy'"),
        ("rooms: {join_auto_limit: -1}", "1: rooms.join_auto_limit: "),
        ("rooms: {chat_statuses: [sure]}", "1: rooms.chat_statuses[0]: must be 'invited', 'confirmed'"),
        (
            "rooms:\n  power_levels:\n    hosts: 5",
            "3: rooms.power_levels.hosts: is not a key; did you mean host?",
        ),
        ("rooms: {power_levels: {host: 101}}", "1: rooms.power_levels.host: must be at most 100"),
        ("rooms: {power_levels: {host: true}}", "1: rooms.power_levels.host: must be a whole number"),
        ("ops: {listen: '29352'}", "1: ops.listen: must be host:port"),
        (
            "ops: {listen: '127.0.0.1:29351'}",
            "1: ops.listen: 127.0.0.1:29351 is taken by provisioning.listen already",
        ),
        (
            "ops: {listen: '0.0.0.0:29350'}",
            "1: ops.listen: 0.0.0.0:29350 is taken by appservice.listen already",
        ),
        (
            "users: {puppet_localpart: 'openmeet{tenant}-{user}', 1: 2}",
            "1: users[1]: must be text, as all names of keys",
        ),
    ],
)
def test_a_fault_names_line_key_and_remedy(faults: Faults, more: str, fault: str) -> None:
    line, _, rest = fault.partition(": ")
    (told,) = faults(more)
    assert told.startswith(f"config.yaml:{LINES + int(line)}: {rest}")


@pytest.mark.parametrize(
    ("old", "new", "fault"),
    [
        ("url: http://localhost:8008", "url: localhost:8008", "2: homeserver.url: must be a URL such as"),
        (
            "url: http://localhost:8008",
            "url: http://me:pw@localhost",
            "2: homeserver.url: must not hold a user name",
        ),
        ("url: http://localhost:8008", "url: http://localhost/?a=b", "2: homeserver.url: must end before"),
        ("url: http://localhost:8008", "url: http://localhost:99999", "2: homeserver.url: is not a URL"),
        (
            "server_name: example.org",
            "server_name: https://example.org",
            "3: homeserver.server_name: is the name in",
        ),
        (
            "server_name: example.org",
            "server_name: exa mple",
            "3: homeserver.server_name: must be a server name",
        ),
        ("  server_name: example.org\n", "", "1: homeserver.server_name: is missing"),
        ("a" * 40, "a" * 31, "5: appservice.as_token: must have at least 32 characters"),
        ("a" * 40, "'" + "a " * 20 + "'", "5: appservice.as_token: must be of visible ASCII"),
        ("a" * 40, "1" * 40, "5: appservice.as_token: must be text; put it in quotes"),
        ("a" * 40, "h" * 40, "4: appservice: its tokens must all differ"),
        ("omk_admin_", "omk_tenant_", "8: provisioning.admin_key: must be omk_admin_ and at least 32 random"),
        ("A" * 43 + "=", "short", "10: security.encryption_keys[0]: must be 32 random bytes"),
    ],
)
def test_faults_of_what_must_be_given(faults: Faults, old: str, new: str, fault: str, minimal: str) -> None:
    (told,) = faults(text=minimal.replace(old, new))
    assert told.startswith(f"config.yaml:{fault}")


def test_all_faults_are_told_at_once(faults: Faults) -> None:
    told = faults(
        "webhooks:\n  timeout: 0s\nops: {listen: '127.0.0.1:29350'}\nxyz: 1\nusers: {puppet_localpart: x}"
    )
    assert [fault.split(": ")[1] for fault in told] == [
        "xyz",
        "users.puppet_localpart",
        "webhooks.timeout",
        "ops.listen",
    ]


def test_an_empty_file_misses_what_must_be_given(faults: Faults) -> None:
    assert faults(text="") == [
        "config.yaml: homeserver.url: is missing",
        "config.yaml: homeserver.server_name: is missing",
        "config.yaml: appservice.as_token: is missing",
        "config.yaml: appservice.hs_token: is missing",
        "config.yaml: provisioning.admin_key: is missing",
        "config.yaml: security.encryption_keys: is missing",
    ]


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("homeserver:\n\turl: x\n", "config.yaml:2: a tab cannot indent YAML; use spaces"),
        (
            "homeserver:\n  url: x\n  url: secret\n",
            "config.yaml:3: url: is written twice in the same section",
        ),
        ("- a\n- b\n", "config.yaml:1: must be sections of keys"),
        ("just words\n", "config.yaml:1: must be sections of keys"),
        ("a: b: c\n", "config.yaml:1: is not YAML: look for a missing colon"),
        ("a: 'b\n", "config.yaml:2: is not YAML"),
        ("a: 1\n---\nb: 1\n", "config.yaml:2: must be one YAML document"),
        ("a: \x01\n", "config.yaml: is not YAML"),
        (b"a: \xff\n", "config.yaml: is not a text file in UTF-8"),
    ],
)
def test_what_is_no_readable_yaml(faults: Faults, text: str | bytes, fault: str) -> None:
    (told,) = faults(text=text)
    assert told.startswith(fault)


def test_a_missing_file_leads_to_init(tmp_path: Path) -> None:
    with pytest.raises(
        ConfigError, match=r"nowhere\.yaml: there is no such file; `openmeet-appservice init`"
    ):
        load_config(tmp_path / "nowhere.yaml", {})
    with pytest.raises(ConfigError, match=r"cannot be read: Is a directory"):
        load_config(tmp_path, {})


def test_no_secret_is_ever_repeated(faults: Faults, minimal: str) -> None:
    secret = "hunter2-" * 3
    broken = [
        minimal.replace("a" * 40, secret),
        minimal.replace("a" * 40, f"{secret}\n  as_token: {secret}"),
        minimal.replace("a" * 40, f'"{secret}'),
        minimal.replace("a" * 40, f"[{secret}]"),
        minimal.replace("a" * 40, f"{{a: {secret}}}"),
        minimal.replace("a" * 40, f"{secret}: x: y"),
        minimal.replace("k" * 40, f" {secret}"),
        minimal.replace("A" * 43, secret),
        minimal + f"database: {{url: 'mysql://u:{secret}@h/d'}}",
        minimal + f"database: {{url: 'postgresql://u:{secret}@h'}}",
    ]
    for text in broken:
        told = faults(text=text)
        assert told, text
        assert "hunter2" not in "\n".join(told)
    environ = {
        "OPENMEET_AS_APPSERVICE__AS_TOKEN": secret,
        "OPENMEET_AS_SECURITY__ENCRYPTION_KEYS": f"[{secret}",
        "OPENMEET_AS_PROVISIONING__ADMIN_KEYS": secret,
    }
    told = faults(environ=environ)
    assert len(told) == 3
    assert "hunter2" not in "\n".join(told)


def test_the_puppets_can_never_be_the_bot(faults: Faults) -> None:
    more = "users: {puppet_localpart: 'open{tenant}-{user}'}"
    (told,) = faults(more)
    assert "users.puppet_localpart: could give a puppet the bot's name, openmeet-bot" in told


def test_names_leave_room_for_tenant_and_slug(faults: Faults, minimal: str) -> None:
    (told,) = faults(text=minimal.replace("example.org", "x" * 145 + ".org"))
    assert "users.puppet_localpart: is too long" in told
