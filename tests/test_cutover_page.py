"""docs/openmeet-cutover.md: its commands exist, its file can be imported, its keys and requests are real."""

from __future__ import annotations

import asyncio
import re
import shlex
from pathlib import Path

import pytest

from openmeet_appservice import cli, wiring
from openmeet_appservice.cli import build_parser
from openmeet_appservice.config import known_keys, load_config
from openmeet_appservice.domain.adoption import former_alias, no_power
from openmeet_appservice.domain.kinds import EntityKind
from openmeet_appservice.domain.names import Template
from openmeet_appservice.domain.people import HELD_ABOVE_PEOPLE, HELD_ABOVE_PERCENT
from openmeet_appservice.store import entities

PAGE = Path(__file__).parents[1] / "docs" / "openmeet-cutover.md"
TEXT = PAGE.read_text("utf-8")
WORDS = " ".join(TEXT.split())
TENANT = "lsdfaopkljdfs"


def blocks(language: str) -> list[str]:
    return [
        re.sub(r"^ +", "", block, flags=re.MULTILINE)
        for block in re.findall(rf"```{language}\n(.*?)```", TEXT, re.DOTALL)
    ]


def commands() -> list[list[str]]:
    lines = [line for block in blocks("sh") for line in block.replace("\\\n", " ").splitlines()]
    found = [shlex.split(line) for line in lines]
    return [words[1:] for words in found if words[0] == "openmeet-appservice"]


@pytest.mark.parametrize("words", commands(), ids=" ".join)
def test_a_command_is_one(words: list[str]) -> None:
    asked = build_parser().parse_args(words)
    assert callable(asked.command)


def test_the_commands_are_there_in_the_order_of_the_steps() -> None:
    named = [words[0] for words in commands()]
    first = {name: named.index(name) for name in dict.fromkeys(named)}
    order = ["init", "config", "registration", "migrate", "tenant", "import", "adopt", "run", "doctor"]
    assert sorted(order, key=first.__getitem__) == order
    adopting = [words[1:] for words in commands() if words[0] == "adopt"]
    assert adopting[:2] == [["--dry-run"], []]
    assert adopting[-2:] == [["--enforce", "--dry-run"], ["--enforce"]]


def test_the_keys_exist() -> None:
    table = TEXT.partition("| key | must be |")[2].partition("```")[0]
    keys = re.findall(r"`((?:homeserver|appservice|rooms)\.[a-z_]+)`", table)
    assert len(keys) >= 6
    known = known_keys()
    for name in keys:
        section, _, key = name.partition(".")
        assert key in known[section], name


def test_the_steps_before_the_day_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Everything up to the import, as it stands there, with the file as it stands there."""
    monkeypatch.chdir(tmp_path)
    Path("openmeet.ndjson").write_text("".join(blocks("json")))
    before = commands()[: [words[0] for words in commands()].index("adopt")]
    assert [words[0] for words in before][-2:] == ["import", "import"]
    for words in before:
        assert cli.main(words) == 0, (words, capsys.readouterr())
    told = capsys.readouterr().out
    assert "refused" not in told
    assert "event: 1 created" in told

    config = load_config(tmp_path / "config.yaml", {})

    async def alias() -> str | None:
        database = wiring.open_database(config)
        try:
            found = await database.read(entities.find, TENANT, EntityKind.EVENT, "board-games-k3v9ab")
            assert found is not None
            assert found.members_listed
            return found.former_alias
        finally:
            await database.close()

    assert asyncio.run(alias()) == f"#event-board-games-k3v9ab-{TENANT}:matrix.openmeet.net"


def test_the_old_aliases_have_the_form_of_the_default_template() -> None:
    default = "{kind}-{slug}-{tenant}"
    assert f"`{default}`" in TEXT
    ours = Template(default, "hs.test").alias(kind="group", slug="chess", tenant="t1")
    assert ours == former_alias(EntityKind.GROUP, "chess", "t1", "hs.test")


def test_the_request_that_helps_is_the_one_that_adopt_tells() -> None:
    told = no_power("$ROOM_ID", "@openmeet-bot:matrix.openmeet.net", 0, 100).remedy
    path, body = re.findall(r"POST (\S+) (\{.*?\})", told)[0]
    assert f"http://localhost:8008{path}" in TEXT
    assert f"-d '{body}'" in TEXT


def test_numbers_and_names() -> None:
    assert f"more than {HELD_ABOVE_PEOPLE} people and more than a fifth" in WORDS
    assert HELD_ABOVE_PERCENT == 20
    anchors = {
        re.sub(r"[^a-z0-9 -]", "", h.lower()).replace(" ", "-") for h in re.findall(r"^#+ (.*)", TEXT, re.M)
    }
    assert set(re.findall(r"\]\(#([^)]+)\)", TEXT)) <= anchors
