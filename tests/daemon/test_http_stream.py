"""Server-sent events: what happens to jobs, for pages that come, go, come back, or read slowly."""

import asyncio
import json
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import pytest
from msgspec import Struct

from leadline.actors import feed
from leadline.adapters.http import limits, stream
from leadline.core.model import JobState
from leadline_protocol.client import Client
from leadline_protocol.ids import JobId
from leadline_protocol.messages import Cancel, Noop, Tokens
from tests.daemon.http import Http, using
from tests.daemon.running import WITHIN_SECONDS, Place


class Event(Struct, frozen=True):
    """One event as a browser reads it."""

    id: str
    event: str
    data: dict[str, Any]


class Source:
    """What a browser's EventSource makes of a stream."""

    def __init__(self, response: Any) -> None:
        self._response = response
        self.heartbeats = 0
        self.last = ""

    async def next(self) -> Event | None:
        """The next event; None at the end of the stream."""
        fields: dict[str, str] = {}
        async with asyncio.timeout(WITHIN_SECONDS):
            while line := await self._response.content.readline():
                text = line.decode().rstrip("\n")
                if text.startswith(":"):
                    self.heartbeats += 1
                elif text:
                    name, _, value = text.partition(": ")
                    fields[name] = value
                elif "event" in fields:
                    self.last = fields.get("id", self.last)
                    return Event(self.last, fields["event"], json.loads(fields["data"]))
        return None

    async def until(self, event: str, job: JobId) -> Event:
        """The next event of that name about a job."""
        while True:
            found = await self.next()
            assert found is not None
            if (found.event, found.data.get("job")) == (event, job):
                return found


@asynccontextmanager
async def source(http: Http, query: str = "", after: str | None = None) -> AsyncIterator[Source]:
    headers = {} if after is None else {"Last-Event-ID": after}
    async with http.session.get(f"/v1/stream{query}", headers=headers) as response:
        assert (response.status, response.headers["Content-Type"]) == (200, "text/event-stream"), await response.read()
        yield Source(response)


async def delayed(client: Client, teamspace: str = "acme") -> JobId:
    return (await client.submit(Noop(teamspace=teamspace, delay=3600))).job


async def test_a_teamspaces_stream_tells_of_its_own_jobs_and_no_others(place: Place) -> None:
    async with place.daemon() as (_, client), AsyncExitStack() as stack:
        own = await stack.enter_async_context(using(place, client, "own", teamspace="acme"))
        operator = await stack.enter_async_context(using(place, client, "operator"))
        async with source(own) as page, source(operator, "?teamspace=acme") as watched, source(operator) as all_:
            foreign = await delayed(client, "globex")
            mine = await delayed(client)
            await client.call(Cancel(job=foreign))
            await client.call(Cancel(job=mine))
            for each in (page, watched):
                queued = await each.next()
                assert queued is not None
                assert (queued.event, queued.data["job"], queued.data["teamspace"]) == ("queued", mine, "acme")
                ended = await each.until("ended", mine)
                assert (ended.data["state"], ended.data["teamspace"]) == ("cancelled", "acme")
            assert (await all_.until("ended", foreign)).data["state"] == "cancelled"


async def test_a_page_that_comes_back_hears_what_it_missed_and_nothing_twice(place: Place) -> None:
    async with place.daemon() as (_, client), using(place, client, "a", teamspace="acme") as http:
        async with source(http) as page:
            first = await delayed(client)
            await page.until("queued", first)
        await delayed(client, "globex")
        second = await delayed(client)
        async with source(http, after=page.last) as again:
            event = await again.next()
            assert event is not None
            assert (event.event, event.data["job"]) == ("queued", second)
            third = await delayed(client)
            event = await again.next()
            assert event is not None
            assert (event.event, event.data["job"]) == ("queued", third)


@pytest.mark.parametrize("after", ["another-life-3", "", "7", "x-" + "9" * 50, "-1"])
async def test_a_page_that_has_missed_something_that_nobody_knows_any_more_is_told_so(place: Place, after: str) -> None:
    async with place.daemon() as (_, client), using(place, client, "a") as http:
        async with source(http, after=after) as page:
            event = await page.next()
            assert event is not None
            assert (event.event, event.data) == ("missed", {"event": "missed", "count": 0})
        async with source(http, after=page.last) as page:
            job = await delayed(client)
            event = await page.next()
            assert event is not None
            assert (event.event, event.data["job"]) == ("queued", job), "from there on it can go on"


