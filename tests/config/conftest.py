from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from openmeet_appservice.config import Config, check_config

MINIMAL = f"""\
homeserver:
  url: http://localhost:8008
  server_name: example.org
appservice:
  as_token: {"a" * 40}
  hs_token: {"h" * 40}
provisioning:
  admin_key: omk_admin_{"k" * 40}
security:
  encryption_keys: ["{"A" * 43}="]
"""

Load = Callable[..., Config]
Faults = Callable[..., list[str]]


@pytest.fixture
def minimal() -> str:
    """A configuration of what must be given, and no more."""
    return MINIMAL


@pytest.fixture
def load(tmp_path: Path) -> Load:
    """Load MINIMAL (or another text), followed by some more text, and the given variables."""

    def load_text(more: str = "", environ: Mapping[str, str] | None = None, text: str = MINIMAL) -> Config:
        path = tmp_path / "config.yaml"
        path.write_text(text + more)
        return check_config(path, environ or {}).or_raise()

    return load_text


@pytest.fixture
def faults(tmp_path: Path) -> Faults:
    """The same, for the faults; each without the folder of the file."""

    def faults_of(
        more: str = "", environ: Mapping[str, str] | None = None, text: str | bytes = MINIMAL
    ) -> list[str]:
        path = tmp_path / "config.yaml"
        path.write_bytes(text if isinstance(text, bytes) else (text + more).encode())
        checked = check_config(path, environ or {})
        assert (checked.config is None) == bool(checked.faults)
        return [str(fault).replace(f"{tmp_path}/", "") for fault in checked.faults]

    return faults_of
