"""docker-compose-dev.yml: every part of it exists, fits the others, and holds no secret."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

from openmeet_appservice.config import config_from_text
from openmeet_appservice.installation import Answers, config_text, fresh_secrets

ROOT = Path(__file__).parents[2]
COMPOSE: dict[str, Any] = YAML(typ="safe").load(ROOT / "docker-compose-dev.yml")
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]
SCRIPTS = ["setup", "matrix", "connect"]


def test_the_services_are_those_that_the_guides_name() -> None:
    assert set(SERVICES) == {"setup", "matrix", "postgres", "openmeet-appservice", "openmeet", "connect"}


def test_what_is_not_our_own_image_is_pinned() -> None:
    ours = {name for name, service in SERVICES.items() if service["image"] == "openmeet-appservice:dev"}
    assert ours == {"setup", "openmeet-appservice", "openmeet", "connect"}
    assert all(SERVICES[name]["build"] == "." for name in ours)
    assert re.fullmatch(r"postgres:\d+-alpine", SERVICES["postgres"]["image"])


def test_synapse_is_the_release_that_the_tests_use() -> None:
    (version,) = re.findall(r"(?m)^matrix-synapse==(\S+)", (ROOT / "requirements.lock").read_text())
    assert SERVICES["matrix"]["image"] == f"matrixdotorg/synapse:v{version}"


def test_volumes_are_declared_or_folders_of_the_repository() -> None:
    for service in SERVICES.values():
        for volume in service.get("volumes", []):
            source = volume["source"] if isinstance(volume, dict) else volume.partition(":")[0]
            if source.startswith("."):
                assert (ROOT / source).is_dir()
                assert volume.endswith(":ro")
            else:
                assert source in COMPOSE["volumes"]


def test_ports_are_published_on_the_loopback_address_only() -> None:
    published = [port for service in SERVICES.values() for port in service.get("ports", [])]
    assert sorted(published) == ["127.0.0.1:29351:29351", "127.0.0.1:29352:29352", "127.0.0.1:8008:8008"]


def test_who_waits_for_whom() -> None:
    order = {"service_started", "service_healthy", "service_completed_successfully"}
    for name, service in SERVICES.items():
        for other, how in service.get("depends_on", {}).items():
            assert other in SERVICES
            assert how["condition"] in order
            if how["condition"] == "service_healthy":
                assert "test" in SERVICES[other]["healthcheck"]
        if name not in ("setup", "postgres"):
            assert service["depends_on"]["setup"]["condition"] == "service_completed_successfully"
    assert SERVICES["setup"]["restart"] == SERVICES["connect"]["restart"] == "no"


def test_all_who_share_the_files_are_the_same_user() -> None:
    # Ours are what the Dockerfile says; Synapse's image has to be told.
    assert re.search(r"(?m)^USER (\d+)$", (ROOT / "Dockerfile").read_text())[1] == "10001"  # type: ignore[index]
    assert SERVICES["matrix"]["user"] == "10001:0"
    for name in ("setup", "openmeet-appservice", "openmeet", "connect"):
        assert "user" not in SERVICES[name]


@pytest.mark.parametrize("name", SCRIPTS)
def test_scripts_exist_and_take_their_arguments(name: str) -> None:
    service = SERVICES[name]
    script = service["entrypoint"][1]
    assert script.startswith("/contrib/dev/")
    assert "./contrib/dev:/contrib/dev:ro" in service["volumes"]
    done = subprocess.run(
        [sys.executable, str(ROOT / script[1:]), *service["entrypoint"][2:], *service["command"], "--help"],
        capture_output=True,
        text=True,
        env={"PYTHONPATH": str(ROOT), "COLUMNS": "200"},
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    for option in service["command"]:
        assert option.partition("=")[0] in done.stdout


def test_one_service_finds_the_other() -> None:
    texts = [text for service in SERVICES.values() for text in service.get("command", []) if "://" in text]
    hosts = {re.search(r"://([a-z-]+):(\d+)", text)[0] for text in texts}  # type: ignore[index]
    assert hosts == {
        "://matrix:8008",
        "://openmeet-appservice:29350",
        "://openmeet-appservice:29351",
        "://openmeet:18080",
        "://localhost:8008",
        "://localhost:29351",
    }


def test_our_variables_are_a_configuration() -> None:
    text = config_text(Answers("http://matrix:8008", "matrix.openmeet.test"), fresh_secrets())
    environ = SERVICES["openmeet-appservice"]["environment"]
    config = config_from_text(text, environ=environ).or_raise()
    assert len(config.webhooks.allowed_networks) == 3
    postgres = SERVICES["postgres"]["environment"]
    assert config.database.url.get_secret_value() == (
        f"postgresql://{postgres['POSTGRES_USER']}@postgres/{postgres['POSTGRES_DB']}"
    )


def test_no_secret_is_written_in_it() -> None:
    text = json.dumps(COMPOSE)
    assert not re.search(r"omk_|whsec_|syt_|[0-9a-f]{32}|://[^/@\"]*:[^/@\"]*@", text)
    variables = {name for service in SERVICES.values() for name in service.get("environment", {})}
    assert not {name for name in variables if re.search("PASSWORD|TOKEN|KEY|SECRET", name)}
