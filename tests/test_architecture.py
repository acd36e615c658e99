"""Dependencies point one way. The table below is that of `docs/architecture.md`; this keeps it true."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "openmeet_appservice"
NAME = PACKAGE.name

BASE = {"errors", "metrics"}
PIPELINES = {"intake", "reconciler", "delivery", "chat", "provisioning"}

ALLOWED: dict[str, set[str]] = {
    "errors": set(),
    "metrics": set(),
    "domain": {"errors"},
    "store": BASE | {"domain"},
    "homeserver": BASE | {"domain"},
    "web": BASE | {"domain"},
    "outbound": BASE | {"domain"},
    "files": {"errors"},
    "config": {"errors", "domain"},
    "registration": {"config"},
    "installation": {"config", "errors", "files", "registration"},
} | {part: BASE | {"store", "domain", "homeserver", "web", "outbound"} for part in PIPELINES}
"""Who may import whom. Parts not named here (app, wiring, cli, ops, dev) may import all."""

READS_CONFIG = {"app", "wiring", "cli", "ops", "dev", "registration", "installation", "config"}


def modules() -> Iterator[tuple[str, Path]]:
    for path in sorted(PACKAGE.rglob("*.py")):
        inside = path.relative_to(PACKAGE)
        yield (inside.parts[0].removesuffix(".py"), path)


def imported_parts(path: Path) -> set[str]:
    """Return the names of our own parts that a module imports, however deep inside it."""
    parts = set()
    for node in ast.walk(ast.parse(path.read_text())):
        names: list[str] = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path} imports relatively: write the whole name"
            if node.module == NAME:
                names = [f"{NAME}.{alias.name}" for alias in node.names]
            else:
                names = [node.module or ""]
        parts |= {name.split(".")[1] for name in names if name.startswith(f"{NAME}.")}
    return parts - {"__version__"}


@pytest.mark.parametrize(("part", "path"), list(modules()), ids=lambda value: str(value)[-40:])
def test_a_module_imports_only_what_its_part_may(part: str, path: Path) -> None:
    imported = imported_parts(path) - {part}
    if part in ALLOWED:
        assert imported <= ALLOWED[part], f"{path.relative_to(PACKAGE)} must not import these"
    if part not in READS_CONFIG:
        assert "config" not in imported, "only the composition root, the commands, ops and dev read config"


def test_the_table_names_parts_that_exist() -> None:
    assert set(ALLOWED) <= {part for part, _ in modules()}
