"""Webhook endpoints."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import Callable
from typing import Any

from cryptography.fernet import Fernet
from sqlalchemy import Connection, text

from openmeet_appservice.domain.webhook_types import OPERATIONAL, ROOM_READY
from openmeet_appservice.store import dead_letters, endpoints, notices
from openmeet_appservice.store.dead_letters import DeadLetter, Reason
from openmeet_appservice.store.ids import new_id
from openmeet_appservice.store.secretbox import SecretBox

from .conftest import POSTED, Api

HOOK = "/tenants/t1/webhooks/main"
URL = "https://api.openmeet.net/hook"
SECRET = "whsec_" + base64.b64encode(bytes(range(32))).decode()


async def test_a_secret_is_made_and_shown_once(api: Api) -> None:
    made = await api.put(HOOK, {"url": URL})
    assert made.status == 201
    secret = made.json.pop("secret")
    assert secret.startswith("whsec_")
    assert made.json == {
        "tenant": "t1",
        "name": "main",
        "url": URL,
        "types": None,
        "header_names": [],
        "max_batch": None,
        "max_batch_bytes": None,
        "on_exhausted": None,
        "tenants": None,
        "state": "active",
        "state_since": None,
        "resting_until": None,
        "breaker": {"state": "closed", "until": None},
        "old_secret_until": None,
        "created_at": "2026-11-22T19:00:00.000Z",
        "updated_at": "2026-11-22T19:00:00.000Z",
        "etag": made.json["etag"],
    }
    again = await api.put(HOOK, {"url": URL})
    assert (again.status, again.json["secret"], again.json["etag"]) == (200, None, made.json["etag"])
    nothing = {
        "rooms": 0,
        "parked_rooms": 0,
        "events": 0,
        "replay_events": 0,
        "notices": 0,
        "oldest_at": None,
    }
    assert (await api.get(HOOK)).json == made.json | {"backlog": nothing}
    assert await api.all("/tenants/t1/webhooks", 10) == [made.json]

    def stored(connection: Connection) -> str:
        return str(connection.execute(text("SELECT secret FROM endpoints")).scalar_one())

    sealed = await api.database.read(stored)
    assert secret not in sealed
    assert api.parts.secrets.open(sealed) == secret


async def test_a_supplied_secret_is_not_repeated(api: Api) -> None:
    made = await api.put(HOOK, {"url": URL, "secret": SECRET})
    assert (made.status, made.json["secret"]) == (201, None)
    same = await api.put(HOOK, {"url": URL, "secret": SECRET})
    assert (same.status, same.json["etag"]) == (200, made.json["etag"])
    moved = await api.put(HOOK, {"url": f"{URL}2"}, If_Match=made.headers["ETag"])
    assert (moved.status, moved.json["url"]) == (200, f"{URL}2")
    assert (await api.put(HOOK, {"url": URL}, If_Match=made.headers["ETag"])).status == 412


WRONG: list[tuple[dict[str, object], list[str]]] = [
    ({}, ["/url"]),
    ({"url": "http://api.openmeet.net/"}, ["/url"]),
    ({"url": "https://127.0.0.1/"}, ["/url"]),
    ({"url": "ftp://x.org"}, ["/url"]),
    ({"url": URL, "secret": "hunter2"}, ["/secret"]),
    ({"url": URL, "types": ["room.gossip"]}, ["/types"]),
    ({"url": URL, "types": []}, ["/types"]),
    ({"url": URL, "types": ["room.events", "room.events"]}, ["/types"]),
    ({"url": URL, "headers": {"Webhook-Id": "1"}}, ["/headers/Webhook-Id"]),
    ({"url": URL, "headers": {"content-length": "1"}}, ["/headers/content-length"]),
    ({"url": URL, "headers": {"a/b~c": "1"}}, ["/headers/a~1b~0c"]),
    ({"url": URL, "headers": {"X": "hunter2\r\nHost: x"}}, ["/headers/X"]),
    ({"url": URL, "headers": {"X-A": "1", "x-a": "2"}}, ["/headers/x-a"]),
    ({"url": URL, "max_batch": 0}, ["/max_batch"]),
    ({"url": URL, "max_batch_bytes": 100}, ["/max_batch_bytes"]),
    ({"url": URL, "on_exhausted": "forget"}, ["/on_exhausted"]),
    ({"url": URL, "tenants": ["t1"]}, ["/tenants"]),
]


async def test_what_is_wrong_is_named(api: Api) -> None:
    for body, pointers in WRONG:
        wrong = await api.put(HOOK, body)
        assert (wrong.status, wrong.pointers) == (422, pointers), body
        assert "hunter2" not in str(wrong.json)


async def test_it_can_be_removed(api: Api) -> None:
    made = await api.put(HOOK, {"url": URL})
    assert (await api.delete(HOOK, If_Match='"x"')).status == 412
    assert (await api.delete(HOOK, If_Match=made.headers["ETag"])).status == 202
    assert (await api.get(HOOK)).code == "webhook_not_found"
    assert (await api.delete(HOOK)).code == "webhook_not_found"
    assert (await api.put(HOOK, {"url": URL})).status == 201


async def test_ten_at_once_make_one_and_show_one_secret(api: Api) -> None:
    answers = await asyncio.gather(*(api.put(HOOK, {"url": URL}) for _ in range(10)))
    assert sorted(answer.status for answer in answers) == [200] * 9 + [201]
    assert sum(answer.json["secret"] is not None for answer in answers) == 1


async def test_how_it_wants_its_webhooks_is_kept_and_header_values_are_hidden(api: Api) -> None:
    wanted = {
        "url": URL,
        "types": ["room.events"],
        "headers": {"Authorization": "Bearer hunter2"},
        "max_batch": 7,
        "max_batch_bytes": 2048,
        "on_exhausted": "skip",
    }
    made = await api.put(HOOK, wanted)
    assert made.status == 201
    shown = (await api.get(HOOK)).json
    assert {name: shown[name] for name in ("types", "max_batch", "max_batch_bytes", "on_exhausted")} == {
        name: wanted[name] for name in ("types", "max_batch", "max_batch_bytes", "on_exhausted")
    }
    assert shown["header_names"] == ["Authorization"]
    assert (await api.put(HOOK, wanted)).json["etag"] == made.json["etag"]
    other = await api.put(HOOK, wanted | {"headers": {"Authorization": "Bearer hunter3"}})
    assert other.json["etag"] != made.json["etag"]
    # What is left out takes its default.
    plain = (await api.put(HOOK, {"url": URL})).json
    assert (plain["types"], plain["header_names"], plain["max_batch"]) == (None, [], None)

    def stored(connection: Connection) -> str:
        return str(connection.execute(text("SELECT * FROM endpoints")).all())

    assert "hunter" not in await api.database.read(stored) + str(shown) + str(other.json)


async def test_the_secret_is_changed_without_a_gap(api: Api) -> None:
    made = await api.put(HOOK, {"url": URL, "secret": SECRET})
    assert (await api.post(f"{HOOK}/rotate-secret", {}, If_Match='"x"')).status == 412
    rotated = await api.post(f"{HOOK}/rotate-secret", {}, If_Match=made.headers["ETag"])
    fresh = rotated.json["secret"]
    assert (rotated.status, fresh[:6]) == (200, "whsec_")
    assert rotated.json["old_secret_until"] == "2026-11-23T19:00:00.000Z"
    await api.post(f"{HOOK}/test", None)
    assert len(POSTED[-1][2]["webhook-signature"].split()) == 2
    retired = await api.post(f"{HOOK}/retire-secret", None)
    assert retired.json["old_secret_until"] is None
    await api.post(f"{HOOK}/test", None)
    assert len(POSTED[-1][2]["webhook-signature"].split()) == 1
    given = await api.post(f"{HOOK}/rotate-secret", {"secret": SECRET, "overlap_seconds": 0})
    assert (given.json["secret"], given.json["old_secret_until"]) == (None, None)
    wrong = await api.post(f"{HOOK}/rotate-secret", {"secret": "hunter2", "overlap_seconds": 0})
    assert (wrong.status, wrong.pointers) == (422, ["/secret"])
    wrong = await api.post(f"{HOOK}/rotate-secret", {"overlap_seconds": 10**9})
    assert (wrong.status, wrong.pointers) == (422, ["/overlap_seconds"])


async def test_a_new_secret_is_the_way_out_of_a_lost_encryption_key(api: Api) -> None:
    await api.put(HOOK, {"url": URL})
    lost = SecretBox([Fernet.generate_key().decode()]).seal(SECRET)

    def lose(connection: Connection) -> None:
        connection.execute(text("UPDATE endpoints SET secret = :lost"), {"lost": lost})

    await api.database.write(lose)
    assert (await api.post(f"{HOOK}/test", None)).code == "secret_unreadable"
    rotated = await api.post(f"{HOOK}/rotate-secret", {})
    assert rotated.json["old_secret_until"] is None
    assert (await api.post(f"{HOOK}/test", None)).json["delivered"]
    assert len(POSTED[-1][2]["webhook-signature"].split()) == 1


async def test_a_new_secret_is_shown_once_even_to_who_asks_again(api: Api) -> None:
    await api.put(HOOK, {"url": URL})
    first = await api.post(f"{HOOK}/rotate-secret", {}, Idempotency_Key="k")
    assert first.status == 200
    again = await api.post(f"{HOOK}/rotate-secret", {}, Idempotency_Key="k")
    assert (again.status, again.code) == (409, "secret_already_shown")


async def test_it_is_paused_and_resumed(api: Api) -> None:
    await api.put(HOOK, {"url": URL})
    paused = await api.post(f"{HOOK}/pause", None)
    assert (paused.json["state"], paused.json["state_since"]) == ("paused", "2026-11-22T19:00:00.000Z")
    assert (await api.post(f"{HOOK}/pause", None)).json == paused.json
    # A change does not resume what somebody paused.
    assert (await api.put(HOOK, {"url": f"{URL}2"})).json["state"] == "paused"
    assert (await api.post(f"{HOOK}/resume", None)).json["state"] == "active"
    assert (await api.post("/tenants/t1/webhooks/none/pause", None)).code == "webhook_not_found"


async def test_a_test_is_sent_signed_and_its_outcome_told(
    api: Api, admin: Api, valid_webhook: Callable[[bytes], dict[str, Any]]
) -> None:
    await api.put(HOOK, {"url": URL, "headers": {"X-Gateway": "sesame"}})
    told = await api.post(f"{HOOK}/test", None)
    assert (told.status, told.json) == (
        200,
        {"delivered": True, "status": 200, "milliseconds": 12, "error": None, "answer": "So be it."},
    )
    url, body, headers = POSTED[-1]
    assert (url, headers["x-tenant-id"], headers["X-Gateway"]) == (URL, "t1", "sesame")
    assert valid_webhook(body) == {
        "type": "endpoint.test",
        "timestamp": "2026-11-22T19:00:00.000Z",
        "data": {"tenant": "t1", "endpoint": "main"},
    }
    await admin.put("/webhooks/all", {"url": URL})
    await admin.post("/webhooks/all/test", None)
    assert valid_webhook(POSTED[-1][1])["data"] == {"tenant": None, "endpoint": "all"}
    assert POSTED[-1][2]["x-tenant-id"] == ""
    await api.put(HOOK, {"url": f"{URL}/stranger"})
    refused = (await api.post(f"{HOOK}/test", None)).json
    assert (refused["delivered"], refused["status"]) == (False, 401)
    await api.put(HOOK, {"url": f"{URL}/nobody"})
    lost = (await api.post(f"{HOOK}/test", None)).json
    assert (lost["delivered"], lost["status"], lost["error"]) == (False, None, "There was no answer in time.")


async def test_the_platforms_endpoints_are_for_all_tenants_or_some(api: Api, admin: Api) -> None:
    assert (await api.put("/webhooks/main", {"url": URL})).status == 403
    made = await admin.put("/webhooks/main", {"url": URL, "tenants": ["T1"]})
    assert (made.status, made.json["tenant"], made.json["tenants"]) == (201, None, ["t1"])
    assert (await admin.get("/webhooks/main")).json["tenants"] == ["t1"]
    assert (await admin.put("/webhooks/main", {"url": URL})).json["tenants"] is None
    # Ids are compared without regard to case, and shown as they were first given.
    assert (await admin.put("/tenants/OpenMeet2", {"name": "Two"})).status == 201
    both = await admin.put("/webhooks/main", {"url": URL, "tenants": ["T1", "openmeet2", "t1"]})
    assert both.json["tenants"] == ["OpenMeet2", "t1"]
    same = await admin.put("/webhooks/main", {"url": URL, "tenants": ["OPENMEET2", "t1"]})
    assert same.json["etag"] == both.json["etag"]
    assert (await admin.get("/webhooks/main")).json["tenants"] == ["OpenMeet2", "t1"]
    unknown = await admin.put("/webhooks/main", {"url": URL, "tenants": ["t1", "nobody"]})
    assert (unknown.status, unknown.pointers) == (422, ["/tenants/1"])
    assert [one["name"] for one in await admin.all("/webhooks", 10)] == ["main"]
    assert (await api.get(HOOK)).code == "webhook_not_found"
    assert (await admin.delete("/webhooks/main")).status == 202
    assert await admin.all("/webhooks", 10) == []


async def test_what_became_of_webhooks_is_listed_the_newest_first(api: Api) -> None:
    await api.put(HOOK, {"url": URL})
    for _ in range(3):
        await api.post(f"{HOOK}/test", None)
    pages = [await api.all(f"{HOOK}/deliveries", limit) for limit in (2, 3, 500)]
    assert pages[0] == pages[1] == pages[2]
    sent = {headers["webhook-id"] for _, _, headers in POSTED[-3:]}
    assert {one["webhook_id"] for one in pages[0]} == sent
    assert pages[0][0] | {"id": "", "webhook_id": ""} == {
        "id": "",
        "at": "2026-11-22T19:00:00.000Z",
        "tenant": "t1",
        "webhook_id": "",
        "type": "endpoint.test",
        "room_id": None,
        "first_sequence": None,
        "last_sequence": None,
        "outcome": "2xx",
        "status": 200,
        "milliseconds": 12,
        "answer": "So be it.",
    }

    def bury(connection: Connection) -> None:
        endpoint = endpoints.get(connection, "t1", "main")
        assert endpoint is not None
        for n in range(3):
            dead_letters.record(
                connection,
                DeadLetter("t1", endpoint.ref, n, f"l{n}", "t1", "gone", n, n + 1, Reason.REFUSED, "413"),
                new_id=new_id,
            )

    await api.database.write(bury)
    letters = await api.all(f"{HOOK}/dead-letters", 2)
    assert [one["first_sequence"] for one in letters] == [2, 1, 0]
    assert letters[0] == {
        "id": "l2",
        "at": "1970-01-01T00:00:00.002Z",
        "tenant": "t1",
        "room_id": None,
        "first_sequence": 2,
        "last_sequence": 3,
        "reason": "refused",
        "detail": "413",
    }
    assert (await api.get("/tenants/t1/webhooks/none/deliveries")).code == "webhook_not_found"
    assert (await api.get("/tenants/t1/webhooks/none/dead-letters")).code == "webhook_not_found"


async def test_a_repeated_key_sends_no_second_test(api: Api) -> None:
    await api.put(HOOK, {"url": URL})
    before = len(POSTED)
    first = await api.post(f"{HOOK}/test", None, Idempotency_Key="t")
    again = await api.post(f"{HOOK}/test", None, Idempotency_Key="t")
    assert (first.json, len(POSTED)) == (again.json, before + 1)


async def test_operational_webhooks_can_be_chosen_and_what_waits_of_them_is_shown(api: Api) -> None:
    chosen = ["room.ephemeral", *OPERATIONAL]
    made = await api.put(HOOK, {"url": URL, "types": chosen})
    assert (made.status, made.json["types"]) == (201, sorted(chosen))
    await api.database.write(notices.add, "t1", ROOM_READY, {}, now=1, new_id=new_id)
    assert (await api.get(HOOK)).json["backlog"]["notices"] == 1
