"""The plans of the behaviours, carried out over real HTTP and written down as they happened."""

import asyncio
import json
from pathlib import Path

import aiohttp
import pytest

from tests.world import behaviours as world
from tests.world.behaviours import Behaviour, Fault, Plan, Window
from tests.world.log import read_log
from tests.world.servers import serving


async def ask(url: str, lead: str = "ada@north.example", **fields: str) -> tuple[int, bytes]:
    async with aiohttp.ClientSession(headers={"x-teamspace": "acme"}) as session:
        async with session.post(url, json={"email": lead, **fields}, allow_redirects=False) as response:
            return response.status, await response.read()


def faulty(plan: Plan) -> Behaviour:
    return world.Faulty(world.Enrichment(), [Fault(plan)])


async def test_an_answer_over_http_is_the_planned_one_and_the_log_tells_all_of_it(tmp_path: Path) -> None:
    provider = world.Delayed(world.Enrichment(), median_us=20_000, sigma=0)
    async with serving(provider, name="finder", log_path=tmp_path / "finder.jsonl") as served:
        status, body = await ask(f"{served.url}/find")
    assert (status, json.loads(body)["data"]) == (200, world.company_of("ada@north.example"))
    [call] = read_log(tmp_path / "finder.jsonl")
    assert call == served.calls[0]
    assert (call.n, call.server, call.method, call.path) == (1, "finder", "POST", "/find")
    assert (call.teamspace, call.lead, call.status, call.outcome) == ("acme", "ada@north.example", 200, "ok")
    assert call.ended == "answered"
    assert call.headers_sent_us is not None
    assert call.body_sent_us is not None
    assert call.arrived_us + 20_000 <= call.headers_sent_us <= call.body_sent_us


async def test_a_limit_over_http_refuses_the_call_above_it() -> None:
    async with serving(world.Limited(world.Enrichment(), Window(15, 60))) as served:
        statuses = [status for status, _ in await asyncio.gather(*(ask(served.url) for _ in range(16)))]
    assert sorted(statuses) == [200] * 15 + [429]


@pytest.mark.parametrize("plan", [world.hang(), world.hang_after_headers()])
async def test_a_hang_lasts_until_the_client_leaves_and_is_logged_as_that(plan: Plan) -> None:
    async with serving(faulty(plan)) as served:
        asking = asyncio.create_task(ask(served.url))
        await served.until(bool)
        async with asyncio.timeout(30):
            while plan.stop == "hang_after_headers" and served.calls[0].headers_sent_us is None:
                await asyncio.sleep(0.001)
        _, hanging = await asyncio.wait([asking], timeout=0.2)
        assert hanging
        asking.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asking
        assert (await ask(served.url))[0] == 200
    first, second = served.calls
    assert (first.ended, first.outcome, first.body_sent_us) == ("client_left", "hang", None)
    assert (first.headers_sent_us is None) is (plan.stop == "hang_before_headers")
    assert second.ended == "answered"


@pytest.mark.parametrize("plan", [world.cut(), world.cut(in_body=True)])
async def test_a_cut_connection_fails_the_client_and_is_logged_as_that(plan: Plan) -> None:
    async with serving(faulty(plan)) as served:
        with pytest.raises(aiohttp.ClientError):
            await ask(served.url)
    assert [call.ended for call in served.calls] == ["cut"]


async def test_a_call_still_open_when_the_server_stops_is_in_the_log(tmp_path: Path) -> None:
    async with serving(faulty(world.hang()), log_path=tmp_path / "log.jsonl") as served:
        asking = asyncio.create_task(ask(served.url))
        await served.until(bool)
    with pytest.raises(aiohttp.ClientError):
        await asking
    assert len(read_log(tmp_path / "log.jsonl")) == 1


async def test_a_huge_body_streams_until_the_client_has_had_enough() -> None:
    async with serving(faulty(world.huge_body(10_000_000_000))) as served:
        async with aiohttp.ClientSession() as session, session.get(served.url) as response:
            assert response.content_length == 10_000_000_000 // 65_536 * 65_536
            await response.content.readexactly(1_000_000)
            response.close()
        async with asyncio.timeout(30):
            await served.until(lambda calls: calls[0].ended != "open")
    assert served.calls[0].ended == "client_left"


async def test_a_dripping_body_arrives_in_its_pieces() -> None:
    plan = world.dripping(world.json_plan({"a": 1}), size=2, gap_seconds=0.02)
    async with serving(faulty(plan)) as served:
        assert await ask(served.url) == (200, b'{"a":1}')
    [call] = served.calls
    assert call.headers_sent_us is not None
    assert call.body_sent_us is not None
    assert call.body_sent_us - call.headers_sent_us >= 80_000  # 7 bytes, 4 pieces


async def test_a_redirect_and_a_wrong_key_reach_the_client_as_such() -> None:
    async with serving(faulty(world.redirect("http://10.0.0.1/"))) as served:
        assert (await ask(served.url))[0] == 302
    async with serving(world.Authorized(world.Enrichment(), "right")) as served:
        assert (await ask(served.url))[0] == 401
