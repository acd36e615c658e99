"""The client against a homeserver that fails in every way it can."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable

import pytest
from aiohttp import web
from mautrix.api import Method, Path

from openmeet_appservice.dev import ports
from openmeet_appservice.errors import (
    HomeserverLimited,
    HomeserverRefused,
    HomeserverUnreachable,
)
from openmeet_appservice.homeserver import (
    Homeserver,
    MatrixApi,
    RetryPolicy,
    TimeLimits,
    new_txn_id,
)
from openmeet_appservice.metrics import REGISTRY

from .conftest import Answer, FakeTime, StandIn

MakeApi = Callable[..., MatrixApi]
HTML = "<html><body>from a proxy</body></html>"
ROOM = "!room:hs.test"


def says(status: int, body: object, **headers: str) -> Answer:
    async def answer(request: web.Request) -> web.StreamResponse:
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        return web.json_response(body, status=status, headers=named)

    return answer


def page(status: int, text: str = HTML, **headers: str) -> Answer:
    async def answer(request: web.Request) -> web.StreamResponse:
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        return web.Response(status=status, text=text, content_type="text/html", headers=named)

    return answer


async def hangs(request: web.Request) -> web.StreamResponse:
    await asyncio.Event().wait()
    raise AssertionError("nobody sets it")


async def resets(request: web.Request) -> web.StreamResponse:
    assert request.transport is not None
    request.transport.abort()
    return web.Response()


def unknown_token(*known: str) -> Answer:
    async def answer(request: web.Request) -> web.StreamResponse:
        if request.headers["Authorization"].removeprefix("Bearer ") in known:
            return web.json_response({"user_id": "@bot:hs.test", "room_id": ROOM})
        return web.json_response({"errcode": "M_UNKNOWN_TOKEN", "error": "who?"}, status=401)

    return answer


IS_BOT = says(200, {"user_id": "@bot:hs.test"})
IS_ROOM = says(200, {"room_id": ROOM})


@pytest.mark.parametrize(
    ("limited", "seconds"),
    [
        (says(429, {"errcode": "M_LIMIT_EXCEEDED", "error": ""}, Retry_After="3"), 3.0),
        (says(429, {"errcode": "M_LIMIT_EXCEEDED", "error": "", "retry_after_ms": 2500}), 2.5),
        (page(429, Retry_After="4"), 4.0),
    ],
)
async def test_a_limit_is_waited_out(
    limited: Answer, seconds: float, stand_in: StandIn, make_api: MakeApi, fake_time: FakeTime
) -> None:
    stand_in.will(limited, IS_BOT)
    assert await Homeserver(make_api(), "om").whoami() == "@bot:hs.test"
    assert fake_time.sleeps == [seconds + 0.25]


async def test_a_long_limit_is_the_caller_s(
    stand_in: StandIn, make_api: MakeApi, fake_time: FakeTime
) -> None:
    stand_in.will(says(429, {"errcode": "M_LIMIT_EXCEEDED", "retry_after_ms": 333_000}))
    with pytest.raises(HomeserverLimited) as caught:
        await Homeserver(make_api(), "om").register("om_ada")
    assert caught.value.retry_after == 333.0
    assert fake_time.sleeps == []


@pytest.mark.parametrize("broken", [page(502), page(200), says(503, []), page(504, "")])
async def test_what_may_be_repeated_is_repeated_within_bounds(
    broken: Answer, stand_in: StandIn, make_api: MakeApi, fake_time: FakeTime
) -> None:
    stand_in.will(broken)
    with pytest.raises(HomeserverUnreachable):
        await Homeserver(make_api(), "om").set_state(ROOM, "m.room.topic", {"topic": "x"})
    assert len(stand_in.seen) == 4
    assert fake_time.sleeps == [0.375, 0.75, 1.5]


async def test_no_attempt_begins_after_the_budget(
    stand_in: StandIn, make_api: MakeApi, fake_time: FakeTime
) -> None:
    stand_in.will(page(502))
    patient = RetryPolicy(attempts=1_000, first_wait=1.0, longest_wait=8.0, budget=30.0)
    with pytest.raises(HomeserverUnreachable):
        await Homeserver(make_api(retries=patient), "om").whoami()
    assert 20 < sum(fake_time.sleeps) <= 30


@pytest.mark.parametrize(
    "broken",
    [page(502), page(200), says(503, {"errcode": "M_UNKNOWN", "error": ""}), resets, hangs],
)
async def test_making_a_room_is_never_repeated(
    broken: Answer, stand_in: StandIn, make_api: MakeApi, fake_time: FakeTime
) -> None:
    stand_in.will(broken)
    api = make_api(limits=TimeLimits(create_room=0.2))
    with pytest.raises((HomeserverUnreachable, HomeserverRefused)):
        await Homeserver(api, "om").create_room({"name": "x"})
    assert len(stand_in.seen) == 1
    assert fake_time.sleeps == []


async def test_removing_somebody_is_never_repeated(stand_in: StandIn, make_api: MakeApi) -> None:
    stand_in.will(page(502))
    with pytest.raises(HomeserverUnreachable):
        await Homeserver(make_api(), "om").kick(ROOM, "@ada:hs.test")
    assert len(stand_in.seen) == 1


async def test_a_post_that_may_be_repeated_is(stand_in: StandIn, make_api: MakeApi) -> None:
    stand_in.will(page(502), says(200, {"room_id": ROOM}))
    await Homeserver(make_api(), "om").join(ROOM, "@om_ada:hs.test")
    assert [seen.method for seen in stand_in.seen] == ["POST", "POST"]


async def test_a_message_of_unknown_fate_is_not_repeated_here(stand_in: StandIn, make_api: MakeApi) -> None:
    stand_in.will(page(502))
    with pytest.raises(HomeserverUnreachable):
        await Homeserver(make_api(), "om").send(ROOM, "m.room.message", "t1", {})
    assert len(stand_in.seen) == 1


async def test_what_is_never_repeated_still_waits_when_asked_to(
    stand_in: StandIn, make_api: MakeApi, fake_time: FakeTime
) -> None:
    stand_in.will(says(429, {"errcode": "M_LIMIT_EXCEEDED", "retry_after_ms": 1000}), IS_ROOM)
    assert await Homeserver(make_api(), "om").create_room({}) == ROOM
    assert fake_time.sleeps == [1.25]


async def test_a_hanging_homeserver_is_left(stand_in: StandIn, make_api: MakeApi) -> None:
    stand_in.will(hangs)
    api = make_api(limits=TimeLimits(total=0.05), retries=RetryPolicy(attempts=2))
    with pytest.raises(HomeserverUnreachable, match="no answer within"):
        await Homeserver(api, "om").whoami()
    assert len(stand_in.seen) == 2


async def test_nobody_there(make_api: MakeApi, fake_time: FakeTime) -> None:
    api = make_api(url=f"http://127.0.0.1:{ports.any_free_port()}")
    with pytest.raises(HomeserverUnreachable, match="whoami"):
        await Homeserver(api, "om").whoami()
    assert len(fake_time.sleeps) == 3


@pytest.mark.parametrize(
    "answer",
    [page(404), says(404, []), says(403, {"errcode": "M_NOT_FOUND"}), says(404, {"errcode": "M_X"})],
)
async def test_only_the_homeserver_s_own_word_means_absent(
    answer: Answer, stand_in: StandIn, make_api: MakeApi
) -> None:
    homeserver = Homeserver(make_api(), "om")
    stand_in.will(answer)
    with pytest.raises(HomeserverRefused):
        await homeserver.resolve_alias("#om_x:hs.test")
    with pytest.raises(HomeserverRefused):
        await homeserver.state_event(ROOM, "m.room.name")
    with pytest.raises(HomeserverRefused):
        await homeserver.delete_alias("#om_x:hs.test")
    with pytest.raises(HomeserverRefused):
        await homeserver.display_name("@om_ada:hs.test")


@pytest.mark.parametrize("answer", [says(200, {}), says(200, []), says(200, {"room_id": 7})])
async def test_an_answer_of_the_wrong_shape_is_no_answer(
    answer: Answer, stand_in: StandIn, make_api: MakeApi
) -> None:
    stand_in.will(answer)
    homeserver = Homeserver(make_api(), "om")
    with pytest.raises(HomeserverUnreachable):
        await homeserver.create_room({})
    with pytest.raises(HomeserverUnreachable):
        await homeserver.resolve_alias("#om_x:hs.test")
    with pytest.raises(HomeserverUnreachable):
        await homeserver.versions()


async def test_a_redirect_does_not_get_the_token(stand_in: StandIn, make_api: MakeApi) -> None:
    stand_in.will(page(302, Location=f"{stand_in.url}/elsewhere"), IS_BOT)
    with pytest.raises(HomeserverRefused) as caught:
        await Homeserver(make_api(), "om").whoami()
    assert caught.value.status == 302
    assert len(stand_in.seen) == 1


async def test_the_other_token_is_tried_and_remembered(stand_in: StandIn, make_api: MakeApi) -> None:
    stand_in.will(unknown_token("new"))
    homeserver = Homeserver(make_api("old", "new"), "om")
    # Even what is never repeated: the homeserver that does not know us has done nothing.
    await homeserver.create_room({})
    await homeserver.whoami()
    assert [seen.token for seen in stand_in.seen] == ["old", "new", "new"]
    stand_in.will(unknown_token("old"))
    await homeserver.whoami()
    assert [seen.token for seen in stand_in.seen][3:] == ["new", "old"]


async def test_requests_at_once_settle_on_the_token_that_works(stand_in: StandIn, make_api: MakeApi) -> None:
    stand_in.will(unknown_token("new"))
    homeserver = Homeserver(make_api("old", "new"), "om")
    answers = await asyncio.gather(*(homeserver.whoami() for _ in range(10)))
    assert set(answers) == {"@bot:hs.test"}
    stand_in.seen.clear()
    await homeserver.whoami()
    assert [seen.token for seen in stand_in.seen] == ["new"]


async def test_no_token_works(stand_in: StandIn, make_api: MakeApi) -> None:
    stand_in.will(unknown_token())
    with pytest.raises(HomeserverRefused) as caught:
        await Homeserver(make_api("old", "new"), "om").whoami()
    assert (caught.value.status, caught.value.errcode) == (401, "M_UNKNOWN_TOKEN")
    assert [seen.token for seen in stand_in.seen] == ["old", "new"]


async def test_another_refusal_does_not_change_the_token(stand_in: StandIn, make_api: MakeApi) -> None:
    stand_in.will(says(403, {"errcode": "M_FORBIDDEN", "error": "no"}))
    with pytest.raises(HomeserverRefused):
        await Homeserver(make_api("old", "new"), "om").whoami()
    assert [seen.token for seen in stand_in.seen] == ["old"]


async def test_paths_are_encoded_and_a_base_path_is_kept(stand_in: StandIn, make_api: MakeApi) -> None:
    stand_in.will(says(200, {"event_id": "$1"}))
    api = make_api(url=f"{stand_in.url}/behind/a/proxy/")
    await Homeserver(api, "om").set_state("!a/../b", "t/y?p", {}, "..", as_user="@om_a+b:hs.test")
    assert stand_in.seen[0].raw_path == (
        "/behind/a/proxy/_matrix/client/v3/rooms/%21a%2F..%2Fb/state/t%2Fy%3Fp/..?user_id=@om_a%2Bb:hs.test"
    )


async def test_the_bot_acts_without_naming_itself(stand_in: StandIn, make_api: MakeApi) -> None:
    stand_in.will(IS_BOT)
    await Homeserver(make_api(), "om").whoami()
    assert stand_in.seen[0].raw_path == "/_matrix/client/v3/account/whoami"


async def test_no_secret_and_no_body_is_logged(
    stand_in: StandIn, make_api: MakeApi, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    homeserver = Homeserver(make_api("first-as-token", "second-as-token"), "om")
    stand_in.will(unknown_token("second-as-token"))
    await homeserver.whoami()
    stand_in.will(page(502, "answer-body"), says(200, {"event_id": "$1"}))
    await homeserver.set_state(ROOM, "m.room.topic", {"topic": "message-body"})
    logged = "\n".join(repr(vars(record)) for record in caplog.records)
    assert "openmeet_appservice.homeserver.client" in logged
    for secret in ('as-token"', "first-as-token", "second-as-token", "message-body", "answer-body"):
        assert secret not in logged


async def test_each_attempt_is_counted(stand_in: StandIn, make_api: MakeApi) -> None:
    def count(result: str) -> float:
        labels = {"operation": "counted", "result": result}
        return REGISTRY.get_sample_value("openmeet_as_homeserver_requests_total", labels) or 0.0

    api = make_api()
    stand_in.will(page(502), IS_BOT)
    await api.call("counted", Method.GET, Path.v3.account.whoami)
    stand_in.will(says(403, {"errcode": "M_FORBIDDEN", "error": "no"}))
    with pytest.raises(HomeserverRefused):
        await api.call("counted", Method.GET, Path.v3.account.whoami)
    assert (count("unreachable"), count("ok"), count("M_FORBIDDEN")) == (1.0, 1.0, 1.0)


def test_a_client_without_a_token_is_a_mistake() -> None:
    with pytest.raises(ValueError, match="token"):
        MatrixApi("http://localhost", [], None)  # type: ignore[arg-type] # never used


def test_transaction_ids_differ() -> None:
    assert len({new_txn_id() for _ in range(100)}) == 100


@pytest.mark.parametrize(
    ("answer", "trouble"),
    [
        pytest.param(IS_BOT, False, id="all is well"),
        pytest.param(says(404, {"errcode": "M_NOT_FOUND", "error": ""}), False, id="a refusal"),
        pytest.param(hangs, False, id="slow"),
        pytest.param(resets, True, id="broken"),
        pytest.param(page(502), True, id="a proxy without a homeserver"),
        pytest.param(says(500, {"errcode": "M_UNKNOWN", "error": ""}), True, id="failed inside"),
        pytest.param(says(502, {"errcode": "M_CONNECTION_FAILED", "error": ""}), False, id="about us"),
    ],
)
async def test_what_suggests_that_it_was_restarted(
    answer: Answer, trouble: bool, stand_in: StandIn, make_api: MakeApi
) -> None:
    seen: list[bool] = []
    stand_in.will(answer)
    api = make_api(
        retries=RetryPolicy(attempts=1),
        limits=TimeLimits(total=0.2),
        in_trouble=lambda: seen.append(True),
    )
    with contextlib.suppress(HomeserverRefused, HomeserverUnreachable):
        await Homeserver(api, "om").whoami()
    assert bool(seen) is trouble


async def test_nobody_listening_suggests_it_as_well(make_api: MakeApi) -> None:
    seen: list[bool] = []
    api = make_api(
        url=f"http://127.0.0.1:{ports.any_free_port()}",
        retries=RetryPolicy(attempts=1),
        in_trouble=lambda: seen.append(True),
    )
    with pytest.raises(HomeserverUnreachable):
        await Homeserver(api, "om").whoami()
    assert seen
