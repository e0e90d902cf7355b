"""Whatever a daemon is at when it loses its database, a follow-up has one task while it is queued, and gets one mail.

The database is lost at each request in turn, from the call that queues a follow-up to the end of its mail: before the
server sees the request, and after it has carried it out, when nobody hears of it any more.
"""

import asyncio
import time
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import msgspec
import pytest

from leadline_protocol import messages as wire
from leadline_protocol.client import Client
from leadline_protocol.errors import LeadlineError
from tests.daemon.outreach import outreach
from tests.daemon.running import WITHIN_SECONDS, Place, remove, short_folder
from tests.postgres import meddle
from tests.postgres_proxy import Proxy
from tests.world.mail import Mailbox, MailFault, MailPlan, MailServed, serving_mail

REQUESTS_MAX = 200
EVER = {"days": ["mon", "tue", "wed", "thu", "fri", "sat", "sun"], "begin": "00:00", "end": "00:00"}
SCRIPT = {"type": "script", "name": "s", "keyword": "Follow Up", "steps": [{"subject": "Hi", "text": "Hello"}]}


@pytest.fixture
async def proxy(database: str, tmp_path: Path) -> AsyncIterator[Proxy]:
    async with Proxy(database, tmp_path).running() as proxy:
        yield proxy


class Story:
    """One mail after the other, each from a mailbox of its own, so that none waits for another."""

    def __init__(self, client: Client, database: str, served: MailServed) -> None:
        self._client = client
        self._database = database
        self._served = served
        self.ends: Counter[str] = Counter()

    async def ask(self, action: Any, **wanted: Any) -> wire.OutreachReply:
        """Something of outreach, asked until the daemon takes it."""
        deadline = time.monotonic() + WITHIN_SECONDS
        while True:
            try:
                return await self._client.call(wire.FollowUps(action=action, teamspace="acme", **wanted))
            except LeadlineError:
                assert time.monotonic() < deadline
                await asyncio.sleep(0.02)

    async def begin(self, name: str) -> int:
        """Somebody to be written to, by somebody; returns the follow-up."""
        rows = [
            {"type": "associate", "name": name, "address": f"{name}@acme.example", "gap_seconds": 0, "hours": EVER},
            {"type": "follow_up", "associate": name, "address": f"{name}@x.example", "script": "s"},
        ]
        await self.ask("import", rows=rows)
        (found,) = (await self.ask("follow_ups", associate=name)).follow_ups
        return found.follow_up

    async def queue(self, name: str) -> None:
        """Queue it; where the call fails, nobody knows whether that has happened."""
        with suppress(LeadlineError):
            await self._client.call(wire.FollowUps(action="queue", teamspace="acme", associate=name))

    async def until_over(self, name: str, follow_up: int) -> wire.FollowUpView:
        """Queue it again, if need be, until it is finished or unknown."""
        deadline = time.monotonic() + WITHIN_SECONDS
        while True:
            await self.check_tasks()
            (seen,) = (await self.ask("describe", follow_up=follow_up)).follow_ups
            if seen.status in {"finished", "unknown"}:
                self.ends[seen.status] += 1
                return seen
            if seen.status == "pending":
                await self.queue(name)
            assert time.monotonic() < deadline, seen
            await asyncio.sleep(0.02)

    async def check_tasks(self) -> None:
        """What is queued has one live task, and nothing has two."""
        async with meddle(self._database) as connection, connection.transaction(isolation="repeatable_read"):
            tasks = Counter(
                [
                    msgspec.json.decode(row["payload"])["follow_up"]
                    for row in await connection.fetch("SELECT payload FROM job")
                ]
            )
            queued = await connection.fetch("SELECT id FROM follow_up WHERE status = 'queued'")
        assert all(tasks[row["id"]] == 1 for row in queued), (tasks, queued)
        assert all(count == 1 for count in tasks.values()), tasks

    async def is_finished(self, follow_up: int) -> bool:
        """Whether the database says so, asked past the proxy."""
        async with meddle(self._database) as connection:
            status = await connection.fetchval("SELECT status FROM follow_up WHERE id = $1", follow_up)
        return bool(status == "finished")

    def arrived(self, name: str) -> int:
        """How often it has been written to."""
        return sum(f"{name}@x.example" in mail.recipients for mail in self._served.messages)


@pytest.mark.parametrize("passes", [False, True], ids=["before the request", "after the request"])
@pytest.mark.timeout(900)
async def test_whichever_request_is_the_last_a_follow_up_has_one_task_and_gets_one_mail(
    database: str, proxy: Proxy, passes: bool
) -> None:
    folder = short_folder()
    place = Place(proxy.url, folder)
    async with serving_mail(Mailbox()) as served:
        place.configure(*outreach(served=served))
        async with place.daemon() as (_, client):
            story = Story(client, database, served)
            await story.ask("import", rows=[SCRIPT])
            for request in range(1, REQUESTS_MAX):
                name = f"m{request:03}"
                follow_up = await story.begin(name)
                proxy.end_at(request, passes=passes)
                await story.queue(name)
                hit = await is_lost(proxy, story, follow_up)
                seen = await story.until_over(name, follow_up)
                assert story.arrived(name) <= 1
                assert seen.status == "unknown" or story.arrived(name) == 1
                if not hit:
                    break
            assert request > 20, "the database was lost at hardly any moment: this has shown nothing"
            assert story.ends["unknown"] > 0
            assert story.ends["finished"] > story.ends["unknown"]
    remove(folder)


async def is_lost(proxy: Proxy, story: Story, follow_up: int) -> bool:
    """Wait until the database is lost, and give it back; False: the mail was over before."""
    deadline = time.monotonic() + WITHIN_SECONDS
    while not proxy.refuses:
        if await story.is_finished(follow_up):
            proxy.end_at(None)
            proxy.refuses = False
            return False
        assert time.monotonic() < deadline
        await asyncio.sleep(0.005)
    proxy.refuses = False
    return True


async def test_a_mail_that_was_on_its_way_is_settled_by_the_start_though_its_job_may_not_run(place: Place) -> None:
    """Else its mailbox would seem to be busy until the job runs, and no other mail of it would leave."""
    async with serving_mail(Mailbox([MailFault("dot", MailPlan(stop="hang"))])) as served:
        place.configure("[service]", "drain_seconds = 0", *outreach(served=served))
        async with place.daemon() as (_, client):
            story = Story(client, place.url, served)
            await story.ask("import", rows=[SCRIPT])
            follow_up = await story.begin("m")
            await story.queue("m")
            while not served.messages:
                await asyncio.sleep(0.005)
            await client.call(wire.Pause(scope="family", name="outreach"))
        async with place.daemon() as (_, client):
            (seen,) = (await Story(client, place.url, served).ask("describe", follow_up=follow_up)).follow_ups
            assert (seen.status, [mail.state for mail in seen.mails]) == ("unknown", ["unknown"])
            await client.call(wire.Resume(scope="family", name="outreach"))
            assert seen.job is not None
            while (view := (await client.call(wire.Get(job=seen.job))).view).state not in wire.ENDED_STATES:
                await asyncio.sleep(0.01)
            assert (view.state, view.counts.unknown) == ("partial", 1), view
