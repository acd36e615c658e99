"""npm's `standardwebhooks`, which OpenMeet's backend uses, accepts what this service delivers."""

from __future__ import annotations

import asyncio
import base64
import json
import time
from typing import Any

import pytest

from openmeet_appservice.outbound.signing import new_secret

from .conftest import FOLDER, Receiver, Sender

BODIES = ["Hello", "Grüße, 你好 👋", "</script>\u2028 \\ \" '", "x" * 20_000]
OVERLAP = 60

pytestmark = pytest.mark.parametrize("migrated_url", ["sqlite"], indirect=True)


async def verify(node: str, secret: str, webhooks: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Let Node verify the webhooks."""
    process = await asyncio.create_subprocess_exec(
        node,
        str(FOLDER / "verify.mjs"),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    asked = json.dumps({"secret": secret, "webhooks": webhooks}).encode()
    async with asyncio.timeout(60):
        out, err = await process.communicate(asked)
    assert process.returncode == 0, err.decode()
    found: list[dict[str, Any]] = json.loads(out)
    assert len(found) == len(webhooks)
    return found


async def test_a_delivered_webhook_is_verified_by_node(
    sender: Sender, receiver: tuple[Receiver, str], node: str
) -> None:
    received, url = receiver
    await sender.add_endpoint(url)
    await sender.say(*BODIES)
    await received.until(len(BODIES))

    webhooks = received.webhooks
    assert len(webhooks) == 2
    verified = await verify(node, sender.secret, webhooks)
    assert [one["data"] for one in verified] == [
        json.loads(base64.b64decode(one["body"])) for one in webhooks
    ]
    shown = [e["event"]["content"]["body"] for one in verified for e in one["data"]["data"]["events"]]
    assert shown == BODIES

    assert all("fault" in one for one in await verify(node, new_secret(), webhooks)), "another secret"
    tampered = [forged(webhooks[0], **change) for change in CHANGES]
    assert all("fault" in one for one in await verify(node, sender.secret, tampered))


CHANGES: list[dict[str, str]] = [
    {"body": "eyJ0eXBlIjogInJvb20uZXZlbnRzIn0="},
    {"webhook-id": "another"},
    {"webhook-timestamp": str(int(time.time()) - 60)},
    {"webhook-signature": ""},
]


def forged(webhook: dict[str, Any], **changes: str) -> dict[str, Any]:
    """Return the webhook with other headers or another body."""
    headers = webhook["headers"] | {name: value for name, value in changes.items() if name != "body"}
    return {"headers": headers, "body": changes.get("body", webhook["body"])}


@pytest.mark.parametrize("ending", ["retired", "overlap over"])
async def test_node_verifies_before_during_and_after_a_rotation(
    sender: Sender, receiver: tuple[Receiver, str], node: str, ending: str
) -> None:
    received, url = receiver
    old = sender.secret
    await sender.add_endpoint(url)
    await sender.say("before")
    await received.until(1)
    new = await sender.rotate(OVERLAP)
    await sender.say("during")
    await received.until(2)
    if ending == "retired":
        await sender.retire()
    else:
        sender.ahead = OVERLAP * 1000
    await sender.say("after")
    await received.until(3)

    async def accepted_with(secret: str) -> list[bool]:
        return ["data" in one for one in await verify(node, secret, received.webhooks)]

    assert await accepted_with(old) == [True, True, False]
    assert await accepted_with(new) == [False, True, True]
