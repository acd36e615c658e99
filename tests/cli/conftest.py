"""The command line in this process, in a folder of its own."""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from openmeet_appservice import cli
from openmeet_appservice.dev import ports


@dataclass(frozen=True)
class Ran:
    """What a command did."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        """What it printed with ``--json``."""
        return json.loads(self.out)


@dataclass(frozen=True)
class Cli:
    """Runs commands in *folder*."""

    folder: Path
    capsys: pytest.CaptureFixture[str]

    def __call__(self, *arguments: str) -> Ran:
        """Run one command; whatever happens, nobody sees a traceback."""
        try:
            code = cli.main(arguments)
        except SystemExit as ended:
            code = int(ended.code or 0)
        captured = self.capsys.readouterr()
        assert "Traceback" not in captured.out + captured.err
        return Ran(code, captured.out, captured.err)

    def add_to_config(self, text: str) -> None:
        """Put lines at the end of the configuration."""
        path = self.folder / "config.yaml"
        path.write_text(path.read_text() + text)


@pytest.fixture(autouse=True)
def logging_as_before() -> Iterator[None]:
    """`run` sets logging up for its process, with a stream that ends with the test."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    root.handlers[:], root.level = handlers, level


@pytest.fixture
def cli_in(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Cli:
    """The command line in an empty folder, with nothing in the environment."""
    for name in os.environ:
        if name.startswith("OPENMEET_AS_"):
            monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)
    return Cli(tmp_path, capsys)


@pytest.fixture
def installed(cli_in: Cli, monkeypatch: pytest.MonkeyPatch) -> Cli:
    """The same after `init`, with a homeserver that nobody answers for."""
    nobody = f"http://127.0.0.1:{ports.any_free_port()}"
    assert cli_in("init", "--homeserver", nobody, "--server-name", "example.org").code == 0
    monkeypatch.setenv("OPENMEET_AS_OPS__LISTEN", f"127.0.0.1:{ports.any_free_port()}")
    return cli_in


@pytest.fixture
def migrated(installed: Cli) -> Cli:
    """The same with a database."""
    assert installed("migrate").code == 0
    return installed
