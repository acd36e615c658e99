"""``init``, ``registration`` and ``config``: the files an admin needs before anything runs."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML

from openmeet_appservice.cli.output import (
    DONE,
    WRONG_USAGE,
    add_command,
    add_group,
    configuration,
    print_json,
)
from openmeet_appservice.config import check_config, redacted
from openmeet_appservice.installation import DEFAULT_LISTEN, Answers, initialise, write_registration


def add_commands(commands: Any) -> None:
    """Add these commands to the parser."""
    init = add_command(
        commands, "init", run_init, "write config.yaml and registration.yaml with fresh secrets", config=False
    )
    init.add_argument(
        "--homeserver", required=True, metavar="URL", help="Synapse, as this service reaches it"
    )
    init.add_argument("--server-name", required=True, metavar="NAME", help="Synapse's server_name")
    init.add_argument(
        "--appservice-url",
        metavar="URL",
        help="this service, as Synapse reaches it (default: localhost and the port of --listen)",
    )
    init.add_argument(
        "--listen",
        default=DEFAULT_LISTEN,
        metavar="HOST:PORT",
        help="where to listen for Synapse (default: %(default)s)",
    )
    init.add_argument("--output-dir", type=Path, default=Path(), metavar="DIR", help="default: this folder")
    init.add_argument("--force", action="store_true", help="overwrite files that exist")

    again = add_command(
        commands, "registration", run_registration, "write the registration again from the configuration"
    )
    again.add_argument(
        "--output",
        type=Path,
        metavar="FILE",
        help="default: registration.yaml beside the configuration",
    )
    again.add_argument("--force", action="store_true", help="overwrite the file if it exists")

    config = add_group(commands, "config", "check or show the configuration")
    add_command(
        config, "check", run_check, "name file, line and key of each fault in the configuration", json=True
    )
    add_command(config, "show", run_show, "print the effective settings, secrets redacted", json=True)


def run_init(asked: argparse.Namespace) -> int:
    """Carry out ``init``."""
    answers = Answers(
        homeserver_url=asked.homeserver,
        server_name=asked.server_name,
        appservice_url=asked.appservice_url,
        listen=asked.listen,
    )
    print(initialise(answers, asked.output_dir, force=asked.force))
    return DONE


def run_registration(asked: argparse.Namespace) -> int:
    """Carry out ``registration``."""
    output = asked.output or asked.config.parent / "registration.yaml"
    print(write_registration(configuration(asked), output, force=asked.force))
    return DONE


def run_check(asked: argparse.Namespace) -> int:
    """Carry out ``config check``."""
    checked = check_config(asked.config, os.environ)
    if asked.json:
        print_json({"faults": [{"key": fault.key, "message": str(fault)} for fault in checked.faults]})
    elif checked.faults:
        print("\n".join(str(fault) for fault in checked.faults))
    else:
        print(f"{asked.config}: no faults")
    return WRONG_USAGE if checked.faults else DONE


def run_show(asked: argparse.Namespace) -> int:
    """Carry out ``config show``."""
    shown = redacted(configuration(asked))
    if asked.json:
        print_json(shown)
        return DONE
    yaml = YAML()
    yaml.default_flow_style = False
    yaml.dump(shown, sys.stdout)
    return DONE
