"""The Dockerfile: its rules, and each of its steps, run here with the image's folders in a temporary one."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PROGRAM = "/opt/openmeet-appservice"

Step = tuple[str, str]
"""An instruction and its value."""


INSTRUCTIONS = {
    *("FROM", "ARG", "LABEL", "ENV", "WORKDIR", "COPY", "RUN", "VOLUME", "EXPOSE", "USER", "STOPSIGNAL"),
    *("HEALTHCHECK", "ENTRYPOINT", "CMD"),
}


def stages() -> list[list[Step]]:
    """The instructions of each stage, by the rules of Docker's Dockerfile reference.

    Lines that begin with `#` are comments; a backslash at the end of a line continues it.
    """
    text = (ROOT / "Dockerfile").read_text("utf-8")
    text = re.sub(r"(?m)^\s*#.*\n", "", text)
    text = re.sub(r"\\[ \t]*\n", " ", text)
    found: list[list[Step]] = []
    for line in filter(str.strip, text.splitlines()):
        instruction, _, value = line.strip().partition(" ")
        assert instruction in INSTRUCTIONS, line
        assert value.strip(), line
        if instruction == "FROM":
            found.append([])
        found[-1].append((instruction, value.strip()))
    return found


BUILD, FINAL = stages()


def value(instruction: str) -> str:
    (found,) = [value for name, value in FINAL if name == instruction]
    return found


def environment() -> dict[str, str]:
    return dict(pair.split("=", 1) for pair in value("ENV").split())


def test_both_stages_begin_with_the_same_slim_image() -> None:
    first, last = BUILD[0][1], FINAL[0][1]
    assert first == f"{last} AS build"
    assert re.fullmatch(r"python:3\.\d+-slim-\w+", last)


def test_it_runs_as_nobody_in_particular_and_stops_when_asked() -> None:
    assert value("USER") == "10001"
    assert value("STOPSIGNAL") == "SIGTERM"
    assert json.loads(value("VOLUME")) == ["/data"]
    assert value("WORKDIR") == "/data"
    # Only the exec form lets signals reach the program.
    assert json.loads(value("ENTRYPOINT")) == ["openmeet-appservice"]
    assert json.loads(value("CMD")) == ["run", "-c", "/data/config.yaml"]
    check = value("HEALTHCHECK").partition("CMD")[2]
    assert json.loads(check) == ["openmeet-appservice", "healthcheck", "-c", "/data/config.yaml"]


def test_every_listener_is_reachable_from_outside() -> None:
    listeners = {key: text for key, text in environment().items() if key.endswith("__LISTEN")}
    assert listeners == {
        "OPENMEET_AS_APPSERVICE__LISTEN": "0.0.0.0:29350",
        "OPENMEET_AS_PROVISIONING__LISTEN": "0.0.0.0:29351",
        "OPENMEET_AS_OPS__LISTEN": "0.0.0.0:29352",
    }
    assert sorted(value("EXPOSE").split()) == ["29350", "29351", "29352"]


def test_what_is_copied_is_there_and_nothing_else_gets_into_the_image() -> None:
    copied = {source.strip("/") for name, text in BUILD if name == "COPY" for source in text.split()[:-1]}
    allowed = {line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")}
    assert copied == allowed
    assert (ROOT / ".dockerignore").read_text().splitlines()[1] == "*"
    for source in copied:
        assert (ROOT / source).exists(), source


def run(command: str | list[str], folder: Path, environ: dict[str, str]) -> str:
    done = subprocess.run(
        command,
        shell=isinstance(command, str),
        cwd=folder,
        env=environ,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
    return done.stdout


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which all steps of both stages have been run."""
    image = tmp_path_factory.mktemp("image")

    def inside(text: str) -> str:
        return re.sub(r"(?<![\w.])/(opt|src|data)\b", rf"{image}/\1", text)

    folder = image
    environ = {key: text for key, text in os.environ.items() if key not in ("VIRTUAL_ENV", "PYTHONPATH")}
    environ["PATH"] = f"{Path(sys.executable).parent}:{environ['PATH']}"
    for instruction, text in BUILD + FINAL:
        if instruction == "WORKDIR":
            folder = Path(inside(text))
            folder.mkdir(exist_ok=True)
        elif instruction == "RUN":
            # Only root may give a folder to group 0.
            group = text if os.geteuid() == 0 else text.replace("chgrp 0", f"chgrp {os.getegid()}")
            run(inside(group), folder, environ)
        elif instruction == "COPY" and not text.startswith("--from"):
            *sources, target = text.split()
            for source in sources:
                run(["cp", "-r", str(ROOT / source), str(folder / target)], folder, environ)
    return image


def in_container(image: Path) -> dict[str, str]:
    """The environment of the image, with its folders under *image*."""
    given = {key: text.replace(PROGRAM, f"{image}{PROGRAM}") for key, text in environment().items()}
    return given | {"PATH": given["PATH"].replace("$PATH", os.environ["PATH"])}


def test_the_steps_make_a_program_that_runs(image: Path) -> None:
    told = run([*json.loads(value("ENTRYPOINT")), "--help"], image / "data", in_container(image))
    assert "healthcheck" in told
    where = run(
        ["python", "-c", "import openmeet_appservice as o; print(o.__file__)"],
        image / "data",
        in_container(image),
    )
    assert where.startswith(f"{image}{PROGRAM}")


def test_what_is_installed_is_enough_for_every_module(image: Path) -> None:
    script = (
        "import importlib, pkgutil, openmeet_appservice as o\n"
        "for m in pkgutil.walk_packages(o.__path__, 'openmeet_appservice.'):\n"
        "    if not m.name.endswith(('__main__', '.env')): importlib.import_module(m.name)"
    )
    run(["python", "-c", script], image / "data", in_container(image))


def test_nothing_that_builds_stays_behind(image: Path) -> None:
    names = {path.name for path in (image / "opt").rglob("site-packages/*")}
    assert "openmeet_appservice" in names
    assert not names & {"pip", "setuptools", "pytest", "synapse"}


def test_data_belongs_to_group_0_which_any_user_id_is_in(image: Path) -> None:
    found = (image / "data").stat()
    assert found.st_mode & 0o777 == 0o770
    assert found.st_gid == (0 if os.geteuid() == 0 else os.getegid())


def test_the_configuration_in_the_volume_is_found_and_listens_everywhere(image: Path) -> None:
    environ = in_container(image)
    arguments = ["--homeserver", "http://matrix:8008", "--server-name", "example.org"]
    run(["openmeet-appservice", "init", "--output-dir", ".", *arguments], image / "data", environ)
    told = run(
        ["openmeet-appservice", "config", "show", "-c", "config.yaml", "--json"], image / "data", environ
    )
    shown = json.loads(told)
    assert shown["provisioning"]["listen"] == "0.0.0.0:29351"
