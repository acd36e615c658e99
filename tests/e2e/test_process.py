"""The process: how it ends, that there is one, and what may be done beside it."""

from __future__ import annotations

import json
from dataclasses import replace

from .conftest import Stage
from .openmeet import event
from .waiting import until


async def test_sigterm_lets_what_is_under_way_end(stage: Stage) -> None:
    installation = stage.install(WEBHOOKS__TIMEOUT="20s")
    service = await stage.start(installation)
    openmeet = await stage.openmeet(installation)
    await openmeet.put("/events/games", event("Games", {}, access="anyone"))
    room_id = (await openmeet.ready("/events/games"))["matrix"]["room_id"]
    person = await stage.person()
    await person.join(room_id)
    await stage.receiver.has([await person.send_text(room_id, "before")])
    stage.receiver.mood = "waits"
    said = await person.send_text(room_id, "during")
    await stage.receiver.somebody_waits()
    service.ask_to_end()

    async def is_draining() -> bool:
        async with stage.session.get(f"{installation.ops_url}/ready") as answer:
            return answer.status == 503 and service.is_running

    await until(is_draining, "it says that it is not ready any more")
    stage.receiver.go_on()
    assert await service.ended() == 0
    await stage.receiver.has([said])
    # It was recorded as taken: the next start has nothing to repeat.
    await stage.start(installation)
    await stage.receiver.has([await person.send_text(room_id, "after")])
    stage.receiver.check()
    batches = [batch.webhook_id for batch in stage.receiver.batches]
    assert len(batches) == len(set(batches))


async def test_sigterm_while_everybody_else_is_away(stage: Stage) -> None:
    gate = await stage.gate_to_synapse()
    gate.shut = True
    installation = stage.install(HOMESERVER__URL=gate.url)
    service = await stage.start(installation)
    openmeet = await stage.openmeet(installation)
    answer = await openmeet.call("PUT", "/events/games", event("Games", {"ada": "host"}))
    assert answer.status == 202
    assert await service.terminate() == 0


async def test_a_second_run_on_the_same_file_is_refused(stage: Stage) -> None:
    installation = stage.install()
    service = await stage.start(installation)
    second = installation.process()
    # Other ports, so that it is the database that refuses.
    ports = stage.world.ports
    elsewhere = {
        "OPENMEET_AS_APPSERVICE__LISTEN": f"127.0.0.1:{ports.behind}",
        "OPENMEET_AS_PROVISIONING__LISTEN": f"127.0.0.1:{ports.towards_synapse}",
        "OPENMEET_AS_OPS__LISTEN": f"127.0.0.1:{ports.spare}",
    }
    second.installation = replace(installation, environment=installation.environment | elsewhere)
    second.launch()
    assert await second.ended() in (1, 2)
    assert "another process runs on" in second.output()
    assert "openmeet-appservice.db" in second.output()
    assert "Traceback" not in second.output()
    await service.ready(stage.session)


async def test_tenants_are_added_beside_a_running_service(stage: Stage) -> None:
    installation = stage.install()
    service = await stage.start(installation)
    config = ["-c", str(installation.config_file)]
    done = installation.run(
        "tenant", "add", stage.tenant, "--webhook-url", stage.receiver.url, "--json", *config
    )
    assert done.returncode == 0, done.stderr
    printed = json.loads(done.stdout)
    openmeet = replace(stage.admin(installation), key=printed["api_key"])
    whoami = await openmeet.get("/v1/whoami")
    assert (whoami["scope"], whoami["tenant"]) == ("tenant", stage.tenant.lower())
    await openmeet.user("ada")
    await openmeet.ready("/users/ada")
    again = installation.run("tenant", "add", stage.tenant, *config)
    assert again.returncode == 2, again.stdout
    assert stage.tenant in again.stderr
    assert printed["api_key"] not in service.output()
