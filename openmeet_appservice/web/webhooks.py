"""What the OpenAPI document says of the requests that this service makes to others."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

from pydantic import BaseModel

Json: TypeAlias = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Webhook:
    """One type of webhook.

    Attributes
    ----------
    name
        Its type, as in the body.
    summary, description
        For the reader.
    body
        What is sent.
    answers
        What follows from the receiver's answer, by OpenAPI's status: ``200``, ``2XX`` or ``default``.
    """

    name: str
    summary: str
    description: str
    body: type[BaseModel]
    answers: Mapping[str, str]


def path_item(webhook: Webhook, body: Json) -> Json:
    """Return the path item of *webhook*, whose body has the schema *body*."""
    operation: Json = {
        "operationId": "receive_" + webhook.name.replace(".", "_"),
        "summary": webhook.summary,
        "description": webhook.description,
        # It is signed; nobody's API key comes with it.
        "security": [],
        "parameters": [{"$ref": f"#/components/parameters/{name}"} for name in PARAMETERS],
        "requestBody": {"required": True, "content": {"application/json": {"schema": body}}},
        "responses": {status: {"description": words} for status, words in webhook.answers.items()},
    }
    if not webhook.description:
        del operation["description"]
    return {"post": operation}


def _header(name: str, description: str, example: str) -> Json:
    return {
        "name": name,
        "in": "header",
        "required": True,
        "description": description,
        "schema": {"type": "string"},
        "example": example,
    }


PARAMETERS: Mapping[str, Json] = {
    "WebhookId": _header(
        "webhook-id",
        "The same on every try of the same bytes.",
        "msg_01kb0000000000000000000000",
    ),
    "WebhookTimestamp": _header(
        "webhook-timestamp",
        "When this try was made, in seconds since the epoch. Refuse what is more than five minutes off.",
        "1795374000",
    ),
    "WebhookSignature": _header(
        "webhook-signature",
        "Of the Standard Webhooks specification: `v1,` and the base64 of the HMAC-SHA256 of "
        "`webhook-id.webhook-timestamp.body`. Two of them with a space between while the secret is being "
        "changed: one that fits is enough.",
        "v1,K5oZfzN95Z9UVu1EsfQmfVNQhnkZ2pj9o9NDN/H/pI4=",
    ),
    "TenantId": _header(
        "x-tenant-id",
        "The tenant, for routing; empty where the webhook is no tenant's. It is not signed: `data.tenant` is "
        "the truth.",
        "t1",
    ),
}
"""The headers of every webhook, for the document's components."""
