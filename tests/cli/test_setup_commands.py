"""`init`, `registration`, `config`: exit codes, what is printed, and the help of every command."""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import openmeet_appservice
from openmeet_appservice import __version__
from openmeet_appservice.cli import build_parser

from .conftest import Cli

COMMANDS = {
    "init": {"--homeserver", "--server-name", "--appservice-url", "--listen", "--output-dir", "--force"},
    "registration": {"--config", "--output", "--force"},
    "config check": {"--config", "--json"},
    "config show": {"--config", "--json"},
    "run": {"--config"},
    "migrate": {"--config", "--check"},
    "doctor": {"--config", "--json"},
    "dev": {"--once", "--fresh", "--folder"},
    "healthcheck": {"--config"},
    "explain": {"--config", "--json"},
    "tenant add": {"--config", "--json", "--name", "--webhook-url"},
    "tenant list": {"--config", "--json"},
    "tenant show": {"--config", "--json"},
    "keys add": {"--config", "--json", "--tenant", "--name"},
    "keys list": {"--config", "--json", "--tenant"},
    "keys revoke": {"--config", "--json", "--tenant"},
    "room show": {"--config", "--json"},
    "room plan": {"--config", "--json"},
    "room resync": {"--config", "--json", "--confirm-removals", "--wait"},
    "import": {"--config", "--json", "--tenant", "--as-of", "--confirm-removals", "--dry-run"},
    "adopt": {"--config", "--json", "--tenant", "--dry-run", "--enforce"},
    "delivery stats": {"--config", "--json", "--tenant"},
    "delivery dead-letters": {"--config", "--json", "--tenant", "--limit"},
    "delivery redrive": {"--config", "--json", "--tenant", "--of-tenant", "--room", "--dry-run"},
    "delivery replay": {
        "--config",
        "--json",
        "--tenant",
        "--of-tenant",
        "--room",
        "--only",
        "--since",
        "--until",
        "--from-sequence",
        "--dry-run",
    },
    "delivery park": {"--config", "--json", "--tenant", "--of-tenant", "--room"},
    "delivery resume": {"--config", "--json", "--tenant", "--of-tenant", "--room"},
}


def leaves(parser: argparse.ArgumentParser, name: str = "") -> Iterator[tuple[str, argparse.ArgumentParser]]:
    groups = [a for a in parser._actions if isinstance(a, argparse._SubParsersAction)]
    if not groups:
        yield name, parser
    for group in groups:
        for inner, child in group.choices.items():
            yield from leaves(child, f"{name} {inner}".strip())


def test_these_are_the_commands_and_their_options() -> None:
    found = {
        name: {o for a in parser._actions for o in a.option_strings if o.startswith("--")} - {"--help"}
        for name, parser in leaves(build_parser())
    }
    assert found == COMMANDS


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_explains_itself(cli_in: Cli, command: str) -> None:
    ran = cli_in(*command.split(), "--help")
    assert ran.code == 0
    assert ran.err == ""
    for option in COMMANDS[command]:
        assert option in ran.out


@pytest.mark.parametrize(
    "arguments",
    [[], ["tenant"], ["fly"], ["config", "upgrade"], ["init"], ["tenant", "add"], ["run", "--verbose"]],
)
def test_wrong_usage(cli_in: Cli, arguments: list[str]) -> None:
    ran = cli_in(*arguments)
    assert ran.code == 2
    assert ran.out == ""
    assert "usage: openmeet-appservice" in ran.err


def test_general_help_and_version(cli_in: Cli) -> None:
    ran = cli_in("--help")
    assert ran.code == 0
    assert "exit codes: 0 done, 1 it ran and found a problem, 2 wrong usage" in ran.out
    assert {name.split()[0] for name in COMMANDS} <= set(ran.out.split())
    assert cli_in("--version").out == f"openmeet-appservice {__version__}\n"


@pytest.mark.parametrize("command", [name for name in COMMANDS if name not in ("init", "dev")])
def test_without_a_configuration_every_command_says_so(cli_in: Cli, command: str) -> None:
    words = {"tenant add": ["t1"], "tenant show": ["t1"], "keys revoke": ["k"], "import": ["f"]}.get(
        command, []
    )
    if command.startswith("room"):
        words = ["t1", "event", "e1"]
    if command == "explain":
        words = ["t1", "event", "e1", "ada"]
    if command.startswith("delivery") and command != "delivery stats":
        words = ["main", "--only", "all"] if command == "delivery replay" else ["main"]
    ran = cli_in(*command.split(), *words, "--config", "nowhere.yaml")
    assert ran.code == 2
    assert "nowhere.yaml" in ran.out + ran.err
    assert os.listdir(cli_in.folder) == []


