"""The scripts of docker-compose-dev.yml, run with its own arguments on this machine's loopback address."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import socket
import stat
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from aiohttp import ClientSession, web
from aiohttp.test_utils import TestServer
from ruamel.yaml import YAML

from openmeet_appservice.config import load_config

ROOT = Path(__file__).parents[2]
SERVICES: dict[str, dict[str, Any]] = YAML(typ="safe").load(ROOT / "docker-compose-dev.yml")["services"]
SUCCESS = "Success! Matrix server initialized"
START_SECONDS = 90


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
        return port


class Stack:
    """The services' commands, with `/data` in *folder* and their addresses on the loopback one."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.matrix = f"127.0.0.1:{free_port()}"

    def arguments(self, service: str, **addresses: str) -> list[str]:
        words: list[str] = [*SERVICES[service]["entrypoint"][1:], *SERVICES[service]["command"]]
        script, rest = words[0], words[1:]
        places = {"matrix:8008": self.matrix, "localhost:8008": self.matrix} | addresses
        for place, address in places.items():
            rest = [text.replace(f"//{place}", f"//{address}") for text in rest]
        rest = [re.sub(r"^/data", str(self.folder), text) for text in rest]
        return [sys.executable, f"{ROOT}{script}", *rest]

    async def run(self, arguments: list[str]) -> asyncio.subprocess.Process:
        environ = os.environ | {"PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1"}
        pipe = subprocess.PIPE
        return await asyncio.create_subprocess_exec(*arguments, env=environ, stdout=pipe, stderr=pipe)

    async def finish(self, arguments: list[str]) -> str:
        process = await self.run(arguments)
        out, errors = await process.communicate()
        assert process.returncode == 0, errors.decode()
        return out.decode()

    async def set_up(self) -> str:
        return await self.finish([*self.arguments("setup"), f"--listen={self.matrix}"])

    async def start_matrix(self) -> tuple[asyncio.subprocess.Process, list[str]]:
        """Start Synapse; return its process, and what `grep -A 10` would find of its output."""
        process = await self.run(self.arguments("matrix"))
        assert process.stdout
        assert process.stderr
        try:
            async with asyncio.timeout(START_SECONDS):
                while (line := (await process.stdout.readline()).decode()).strip() != SUCCESS:
                    assert line, (await process.stderr.read()).decode()
                found = [(await process.stdout.readline()).decode().rstrip() for _ in range(6)]
        except BaseException:
            process.kill()
            raise
        return process, found


@pytest.fixture
def stack(tmp_path: Path) -> Stack:
    return Stack(tmp_path)


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


async def test_set_up_makes_every_secret_once(stack: Stack) -> None:
    await stack.set_up()
    made = contents(stack.folder)
    assert set(made) >= {
        "config.yaml",
        "registration.yaml",
        "webhook-secret",
        "matrix/homeserver.yaml",
        "matrix/signing.key",
        "matrix/admin-password",
    }
    await stack.set_up()
    assert contents(stack.folder) == made


async def test_no_file_with_a_secret_is_for_others(stack: Stack) -> None:
    await stack.set_up()
    for name in ("config.yaml", "registration.yaml", "webhook-secret"):
        assert stat.S_IMODE((stack.folder / name).stat().st_mode) == 0o600
    assert stat.S_IMODE((stack.folder / "matrix").stat().st_mode) == 0o700


async def test_matrix_starts_says_how_to_reach_it_and_stops(stack: Stack) -> None:
    await stack.set_up()
    config = load_config(stack.folder / "config.yaml", {})
    tokens = []
    for _ in range(2):  # the second start finds the admin already there
        process, found = await stack.start_matrix()
        try:
            told = dict(line.strip().split(": ", 1) for line in found)
            assert told["Server name"].strip() == config.homeserver.server_name
            url, token = told["Homeserver"].strip(), told["Admin token"].strip()
            assert url == f"http://{stack.matrix}"
            assert told["Try"].strip() == (
                f"curl -H 'Authorization: Bearer {token}' {url}/_matrix/client/v3/account/whoami"
            )
            await is_server_admin(url, token)
            await knows_our_bot(url, config.appservice.as_tokens[0])
            await is_healthy(stack)
            tokens.append(token)
        finally:
            process.send_signal(signal.SIGTERM)
            async with asyncio.timeout(30):
                await process.communicate()
        assert process.returncode == 0
    assert tokens[0] != tokens[1]


