"""The local stack of `dev`: a throw-away Synapse, this service on SQLite, a stand-in for OpenMeet.

Everything it keeps is in one folder, so that a second start takes seconds and forgetting is deleting it.
"""

from __future__ import annotations

import io
import logging
import secrets
import shlex
import shutil
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from aiohttp import ClientSession
from ruamel.yaml import YAML

from openmeet_appservice.app import Service
from openmeet_appservice.config import Config, load_config
from openmeet_appservice.dev import ports, story
from openmeet_appservice.dev.api import Api
from openmeet_appservice.dev.stand_in import StandIn
from openmeet_appservice.dev.synapse import Synapse, SynapseSettings
from openmeet_appservice.domain.addresses import Address
from openmeet_appservice.errors import UsageError
from openmeet_appservice.files import write_private_files
from openmeet_appservice.installation import Answers, initialise, write_registration
from openmeet_appservice.ops.logs import set_up_logging
from openmeet_appservice.outbound.signing import new_secret
from openmeet_appservice.web.auth import new_key
from openmeet_appservice.web.routes import Scope
from openmeet_appservice.web.server import Listener

SERVER_NAME = "dev.localhost"
SYNAPSE_PORT, STAND_IN_PORT = 18008, 18080
OUR_PORTS = {"appservice": 29350, "provisioning": 29351, "ops": 29352}
PERSON = "wanda"
RETRY = ("1s", "1s", *["2s"] * 48)
"""What a story that failed left undelivered must not keep the next one waiting."""
MARK = "webhook.secret"
"""The file that `dev` makes first, and by which it knows a folder for its own."""

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Stack:
    """Everything that `dev` runs, and what it needs to play the story."""

    folder: Path
    config: Config
    synapse: Synapse
    service: Service
    stand_in: StandIn
    cast: story.Cast


@dataclass(frozen=True, slots=True)
class Wrong:
    """What tests may have go wrong: the stand-in's secret, or what it answers."""

    secret: str | None = None
    status: int = 204


@asynccontextmanager
async def running(
    folder: Path, session: ClientSession, say: Callable[[str], None], wrong: Wrong | None = None
) -> AsyncIterator[Stack]:
    """Start the stack in *folder*, and stop it at the end.

    Raises
    ------
    UsageError
        The folder holds something that `dev` did not put there.
    """
    wrong = wrong or Wrong()
    folder = _made(folder)
    secret = _kept(folder / MARK, new_secret)
    chosen = choose_ports(say)
    config = configure(folder, chosen)
    stand_in = StandIn(
        wrong.secret or secret, status=wrong.status, told=lambda line: say(f"  OpenMeet: {line}")
    )
    synapse = Synapse(
        SynapseSettings(
            folder=folder / "synapse",
            server_name=SERVER_NAME,
            port=chosen["synapse"],
            registration_files=(folder / "registration.yaml",),
            bot_user_id=f"@{config.appservice.bot_localpart}:{SERVER_NAME}",
        )
    )
    async with AsyncExitStack() as stack:
        set_up_logging("INFO", "text", stack.enter_context((folder / "service.log").open("a")))
        say(f"starting Synapse on {synapse.url}")
        stack.push_async_callback(synapse.stop)
        await synapse.start()
        receiver = Listener(
            "the stand-in for OpenMeet",
            stand_in.app(),
            Address(ports.LOOPBACK, chosen["stand-in"]),
            drain_seconds=1,
        )
        await receiver.start()
        stack.push_async_callback(receiver.stop)
        service = Service(config)
        stack.push_async_callback(service.stop)
        await service.start()
        say(f"the service answers Synapse on {config.appservice.url}, OpenMeet on {service.provisioning_url}")
        admin = Api(session, service.provisioning_url, config.provisioning.admin_key.get_secret_value())
        cast = story.Cast(
            admin=admin,
            tenant_key=_kept(folder / "tenant.key", lambda: new_key(Scope.TENANT)),
            webhook_url=f"{receiver.url}/webhooks",
            webhook_secret=secret,
            stand_in=stand_in,
            synapse_url=synapse.url,
            person=(PERSON, _kept(folder / "person.password", lambda: secrets.token_urlsafe(9))),
        )
        yield Stack(folder, config, synapse, service, stand_in, cast)


