"""Files: who may read them, and whether the registration is the one of this configuration."""

from __future__ import annotations

import shlex
import stat
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from openmeet_appservice.config import Config
from openmeet_appservice.ops.doctor.finding import Finding, info, ok, warning
from openmeet_appservice.registration import registration

REGISTRATION_NAME = "registration.yaml"

_MISSING = object()


def check_files(config: Config, config_path: Path) -> list[Finding]:
    """Look at the configuration file and at the registration beside it, where there is one."""
    beside = config_path.parent / REGISTRATION_NAME
    findings = check_mode("config file", config_path)
    if not beside.exists():
        what = f"there is no {REGISTRATION_NAME} beside the configuration to compare with it"
        return [*findings, info("registration", what)]
    return [
        *findings,
        *check_mode("registration file", beside),
        _check_registration(config, config_path, beside),
    ]


def check_mode(name: str, path: Path) -> list[Finding]:
    """Tell whether anybody but its owner may open the file; nothing where there is no such file."""
    try:
        mode = stat.S_IMODE(path.stat().st_mode)
    except FileNotFoundError:
        return []
    others = mode & (stat.S_IRWXG | stat.S_IRWXO)
    if not others:
        return [ok(name, f"{path} is for its owner only")]
    who = "everybody" if others & stat.S_IRWXO else "its group"
    remedy = f"`chmod 0600 {shlex.quote(str(path))}`"
    return [warning(name, f"{path} has mode {mode:04o}, so {who} can open it", remedy)]


def _check_registration(config: Config, config_path: Path, path: Path) -> Finding:
    name = "registration"
    again = (
        "Write it again with `openmeet-appservice registration --force "
        f"-c {shlex.quote(str(config_path))}`, put it where Synapse reads it, and restart Synapse."
    )
    try:
        content = YAML(typ="safe").load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, YAMLError) as error:
        # The parser's own words quote the file, which holds tokens.
        return warning(name, f"{path} cannot be read ({type(error).__name__})", again)
    if not isinstance(content, Mapping):
        return warning(name, f"{path} is no registration", again)
    wrong = sorted(_differences(config, content))
    if wrong:
        return warning(name, f"{path} differs from the configuration in {', '.join(wrong)}", again)
    return ok(name, f"{path} is the one of this configuration")


def _differences(config: Config, content: Mapping[str, Any]) -> Iterator[str]:
    """Name the keys that are not as the configuration has them; keys that we never write do not matter."""
    wanted = registration(config)
    namespaces = wanted.pop("namespaces")
    # While a token is being changed, Synapse may hold either.
    for key, either in (("as_token", config.appservice.as_tokens), ("hs_token", config.appservice.hs_tokens)):
        del wanted[key]
        if content.get(key) not in either:
            yield key
    for key, value in wanted.items():
        if content.get(key, _MISSING) != value:
            yield key
    theirs = content.get("namespaces")
    for key, value in namespaces.items():
        found = theirs.get(key) if isinstance(theirs, Mapping) else None
        if (found or []) != value:
            yield f"namespaces.{key}"
