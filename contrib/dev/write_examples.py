"""Write the example configuration and registration at the top of the repository."""

from __future__ import annotations

from pathlib import Path

from openmeet_appservice.installation import example_config, example_registration

ROOT = Path(__file__).parents[2]

if __name__ == "__main__":
    (ROOT / "config.example.yaml").write_text(example_config(), "utf-8")
    (ROOT / "registration.yaml.example").write_text(example_registration(), "utf-8")
