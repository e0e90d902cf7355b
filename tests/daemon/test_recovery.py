"""What a person has set or decided holds over a restart at any moment, and over a reload."""

import asyncio
from collections.abc import Callable
from pathlib import Path

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from leadline_protocol.client import Client
from leadline_protocol.errors import JobReason
from leadline_protocol.ids import JobId
from leadline_protocol.messages import Enrich, Export, Job, JobView, MoreThan, Reload, Resume
from tests.daemon.running import WITHIN_SECONDS, Place
from tests.daemon.test_notices import upload
from tests.postgres import meddle

LEADS = 10_000
MODULES = Path(__file__).parents[1] / "acceptance" / "modules"


async def until(client: Client, job: JobId, true_of: Callable[[JobView], bool]) -> JobView:
    async with asyncio.timeout(WITHIN_SECONDS):
        while not true_of(view := (await client.call(Job(job=job))).view):
            await asyncio.sleep(0.01)
    return view


def is_held(view: JobView) -> bool:
    return view.state == "queued" and [wait.reason for wait in view.waits] == [JobReason.APPROVAL]


@pytest.mark.parametrize("select_leads", ["on_start", "on_submit"])
async def test_a_guard_holds_also_where_the_daemon_ended_before_its_wait_was_stored(
    place: Place, select_leads: str
) -> None:
    guard = MoreThan(count=2, then="hold")
    export = Export(teamspace="acme", table="people", more_than=guard, select_leads=select_leads)  # type: ignore[arg-type]
    async with place.daemon() as (_, client):
        await client.wait(await upload(place, client, 3))
        job = (await client.submit(export)).job
        await until(client, job, is_held)
    async with meddle(place.url) as connection:
        await connection.execute("UPDATE job SET details = NULL WHERE id = $1", job)
    async with place.daemon() as (_, client):
        held = await until(client, job, is_held)
        assert (held.attempt, held.counts.done) == (2, 0)
        await client.call(Resume(scope="job", name=job))
        assert (await client.wait(job)).state == "completed"


async def test_a_question_that_nobody_knows_the_end_of_is_asked_again_under_its_id(place: Place) -> None:
    """The provider cuts the first request off, leaves the second one hanging, and answers the third."""
    asked: list[str] = []
    second = asyncio.Event()

    async def company(request: web.Request) -> web.Response:
        asked.append(request.headers["Idempotency-Key"])
        if len(asked) == 1:
            assert request.transport is not None
            request.transport.abort()
        if len(asked) == 2:
            second.set()
            await asyncio.Event().wait()
        return web.json_response({"data": {"company": "Acme"}})

    served = web.Application()
    served.router.add_post("/company", company)
    async with TestServer(served) as server:
        module = place.folder / "company.toml"
        text = (MODULES / "company.toml").read_text()
        module.write_text(f'ambiguous = "reuse_id"\nid_header = "Idempotency-Key"\n{text}')
        account = ["[providers.company]", f'module = "{module}"', f'base_url = "{server.make_url("/")}"']
        place.configure("service.drain_seconds = 1", *account)
        into = {"company": "text"}
        async with place.daemon() as (_, client):
            await client.wait(await upload(place, client, 1))
            enrich = Enrich(teamspace="acme", table="people", module="company", into=into)  # type: ignore[arg-type]
            job = (await client.submit(enrich)).job
            await asyncio.wait_for(second.wait(), WITHIN_SECONDS)
        async with place.daemon() as (_, client):
            assert (await asyncio.wait_for(client.wait(job), WITHIN_SECONDS)).state == "completed"
    assert len(asked) == 3
    assert len(set(asked)) == 1


async def test_a_reload_takes_the_limit_of_the_database_away_and_brings_it_back(place: Place) -> None:
    limited = "database.records_per_hour = 120000"  # the whole list would take four minutes
    place.configure(limited)
    async with place.daemon() as (_, client):
        job = await upload(place, client, LEADS)
        await until(client, job, lambda view: bool(view.waits) and view.counts.done >= 2_000)  # a minute's worth
        place.configure("database.records_per_hour = 0")
        await client.call(Reload())
        assert (await asyncio.wait_for(client.wait(job), WITHIN_SECONDS)).state == "completed"
        place.configure(limited)
        await client.call(Reload())
        export = (await client.submit(Export(teamspace="acme", table="people"))).job
        assert (await until(client, export, lambda view: bool(view.waits))).counts.done < LEADS
