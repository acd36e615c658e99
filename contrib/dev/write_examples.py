"""Write what the program says of itself into the top of the repository: the examples and openapi.yaml."""

from __future__ import annotations

from pathlib import Path

from openmeet_appservice.installation import example_config, example_registration
from openmeet_appservice.web.openapi import document_yaml
from openmeet_appservice.wiring import api_document

ROOT = Path(__file__).parents[2]

if __name__ == "__main__":
    (ROOT / "config.example.yaml").write_text(example_config(), "utf-8")
    (ROOT / "registration.yaml.example").write_text(example_registration(), "utf-8")
    (ROOT / "openapi.yaml").write_text(document_yaml(api_document()), "utf-8")
