"""The throw-away Synapse, and the person with an ordinary account."""

from __future__ import annotations

import asyncio
import importlib.metadata
import json
import os
import signal
import sys
import textwrap
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest
import yaml
from aiohttp import ClientSession

from openmeet_appservice.dev import ports
from openmeet_appservice.dev.person import Person
from openmeet_appservice.dev.synapse import Synapse, SynapseSettings
from openmeet_appservice.dev.synapse_config import lay_out
from openmeet_appservice.errors import HomeserverRefused, SynapseNotStarted, UsageError

SERVER_NAME = "dev.test"


@pytest.fixture
async def session() -> AsyncIterator[ClientSession]:
    async with ClientSession() as made:
        yield made


@pytest.fixture
async def synapse(tmp_path: Path) -> AsyncIterator[Synapse]:
    """A Synapse that a test starts when it likes."""
    made = Synapse(SynapseSettings(tmp_path / "synapse", SERVER_NAME, ports.any_free_port()))
    yield made
    made.kill()


async def until(condition: Callable[[], bool], seconds: float = 20.0) -> None:
    async with asyncio.timeout(seconds):
        while not condition():
            await asyncio.sleep(0.02)


def is_alive(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return False
    return state != "Z"


async def test_people_talk_and_all_of_it_survives_a_restart(synapse: Synapse, session: ClientSession) -> None:
    await synapse.start()
    pid = synapse.pid
    await synapse.start()
    assert synapse.pid == pid
    admin = await synapse.register_user("root", "pw", admin=True)
    assert "access_token" not in repr(admin)
    assert admin.access_token not in repr(admin)
    ada = await Person.register(session, synapse.url, "ada", "pw")
    assert ada.user_id == f"@ada:{SERVER_NAME}"
    room, alias = await _room_by(admin.access_token, session, synapse.url)
    assert await ada.resolve_alias(alias) == room
    assert await ada.join(alias) == room
    assert await ada.joined_members(room) == {ada.user_id: "ada", admin.user_id: "root"}
    assert (await ada.state(room))[("m.room.canonical_alias", "")] == {"alias": alias}
    event_id = await ada.send_text(room, "hello")

    secrets_before = (synapse.settings.folder / "secrets.json").read_text()
    await synapse.stop()
    assert not synapse.is_running
    assert synapse.pid is None
    await synapse.start()
    assert (synapse.settings.folder / "secrets.json").read_text() == secrets_before

    assert await ada.texts(room) == [(ada.user_id, "hello")]
    assert event_id in [event["event_id"] for event in await ada.messages(room)]
    again = await Person.login(session, synapse.url, "ada", "pw")
    assert await again.joined_rooms() == {room}
    await again.leave(room)
    assert await ada.joined_rooms() == set()


async def _room_by(token: str, session: ClientSession, url: str) -> tuple[str, str]:
    body = {"room_alias_name": "games", "preset": "public_chat"}
    headers = {"Authorization": f"Bearer {token}"}
    path = f"{url}/_matrix/client/v3/createRoom"
    async with session.post(path, json=body, headers=headers) as response:
        return (await response.json())["room_id"], f"#games:{SERVER_NAME}"


async def test_it_comes_back_after_a_kill(synapse: Synapse, session: ClientSession) -> None:
    await synapse.start()
    await Person.register(session, synapse.url, "ada", "pw")
    synapse.kill()
    synapse.kill()
    assert not synapse.is_running
    await synapse.stop()
    await synapse.start()
    with pytest.raises(HomeserverRefused) as caught:
        await Person.register(session, synapse.url, "ada", "pw")
    assert caught.value.errcode == "M_USER_IN_USE"


async def test_a_fault_in_the_configuration_is_shown(tmp_path: Path) -> None:
    broken = SynapseSettings(
        tmp_path, SERVER_NAME, ports.any_free_port(), extra={"app_service_config_files": ["/no/x"]}
    )
    synapse = Synapse(broken)
    with pytest.raises(SynapseNotStarted, match="/no/x"):
        await synapse.start()
    assert not synapse.is_running


async def test_a_start_that_takes_too_long_is_ended(synapse: Synapse) -> None:
    with pytest.raises(SynapseNotStarted, match="did not answer within 0 s"):
        await synapse.start(timeout=0)
    assert not synapse.is_running


async def test_a_cancelled_start_leaves_nothing_behind(synapse: Synapse) -> None:
    starting = asyncio.create_task(synapse.start())
    await until(lambda: synapse.is_running)
    pid = synapse.pid
    starting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await starting
    assert pid is not None
    assert not is_alive(pid)


async def test_a_taken_port_is_refused(synapse: Synapse) -> None:
    taken = await asyncio.start_server(lambda *_: None, ports.LOOPBACK, synapse.settings.port)
    async with taken:
        with pytest.raises(UsageError, match=str(synapse.settings.port)):
            await synapse.start()
    assert not synapse.is_running


async def test_what_to_install_is_named(synapse: Synapse, monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> str:
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(importlib.metadata, "version", missing)
    with pytest.raises(UsageError, match=r"pip install 'openmeet-appservice\[dev\]'"):
        await synapse.start()


async def test_one_that_does_not_heed_sigterm_is_killed(synapse: Synapse) -> None:
    await synapse.start()
    assert synapse.pid is not None
    os.kill(synapse.pid, signal.SIGSTOP)
    await synapse.stop(grace=0.2)
    assert not synapse.is_running


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux ends children with their parent")
async def test_it_does_not_outlive_who_started_it(tmp_path: Path) -> None:
    port = ports.any_free_port()
    program = textwrap.dedent(
        f"""
        import asyncio, pathlib, time
        from openmeet_appservice.dev.synapse import Synapse, SynapseSettings

        folder = pathlib.Path({str(tmp_path / "synapse")!r})
        synapse = Synapse(SynapseSettings(folder, {SERVER_NAME!r}, {port}))
        asyncio.run(synapse.start())
        print(synapse.pid, flush=True)
        time.sleep(600)
        """
    )
    parent = await asyncio.create_subprocess_exec(
        sys.executable, "-c", program, stdout=asyncio.subprocess.PIPE
    )
    assert parent.stdout is not None
    pid = int(await parent.stdout.readline())
    assert is_alive(pid)
    parent.kill()
    await parent.wait()
    await until(lambda: not is_alive(pid))
    await until(lambda: ports.is_free(port))


async def test_secrets_are_for_their_owner_only(synapse: Synapse) -> None:
    lay_out(synapse.settings)
    folder = synapse.settings.folder
    assert folder.stat().st_mode & 0o077 == 0
    for name in ("secrets.json", "signing.key", "homeserver.yaml"):
        assert (folder / name).stat().st_mode & 0o077 == 0
    assert len(set(json.loads((folder / "secrets.json").read_text()).values())) == 3


async def test_own_keys_replace_ours(tmp_path: Path) -> None:
    settings = SynapseSettings(
        tmp_path,
        "on",  # a word that YAML 1.1 reads as a truth value unless it is quoted
        18_008,
        (tmp_path / "registration.yaml",),
        bot_user_id="@bot:on",
        database={"name": "psycopg2", "args": {"user": "x"}},
        extra={"default_room_version": "11"},
    )
    lay_out(settings)
    config = yaml.safe_load(settings.config_file.read_text())  # as Synapse reads it
    assert config["server_name"] == "on"
    assert config["default_room_version"] == "11"
    assert config["database"] == {"name": "psycopg2", "args": {"user": "x"}}
    assert config["app_service_config_files"] == [str(tmp_path / "registration.yaml")]
    assert config["room_list_publication_rules"] == [{"user_id": "@bot:on", "action": "allow"}]


async def test_ports() -> None:
    free = ports.any_free_port()
    assert ports.choose(free) == free
    server = await asyncio.start_server(lambda *_: None, ports.LOOPBACK, free)
    async with server:
        assert not ports.is_free(free)
        assert ports.choose(free) != free