async def test_more_than_is_kept_is_told_as_missed(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(feed, "KEPT_MAX", 3)
    async with place.daemon() as (_, client), using(place, client, "a") as http:
        async with source(http) as page, source(http):
            await page.until("queued", await delayed(client))
            heard = page.last
            for _number in range(4):
                await page.until("queued", await delayed(client))
            kept = page.last
            async with source(http, after=heard) as late:
                event = await late.next()
                assert event is not None
                assert event.event == "missed"
            async with source(http, after=kept) as in_time:
                job = await delayed(client)
                event = await in_time.next()
                assert event is not None
                assert (event.event, event.data["job"]) == ("queued", job)


async def test_a_jobs_stream_begins_with_how_it_is_and_ends_with_its_end(place: Place) -> None:
    async with place.daemon() as (_, client), using(place, client, "a", teamspace="acme") as http:
        job = await delayed(client)
        async with source(http, f"?job={job}") as page:
            first = await page.next()
            assert first is not None
            assert (first.event, first.data["state"]) == ("progress", "delayed")
            await client.call(Cancel(job=job))
            await page.until("ended", job)
            assert await page.next() is None
        again = await http.get(f"/v1/stream?job={job}", headers={"Last-Event-ID": page.last})
        assert (again.status, again.body) == (204, b""), "a browser would come again for ever"
        async with source(http, f"?job={job}") as other:
            event = await other.next()
            assert event is not None
            assert event.event == "ended"
        assert (await http.get("/v1/stream?job=4711")).status == 404
        assert (await http.get("/v1/stream?job=first")).status == 400


async def test_silence_is_filled_with_heartbeats(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stream, "HEARTBEAT_SECONDS", 0.05)
    async with place.daemon() as (_, client), using(place, client, "a") as http, source(http) as page:
        waiting = asyncio.create_task(page.next())
        async with asyncio.timeout(WITHIN_SECONDS):
            while page.heartbeats < 3:
                await asyncio.sleep(0.01)
        job = await delayed(client)
        event = await waiting
        assert event is not None
        assert event.data["job"] == job


async def test_a_stream_ends_when_its_token_is_revoked(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stream, "HEARTBEAT_SECONDS", 0.05)
    async with place.daemon() as (_, client), using(place, client, "a") as http, source(http) as page:
        await client.call(Tokens(action="revoke", name="a"))
        await client.call(Tokens())
        assert await page.next() is None


async def test_a_token_has_so_many_streams_and_no_more(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    async with place.daemon() as (running, client), using(place, client, "a") as http:
        running.http.face._reach._stream_room = limits.Room("streams", 10, 2)
        async with source(http), source(http):
            answer = await http.get("/v1/stream")
            assert (answer.status, answer.code) == (429, "busy")
        async with asyncio.timeout(WITHIN_SECONDS):
            while len(running.http.face._reach._stream_room):
                await asyncio.sleep(0.01)
        async with source(http):
            pass


async def test_with_the_last_page_gone_nobody_listens_any_more(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(feed, "LINGER_SECONDS", 0.05)
    async with place.daemon() as (running, client), using(place, client, "a") as http:
        listeners = running.supervisor.announcer._to_all
        assert not listeners
        async with source(http), source(http), source(http):
            assert len(listeners) == 1, "one listener, for however many pages"
        async with asyncio.timeout(WITHIN_SECONDS):
            while listeners:
                await asyncio.sleep(0.01)


async def test_a_stop_of_the_daemon_ends_the_streams(place: Place) -> None:
    async with AsyncExitStack() as stack:
        async with place.daemon() as (_, client):
            http = await stack.enter_async_context(using(place, client, "a"))
            page = await stack.enter_async_context(source(http))
            await delayed(client)
            assert await page.next() is not None
        assert await page.next() is None


async def test_what_a_job_does_is_told_as_it_happens(place: Place) -> None:
    async with place.daemon() as (_, client), using(place, client, "a") as http, source(http) as page:
        job = (await client.submit(Noop(teamspace="acme"))).job
        ended = await page.until("ended", job)
        assert ended.data["state"] == JobState.COMPLETED


async def test_where_much_happens_it_is_told_in_few_writes(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    writes: list[bytes] = []
    write = stream._write

    async def counted(response: Any, data: bytes) -> None:
        writes.append(data)
        await write(response, data)

    monkeypatch.setattr(stream, "_write", counted)
    began = time.monotonic()
    async with place.daemon() as (_, client), using(place, client, "a") as http, source(http) as page:
        jobs = [await delayed(client) for _ in range(300)]
        for job in jobs:
            await page.until("queued", job)
        took = time.monotonic() - began
    assert sum(data.count(b"event: queued") for data in writes) == 300
    assert len(writes) <= 2 + took / stream.GATHER_SECONDS
