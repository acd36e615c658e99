"""`migrate`, `doctor`, `healthcheck`, `run`: exit codes, and faults in words instead of tracebacks."""

from __future__ import annotations

import socket
import sqlite3
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest
from cryptography.fernet import Fernet

from openmeet_appservice.store.filelock import FileLock
from openmeet_appservice.store.schema import newest_revision

from .conftest import Cli

DATABASE = "openmeet-appservice.db"


def test_migrate(installed: Cli) -> None:
    ran = installed("migrate", "--check")
    assert (ran.code, ran.out) == (1, "")
    assert "migrate" in ran.err
    ran = installed("migrate")
    assert (ran.code, ran.err) == (0, "")
    assert newest_revision() in ran.out
    assert "no schema" in ran.out
    assert (installed.folder / DATABASE).stat().st_mode & 0o777 == 0o600
    for arguments in (["migrate", "--check"], ["migrate"]):
        ran = installed(*arguments)
        assert ran.code == 0
        assert "newest schema" in ran.out


def test_migrate_beside_a_running_service_is_refused(migrated: Cli) -> None:
    lock = FileLock(migrated.folder / DATABASE)
    lock.take()
    try:
        ran = migrated("migrate")
        assert (ran.code, ran.out) == (1, "")
        assert ran.err.startswith("error: ")
        assert migrated("migrate", "--check").code == 0
        assert migrated("tenant", "list").code == 0, "other commands work beside it"
    finally:
        lock.release()


@pytest.mark.parametrize("command", [["migrate"], ["migrate", "--check"], ["tenant", "list"], ["run"]])
def test_a_database_that_is_none(installed: Cli, monkeypatch: pytest.MonkeyPatch, command: list[str]) -> None:
    (installed.folder / DATABASE).write_text("This is no database, but a letter. " * 100)
    ran = installed(*command)
    assert (ran.code, ran.out) == (1, "")
    assert "file is not a database" in ran.err
    monkeypatch.setenv("OPENMEET_AS_DATABASE__URL", "sqlite:///nowhere/x.db")
    ran = installed(*command)
    assert ran.code == 1
    assert ran.err


@pytest.mark.parametrize("command", [["migrate"], ["tenant", "list"], ["run"]])
def test_a_database_of_the_future(migrated: Cli, command: list[str]) -> None:
    connection = sqlite3.connect(migrated.folder / DATABASE)
    with connection:
        connection.execute("UPDATE alembic_version SET version_num = '9999'")
    connection.close()
    ran = migrated(*command)
    assert (ran.code, ran.out) == (1, "")
    assert "9999" in ran.err


@pytest.mark.parametrize(
    ("variable", "value", "words"),
    [("DATABASE__URL", "mysql://x/y", "database.url"), ("SERVER_NAME", "x", "OPENMEET_AS_SERVER_NAME")],
)
def test_a_fault_in_the_environment(
    installed: Cli, monkeypatch: pytest.MonkeyPatch, variable: str, value: str, words: str
) -> None:
    monkeypatch.setenv(f"OPENMEET_AS_{variable}", value)
    ran = installed("migrate")
    assert (ran.code, ran.out) == (2, "")
    assert words in ran.err


