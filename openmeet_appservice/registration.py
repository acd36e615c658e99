"""The registration file: what Synapse must know of this service.

Matrix specification, "Application Service API", section "Registration". Beyond the specification Synapse
matches namespaces at their beginning only, so each pattern here names its end; and it takes a missing
`rate_limited` for true, which would slow down the bot and every puppet.
"""

from __future__ import annotations

import io
from typing import Any

from ruamel.yaml import YAML

from openmeet_appservice.config import Config, templates

_HEADER = """\
# The registration of openmeet-appservice, for Synapse. Written by `openmeet-appservice registration`.
#
# It holds secrets: Synapse's system user must be able to read it, and nobody else. Name it in
# homeserver.yaml under app_service_config_files and restart Synapse, which reads it at start only.
"""


def registration(config: Config) -> dict[str, Any]:
    """Return the registration that belongs to *config*.

    While tokens are being changed it holds the new ones: the service takes either, Synapse only those it
    was started with.
    """
    appservice, server = config.appservice, config.homeserver.server_name
    return {
        "id": appservice.id,
        "url": appservice.url,
        "as_token": appservice.as_tokens[-1],
        "hs_token": appservice.hs_tokens[-1],
        "sender_localpart": appservice.bot_localpart,
        "rate_limited": False,
        # The name of the specification, and the one that older releases of Synapse know.
        "receive_ephemeral": True,
        "de.sorunome.msc2409.push_ephemeral": True,
        "protocols": [],
        "namespaces": {
            "users": [
                _exclusive("@", templates.escaped(appservice.bot_localpart), server),
                _exclusive("@", templates.user_pattern(config.users.puppet_localpart), server),
            ],
            "aliases": [
                _exclusive("#", templates.alias_pattern(config.rooms.alias), server),
                _exclusive("#", templates.OWN_ALIAS_PATTERN, server),
            ],
            "rooms": [],
        },
    }


def registration_text(config: Config) -> str:
    """Return the registration of *config* as the text of its file."""
    yaml = YAML()
    yaml.default_flow_style = False
    yaml.width = 4096
    yaml.indent(mapping=2, sequence=4, offset=2)
    stream = io.StringIO()
    yaml.dump(registration(config), stream)
    return _HEADER + stream.getvalue()


def _exclusive(sigil: str, localpart: str, server: str) -> dict[str, Any]:
    return {"exclusive": True, "regex": f"{sigil}{localpart}:{templates.escaped(server)}$"}
