"""README and docs/architecture.md say nothing that is not so: commands, files, layout, import rules."""

from __future__ import annotations

import json
import re
import runpy
import shlex
from pathlib import Path

import pytest

from openmeet_appservice.cli import build_parser
from openmeet_appservice.config import known_keys

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "openmeet_appservice"
README = (ROOT / "README.md").read_text("utf-8")
ARCHITECTURE = (ROOT / "docs" / "architecture.md").read_text("utf-8")


def blocks(text: str, language: str) -> list[str]:
    """The fenced blocks of that language."""
    return re.findall(rf"```{language}\n(.*?)```", text, re.DOTALL)


def commands(program: str) -> list[list[str]]:
    """Every call of *program* in the README's shell blocks and inline code, as words."""
    lines = [line for block in blocks(README, "sh") for line in block.replace("\\\n", " ").splitlines()]
    lines += re.findall(r"`([^`\n]+)`", re.sub(r"```.*?```", "", README, flags=re.DOTALL))
    found = []
    for line in lines:
        words = shlex.split(line, comments=True)
        if words and words[0] == program:
            found.append([word for word in words[1:] if word != "&"])
    return found


def test_make_targets_exist() -> None:
    makefile = (ROOT / "Makefile").read_text()
    targets = set(re.findall(r"^([a-z-]+):", makefile, re.MULTILINE))
    asked = [words for words in commands("make") if words]
    assert {words[0] for words in asked} >= {"run", "test", "setup"}
    for words in asked:
        assert words[0] in targets
        for setting in words[1:]:
            assert re.search(rf"^{setting.partition('=')[0]} \?=", makefile, re.MULTILINE)


def test_every_target_is_explained_and_phony() -> None:
    makefile = (ROOT / "Makefile").read_text()
    (phony,) = re.findall(r"^\.PHONY: (.*)$", makefile, re.MULTILINE)
    explained = set(re.findall(r"make ([a-z-]+)", "\n".join(re.findall(r"@echo '(.*)'", makefile))))
    assert set(phony.split()) - {"help", "setup"} == explained
    assert set(phony.split()) == set(re.findall(r"^([a-z-]+):", makefile, re.MULTILINE))


def test_commands_can_be_given_like_this() -> None:
    asked = commands("openmeet-appservice")
    assert {words[0] for words in asked} >= {"init", "run", "doctor", "tenant"}
    for words in asked:
        if words == ["--help"]:
            continue
        parsed = build_parser().parse_args(words)
        assert callable(parsed.command)


def test_what_make_run_is_given_is_an_option_of_dev() -> None:
    options = re.findall(r"ARGS=(--\S+?)`", README)
    assert set(options) == {"--once", "--fresh"}
    build_parser().parse_args(["dev", *options])


def test_bodies_in_curl_commands_are_json() -> None:
    bodies = []
    for block in blocks(README, "json"):
        assert json.loads(block)["type"] == "room.events"
    for words in commands("curl"):
        bodies += [json.loads(words[at + 1]) for at, word in enumerate(words) if word == "-d"]
    assert len(bodies) == 3


def test_configuration_keys_exist() -> None:
    sections = known_keys()
    for section, name in re.findall(r"`([a-z]+)\.([a-z_]+)(?::[^`]*)?`", README):
        if section in sections and name != "yaml":
            assert name in sections[section], f"{section}.{name}"


@pytest.mark.parametrize("page", ["README.md", "docs/architecture.md"])
def test_links_lead_to_files(page: str) -> None:
    text = (ROOT / page).read_text("utf-8")
    links = re.findall(r"\]\(([^)#]+)", text)
    here = [link for link in links if not link.startswith("https://")]
    missing = [link for link in here if not ((ROOT / page).parent / link).exists()]
    assert not missing


@pytest.mark.parametrize("page", ["README.md", "docs/architecture.md"])
def test_files_that_are_named_exist(page: str) -> None:
    text = (ROOT / page).read_text("utf-8")
    named = set(re.findall(r"`((?:[a-z_]+/)*[a-z_]+(?:\.py|/))`", text))
    missing = [
        name
        for name in named
        if not any((folder / name).exists() for folder in (ROOT, PACKAGE, ROOT / "docs"))
    ]
    assert not missing


def test_the_supported_versions_are_those_of_setup_cfg() -> None:
    setup = (ROOT / "setup.cfg").read_text()
    python = re.search(r"\| Python \| (\S+), ", README)
    synapse = re.search(r"\| Synapse \| (\S+) to", README)
    assert python
    assert synapse
    assert f"python_requires = >={python[1]}" in setup
    assert f"matrix-synapse>={synapse[1]}" in setup


def parts_of_the_package() -> set[str]:
    """Folders with a slash, modules with their ending."""
    return {
        f"{path.name}/" if path.is_dir() else path.name
        for path in PACKAGE.iterdir()
        if path.suffix == ".py" or (path / "__init__.py").exists()
    } - {"__init__.py"}


def test_the_layout_lists_exactly_the_parts_of_the_package() -> None:
    (layout,) = re.findall(r"```\nopenmeet_appservice/\n(.*?)```", ARCHITECTURE, re.DOTALL)
    # Names stand before the first wide gap of each line; of what is beside a part its description tells.
    listed = {name for line in layout.splitlines() for name in re.split(r" {3,}", line.strip())[0].split()}
    beside = set(re.findall(r"[a-z]+\.py", layout)) - listed
    assert listed | beside == parts_of_the_package()


def test_the_import_rules_are_those_that_are_kept() -> None:
    # Read like this because test files cannot import one another.
    allowed = runpy.run_path(str(ROOT / "tests" / "test_architecture.py"))["ALLOWED"]
    rows = [row for row in re.findall(r"^\| (.*?) \| (.*?) \|$", ARCHITECTURE, re.MULTILINE) if "`" in row[0]]
    told: dict[str, set[str]] = {}
    for parts, may in rows:
        # What follows a semicolon or "never" tells of others.
        imports = set(re.findall(r"`(\w+)`", re.split(r";|, never", may)[0]))
        told |= {part: imports for part in re.findall(r"`(\w+)`", parts) if may != "all"}
    assert told == allowed
    free = {part for parts, may in rows if may == "all" for part in re.findall(r"`(\w+)`", parts)}
    parts = {name.rstrip("/").removesuffix(".py") for name in parts_of_the_package()} - {"__main__"}
    assert set(allowed) | free == parts
