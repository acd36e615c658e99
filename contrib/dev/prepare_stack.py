"""Prepare the containers of docker-compose-dev.yml: every file with a secret that two of them share.

It writes into one folder our `config.yaml` with `registration.yaml`, and below `matrix/` the files of
Synapse. What is there already is kept, so that it can run before every start.
"""

from __future__ import annotations

import argparse
import secrets
import sys
from pathlib import Path

from ruamel.yaml import YAML

from openmeet_appservice.config import Config, load_config
from openmeet_appservice.dev.synapse_config import SynapseSettings, lay_out
from openmeet_appservice.files import write_private_files
from openmeet_appservice.installation import Answers, initialise
from openmeet_appservice.outbound.signing import new_secret


def main(arguments: list[str]) -> None:
    """Write what is missing, as *arguments* say."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--server-name", required=True)
    parser.add_argument("--homeserver-url", required=True, help="Synapse, as our service reaches it")
    parser.add_argument("--appservice-url", required=True, help="our service, as Synapse reaches it")
    parser.add_argument("--public-url", required=True, help="Synapse, as you reach it")
    parser.add_argument("--listen", default="0.0.0.0:8008", help="where Synapse listens")
    options = parser.parse_args(arguments)
    folder: Path = options.folder
    if not (folder / "config.yaml").exists():
        answers = Answers(options.homeserver_url, options.server_name, options.appservice_url)
        # A registration alone would be what an interrupted run left.
        initialise(answers, folder, force=True)
    host, _, port = options.listen.rpartition(":")
    prepare_synapse(load_config(folder / "config.yaml", {}), folder, host, int(port), options.public_url)
    _once(folder / "matrix" / "admin-password", secrets.token_urlsafe(24))
    _once(folder / "webhook-secret", new_secret())
    print(f"{folder} is ready.")


def prepare_synapse(config: Config, folder: Path, host: str, port: int, public_url: str) -> None:
    """Lay out Synapse in *folder*/matrix so that it listens on *host*:*port* and logs to its output."""
    matrix = folder / "matrix"
    server_name = config.homeserver.server_name
    listener = {
        "port": port,
        "bind_addresses": [host],
        "type": "http",
        "tls": False,
        "resources": [{"names": ["client"], "compress": False}],
    }
    lay_out(
        SynapseSettings(
            folder=matrix,
            server_name=server_name,
            port=port,
            registration_files=(folder / "registration.yaml",),
            bot_user_id=f"@{config.appservice.bot_localpart}:{server_name}",
            extra={
                "listeners": [listener],
                "public_baseurl": f"{public_url}/",
                "log_config": str((matrix / "output.yaml").absolute()),
            },
        )
    )
    with (matrix / "output.yaml").open("w", encoding="utf-8") as file:
        YAML(typ="safe").dump(_LOG_TO_OUTPUT, file)


def _once(path: Path, text: str) -> None:
    if not path.exists():
        write_private_files({path: text}, force=False)


_LOG_TO_OUTPUT = {
    "version": 1,
    "formatters": {"plain": {"format": "%(asctime)s %(levelname)s %(name)s [%(request)s] %(message)s"}},
    "handlers": {"output": {"class": "logging.StreamHandler", "formatter": "plain"}},
    "root": {"level": "WARNING", "handlers": ["output"]},
    "disable_existing_loggers": False,
}

if __name__ == "__main__":
    main(sys.argv[1:])