def choose_ports(say: Callable[[str], None]) -> dict[str, int]:
    """Return the fixed port of each part, or a free one where it is taken, saying so."""
    chosen = {}
    for name, fixed in {"synapse": SYNAPSE_PORT, "stand-in": STAND_IN_PORT, **OUR_PORTS}.items():
        chosen[name] = ports.choose(fixed)
        if chosen[name] != fixed:
            say(f"port {fixed} is taken: {name} uses {chosen[name]}")
    return chosen


def configure(folder: Path, chosen: Mapping[str, int]) -> Config:
    """Write the configuration for these ports, with the secrets that are there already; return it.

    It stands in the folder whole, so that every other command works beside: ``doctor -c .dev/config.yaml``.
    """
    url = {name: f"http://{ports.LOOPBACK}:{port}" for name, port in chosen.items()}
    path = folder / "config.yaml"
    if not path.exists():
        initialise(Answers(homeserver_url=url["synapse"], server_name=SERVER_NAME), folder)
    yaml = YAML()
    written = yaml.load(path)
    for section, key, value in (
        ("homeserver", "url", url["synapse"]),
        ("appservice", "url", url["appservice"]),
        *((section, "listen", f"{ports.LOOPBACK}:{chosen[section]}") for section in OUR_PORTS),
        ("webhooks", "allowed_networks", ["127.0.0.0/8"]),
        ("webhooks", "retry", list(RETRY)),
    ):
        written[section][key] = value
    text = io.StringIO()
    yaml.dump(written, text)
    write_private_files({path: text.getvalue()}, force=True)
    config = load_config(path, {})
    write_registration(config, folder / "registration.yaml", force=True)
    return config


def forget(folder: Path) -> None:
    """Delete everything that an earlier start left in *folder*.

    Raises
    ------
    UsageError
        The folder holds something that `dev` did not put there, or it cannot be deleted.
    """
    _refuse_strange(folder)
    try:
        shutil.rmtree(folder)
    except FileNotFoundError:
        return
    except OSError as error:
        raise UsageError(f"{folder} cannot be deleted: {error}") from error


def _made(folder: Path) -> Path:
    folder = folder.absolute()
    _refuse_strange(folder)
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def _refuse_strange(folder: Path) -> None:
    """Keep away from a folder that is not ours: it may hold somebody's home, or a service in production."""
    if folder.is_dir() and any(folder.iterdir()) and not (folder / MARK).exists():
        raise UsageError(f"{folder} holds something else: name an empty folder, or one that does not exist.")


def directions(stack: Stack) -> str:
    """Tell a newcomer what is running and what to try."""
    cast = stack.cast
    name, password = cast.person
    url = f"{cast.admin.url}/v1/tenants/{story.TENANT}/events/{story.EVENT}/messages"
    body = '{"sender": "' + story.HOST + '", "body": "Hello from curl"}'
    return f"""
Synapse            {stack.synapse.url}     login: {name} / {password}
provisioning API   {cast.admin.url}
tenant's key       {cast.tenant_key}
stand-in OpenMeet  {cast.webhook_url}

Send a message as {story.USERS[story.HOST]}, and see it arrive here:

  curl -X POST {url} \\
    -H {shlex.quote(f"Authorization: Bearer {cast.tenant_key}")} \\
    -H 'Content-Type: application/json' \\
    -d {shlex.quote(body)}

Every other command works beside it, for example:

  openmeet-appservice doctor -c {shlex.quote(str(stack.folder / "config.yaml"))}
"""


def _kept(path: Path, make: Callable[[], str]) -> str:
    """Return what the file holds, after making it where it is not there."""
    if not path.exists():
        write_private_files({path: make() + "\n"}, force=False)
    return path.read_text().strip()
