"""What the doctor says of files, and how it prints."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import orjson
import pytest
from ruamel.yaml import YAML

from openmeet_appservice.config import Config
from openmeet_appservice.ops.doctor import Finding, Level, as_text
from openmeet_appservice.ops.doctor.files import check_files

Configure = Callable[..., Config]
Of = Callable[[list[Finding], str], Finding]


@pytest.fixture
def config(configure: Configure, tmp_path: Path) -> Config:
    return configure(tmp_path)


def rewrite(folder: Path, change: Callable[[dict[str, Any]], object]) -> None:
    path = folder / "registration.yaml"
    yaml = YAML(typ="safe")
    content = yaml.load(path.read_text())
    change(content)
    yaml.dump(content, path)


def registration_finding(findings: list[Finding]) -> Finding:
    return next(finding for finding in findings if finding.name == "registration")


def test_what_init_wrote_is_in_order(config: Config, tmp_path: Path) -> None:
    findings = check_files(config, tmp_path / "config.yaml")
    assert [finding.name for finding in findings] == ["config file", "registration file", "registration"]
    assert {finding.level for finding in findings} == {Level.OK}


@pytest.mark.parametrize(("mode", "who"), [(0o640, "its group"), (0o604, "everybody"), (0o666, "everybody")])
@pytest.mark.parametrize("name", ["config", "registration"])
def test_a_file_that_others_can_open(config: Config, tmp_path: Path, name: str, mode: int, who: str) -> None:
    (tmp_path / f"{name}.yaml").chmod(mode)
    found = next(one for one in check_files(config, tmp_path / "config.yaml") if one.name == f"{name} file")
    assert found.level is Level.WARNING
    assert who in found.what
    assert f"{mode:04o}" in found.what
    assert found.remedy == f"`chmod 0600 {tmp_path}/{name}.yaml`"


def test_no_registration_beside_is_only_told(config: Config, tmp_path: Path) -> None:
    (tmp_path / "registration.yaml").unlink()
    found = registration_finding(check_files(config, tmp_path / "config.yaml"))
    assert (found.level, found.remedy) == (Level.INFO, None)


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (lambda content: content.update(as_token="other" * 8), "as_token"),
        (lambda content: content.update(hs_token="other" * 8), "hs_token"),
        (lambda content: content.pop("rate_limited"), "rate_limited"),
        (lambda content: content.update(url=None), "url"),
        (lambda content: content["namespaces"]["users"].pop(), "namespaces.users"),
        (lambda content: content["namespaces"].pop("aliases"), "namespaces.aliases"),
        (lambda content: content.update(namespaces=None), "namespaces.aliases, namespaces.users"),
        (lambda content: content.update(id="x", sender_localpart="y"), "id, sender_localpart"),
    ],
)
def test_a_registration_that_differs_is_named_by_its_keys_without_secrets(
    config: Config, tmp_path: Path, change: Callable[[dict[str, Any]], object], named: str
) -> None:
    rewrite(tmp_path, change)
    found = registration_finding(check_files(config, tmp_path / "config.yaml"))
    assert found.level is Level.WARNING
    assert found.what.endswith(f"differs from the configuration in {named}")
    assert "openmeet-appservice registration --force" in str(found.remedy)
    for secret in (*config.appservice.as_tokens, *config.appservice.hs_tokens, "otherother"):
        assert secret not in str(found)


def test_what_others_add_to_a_registration_does_not_matter(config: Config, tmp_path: Path) -> None:
    rewrite(tmp_path, lambda content: content.update({"ip_range_whitelist": ["10.0.0.0/8"]}))
    rewrite(tmp_path, lambda content: content["namespaces"].pop("rooms"))
    assert registration_finding(check_files(config, tmp_path / "config.yaml")).level is Level.OK


def test_while_tokens_are_changed_either_may_stand_in_the_registration(
    configure: Configure, config: Config, tmp_path: Path
) -> None:
    turning = configure(tmp_path, appservice__as_token_next="a" * 40, appservice__hs_token_next="h" * 40)
    path = tmp_path / "config.yaml"
    assert registration_finding(check_files(turning, path)).level is Level.OK
    rewrite(tmp_path, lambda content: content.update(as_token="a" * 40, hs_token="h" * 40))
    assert registration_finding(check_files(turning, path)).level is Level.OK
    assert registration_finding(check_files(config, path)).level is Level.WARNING


@pytest.mark.parametrize("text", ["as_token: [verysecret", "- verysecret", "", b"\xff\xfe\x00verysecret"])
def test_a_registration_that_is_none(config: Config, tmp_path: Path, text: str | bytes) -> None:
    (tmp_path / "registration.yaml").write_bytes(text if isinstance(text, bytes) else text.encode())
    found = registration_finding(check_files(config, tmp_path / "config.yaml"))
    assert found.level is Level.WARNING
    assert "verysecret" not in str(found)


def test_one_finding_is_one_line_and_holds_no_secret() -> None:
    findings = [
        Finding("a", Level.OK, "fine"),
        Finding("b", Level.INFO, "known"),
        Finding("c", Level.WARNING, "odd\n✔ d: forged\x1b[2J", "do\nthis"),
        Finding("e", Level.PROBLEM, "postgresql://me:hush@db/x said Bearer 0123456789abcdef0123", "that"),
    ]
    assert as_text(findings).split("\n") == [
        "✔ a: fine",
        "· b: known",
        "! c: odd ✔ d: forged [2J — do this",
        "✘ e: postgresql://me:***@db/x said Bearer *** — that",
    ]
    assert json.loads(orjson.dumps([asdict(finding) for finding in findings]))[3] == {
        "name": "e",
        "level": "problem",
        "what": "postgresql://me:***@db/x said Bearer ***",
        "remedy": "that",
    }
