"""Encryption at rest: whether every stored secret opens, and which keys are still needed."""

from __future__ import annotations

from openmeet_appservice.ops.doctor.finding import Finding, info, ok, problem, warning
from openmeet_appservice.store.resealing import Standing

NAME = "encryption keys"
NAMED = 10
"""How many of many endpoints are named."""


def check_encryption(found: Standing, keys: int) -> list[Finding]:
    """Judge what is stored.

    Parameters
    ----------
    found
        What is under which key.
    keys
        How many keys are configured.
    """
    findings: list[Finding] = []
    if found.lost:
        findings.append(
            problem(
                NAME,
                f"no key of `security.encryption_keys` opens what is stored of {_named(found.lost)}",
                "Put the lost key back as the last of them, or make these endpoints a new secret with "
                "`POST …/rotate-secret` and give them their headers again with `PUT`.",
            )
        )
    if found.older:
        findings.append(
            warning(
                NAME,
                f"{found.older} of {found.texts} stored secrets still need another key than the first",
                "`openmeet-appservice run` encrypts them anew when it starts, and so does `migrate`; keep "
                "the old keys until then.",
            )
        )
    if findings:
        return findings
    if keys > 1:
        return [
            info(
                NAME,
                "everything stored is encrypted with the first key",
                "Once every replica has that key in front, take the others out of "
                "`security.encryption_keys`.",
            )
        ]
    return [ok(NAME, "everything stored opens with the one key")]


def _named(lost: tuple[tuple[str, str], ...]) -> str:
    shown = ", ".join(f"webhook {tenant or 'platform'}/{name}" for tenant, name in lost[:NAMED])
    return shown + (f" and {len(lost) - NAMED} more" if len(lost) > NAMED else "")
