"""What listeners hear of a job's life, and what a view tells of a running one."""

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager

import pytest

from leadline_protocol.client import Client
from leadline_protocol.ids import JobId
from leadline_protocol.messages import (
    Ended,
    Export,
    Job,
    MoreThan,
    Noop,
    Notice,
    Pause,
    Queued,
    Resume,
    Started,
    Upload,
    Watch,
)
from tests.daemon.running import WITHIN_SECONDS, Place
from tests.postgres import meddle


@asynccontextmanager
async def watching(place: Place) -> AsyncIterator[tuple[Client, AsyncIterator[Notice]]]:
    """A connection that hears of everything."""
    async with place.daemon() as (_, client), Client.connect(place.control) as listener:
        await listener.call(Watch())
        yield client, listener.notices()


async def upload(place: Place, client: Client, rows: int) -> JobId:
    lines = ["email", *(f"ada{number}@a.example" for number in range(rows))]
    (place.state / "incoming" / "list.csv").write_text("\n".join(lines))
    return (await client.submit(Upload(teamspace="acme", table="people", path="list.csv"))).job


async def until_ended(notices: AsyncIterator[Notice]) -> list[Notice]:
    heard = []
    async with asyncio.timeout(WITHIN_SECONDS):
        async for notice in notices:
            heard.append(notice)
            if isinstance(notice, Ended):
                return heard
    raise AssertionError(heard)


async def test_the_life_of_a_job_is_heard_in_its_order_with_its_times(place: Place) -> None:
    async with watching(place) as (client, notices):
        job = await upload(place, client, 3)
        heard = [notice for notice in await until_ended(notices) if isinstance(notice, Queued | Started | Ended)]
    assert [(type(notice), notice.job) for notice in heard] == [(Queued, job), (Started, job), (Ended, job)]
    times = [notice.at for notice in heard if notice.at is not None]
    assert len(times) == 3
    assert times == sorted(times)
    started = heard[1]
    assert isinstance(started, Started)
    assert (started.teamspace, started.attempt) == ("acme", 1)


async def test_a_follower_hears_of_its_own_jobs_alone_and_ends_are_looked_up_together(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with place.daemon() as (running, client):
        asked: list[int] = []
        ask = running.submitters

        async def counted(jobs: Sequence[JobId]) -> Mapping[JobId, int | None]:
            asked.append(len(jobs))
            return await ask(jobs)

        monkeypatch.setattr(running, "submitters", counted)
        await client.call(Pause(scope="queue"))
        own, others = [[(await client.submit(Noop(teamspace=team))).job for _ in range(20)] for team in ("a", "b")]
        async with meddle(place.url) as connection:
            await connection.execute("UPDATE job SET uid = 4711 WHERE id = ANY ($1::bigint[])", others)
        async with AsyncExitStack() as stack:
            followers = [await stack.enter_async_context(Client.connect(place.submit)) for _ in range(3)]
            for follower in followers:
                await follower.follow()
            await client.call(Resume(scope="queue"))
            last = (await client.submit(Noop(teamspace="a"))).job
            for follower in followers:
                heard = []
                async with asyncio.timeout(WITHIN_SECONDS):
                    async for notice in follower.notices():
                        assert isinstance(notice, Ended)
                        heard.append(notice.job)
                        if notice.job == last:
                            break
                assert heard == [*own, last]
    assert sum(asked) == 40
    assert len(asked) <= 2


async def test_a_held_job_says_in_its_message_what_a_person_has_to_judge(place: Place) -> None:
    async with place.daemon() as (_, client):
        await client.wait(await upload(place, client, 3))
        export = Export(teamspace="acme", table="people", more_than=MoreThan(count=2, then="hold"))
        job = (await client.submit(export)).job
        async with asyncio.timeout(WITHIN_SECONDS):
            while (view := (await client.call(Job(job=job))).view).message is None:
                await asyncio.sleep(0.01)
        assert view.message.startswith("3 leads matched, which is more than its guard lets through")
        await client.call(Resume(scope="job", name=job))
        ended = await client.wait(job)
        assert ended.state == "completed"