async def is_server_admin(url: str, token: str) -> None:
    headers = {"Authorization": f"Bearer {token}"}
    async with (
        ClientSession(headers=headers) as session,
        session.get(f"{url}/_synapse/admin/v2/users") as answer,
    ):
        assert answer.status == 200
        assert [user["name"] for user in (await answer.json())["users"]] == ["@admin:matrix.openmeet.test"]


async def knows_our_bot(url: str, as_token: str) -> None:
    headers = {"Authorization": f"Bearer {as_token}"}
    async with ClientSession(headers=headers) as session:
        async with session.get(f"{url}/_matrix/client/v3/account/whoami") as answer:
            assert (await answer.json())["user_id"] == "@openmeet-bot:matrix.openmeet.test"
        room = {"preset": "public_chat", "visibility": "public", "name": "Seen by all"}
        async with session.post(f"{url}/_matrix/client/v3/createRoom", json=room) as answer:
            assert answer.status == 200
        async with session.get(f"{url}/_matrix/client/v3/publicRooms") as answer:
            assert "Seen by all" in [one["name"] for one in (await answer.json())["chunk"]]


async def is_healthy(stack: Stack) -> None:
    _, _, *command = SERVICES["matrix"]["healthcheck"]["test"]
    code = command[-1].replace("localhost:8008", stack.matrix)
    await stack.finish([sys.executable, "-c", code])


async def test_a_synapse_that_cannot_start_is_told_by_the_exit_code(stack: Stack) -> None:
    await stack.set_up()
    (stack.folder / "registration.yaml").write_text("id: broken\n")
    process = await stack.run(stack.arguments("matrix"))
    async with asyncio.timeout(START_SECONDS):
        out, _ = await process.communicate()
    assert process.returncode != 0
    assert SUCCESS not in out.decode()


@pytest.fixture
async def api() -> AsyncIterator[tuple[list[tuple[str, str, str, Any]], str]]:
    """A provisioning API that is starting at first, and writes down what is asked of it."""
    calls: list[tuple[str, str, str, Any]] = []

    async def take(request: web.Request) -> web.Response:
        body = await request.json() if request.can_read_body else None
        calls.append((request.method, request.path, request.headers["Authorization"], body))
        return web.json_response({}, status=503 if len(calls) == 1 else 200)

    app = web.Application()
    app.router.add_route("*", "/{path:.*}", take)
    async with TestServer(app) as server:
        yield calls, f"{server.host}:{server.port}"


async def test_connect_makes_the_tenant_and_its_endpoint(
    stack: Stack, api: tuple[list[tuple[str, str, str, Any]], str]
) -> None:
    calls, address = api
    await stack.set_up()
    await stack.finish(stack.arguments("connect", **{"openmeet-appservice:29351": address}))
    key = load_config(stack.folder / "config.yaml", {}).provisioning.admin_key.get_secret_value()
    secret = (stack.folder / "webhook-secret").read_text()
    assert calls == [
        ("GET", "/v1/whoami", f"Bearer {key}", None),
        ("GET", "/v1/whoami", f"Bearer {key}", None),
        ("PUT", "/v1/tenants/dev", f"Bearer {key}", {"name": "For trying things"}),
        (
            "PUT",
            "/v1/tenants/dev/webhooks/main",
            f"Bearer {key}",
            {"url": "http://openmeet:18080/webhooks", "secret": secret},
        ),
    ]


async def test_the_stand_in_finds_the_secret(stack: Stack) -> None:
    await stack.set_up()
    address = f"127.0.0.1:{free_port()}"
    service = SERVICES["openmeet"]
    arguments = [
        text.replace("/data", str(stack.folder)).replace("0.0.0.0:18080", address)
        for text in [*service["entrypoint"][1:], *service["command"]]
    ]
    process = await stack.run([sys.executable, *arguments])
    try:
        async with asyncio.timeout(30), ClientSession() as session:
            assert await first_answer(session, f"http://{address}/webhooks", process) == 401
    finally:
        process.terminate()
        await process.communicate()


async def first_answer(session: ClientSession, url: str, process: asyncio.subprocess.Process) -> int:
    while True:
        assert process.returncode is None
        try:
            async with session.post(url, json={}) as answer:
                return answer.status
        except OSError:
            await asyncio.sleep(0.1)
