"""What `make` does on a machine whose Python is missing, too old or without venv: it says what to install."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "contrib" / "dev" / "find-python"


def find(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run the script with nothing but what *folder* holds on the PATH."""
    return subprocess.run(
        ["/bin/sh", str(SCRIPT), *arguments],
        env={"PATH": str(folder)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def python(folder: Path, name: str, before: str = "") -> None:
    """Put a command *name* into *folder* that is this Python, with the statement *before* run first."""
    start = f"exec {sys.executable} -c '{before}\nimport sys; exec(sys.argv[1])' \"$2\""
    (folder / name).write_text(f"#!/bin/sh\n{start}\n")
    (folder / name).chmod(0o755)


OLD = 'import sys, platform; sys.version_info = (3, 9, 2); platform.python_version = lambda: "3.9.2"'
BARE = 'import sys; sys.modules["ensurepip"] = None'


def test_the_usual_command_comes_first(tmp_path: Path) -> None:
    for name in ("python3", "python3.13"):
        python(tmp_path, name)
    assert find(tmp_path).stdout == "python3\n"


@pytest.mark.parametrize("fault", [OLD, BARE, "raise SystemExit(127)"])
def test_one_that_does_not_do_is_passed_over(tmp_path: Path, fault: str) -> None:
    python(tmp_path, "python3", fault)
    python(tmp_path, "python3.11")
    assert find(tmp_path).stdout == "python3.11\n"


@pytest.mark.parametrize(
    ("fault", "told"),
    [
        (OLD, ["Python 3.11 or newer is needed, python3 is 3.9.2", "apt install python3 python3-venv"]),
        (BARE, ["its module venv is not", f"apt install python3.{sys.version_info[1]}-venv"]),
        (
            "raise SystemExit(127)",
            ["Python 3.11 or newer is needed, and python3 was not found", "apt install"],
        ),
    ],
)
def test_what_is_missing_is_named_with_what_installs_it(tmp_path: Path, fault: str, told: list[str]) -> None:
    python(tmp_path, "python3", fault)
    done = find(tmp_path)
    assert done.returncode == 1
    assert done.stdout == ""
    for text in told:
        assert text in done.stderr


def test_a_named_one_is_the_only_one_looked_at(tmp_path: Path) -> None:
    python(tmp_path, "python3")
    python(tmp_path, "mine", OLD)
    assert find(tmp_path, "python3").stdout == "python3\n"
    done = find(tmp_path, "mine")
    assert done.returncode == 1
    assert "mine is 3.9.2" in done.stderr
