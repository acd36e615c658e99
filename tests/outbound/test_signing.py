from __future__ import annotations

import base64
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st
from standardwebhooks.webhooks import Webhook, WebhookVerificationError

from openmeet_appservice.outbound.signing import new_secret, parse_secret, sign, signed_headers

BODY = '{"type":"room.events","text":"grüße"}'.encode()


def now_ms() -> int:
    return int(datetime.now(UTC).timestamp() * 1000)


def test_the_public_library_signs_alike() -> None:
    secret = new_secret()
    moment = datetime(2026, 11, 22, 19, tzinfo=UTC)
    theirs = Webhook(secret).sign("msg_1", moment, BODY.decode())
    assert sign([parse_secret(secret)], "msg_1", int(moment.timestamp()), BODY) == theirs


@pytest.mark.parametrize("known", [0, 1, 2])
def test_a_receiver_that_knows_any_of_the_secrets_is_satisfied(known: int) -> None:
    secrets = [new_secret() for _ in range(3)]
    headers = signed_headers([parse_secret(s) for s in secrets], "msg_1", now_ms(), BODY)
    assert len(headers["webhook-signature"].split(" ")) == 3
    Webhook(secrets[known]).verify(BODY, headers)


def test_another_secret_body_or_id_is_noticed() -> None:
    secret = new_secret()
    headers = signed_headers([parse_secret(secret)], "msg_1", now_ms(), BODY)
    with pytest.raises(WebhookVerificationError):
        Webhook(new_secret()).verify(BODY, headers)
    with pytest.raises(WebhookVerificationError):
        Webhook(secret).verify(BODY + b" ", headers)
    with pytest.raises(WebhookVerificationError):
        Webhook(secret).verify(BODY, headers | {"webhook-id": "msg_2"})


@given(st.binary(max_size=80))
def test_a_secret_holds_24_to_64_bytes(raw: bytes) -> None:
    text = "whsec_" + base64.b64encode(raw).decode()
    if 24 <= len(raw) <= 64:
        assert parse_secret(text) == raw
    else:
        with pytest.raises(ValueError, match="24 to 64"):
            parse_secret(text)


@pytest.mark.parametrize(
    "text",
    [
        base64.b64encode(b"x" * 32).decode(),
        "whsec_" + "!" * 44,
        "whsec_" + base64.b64encode(b"x" * 32).decode().rstrip("="),
        "whsec_" + base64.urlsafe_b64encode(b"\xff" * 32).decode(),
        "whsec_" + base64.b64encode(b"x" * 32).decode() + "\n",
        "whsec_é" + base64.b64encode(b"x" * 32).decode(),
        "whsk_" + base64.b64encode(b"x" * 32).decode(),
        "",
    ],
)
def test_what_is_no_secret_is_refused_and_not_repeated(text: str) -> None:
    with pytest.raises(ValueError, match="whsec_") as caught:
        parse_secret(text)
    assert "eHh4" not in str(caught.value)


def test_new_secrets_differ_and_come_from_the_given_randomness() -> None:
    assert new_secret() != new_secret()
    assert parse_secret(new_secret(lambda size: b"\7" * size)) == b"\7" * 32


@pytest.mark.parametrize("message_id", ["", "a.b", "a b", "é", "a\n", "a" * 129])
def test_an_id_that_could_be_misread_is_refused(message_id: str) -> None:
    with pytest.raises(ValueError, match="message id"):
        sign([b"x" * 32], message_id, 1, BODY)


def test_nothing_goes_out_unsigned() -> None:
    with pytest.raises(ValueError, match="nothing to sign"):
        sign([], "msg_1", 1, BODY)


def test_milliseconds_become_whole_seconds() -> None:
    headers = signed_headers([b"x" * 32], "msg_1", 1_999, BODY)
    assert headers["webhook-timestamp"] == "1"
