"""The story of `dev`, on a real Synapse: it is seen to the end, and a broken step is named."""

from __future__ import annotations

import asyncio
import os
import re
import secrets
import shlex
import signal
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from aiohttp import ClientSession

from openmeet_appservice.dev import ports, stack, story
from openmeet_appservice.dev.stack import MARK, Wrong
from openmeet_appservice.errors import UsageError
from openmeet_appservice.outbound.signing import new_secret

STEPS = (
    r"tenant demo is there, with an API key of its own",
    r"its webhooks go to http://127\.0\.0\.1:\d+/webhooks",
    r"user ada-x8z1q0 is @openmeet_demo_ada-x8z1q0:dev\.localhost, shown as Ada Lovelace",
    r"user grace-9ab2cd is .*",
    r"user alan-f00ba4 is .*",
    r"group chess-club has room !\S+ \(version 12\): #group-chess-club-demo:dev\.localhost",
    r"event board-games-k3v9ab has room !\S+ \(version 12\): #event-board-games-k3v9ab-demo:dev\.localhost",
    r"Ada Lovelace spoke through the API: \$\S+",
    r"@wanda:dev\.localhost, an ordinary account, looked up #event-\S+ and joined",
    r"Synapse shows 'Board games on Friday' with Ada Lovelace, Alan Turing, Grace Hopper; .*",
    r"@wanda:dev\.localhost answered: \$\S+",
    r"OpenMeet received \$\S+ as number \d+ of its room, signature verified",
    r"OpenMeet received \$\S+ as number \d+ of its room, signature verified",
    r"The whole story was seen\.",
)
"""Every step, in this order; between them the stand-in tells of each event."""


async def run_dev(folder: Path, *arguments: str) -> asyncio.subprocess.Process:
    """Start ``dev`` as a person would, in a folder of its own."""
    return await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "openmeet_appservice",
        "dev",
        "--folder",
        str(folder),
        *arguments,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )


async def output_of(process: asyncio.subprocess.Process) -> str:
    """Wait for the end and return everything that was printed."""
    async with asyncio.timeout(120):
        printed, _ = await process.communicate()
    return printed.decode()


def assert_all_steps(printed: str) -> None:
    lines = iter(printed.splitlines())
    for step in STEPS:
        assert any(re.fullmatch(step, line) for line in lines), f"not seen: {step}\n\n{printed}"


async def test_the_whole_story_twice_then_with_faults_then_the_curl(tmp_path: Path) -> None:
    """One folder for all, since a first start makes a homeserver and takes longest."""
    folder = tmp_path / "dev"
    first = await run_dev(folder, "--once")
    printed = await output_of(first)
    assert first.returncode == 0, printed
    assert_all_steps(printed)

    again = await run_dev(folder, "--once")
    printed = await output_of(again)
    assert again.returncode == 0, printed
    assert_all_steps(printed)

    for wrong, why in (
        (Wrong(secret=new_secret()), "the signature is not made with this secret"),
        (Wrong(status=500), "answered 500 on purpose"),
    ):
        with pytest.raises(story.StepFailed, match=f"did not reach OpenMeet.*{why}"):
            await _play(folder, wrong)

    await _follow_the_directions(folder)
    for file in folder.iterdir():
        if file.suffix in {".key", ".secret", ".password", ".yaml", ".db"}:
            assert file.stat().st_mode & 0o077 == 0, f"{file.name} is not for its owner only"


async def _play(folder: Path, wrong: Wrong) -> None:
    async with ClientSession() as session, stack.running(folder, session, _quiet, wrong) as running:
        # Long enough for what works; what is tried here never comes.
        cast = replace(running.cast, wait=4)
        await story.play(cast, session, secrets.token_hex(4), _quiet)


async def _follow_the_directions(folder: Path) -> None:
    async with ClientSession() as session, stack.running(folder, session, _quiet) as running:
        method, url, headers, body = parse_curl(stack.directions(running))
        async with session.request(method, url, headers=headers, data=body) as response:
            assert response.status == 201, await response.text()
            event_id = (await response.json())["event_id"]
        event = await running.stand_in.wait_for(lambda e: e["event"]["event_id"] == event_id, 30)
        assert event["event"]["content"]["body"] == "Hello from curl"


def parse_curl(text: str) -> tuple[str, str, dict[str, str], str]:
    """Return method, URL, headers and body of the one curl command in *text*, read as a shell would."""
    command = text[text.index("curl") :].replace("\\\n", " ")
    words = shlex.split(command.splitlines()[0])
    assert words.pop(0) == "curl"
    method, body = "GET", ""
    headers: dict[str, str] = {}
    urls = []
    while words:
        word = words.pop(0)
        if word == "-X":
            method = words.pop(0)
        elif word == "-d":
            body = words.pop(0)
        elif word == "-H":
            name, _, value = words.pop(0).partition(": ")
            headers[name] = value
        else:
            urls.append(word)
    (url,) = urls
    return method, url, headers, body


def _quiet(line: str) -> None:
    """Print nothing."""


async def test_it_can_be_stopped_before_the_end(tmp_path: Path) -> None:
    process = await run_dev(tmp_path / "dev")
    assert process.stdout is not None
    async with asyncio.timeout(60):
        line = await process.stdout.readline()
        while b"starting Synapse" not in line:
            assert line
            line = await process.stdout.readline()
    process.send_signal(signal.SIGINT)
    printed = await output_of(process)
    assert process.returncode == 1
    assert "Stopped before the story was over." in printed
    assert "Traceback" not in printed


async def test_a_strange_folder_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text("precious: true\n")
    process = await run_dev(tmp_path, "--once", "--fresh")
    printed = await output_of(process)
    assert process.returncode == 2
    assert str(tmp_path) in printed
    assert "Traceback" not in printed
    async with ClientSession() as session:
        with pytest.raises(UsageError, match="something else"):
            async with stack.running(tmp_path, session, _quiet):
                raise AssertionError("it must not start")
    assert os.listdir(tmp_path) == ["config.yaml"]


def test_a_fresh_start_forgets(tmp_path: Path) -> None:
    folder = tmp_path / "dev"
    stack.forget(folder)
    folder.mkdir()
    (folder / MARK).touch()
    (folder / "synapse").mkdir()
    stack.forget(folder)
    assert not folder.exists()
    (tmp_path / "letter").touch()
    with pytest.raises(UsageError, match="something else"):
        stack.forget(tmp_path)


def test_taken_ports_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    def choose(preferred: int) -> int:
        return preferred if preferred != stack.STAND_IN_PORT else 40_000

    monkeypatch.setattr(ports, "choose", choose)
    said: list[Any] = []
    chosen = stack.choose_ports(said.append)
    assert chosen == {
        "synapse": 18008,
        "stand-in": 40_000,
        "appservice": 29350,
        "provisioning": 29351,
        "ops": 29352,
    }
    assert said == ["port 18080 is taken: stand-in uses 40000"]
