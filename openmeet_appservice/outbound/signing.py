"""Signatures of the Standard Webhooks specification 1.0.0, symmetric scheme ``v1``.

What is signed is ``id.timestamp.body`` with HMAC-SHA256. While a secret is being changed, both are used
and both signatures sent, so a receiver that knows either is satisfied.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import re
import secrets
from collections.abc import Callable, Mapping, Sequence

PREFIX = "whsec_"
MIN_BYTES, MAX_BYTES = 24, 64

_NEW_BYTES = 32
_ID = re.compile(r"[A-Za-z0-9_-]{1,128}", re.ASCII)


def new_secret(random_bytes: Callable[[int], bytes] = secrets.token_bytes) -> str:
    """Return a fresh secret with 256 random bits, in the form that is shown to people."""
    return PREFIX + base64.b64encode(random_bytes(_NEW_BYTES)).decode()


def parse_secret(text: str) -> bytes:
    """Return the bytes that the secret *text* stands for.

    Raises
    ------
    ValueError
        It is not ``whsec_`` and then the padded standard base64 of 24 to 64 bytes. The prefix is not
        optional: receivers' libraries differ in what they make of a secret without it. The message
        never shows the secret.
    """
    if not text.startswith(PREFIX):
        raise ValueError(f"a webhook secret begins with {PREFIX}")
    try:
        raw = base64.b64decode(text.removeprefix(PREFIX), validate=True)
    except (binascii.Error, ValueError):
        raise ValueError(f"what follows {PREFIX} is not base64") from None
    if not MIN_BYTES <= len(raw) <= MAX_BYTES:
        raise ValueError(f"a webhook secret holds {MIN_BYTES} to {MAX_BYTES} bytes")
    return raw


def derived_secret(secret: str, purpose: str) -> str:
    """Return the secret for *purpose* that follows from *secret*, and tells nothing about it.

    So whoever needs a secret of their own has one that is stored nowhere. Raises `ValueError` as
    `parse_secret` does.
    """
    key = hmac.digest(parse_secret(secret), f"openmeet-appservice.{purpose}".encode(), hashlib.sha256)
    return PREFIX + base64.b64encode(key).decode()


def sign(keys: Sequence[bytes], message_id: str, timestamp: int, body: bytes) -> str:
    """Return the value of ``webhook-signature``.

    Parameters
    ----------
    keys
        What `parse_secret` returned, the newest first; at least one.
    message_id
        The same on every try of the same message. Letters, digits, ``_`` and ``-``: a dot in it would
        make two different messages sign alike.
    timestamp
        Of this try, in whole **seconds** since the epoch.
    body
        Exactly what is sent.

    Raises
    ------
    ValueError
        There is no key, or the id holds something else.
    """
    if not keys:
        raise ValueError("nothing to sign with")
    if not _ID.fullmatch(message_id):
        raise ValueError("a message id is letters, digits, '_' and '-'")
    signed = f"{message_id}.{timestamp}.".encode() + body
    return " ".join("v1," + _mac(key, signed) for key in keys)


def signed_headers(keys: Sequence[bytes], message_id: str, now_ms: int, body: bytes) -> dict[str, str]:
    """Return the three headers of one try made at *now_ms* (milliseconds since the epoch)."""
    timestamp = now_ms // 1000
    return {
        "webhook-id": message_id,
        "webhook-timestamp": str(timestamp),
        "webhook-signature": sign(keys, message_id, timestamp, body),
    }


def webhook_headers(
    secrets_: Sequence[str],
    message_id: str,
    now_ms: int,
    body: bytes,
    *,
    tenant_id: str,
    static: Mapping[str, str],
) -> dict[str, str]:
    """Return all headers of one try to deliver a webhook.

    Parameters
    ----------
    secrets_
        Sign all of them, the newest first; as `parse_secret` takes them.
    tenant_id
        Whose webhook it is, for routing on the other side.
    static
        What the endpoint wants besides. It never takes the place of ours.
    """
    return {
        **static,
        "Content-Type": "application/json",
        "x-tenant-id": tenant_id,
        **signed_headers([parse_secret(secret) for secret in secrets_], message_id, now_ms, body),
    }


def _mac(key: bytes, signed: bytes) -> str:
    return base64.b64encode(hmac.digest(key, signed, hashlib.sha256)).decode()
