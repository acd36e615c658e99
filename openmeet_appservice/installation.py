"""Setting up: `init` writes a configuration and its registration, `registration` the latter again.

The examples at the top of the repository come from here too, so that they cannot say anything else than what
the program writes.
"""

from __future__ import annotations

import json
import re
import secrets
import shlex
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path

from cryptography.fernet import Fernet

from openmeet_appservice.config import Config, config_from_text
from openmeet_appservice.config.values import PLACEHOLDER, parse_address
from openmeet_appservice.errors import UsageError
from openmeet_appservice.files import write_private_files
from openmeet_appservice.registration import registration_text

DEFAULT_LISTEN = "127.0.0.1:29350"
_MARK = re.compile(r"\{\{([a-z_]+\.[a-z_]+)\}\}")


@dataclass(frozen=True, slots=True)
class Secrets:
    """The secrets of one installation."""

    as_token: str
    hs_token: str
    admin_key: str
    encryption_key: str


def fresh_secrets() -> Secrets:
    """Return new secrets, from the operating system's random source."""
    return Secrets(
        as_token=secrets.token_hex(32),
        hs_token=secrets.token_hex(32),
        admin_key=f"omk_admin_{secrets.token_urlsafe(32)}",
        encryption_key=Fernet.generate_key().decode(),
    )


@dataclass(frozen=True, slots=True)
class Answers:
    """What `init` must be told.

    Parameters
    ----------
    homeserver_url
        Synapse as this service reaches it.
    server_name
        Synapse's `server_name`.
    appservice_url
        This service as Synapse reaches it; by default `localhost` with the port of *listen*.
    listen
        Where to listen for Synapse, `host:port`.
    """

    homeserver_url: str
    server_name: str
    appservice_url: str | None = None
    listen: str = DEFAULT_LISTEN


def initialise(
    answers: Answers,
    output_dir: Path,
    *,
    force: bool = False,
    make_secrets: Callable[[], Secrets] = fresh_secrets,
) -> str:
    """Write `config.yaml` and `registration.yaml` into *output_dir*, and return what to do next.

    Raises
    ------
    UsageError
        An answer is not usable (nothing else can be wrong in the file), or a file exists and *force* is not
        given. Nothing was written.
    """
    text = config_text(answers, make_secrets())
    checked = config_from_text(text, folder=output_dir)
    if checked.config is None:
        raise UsageError("\n".join(f"{fault.key}: {fault.message}" for fault in checked.faults))
    config_path, registration_path = output_dir / "config.yaml", output_dir / "registration.yaml"
    write_private_files(
        {config_path: text, registration_path: registration_text(checked.config)}, force=force
    )
    return next_steps(config_path, registration_path)


def write_registration(config: Config, path: Path, *, force: bool = False) -> str:
    """Write the registration of *config* to *path*, and return what to do with it.

    Raises
    ------
    UsageError
        The file exists and *force* is not given, or it cannot be written.
    """
    write_private_files({path: registration_text(config)}, force=force)
    return f"Wrote {path}.\n\n{_for_synapse(path)}"


def config_text(answers: Answers, made: Secrets) -> str:
    """Return the commented configuration with *answers* and the secrets filled in."""
    url = answers.appservice_url or f"http://localhost:{_port(answers.listen)}"
    return _fill(
        {
            "homeserver.url": answers.homeserver_url,
            "homeserver.server_name": answers.server_name,
            "appservice.as_token": made.as_token,
            "appservice.hs_token": made.hs_token,
            "appservice.listen": answers.listen,
            "appservice.url": url,
            "provisioning.admin_key": made.admin_key,
            "security.encryption_keys": made.encryption_key,
        }
    )


def example_config() -> str:
    """Return `config.example.yaml`: the template with placeholders that are never accepted as secrets."""
    return _EXAMPLE_NOTE + config_text(_EXAMPLE, _PLACEHOLDERS)


def example_registration() -> str:
    """Return `registration.yaml.example`, which belongs to the example configuration."""
    config = config_from_text(config_text(_EXAMPLE, _UNFIT)).or_raise()
    text = registration_text(config)
    for unfit, placeholder in zip(_tokens(_UNFIT), _tokens(_PLACEHOLDERS), strict=True):
        text = text.replace(unfit, placeholder)
    return _EXAMPLE_NOTE + text


def next_steps(config_path: Path, registration_path: Path) -> str:
    """Tell an admin what is left to do after `init`."""
    config = shlex.quote(str(config_path))
    return f"""\
Wrote {config_path} and {registration_path}, both readable by you only. What is left to do:

{_for_synapse(registration_path)}
4. Start this service, and see whether everything fits together:

     openmeet-appservice run -c {config}
     openmeet-appservice doctor -c {config}

Keep a copy of {config_path}: without its encryption key the secrets in the database are lost.
"""


def _for_synapse(path: Path) -> str:
    return f"""\
1. Give the registration to Synapse's system user (matrix-synapse on Debian), as root:

     install -o matrix-synapse -m 0640 {shlex.quote(str(path))} /etc/matrix-synapse/openmeet.yaml

2. Name it in Synapse's homeserver.yaml:

     app_service_config_files:
       - /etc/matrix-synapse/openmeet.yaml

3. Restart Synapse, which reads it at start only.
"""


_EXAMPLE_NOTE = "# An example: `openmeet-appservice init` writes yours, with secrets of its own.\n#\n"
_EXAMPLE = Answers(homeserver_url="http://localhost:8008", server_name="example.org")
_PLACEHOLDERS = Secrets(
    as_token=f"{PLACEHOLDER}-as-token",
    hs_token=f"{PLACEHOLDER}-hs-token",
    admin_key=f"{PLACEHOLDER}-admin-key",
    encryption_key=f"{PLACEHOLDER}-encryption-key",
)
# Stand for the placeholders where only a valid configuration will do.
_UNFIT = Secrets(
    as_token="a" * 32, hs_token="h" * 32, admin_key="omk_admin_" + "k" * 32, encryption_key="A" * 43 + "="
)


def _tokens(made: Secrets) -> tuple[str, str]:
    return made.as_token, made.hs_token


def _port(listen: str) -> int:
    try:
        return parse_address(listen).port
    except ValueError as error:
        raise UsageError(f"--listen {error}") from None


def _fill(values: Mapping[str, str]) -> str:
    template = files("openmeet_appservice.config").joinpath("config_template.yaml").read_text("utf-8")
    # A JSON string is a YAML string, whatever it holds.
    return _MARK.sub(lambda mark: json.dumps(values[mark[1]], ensure_ascii=False), template)
