"""`init` writes what works, for its owner only, and never over what is there; the examples say the same."""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

from openmeet_appservice import installation
from openmeet_appservice.config import (
    Config,
    check_config,
    config_from_text,
    known_keys,
    load_config,
    redacted,
)
from openmeet_appservice.domain.durations import parse_duration
from openmeet_appservice.errors import UsageError
from openmeet_appservice.installation import (
    Answers,
    example_config,
    example_registration,
    initialise,
    write_registration,
)
from openmeet_appservice.registration import registration

ROOT = Path(__file__).parents[2]
ANSWERS = Answers("https://matrix.example.org", "example.org", "http://chat:29350", "0.0.0.0:29350")


def test_what_init_writes_can_be_loaded(tmp_path: Path) -> None:
    initialise(ANSWERS, tmp_path / "new")
    config = load_config(tmp_path / "new" / "config.yaml", {})
    assert config.homeserver.url == "https://matrix.example.org"
    assert config.homeserver.server_name == "example.org"
    assert config.appservice.url == "http://chat:29350"
    assert str(config.appservice.listen) == "0.0.0.0:29350"
    assert YAML(typ="safe").load(tmp_path / "new" / "registration.yaml") == registration(config)


def test_the_address_for_synapse_follows_from_where_it_listens(tmp_path: Path) -> None:
    initialise(Answers("http://localhost:8008", "example.org", listen="[::1]:4000"), tmp_path)
    assert load_config(tmp_path / "config.yaml", {}).appservice.url == "http://localhost:4000"


def test_only_the_owner_can_read_the_files(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        initialise(ANSWERS, tmp_path)
    finally:
        os.umask(before)
    assert {path.name: stat.S_IMODE(path.stat().st_mode) for path in tmp_path.iterdir()} == {
        "config.yaml": 0o600,
        "registration.yaml": 0o600,
    }


def test_two_installations_share_no_secret(tmp_path: Path) -> None:
    secrets = []
    for name in ("a", "b"):
        initialise(ANSWERS, tmp_path / name)
        config = load_config(tmp_path / name / "config.yaml", {})
        tokens = config.appservice.as_tokens + config.appservice.hs_tokens + config.security.keys
        secrets += [*tokens, config.provisioning.admin_key.get_secret_value()]
    assert len(set(secrets)) == 8


@pytest.mark.parametrize(
    "there", [["config.yaml"], ["registration.yaml"], ["config.yaml", "registration.yaml"]]
)
def test_nothing_is_overwritten_without_force(tmp_path: Path, there: list[str]) -> None:
    for name in there:
        (tmp_path / name).write_text("mine")
    with pytest.raises(UsageError, match="and ".join(rf".*/{name} " for name in there) + "exist"):
        initialise(ANSWERS, tmp_path)
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == dict.fromkeys(there, "mine")
    initialise(ANSWERS, tmp_path, force=True)
    load_config(tmp_path / "config.yaml", {})


@pytest.mark.parametrize(
    ("answers", "fault"),
    [
        (Answers("localhost:8008", "example.org"), "homeserver.url: must be a URL"),
        (Answers("http://localhost", "http://x"), "homeserver.server_name: is the name in"),
        (Answers("http://localhost", 'x"\n  evil: 1'), "homeserver.server_name: must be a server name"),
        (Answers("http://localhost", "x", listen="x"), "--listen must be host:port"),
        (Answers("http://localhost", "x", appservice_url="x"), "appservice.url: must be a URL"),
    ],
)
def test_bad_answers_write_nothing(tmp_path: Path, answers: Answers, fault: str) -> None:
    with pytest.raises(UsageError, match=fault):
        initialise(answers, tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UsageError, match=r"/file: cannot be written"):
        initialise(ANSWERS, tmp_path / "file")


def test_a_full_disk_leaves_the_old_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    initialise(ANSWERS, tmp_path)
    before = {path: path.read_text() for path in tmp_path.iterdir()}
    calls = []

    def full(descriptor: int) -> None:
        calls.append(descriptor)
        if len(calls) == 2:
            raise OSError(28, "No space left on device", "registration.yaml")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(UsageError, match="No space left"):
        initialise(ANSWERS, tmp_path, force=True)
    assert {path: path.read_text() for path in tmp_path.iterdir()} == before


def test_the_next_steps_are_told(tmp_path: Path) -> None:
    told = initialise(ANSWERS, tmp_path)
    assert f"install -o matrix-synapse -m 0640 {tmp_path}/registration.yaml" in told
    for step in (
        "app_service_config_files:",
        "Restart Synapse",
        "openmeet-appservice doctor",
        "appservice run",
    ):
        assert step in told
    config = load_config(tmp_path / "config.yaml", {})
    assert not any(secret in told for secret in config.appservice.as_tokens + config.appservice.hs_tokens)


def test_the_registration_alone(tmp_path: Path) -> None:
    config = config_from_text(installation.config_text(ANSWERS, installation.fresh_secrets())).or_raise()
    path = tmp_path / "registration.yaml"
    assert "app_service_config_files" in write_registration(config, path)
    with pytest.raises(UsageError, match="exists already"):
        write_registration(config, path)
    write_registration(config, path, force=True)
    assert YAML(typ="safe").load(path) == registration(config)


@pytest.mark.parametrize(
    ("file", "text"),
    [("config.example.yaml", example_config()), ("registration.yaml.example", example_registration())],
)
def test_the_examples_have_not_drifted(file: str, text: str) -> None:
    assert (ROOT / file).read_text("utf-8") == text, "run `make examples`"


def test_the_example_is_refused_until_its_placeholders_are_replaced() -> None:
    checked = check_config(ROOT / "config.example.yaml", {})
    assert [fault.key for fault in checked.faults] == [
        "appservice.as_token",
        "appservice.hs_token",
        "provisioning.admin_key",
        "security.encryption_keys[0]",
    ]
    assert all(
        "placeholder" in fault.message and "`openmeet-appservice init`" in fault.message
        for fault in checked.faults
    )


def test_the_template_names_every_key_with_a_comment_and_its_default(minimal: str) -> None:
    text = example_config()
    tree: dict[str, dict[str, Any]] = YAML(typ="safe").load(text)
    assert {section: list(keys) for section, keys in tree.items()} == {
        section: list(keys) for section, keys in known_keys().items()
    }
    config: Config = config_from_text(minimal, folder=Path("/")).or_raise()
    required = {"url", "server_name", "as_token", "hs_token", "admin_key", "encryption_keys"}
    for section, defaults in redacted(config).items():
        for key, default in defaults.items():
            if default != "***" and key not in required:
                written = tree[section][key]
                # A time may be written in the unit that people think of it in.
                if key == "max_age":
                    written, default = parse_duration(written), parse_duration(default)
                assert written == default, f"{section}.{key}"
    lines = text.splitlines()
    for number, line in enumerate(lines):
        if line.startswith("  ") and line[2] not in " #-" and "_next" not in line:
            assert lines[number - 1].lstrip().startswith("#"), line
