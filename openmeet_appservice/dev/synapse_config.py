"""The files of a throw-away Synapse: what it may do, its keys, its log.

Everything is written anew at each start except what must last: the signing key, the secrets and the
database. So a changed setting takes effect and nobody's login is lost.
"""

from __future__ import annotations

import base64
import io
import json
import os
import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML

from openmeet_appservice.dev.ports import LOOPBACK

JsonObject = dict[str, Any]

_NO_LIMIT = {"per_second": 100_000, "burst_count": 100_000}
# The limiters of Synapse's `ratelimiting` section. A flat entry holds its numbers itself, the others
# one pair for each name.
_FLAT_LIMITERS = (
    "rc_message",
    "rc_registration",
    "rc_registration_token_validity",
    "rc_admin_redaction",
    "rc_joins_per_room",
    "rc_room_creation",
    "rc_profile",
    "rc_user_directory",
    "rc_media_create",
    "rc_reports",
    "rc_delayed_event_mgmt",
    "rc_3pid_validation",
    "rc_third_party_invite",
    "rc_key_requests",
)
_NESTED_LIMITERS = {
    "rc_login": ("address", "account", "failed_attempts"),
    "rc_joins": ("local", "remote"),
    "rc_invites": ("per_room", "per_user", "per_issuer"),
    "rc_presence": ("per_user",),
}
_SECRETS = ("registration_shared_secret", "macaroon_secret_key", "form_secret")
_LOG_FILE_BYTES = 16 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class SynapseSettings:
    """What a throw-away Synapse is to be.

    Parameters
    ----------
    folder
        Where all its files live; made if it is not there.
    server_name
        The part after the colon in its users' ids. It cannot change once the folder has a database.
    port
        The TCP port on the loopback address.
    registration_files
        The application services it knows; read at its start only.
    bot_user_id
        Who may publish rooms in the directory. Without a rule Synapse lets nobody.
    database
        Synapse's ``database`` section; SQLite in the folder when None.
    log_level
        From which level on its log is written.
    extra
        Top-level keys of ``homeserver.yaml`` that replace ours.
    """

    folder: Path
    server_name: str
    port: int
    registration_files: tuple[Path, ...] = ()
    bot_user_id: str | None = None
    database: Mapping[str, object] | None = None
    log_level: str = "WARNING"
    extra: Mapping[str, object] = field(default_factory=dict)

    @property
    def config_file(self) -> Path:
        """Synapse's ``homeserver.yaml``."""
        return self.folder.absolute() / "homeserver.yaml"

    @property
    def log_file(self) -> Path:
        """What Synapse logs once it has read its configuration."""
        return self.folder.absolute() / "homeserver.log"

    @property
    def output_file(self) -> Path:
        """What Synapse prints, such as the faults of its configuration."""
        return self.folder.absolute() / "output.log"

    @property
    def url(self) -> str:
        """Where the client-server API is."""
        return f"http://{LOOPBACK}:{self.port}"


def lay_out(settings: SynapseSettings) -> str:
    """Write every file that Synapse needs to start and return its shared secret for registration.

    What must last is made only when it is missing.
    """
    settings.folder.mkdir(parents=True, exist_ok=True)
    settings.folder.chmod(0o700)
    kept = _lasting_secrets(settings.folder / "secrets.json")
    _signing_key(settings.folder / "signing.key")
    _write_yaml(settings.folder / "log.yaml", _log_config(settings))
    _write_yaml(settings.config_file, homeserver_config(settings, kept))
    return kept["registration_shared_secret"]


def homeserver_config(settings: SynapseSettings, kept: Mapping[str, str]) -> JsonObject:
    """Return the content of ``homeserver.yaml``; *kept* holds the secrets that last.

    The keys are those of Synapse's configuration manual.
    """
    folder = settings.folder.absolute()
    config: JsonObject = {
        "server_name": settings.server_name,
        "public_baseurl": settings.url + "/",
        "pid_file": str(folder / "homeserver.pid"),
        "signing_key_path": str(folder / "signing.key"),
        "log_config": str(folder / "log.yaml"),
        "media_store_path": str(folder / "media"),
        "listeners": [_client_listener(settings.port)],
        "database": _database(settings),
        "app_service_config_files": [str(file.absolute()) for file in settings.registration_files],
        "bcrypt_rounds": 4,
        "enable_registration": True,
        "enable_registration_without_verification": True,
        "presence": {"enabled": False},
        "room_list_publication_rules": _publication_rules(settings.bot_user_id),
    }
    return config | _alone() | _no_limits() | dict(kept) | dict(settings.extra)


def _client_listener(port: int) -> JsonObject:
    return {
        "port": port,
        "bind_addresses": [LOOPBACK],
        "type": "http",
        "tls": False,
        "resources": [{"names": ["client"], "compress": False}],
    }


def _database(settings: SynapseSettings) -> JsonObject:
    if settings.database is not None:
        return dict(settings.database)
    file = settings.folder.absolute() / "homeserver.db"
    return {"name": "sqlite3", "args": {"database": str(file)}}


def _publication_rules(bot_user_id: str | None) -> list[JsonObject]:
    return [{"user_id": bot_user_id, "action": "allow"}] if bot_user_id else []


def _alone() -> JsonObject:
    """Return what keeps Synapse from calling anybody but its application services."""
    return {
        "federation_domain_whitelist": [],
        "trusted_key_servers": [],
        "suppress_key_server_warning": True,
        "report_stats": False,
        "url_preview_enabled": False,
    }


def _no_limits() -> JsonObject:
    flat = {name: dict(_NO_LIMIT) for name in _FLAT_LIMITERS}
    nested = {name: {part: dict(_NO_LIMIT) for part in parts} for name, parts in _NESTED_LIMITERS.items()}
    return flat | nested


def _log_config(settings: SynapseSettings) -> JsonObject:
    handler = {
        "class": "logging.handlers.RotatingFileHandler",
        "formatter": "plain",
        "filename": str(settings.log_file),
        "maxBytes": _LOG_FILE_BYTES,
        "backupCount": 1,
        "encoding": "utf-8",
    }
    return {
        "version": 1,
        "formatters": {"plain": {"format": "%(asctime)s %(levelname)s %(name)s [%(request)s] %(message)s"}},
        "handlers": {"file": handler},
        "root": {"level": settings.log_level, "handlers": ["file"]},
        "disable_existing_loggers": False,
    }


def _lasting_secrets(file: Path) -> dict[str, str]:
    if not file.exists():
        made = {name: secrets.token_urlsafe(32) for name in _SECRETS}
        _write_private(file, json.dumps(made))
    kept: dict[str, str] = json.loads(file.read_text(encoding="utf-8"))
    return kept


def _signing_key(file: Path) -> None:
    """Make an Ed25519 seed in the one-line form that Synapse's key files have."""
    if not file.exists():
        seed = base64.b64encode(secrets.token_bytes(32)).decode().rstrip("=")
        _write_private(file, f"ed25519 a_{secrets.token_hex(2)} {seed}\n")


def _write_yaml(file: Path, content: JsonObject) -> None:
    yaml = YAML(typ="safe")
    # Synapse reads YAML 1.1, where words such as `on` are not text unless they are quoted.
    yaml.version = (1, 1)
    yaml.default_flow_style = False
    text = io.StringIO()
    yaml.dump(content, text)
    _write_private(file, text.getvalue())


def _write_private(file: Path, text: str) -> None:
    """Write *text* so that a kill in between leaves no half of it under the name *file*."""
    partial = file.with_suffix(".partial")
    with os.fdopen(os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as stream:
        stream.write(text)
    partial.replace(file)
