"""The doctor and a real Synapse: all in order, and then each mistake made on purpose."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from aiohttp import ClientSession
from ruamel.yaml import YAML

from openmeet_appservice import app, wiring
from openmeet_appservice.config import Config
from openmeet_appservice.dev import ports
from openmeet_appservice.dev.synapse import Synapse, SynapseSettings
from openmeet_appservice.ops.doctor import Finding, Level, as_text, run_doctor
from openmeet_appservice.registration import registration
from openmeet_appservice.store import event_log, service
from openmeet_appservice.store.database import Database

SERVER_NAME = "hs.test"
Configure = Callable[..., Config]
Of = Callable[[list[Finding], str], Finding]

ANOTHER_USERS = [{"exclusive": True, "regex": rf"@another_.*:{SERVER_NAME}$"}]
ANOTHER_ALIASES = [{"exclusive": True, "regex": rf"#another-.*:{SERVER_NAME}$"}]

# Each is an application service whose registration has a mistake: by its id, the keys that are wrong there.
MISTAKES: dict[str, Mapping[str, Any]] = {
    "silent": {"url": None},
    "stranger": {"hs_token": "x" * 40},
    "narrow": {"namespaces": {"users": ANOTHER_USERS, "aliases": ANOTHER_ALIASES, "rooms": []}},
    "open": {"namespaces": {"users": [{"exclusive": False, "regex": rf"@open_.*:{SERVER_NAME}$"}]}},
}

for _id, _pattern in (
    ("unlocked", "#unlocked-(event|group)-.*"),
    ("ungrouped", "#(ungrouped-event-.*|_openmeet_[a-z0-9]+)"),
):
    _aliases = [{"exclusive": True, "regex": rf"{_pattern}:{SERVER_NAME}$"}]
    MISTAKES[_id] = {"namespaces": {"aliases": _aliases}}


def keys_of(appservice_id: str) -> dict[str, str]:
    """Return what makes the configuration of each application service its own."""
    return {
        "appservice__id": appservice_id,
        "appservice__bot_localpart": f"{appservice_id}-bot",
        "users__puppet_localpart": f"{appservice_id}_{{tenant}}_{{user}}",
        "rooms__alias": f"{appservice_id}-{{kind}}-{{slug}}-{{tenant}}",
    }


@dataclass(frozen=True, slots=True)
class World:
    """A Synapse with one application service that is right, and one for each mistake."""

    folder: Path
    synapse: Synapse
    keys: dict[str, dict[str, str]]

    def folder_of(self, appservice_id: str) -> Path:
        return self.folder / appservice_id


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def world(tmp_path_factory: pytest.TempPathFactory, configure: Configure) -> AsyncIterator[World]:
    folder = tmp_path_factory.mktemp("doctor")
    port = ports.any_free_port()
    keys, files = {}, []
    for appservice_id in ("right", *MISTAKES):
        listen = f"127.0.0.1:{ports.any_free_port()}"
        keys[appservice_id] = keys_of(appservice_id) | {
            "appservice__listen": listen,
            "appservice__url": f"http://{listen}",
            "provisioning__listen": f"127.0.0.1:{ports.any_free_port()}",
            "ops__listen": f"127.0.0.1:{ports.any_free_port()}",
            "homeserver__url": f"http://127.0.0.1:{port}",
        }
        config = configure(folder / appservice_id, **keys[appservice_id])
        files.append(register(folder / appservice_id, config, MISTAKES.get(appservice_id, {})))
    settings = SynapseSettings(
        folder / "synapse", SERVER_NAME, port, tuple(files), bot_user_id=f"@right-bot:{SERVER_NAME}"
    )
    synapse = Synapse(settings)
    await synapse.start()
    try:
        yield World(folder, synapse, keys)
    finally:
        await synapse.stop()


def register(folder: Path, config: Config, changed: Mapping[str, Any]) -> Path:
    path = folder / "registration.yaml"
    YAML(typ="safe").dump(registration(config) | dict(changed), path)
    path.chmod(0o600)
    return path


Examine = Callable[..., Any]


@pytest.fixture
def examine(world: World, configure: Configure, doctor: Any) -> Examine:
    """Examine one of the installations, some keys changed once more."""

    async def examined(appservice_id: str, **changed: str) -> list[Finding]:
        folder = world.folder_of(appservice_id)
        config = configure(folder, **world.keys[appservice_id] | changed)
        found: list[Finding] = await doctor.examine(config, folder)
        return found

    return examined


@pytest.fixture
def configuration(world: World, configure: Configure) -> Callable[[str], Config]:
    return lambda appservice_id: configure(world.folder_of(appservice_id), **world.keys[appservice_id])


async def until_woken(database: Database) -> None:
    """Wait until the service has made its control room."""
    async with asyncio.timeout(30):
        while await database.read(service.get, event_log.CONTROL_ROOM) is None:
            await asyncio.sleep(0.05)


async def test_all_is_well_while_the_service_runs(
    world: World, configuration: Callable[[str], Config], examine: Examine, of: Of
) -> None:
    config, folder = configuration("right"), world.folder_of("right")
    running = app.Service(config)
    database = wiring.open_database(config)
    try:
        await running.start()
        await until_woken(database)
        (folder / "openmeet-appservice.db").chmod(0o600)
        findings = await run_doctor(config, folder / "config.yaml")
        assert [one for one in findings if one.level in ("warning", "problem")] == [], as_text(findings)
        for name in ("ping", "user namespace", "alias namespace", "room directory", "encryption", "clock"):
            assert of(findings, name).level is Level.OK
        assert "1." in of(findings, "Synapse").what
        assert not await is_listed(world, config, database)

        stranger = await examine("right", appservice__id="nobody", appservice__as_token="t" * 40)
        assert of(stranger, "as_token").level is Level.PROBLEM
        assert "app_service_config_files" in str(of(stranger, "as_token").remedy)

        other_id = of(await examine("right", appservice__id="nobody"), "ping")
        assert other_id.level is Level.PROBLEM
        assert "`appservice.id`" in str(other_id.remedy)
    finally:
        await database.close()
        await running.stop()


async def is_listed(world: World, config: Config, database: Database) -> bool:
    room_id = await database.read(service.get, event_log.CONTROL_ROOM)
    path = f"/_matrix/client/v3/directory/list/room/{room_id}"
    async with ClientSession() as session, session.get(f"{world.synapse.url}{path}") as answer:
        return bool((await answer.json())["visibility"] == "public")


async def test_a_service_that_does_not_run(examine: Examine, of: Of) -> None:
    findings = await examine("silent", ops__listen=f"127.0.0.1:{ports.any_free_port()}")
    assert of(findings, "service").level is Level.WARNING
    assert of(findings, "service").remedy == "Start it: `openmeet-appservice run`."
    ping = of(findings, "ping")
    assert ping.level is Level.PROBLEM
    assert "M_URL_NOT_SET" in ping.what
    assert "names no `url`" in str(ping.remedy)
    assert of(findings, "registration").what.endswith("differs from the configuration in url")


async def test_nobody_listens_where_synapse_calls(examine: Examine, of: Of) -> None:
    ping = of(await examine("open"), "ping")
    assert ping.level is Level.PROBLEM
    assert "M_CONNECTION_FAILED" in ping.what
    assert str(ping.remedy).startswith("Start it: `openmeet-appservice run`.")


async def test_another_hs_token_in_the_registration(
    configuration: Callable[[str], Config], examine: Examine, of: Of
) -> None:
    running = app.Service(configuration("stranger"))
    try:
        await running.start()
        findings = await examine("stranger")
    finally:
        await running.stop()
    ping = of(findings, "ping")
    assert ping.level is Level.PROBLEM
    assert "We refuse Synapse's hs_token" in str(ping.remedy)


async def test_namespaces_of_another_template(examine: Examine, of: Of) -> None:
    findings = await examine("narrow")
    for name in ("user namespace", "alias namespace"):
        assert of(findings, name).level is Level.PROBLEM
        assert "openmeet-appservice registration" in str(of(findings, name).remedy)
    assert "cannot masquerade" in of(findings, "user namespace").what
    assert "aliases such as narrow-" in of(findings, "alias namespace").what
    assert of(findings, "server name").level is Level.OK


@pytest.mark.parametrize(
    ("appservice_id", "words"),
    [("unlocked", "the temporary aliases"), ("ungrouped", "aliases such as ungrouped-")],
)
async def test_aliases_of_which_some_are_not_ours(
    examine: Examine, of: Of, appservice_id: str, words: str
) -> None:
    found = of(await examine(appservice_id), "alias namespace")
    assert found.level is Level.PROBLEM
    assert words in found.what


async def test_puppets_whose_names_anybody_can_take(examine: Examine, of: Of) -> None:
    found = of(await examine("open"), "user namespace")
    assert (found.level, found.what) == (Level.PROBLEM, "Synapse lets anybody register our puppets' names")


async def test_another_server_name(examine: Examine, of: Of) -> None:
    findings = await examine("right", homeserver__server_name="example.org")
    found = of(findings, "server name")
    assert (found.level, found.remedy) == (Level.PROBLEM, f"Set `homeserver.server_name: {SERVER_NAME}`.")
    assert of(findings, "user namespace, alias namespace").what.startswith("not checked")


async def test_another_bot(examine: Examine, of: Of) -> None:
    found = of(await examine("right", appservice__bot_localpart="somebody"), "server name")
    assert found.level is Level.PROBLEM
    assert str(found.remedy).startswith("Set `appservice.bot_localpart: right-bot`")


@pytest.mark.parametrize(("setting", "level"), [("all", Level.PROBLEM), ("invite", Level.WARNING)])
async def test_a_synapse_that_encrypts_publishes_nothing_and_makes_old_rooms(
    tmp_path: Path, configure: Configure, of: Of, setting: str, level: Level
) -> None:
    port, listen = ports.any_free_port(), f"127.0.0.1:{ports.any_free_port()}"
    keys = {
        "appservice__listen": listen,
        "appservice__url": f"http://{listen}",
        "provisioning__listen": f"127.0.0.1:{ports.any_free_port()}",
        "ops__listen": f"127.0.0.1:{ports.any_free_port()}",
        "homeserver__url": f"http://127.0.0.1:{port}",
    }
    config = configure(tmp_path, **keys)
    wrong = {"encryption_enabled_by_default_for_room_type": setting, "default_room_version": "10"}
    files = (tmp_path / "registration.yaml",)
    register(tmp_path, config, {})
    synapse = Synapse(SynapseSettings(tmp_path / "synapse", SERVER_NAME, port, files, extra=wrong))
    running, database = app.Service(config), wiring.open_database(config)
    try:
        await synapse.start()
        await running.start()
        await until_woken(database)
        await make_an_event(running.provisioning_url, config.provisioning.admin_key.get_secret_value())
        findings = await run_doctor(config, tmp_path / "config.yaml")
    finally:
        await database.close()
        await running.stop()
        await synapse.stop()
    encryption = of(findings, "encryption")
    assert encryption.level is level
    assert "`encryption_enabled_by_default_for_room_type: off`" in str(encryption.remedy)
    problems = {one.name for one in findings if one.level is Level.PROBLEM}
    assert problems - {"encryption"} == {"room directory", "room version"}
    remedy = str(of(findings, "room directory").remedy)
    assert '`- {user_id: "@openmeet-bot:hs.test", action: allow}`' in remedy
    secrets = (*config.appservice.as_tokens, *config.appservice.hs_tokens, *config.security.keys)
    assert not [secret for secret in secrets if secret in as_text(findings)]


async def make_an_event(url: str, admin_key: str) -> None:
    """Have an event made; nobody may list its room here, so it is an unlisted one."""
    headers = {"Authorization": f"Bearer {admin_key}"}
    event = {"name": "Games", "visibility": "unlisted", "status": "published"}
    async with ClientSession(headers=headers, raise_for_status=True) as session:
        await session.put(f"{url}/v1/tenants/t1", json={"name": "T"})
        answer = await session.put(f"{url}/v1/tenants/t1/events/games?wait=30", json=event)
        assert (await answer.json())["sync"]["phase"] == "ready"