def test_run_says_which_port_is_taken(migrated: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        monkeypatch.setenv("OPENMEET_AS_OPS__LISTEN", f"127.0.0.1:{port}")
        ran = migrated("run")
    assert ran.code == 2
    assert str(port) in ran.err


@pytest.fixture
def replaced(migrated: Cli, monkeypatch: pytest.MonkeyPatch) -> tuple[str, str]:
    """An endpoint under one encryption key; another is put in front of it. Returns the new and the old."""
    old, new = (Fernet.generate_key().decode() for _ in range(2))
    monkeypatch.setenv("OPENMEET_AS_SECURITY__ENCRYPTION_KEYS", old)
    made = migrated("tenant", "add", "T1", "--webhook-url", "https://openmeet.example/hook")
    assert made.code == 0
    assert "0 secrets" not in migrated("migrate").out
    monkeypatch.setenv("OPENMEET_AS_SECURITY__ENCRYPTION_KEYS", f"{new} {old}")
    return new, old


def doctor_on_encryption(cli: Cli) -> dict[str, str]:
    (found,) = [finding for finding in cli("doctor", "--json").json if finding["name"] == "encryption keys"]
    return dict(found)


@pytest.mark.parametrize("command", ["migrate", "run"])
def test_an_old_encryption_key_can_go_after(
    migrated: Cli, replaced: tuple[str, str], monkeypatch: pytest.MonkeyPatch, command: str
) -> None:
    new, _ = replaced
    assert doctor_on_encryption(migrated)["level"] == "warning"
    if command == "migrate":
        ran = migrated("migrate")
        assert ran.code == 0
        assert "1 secrets were encrypted anew" in ran.out
    else:
        # A service that cannot go on behind the database: it ends by itself.
        with socket.create_server(("127.0.0.1", 0)) as taken:
            listen = f"127.0.0.1:{taken.getsockname()[1]}"
            monkeypatch.setenv("OPENMEET_AS_PROVISIONING__LISTEN", listen)
            assert migrated("run").code == 2
    assert doctor_on_encryption(migrated)["level"] == "info"
    monkeypatch.setenv("OPENMEET_AS_SECURITY__ENCRYPTION_KEYS", new)
    assert doctor_on_encryption(migrated)["level"] == "ok"


def test_an_old_encryption_key_that_went_too_early(
    migrated: Cli, replaced: tuple[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    new, old = replaced
    monkeypatch.setenv("OPENMEET_AS_SECURITY__ENCRYPTION_KEYS", new)
    found = doctor_on_encryption(migrated)
    assert (found["level"], "webhook T1/main" in found["what"]) == ("problem", True)
    assert "rotate-secret" in found["remedy"]
    assert migrated("migrate").code == 0
    monkeypatch.setenv("OPENMEET_AS_SECURITY__ENCRYPTION_KEYS", f"{new} {old}")
    assert doctor_on_encryption(migrated)["level"] == "warning", "nothing was lost"


def test_doctor_finds_that_the_homeserver_is_away(migrated: Cli) -> None:
    ran = migrated("doctor")
    assert ran.code == 1
    assert "✘ homeserver" in ran.out
    findings = migrated("doctor", "--json")
    assert findings.code == 1
    assert "problem" in {finding["level"] for finding in findings.json}


@contextmanager
def answering(status: int, body: bytes, raw: bytes | None = None) -> Iterator[int]:
    """A server on a loopback port that answers every GET like this; *raw* instead of HTTP."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            if raw is not None:
                self.wfile.write(raw)
                return
            self.send_response(status if self.path == "/ready" else 404)
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *arguments: object) -> None:
            """Print nothing."""

    server = HTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield server.server_port
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@pytest.mark.parametrize("host", ["127.0.0.1", "0.0.0.0"])
def test_healthcheck_of_a_service_that_is_ready(
    installed: Cli, monkeypatch: pytest.MonkeyPatch, host: str
) -> None:
    # A container may have a proxy in its environment; it does not know the container's own addresses.
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    with answering(200, b'{"ready": true}') as port:
        monkeypatch.setenv("OPENMEET_AS_OPS__LISTEN", f"{host}:{port}")
        ran = installed("healthcheck")
    assert (ran.code, ran.out, ran.err) == (0, '{"ready": true}\n', "")


def test_healthcheck_of_a_service_that_is_not(installed: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    ran = installed("healthcheck")
    assert ran.code == 1
    assert "refused" in ran.out
    with answering(503, b'{"ready": false, "reasons": ["draining"]}') as port:
        monkeypatch.setenv("OPENMEET_AS_OPS__LISTEN", f"127.0.0.1:{port}")
        ran = installed("healthcheck")
    assert ran.code == 1
    assert "draining" in ran.out


def test_healthcheck_of_something_else(installed: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    with answering(200, b"", raw=b"SSH-2.0-OpenSSH_9.2\r\n") as port:
        monkeypatch.setenv("OPENMEET_AS_OPS__LISTEN", f"127.0.0.1:{port}")
        assert installed("healthcheck").code == 1
