"""What `status` tells of a daemon, and what the service manager is told."""

import asyncio
import socket
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from leadline import health
from leadline.core.effects import WarnStalled
from leadline_protocol.errors import ErrorCode, Refused
from leadline_protocol.messages import Cancel, Jobs, Noop, Pause, Plans, Receipt, Status, Teamspaces, Upload
from tests.daemon.running import WITHIN_SECONDS, Place
from tests.postgres import meddle


@pytest.fixture
def notices(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[socket.socket]:
    """The service manager's end."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as end:
        end.bind(str(tmp_path / "notify"))
        end.setblocking(False)
        monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "notify"))
        yield end


async def test_status_tells_how_fast_the_queue_goes(place: Place) -> None:
    async with place.daemon() as (_, client):
        await client.submit_many([Noop(teamspace="acme") for _ in range(120)])
        status = await client.call(Status())
    assert status.state == "ready"
    assert status.jobs_per_second == 2
    assert status.database.commit_seconds_p50 is not None
    assert 0 < status.database.commit_seconds_p50 <= (status.database.commit_seconds_p99 or 0)
    assert status.database.records_available == 1_000_000 // 60


async def test_status_tells_the_records_of_the_last_hour_and_how_late_jobs_start(place: Place) -> None:
    place.configure("database.records_per_hour = 60_000")
    async with place.daemon() as (_, client):
        before = await client.call(Status())
        assert (before.database.records_last_hour, before.database.records_per_hour) == (0, 60_000)
        assert before.start_seconds_p50 is None
        rows = "\n".join(["email", *(f"p{n}@a.example" for n in range(700))])
        (place.state / "incoming" / "list.csv").write_text(rows)
        await client.wait((await client.submit(Upload(teamspace="acme", table="people", path="list.csv"))).job)
        status = await client.call(Status())
        assert status.database.records_last_hour == 700
        assert status.start_seconds_p50 is not None
        assert 0 < status.start_seconds_p50 <= (status.start_seconds_p99 or 0)


async def test_where_records_have_no_limit_none_is_told(place: Place) -> None:
    place.configure("database.records_per_hour = 0")
    async with place.daemon() as (_, client):
        database = (await client.call(Status())).database
        assert (database.records_available, database.records_last_hour, database.records_per_hour) == (None, None, None)


async def test_status_counts_what_is_delayed_and_since_when_the_first_is_in_line(place: Place) -> None:
    async with place.daemon() as (_, client):
        await client.call(Pause(scope="family", name="noop"))
        receipts = await client.submit_many([Noop(teamspace="acme", delay=3600) for _ in range(3)])
        first = receipts[0]
        assert isinstance(first, Receipt)
        await client.call(Cancel(job=first.job))
        before = datetime.now(UTC)
        await client.submit_many([Noop(teamspace="acme"), Noop(teamspace="globex")])
        status = await client.call(Status())
        after = datetime.now(UTC)
    (noop,) = (family for family in status.families if family.family == "noop")
    assert (noop.delayed, noop.queued) == (2, 2)
    assert noop.oldest_queued_at is not None
    clocks_apart = timedelta(seconds=5)
    assert before - clocks_apart < noop.oldest_queued_at < after + clocks_apart
    assert status.oldest_queued_at == noop.oldest_queued_at
    assert {family.oldest_queued_at for family in status.families} == {None, noop.oldest_queued_at}


async def test_teamspaces_with_the_most_work_come_first_where_that_is_asked_for(place: Place) -> None:
    async with place.daemon() as (_, client):
        await client.call(Pause(scope="queue"))
        for teamspace, jobs in (("acme", 1), ("acme-two", 3), ("globex", 2)):
            await client.submit_many([Noop(teamspace=teamspace, delay=3600) for _ in range(jobs - 1)])
            await client.submit(Noop(teamspace=teamspace))
        most = await client.call(Teamspaces(most=True, limit=2))
        of_acme = await client.call(Teamspaces(most=True, prefix="acme"))
        named = await client.call(Teamspaces(prefix="acme", limit=1))
        rest = await client.call(Teamspaces(prefix="acme", limit=1, after=named.next))
        for job in (await client.call(Jobs(teamspace="globex"))).jobs:
            await client.call(Cancel(job=job.job))
        left = await client.call(Teamspaces(most=True))
    assert [(each.teamspace, each.queued, each.delayed) for each in most.teamspaces] == [
        ("acme-two", 1, 2),
        ("globex", 1, 1),
    ]
    assert most.next is None
    assert [each.teamspace for each in of_acme.teamspaces] == ["acme-two", "acme"]
    assert ([each.teamspace for each in named.teamspaces], named.next) == (["acme"], "acme")
    assert ([each.teamspace for each in rest.teamspaces], rest.next) == (["acme-two"], None)
    assert [each.teamspace for each in left.teamspaces] == ["acme-two", "acme"], "who has nothing is left out"


async def test_status_tells_which_jobs_stood_still_and_how_they_are_now(place: Place) -> None:
    async with place.daemon() as (running, client):
        await client.call(Pause(scope="queue"))
        waiting = await client.submit(Noop(teamspace="acme"))
        gone = await client.submit(Noop(teamspace="acme"))
        reign = running.supervisor.reign
        assert reign is not None
        acme = reign.dispatcher.scheduler.names["acme"]
        reign.warn(WarnStalled(waiting.job, acme, 120, killed=False))
        reign.warn(WarnStalled(gone.job, acme, 300, killed=True))
        reign.warn(WarnStalled(waiting.job, acme, 300, killed=True))
        await client.call(Cancel(job=gone.job))
        stalls = (await client.call(Status())).stalls
    told = [(each.job, each.teamspace, each.seconds, each.killed, each.state) for each in stalls]
    assert told == [(waiting.job, "acme", 300, True, "queued"), (gone.job, "acme", 300, True, None)]
    assert not any(each.stalled for each in stalls)


async def test_status_tells_what_holds_runs_to_their_memory_where_anybody_may_have_some(place: Place) -> None:
    async with place.daemon() as (running, client):
        assert (await client.call(Status())).memory_bound is None
        await client.call(Plans(teamspace="acme", key="batch.enabled", value=True))
        assert (await client.call(Status())).memory_bound == running.runner.memory_bound


async def test_status_answers_also_without_a_database_and_says_so(
    place: Place, notices: socket.socket, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(health, "STATUS_SECONDS", 0.0)
    name = place.url.rpartition("/")[2].partition("?")[0]
    async with place.daemon() as (running, client), meddle(place.url.replace(f"/{name}?", "/leadline?")) as server:
        lost = running.supervisor.reign
        await server.execute(f"ALTER DATABASE {name} ALLOW_CONNECTIONS false")
        await server.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = $1", name)
        with pytest.raises(Refused) as refused:
            await client.submit(Noop(teamspace="acme"))
        assert refused.value.code is ErrorCode.UNAVAILABLE
        while running.supervisor.reign is lost:
            await asyncio.sleep(0)
        status = await client.call(Status())
        assert (status.state, status.database.reachable) == ("unavailable", False)
        async with asyncio.timeout(WITHIN_SECONDS):
            while await asyncio.get_running_loop().sock_recv(notices, 4096) != b"STATUS=waiting for the database":
                pass
        await server.execute(f"ALTER DATABASE {name} ALLOW_CONNECTIONS true")
        await running.supervisor.until_ready()
        assert (await client.call(Status())).state == "ready"


async def test_the_service_manager_hears_how_deep_the_queue_is_and_not_at_each_change(
    place: Place, notices: socket.socket, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(health, "STATUS_SECONDS", 2.0)
    loop = asyncio.get_running_loop()
    began = time.monotonic()
    async with place.daemon() as (_, client):
        said = [await loop.sock_recv(notices, 4096) for _ in range(2)]
        assert said == [b"READY=1", b"STATUS=0 jobs queued, 0 running"]
        await client.call(Pause(scope="queue"))
        for _ in range(3):
            await client.submit(Noop(teamspace="acme"))
        while said[-1] != b"STATUS=3 jobs queued, 0 running":
            said.append(await loop.sock_recv(notices, 4096))
        assert len(said) - 2 <= (time.monotonic() - began) / health.STATUS_SECONDS
        await client.submit(Noop(teamspace="acme", delay=3600))
        with pytest.raises(TimeoutError):  # it waits for its time and changes nothing that is said
            await asyncio.wait_for(loop.sock_recv(notices, 4096), 3.0)
