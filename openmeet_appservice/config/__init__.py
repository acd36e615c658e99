"""What an admin may write in `config.yaml`: read once, at start, and never changed after.

`values.py` and `templates.py` hold the rules for single values, `model.py` the sections and keys with
their defaults, `source.py` the file and the environment; `check.py` brings them together.
`config_template.yaml` tells admins what each key is for.
"""

from __future__ import annotations

from openmeet_appservice.config.check import (
    Checked,
    check_config,
    config_from_text,
    known_keys,
    load_config,
    redacted,
)
from openmeet_appservice.config.model import (
    AppserviceConfig,
    Config,
    DatabaseConfig,
    HomeserverConfig,
    LoggingConfig,
    LookupConfig,
    OpsConfig,
    PowerLevels,
    ProvisioningConfig,
    RepairConfig,
    RoomsConfig,
    SecurityConfig,
    UsersConfig,
    WebhooksConfig,
)
from openmeet_appservice.config.source import Fault
from openmeet_appservice.domain.durations import duration_text

__all__ = [
    "AppserviceConfig",
    "Checked",
    "Config",
    "DatabaseConfig",
    "Fault",
    "HomeserverConfig",
    "LoggingConfig",
    "LookupConfig",
    "OpsConfig",
    "PowerLevels",
    "ProvisioningConfig",
    "RepairConfig",
    "RoomsConfig",
    "SecurityConfig",
    "UsersConfig",
    "WebhooksConfig",
    "check_config",
    "config_from_text",
    "duration_text",
    "known_keys",
    "load_config",
    "redacted",
]
