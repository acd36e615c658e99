"""Variables go before the file, secrets may come from files of their own."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from openmeet_appservice.config import Config, known_keys

Faults = Callable[..., list[str]]
Load = Callable[..., Config]


def test_every_kind_of_value_can_come_from_a_variable(load: Load) -> None:
    environ = {
        "OPENMEET_AS_HOMESERVER__URL": "https://matrix.example.org/",
        "OPENMEET_AS_APPSERVICE__LISTEN": "0.0.0.0:29350",
        "OPENMEET_AS_DATABASE__AUTO_MIGRATE": "false",
        "OPENMEET_AS_ROOMS__VERSION": "12",
        "OPENMEET_AS_ROOMS__POWER_LEVELS": '{"host": 90}',
        "OPENMEET_AS_ROOMS__CHAT_STATUSES": "[confirmed, maybe]",
        "OPENMEET_AS_USERS__PUPPET_LOCALPART": "om_{tenant}_{user}",
        "OPENMEET_AS_WEBHOOKS__MAX_BATCH": "7",
        "OPENMEET_AS_WEBHOOKS__TIMEOUT": "20s",
        "OPENMEET_AS_WEBHOOKS__RETRY": "- 1s\n- 2s",
    }
    config = load("webhooks: {timeout: 3s, max_batch_bytes: 2048}", environ)
    assert config.homeserver.url == "https://matrix.example.org"
    assert config.appservice.listen.host == "0.0.0.0"
    assert not config.database.auto_migrate
    assert config.rooms.version == "12"
    assert (config.rooms.power_levels.host, config.rooms.power_levels.admin) == (90, 75)
    assert config.rooms.chat_statuses == ("confirmed", "maybe")
    assert config.users.puppet_localpart == "om_{tenant}_{user}"
    assert config.webhooks.max_batch == 7
    assert config.webhooks.max_batch_bytes == 2048
    assert config.webhooks.timeout.total_seconds() == 20
    assert [wait.total_seconds() for wait in config.webhooks.retry] == [1, 2]


def test_all_of_it_can_come_from_variables(load: Load) -> None:
    environ = {
        "OPENMEET_AS_HOMESERVER__URL": "http://localhost:8008",
        "OPENMEET_AS_HOMESERVER__SERVER_NAME": "example.org",
        "OPENMEET_AS_APPSERVICE__AS_TOKEN": "a" * 40,
        "OPENMEET_AS_APPSERVICE__HS_TOKEN": "h" * 40,
        "OPENMEET_AS_PROVISIONING__ADMIN_KEY": "omk_admin_" + "k" * 40,
        "OPENMEET_AS_SECURITY__ENCRYPTION_KEYS": "A" * 43 + "=",
    }
    assert load(text="", environ=environ) == load()


def test_text_is_taken_as_it_stands(load: Load) -> None:
    token = "1" * 40 + ": #"
    config = load(environ={"OPENMEET_AS_APPSERVICE__AS_TOKEN": token.replace(" ", "_")})
    assert config.appservice.as_tokens == (token.replace(" ", "_"),)


def test_an_empty_variable_is_null(load: Load, faults: Faults) -> None:
    more = "rooms: {version: '11'}"
    assert load(more).rooms.version == "11"
    assert load(more, {"OPENMEET_AS_ROOMS__VERSION": ""}).rooms.version is None
    (told,) = faults(environ={"OPENMEET_AS_HOMESERVER__URL": ""})
    assert told.startswith("OPENMEET_AS_HOMESERVER__URL: homeserver.url: must be text")


def test_a_secret_from_a_file(load: Load, tmp_path: Path) -> None:
    keys = ["B" * 43 + "=", "C" * 43 + "="]
    (tmp_path / "token").write_text("f" * 40 + "\n")
    (tmp_path / "admin").write_text("syt_root\n")
    (tmp_path / "keys").write_text("\n".join(keys) + "\n")
    config = load(
        environ={
            "OPENMEET_AS_APPSERVICE__HS_TOKEN_FILE": str(tmp_path / "token"),
            "OPENMEET_AS_SECURITY__ENCRYPTION_KEYS_FILE": str(tmp_path / "keys"),
            "OPENMEET_AS_HOMESERVER__ADMIN_TOKEN_FILE": str(tmp_path / "admin"),
        }
    )
    admin = config.homeserver.admin_token
    assert (admin and admin.get_secret_value()) == "syt_root"
    assert config.appservice.hs_tokens == ("f" * 40,)
    assert config.security.keys == tuple(keys)


def test_a_fault_names_the_variable(faults: Faults, tmp_path: Path) -> None:
    (tmp_path / "short").write_text("short")
    told = faults(
        environ={
            "OPENMEET_AS_APPSERVICE__AS_TOKEN_FILE": str(tmp_path / "short"),
            "OPENMEET_AS_APPSERVICE__HS_TOKEN_FILE": str(tmp_path / "nowhere"),
            "OPENMEET_AS_DATABASE__URL": "x",
            "OPENMEET_AS_DATABASE__URL_FILE": "/x",
            "OPENMEET_AS_WEBHOOKS__RETRY": "[1s, 2]",
            "OPENMEET_AS_WEBHOOKS__MAX_BATCH": "[",
        }
    )
    assert [fault.partition(" must ")[0] for fault in told] == [
        "OPENMEET_AS_APPSERVICE__HS_TOKEN_FILE: the file nowhere cannot be read: No such file or directory",
        "OPENMEET_AS_DATABASE__URL_FILE: database.url: is given twice: unset this or "
        "OPENMEET_AS_DATABASE__URL",
        "OPENMEET_AS_WEBHOOKS__MAX_BATCH: webhooks.max_batch: is not YAML or JSON",
        "OPENMEET_AS_APPSERVICE__AS_TOKEN_FILE: appservice.as_token:",
        "OPENMEET_AS_DATABASE__URL: database.url:",
        "OPENMEET_AS_WEBHOOKS__RETRY: webhooks.retry[1]:",
    ]


@pytest.mark.parametrize(
    ("variable", "nearest"),
    [
        ("OPENMEET_AS_WEBHOOKS__TIMEUOT", "OPENMEET_AS_WEBHOOKS__TIMEOUT"),
        ("OPENMEET_AS_WEBHOOKS_TIMEOUT", "OPENMEET_AS_WEBHOOKS__TIMEOUT"),
        ("OPENMEET_AS_WEBHOOK__TIMEOUT", "OPENMEET_AS_WEBHOOKS__TIMEOUT"),
        ("OPENMEET_AS_APPSERVICE__AS_TOKN_FILE", "OPENMEET_AS_APPSERVICE__AS_TOKEN_FILE"),
        ("OPENMEET_AS_ROOMS__POWER_LEVELS__HOST", "OPENMEET_AS_ROOMS__POWER_LEVELS"),
    ],
)
def test_an_unknown_variable_is_a_fault(faults: Faults, variable: str, nearest: str) -> None:
    (told,) = faults(environ={variable: "x"})
    assert told.startswith(f"{variable}: names no key")
    assert told.endswith(f"did you mean {nearest}?")


def test_what_kubernetes_sets_for_services_is_left_alone(load: Load) -> None:
    environ = {
        "OPENMEET_AS_SERVICE_HOST": "10.0.0.1",
        "OPENMEET_AS_SERVICE_PORT": "29350",
        "OPENMEET_AS_SERVICE_PORT_HTTP": "29350",
        "OPENMEET_AS_PORT": "tcp://10.0.0.1:29350",
        "OPENMEET_AS_PORT_29350_TCP": "tcp://10.0.0.1:29350",
        "OPENMEET_AS_PORT_29350_TCP_ADDR": "10.0.0.1",
        "OPENMEET_AS_METRICS_SERVICE_HOST": "10.0.0.2",
        "OPENMEETX": "1",
    }
    assert load(environ=environ) == load()


def test_every_key_has_its_variable(faults: Faults, minimal: str) -> None:
    for section, keys in known_keys().items():
        for key in keys:
            variable = f"OPENMEET_AS_{section}__{key}".upper()
            assert not [one for one in faults(environ={variable: "x"}, text=minimal) if "names no key" in one]