def test_init(cli_in: Cli) -> None:
    asked = ("init", "--homeserver", "http://localhost:8008", "--server-name", "example.org")
    ran = cli_in(*asked)
    assert (ran.code, ran.err) == (0, "")
    for words in ("install -o matrix-synapse -m 0640", "app_service_config_files", "openmeet-appservice run"):
        assert words in ran.out
    before = {path.name: path.read_bytes() for path in cli_in.folder.iterdir()}
    assert set(before) == {"config.yaml", "registration.yaml"}
    assert all(path.stat().st_mode & 0o777 == 0o600 for path in cli_in.folder.iterdir())

    ran = cli_in(*asked)
    assert ran.code == 2
    assert "--force" in ran.err
    assert {path.name: path.read_bytes() for path in cli_in.folder.iterdir()} == before
    assert cli_in(*asked, "--force").code == 0
    assert (cli_in.folder / "config.yaml").read_bytes() != before["config.yaml"]


def test_init_with_answers_that_do_not_fit(cli_in: Cli) -> None:
    ran = cli_in("init", "--homeserver", "localhost", "--server-name", "example.org")
    assert (ran.code, ran.out) == (2, "")
    assert "homeserver.url" in ran.err
    assert os.listdir(cli_in.folder) == []


def test_registration(installed: Cli) -> None:
    file = installed.folder / "registration.yaml"
    before = file.read_bytes()
    assert installed("registration").code == 2, "it is there"
    file.unlink()
    ran = installed("registration")
    assert ran.code == 0
    assert str(file.name) in ran.out
    assert file.read_bytes() == before
    assert file.stat().st_mode & 0o777 == 0o600
    assert installed("registration", "--output", "other.yaml").code == 0
    assert (installed.folder / "other.yaml").read_bytes() == before


def test_config_check(installed: Cli) -> None:
    ran = installed("config", "check")
    assert (ran.code, ran.out) == (0, "config.yaml: no faults\n")
    assert installed("config", "check", "--json").json == {"faults": []}

    installed.add_to_config("\nwebhoks:\n  timeout: 3s\n")
    line = (installed.folder / "config.yaml").read_text().splitlines().index("webhoks:") + 1
    ran = installed("config", "check")
    assert ran.code == 2
    for words in ("config.yaml", str(line), "webhoks", "did you mean webhooks?"):
        assert words in ran.out
    ran = installed("config", "check", "--json")
    assert ran.code == 2
    (fault,) = ran.json["faults"]
    assert fault["key"] == "webhoks"

    ran = installed("run")
    assert ran.code == 2
    assert "webhoks" in ran.err


def test_config_show_hides_secrets(installed: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENMEET_AS_WEBHOOKS__TIMEOUT", "7s")
    text = (installed.folder / "config.yaml").read_text()
    monkeypatch.setenv("OPENMEET_AS_HOMESERVER__ADMIN_TOKEN", "syt_cm9vdA_secretofroot_0a1b2c")
    given = [line for line in text.splitlines() if "_token:" in line or "_key:" in line]
    secrets = [line.split('"')[1] for line in given if '"' in line] + ["secretofroot"]
    assert len(secrets) >= 4
    for arguments in (["config", "show"], ["config", "show", "--json"]):
        ran = installed(*arguments)
        assert ran.code == 0
        assert "***" in ran.out
        assert not [secret for secret in secrets if secret in ran.out]
    assert installed("config", "show", "--json").json["webhooks"]["timeout"] == "7s"


@pytest.mark.parametrize("arguments", [["config", "show"], ["--help"]])
def test_a_reader_who_has_seen_enough(installed: Cli, arguments: list[str]) -> None:
    command = [sys.executable, "-m", "openmeet_appservice", *arguments]
    environ = {**os.environ, "PYTHONPATH": str(Path(openmeet_appservice.__file__).parents[1])}
    environ.pop("PYTHONUNBUFFERED", None)
    with subprocess.Popen(command, env=environ, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.close()
        assert process.stderr is not None
        assert process.stderr.read() == b""
        assert process.wait(timeout=30) == 0
