"""Write what the program says of itself into the repository: examples, openapi.yaml, what docs show."""

from __future__ import annotations

import re
from pathlib import Path

from openmeet_appservice.installation import example_config, example_registration
from openmeet_appservice.web.openapi import document_yaml
from openmeet_appservice.wiring import api_document

ROOT = Path(__file__).parents[2]
PAGES = tuple(ROOT / "docs" / name for name in ("webhooks.md", "openmeet-integration.md"))

_SHOWN = re.compile(r"^(<!-- file: (\S+) -->\n)(?:```.*?^```\n)?", re.MULTILINE | re.DOTALL)
_LANGUAGES = {".mjs": "js", ".ts": "ts", ".py": "python"}


def with_files(page: Path) -> str:
    """Return the text of *page* with a code block of the file's text after each ``<!-- file: … -->``."""

    def shown(mark: re.Match[str]) -> str:
        file = page.parent / mark[2]
        return f"{mark[1]}```{_LANGUAGES[file.suffix]}\n{file.read_text('utf-8')}```\n"

    return _SHOWN.sub(shown, page.read_text("utf-8"))


if __name__ == "__main__":
    (ROOT / "config.example.yaml").write_text(example_config(), "utf-8")
    (ROOT / "registration.yaml.example").write_text(example_registration(), "utf-8")
    (ROOT / "openapi.yaml").write_text(document_yaml(api_document()), "utf-8")
    for page in PAGES:
        page.write_text(with_files(page), "utf-8")
