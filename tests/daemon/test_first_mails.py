"""First mails: who begins with them, from which mailbox, and when it is too late for one."""

from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from itertools import count, pairwise

import pytest

from leadline.daemon import Daemon
from leadline_protocol.client import Client
from leadline_protocol.ids import Instant
from leadline_protocol.messages import FollowUps, FollowUpView, Outreach
from tests.daemon.outreach import outreach
from tests.daemon.running import Place

FRIDAY = datetime(2026, 11, 27, 9, tzinfo=UTC)
SATURDAY = FRIDAY + timedelta(days=1)
SCRIPT: dict[str, object] = {
    "type": "script",
    "name": "hello",
    "keyword": "Initial Outreach",
    "steps": [{"subject": "Hi", "text": "Hello"}],
}


class Clock:
    """The wall, as the test sets it."""

    def __init__(self) -> None:
        self.now = FRIDAY

    def wall(self) -> Instant:
        return Instant(int(self.now.timestamp()) * 1_000_000)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(Daemon, "wall", lambda _: clock.wall())
    return clock


@asynccontextmanager
async def beginning(place: Place, *rows: dict[str, object]) -> AsyncIterator[Client]:
    """A daemon that knows these."""
    place.configure(*outreach("first_mails = 5", "weekend_share = 0.5"))
    async with place.daemon() as (_, client):
        await imported(client, SCRIPT, *rows)
        yield client


async def imported(client: Client, *rows: dict[str, object]) -> None:
    reply = await client.call(FollowUps(action="import", teamspace="acme", rows=list(rows)))
    assert reply.imported is not None
    assert reply.imported.faults == []


def associate(name: str) -> dict[str, object]:
    return {"type": "associate", "name": name, "address": f"{name}@acme.example"}


def contacts(first: int, last: int, **more: object) -> list[dict[str, object]]:
    numbers = range(first, last + 1)
    return [{"type": "follow_up", "address": f"c{n}@x.example", "script": "hello"} | more for n in numbers]


async def begin(client: Client, limit: int | None = None) -> str:
    """Begin with first mails; what its job says in the end."""
    receipt = await client.submit(Outreach(teamspace="acme", do="first_mails", limit=limit))
    await client.wait(receipt.job)
    return (await client.get(receipt.job)).message or ""


async def all_of(client: Client) -> list[FollowUpView]:
    return (await client.call(FollowUps(teamspace="acme"))).follow_ups


async def test_mailboxes_take_contacts_in_turn_and_go_on_where_they_were(place: Place, clock: Clock) -> None:
    async with beginning(place, associate("ann"), associate("bob"), associate("cleo"), *contacts(1, 8)) as client:
        assert await begin(client, 4) == "4 first mails queued, 0 contacts expired"
        first = [each.associate for each in await all_of(client)]
        assert first == ["ann", "bob", "cleo", "ann", None, None, None, None]
        assert await begin(client, 3) == "3 first mails queued, 0 contacts expired"
        taken = [each.associate for each in await all_of(client)]
        assert taken == ["ann", "bob", "cleo", "ann", "bob", "cleo", "ann", None]


async def test_each_mailbox_begins_at_random_within_an_hour_and_keeps_its_spacing(
    place: Place, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    seeds = count()  # of the contacts: two mailboxes may begin at the same second by chance, with these they do not
    monkeypatch.setattr("leadline.features.outreach.imports.secrets.randbelow", lambda _: next(seeds))
    async with beginning(place, associate("ann"), associate("bob"), *contacts(1, 6)) as client:
        began = datetime.now(UTC)
        await begin(client, 6)
        starts: dict[str | None, list[float]] = {"ann": [], "bob": []}
        for each in await all_of(client):
            assert each.job is not None
            run_at = (await client.get(each.job)).run_at
            assert run_at is not None
            starts[each.associate].append((run_at - began).total_seconds())
        for times in starts.values():
            assert 0 <= times[0] < 3600 + 10
            assert [round(later - earlier) for earlier, later in pairwise(times)] == [60, 60]
        assert round(starts["ann"][0]) != round(starts["bob"][0])


async def test_at_weekends_fewer_begin(place: Place, clock: Clock) -> None:
    async with beginning(place, associate("ann"), *contacts(1, 20)) as client:
        assert await begin(client) == "5 first mails queued, 0 contacts expired"
        clock.now = SATURDAY
        assert await begin(client) == "2 first mails queued, 0 contacts expired"


async def test_who_has_waited_for_longer_than_30_days_gets_none(place: Place, clock: Clock) -> None:
    async with beginning(place, associate("ann"), *contacts(1, 2)) as client:
        clock.now += timedelta(days=1)
        await imported(client, *contacts(3, 4))
        clock.now = FRIDAY + timedelta(days=30, seconds=1)
        assert await begin(client, 0) == "0 first mails queued, 2 contacts expired"
        found = Counter((each.status, each.reason) for each in await all_of(client))
        assert found == {("stopped", "expired"): 2, ("pending", None): 2}


async def test_a_script_for_something_else_begins_with_nobody(place: Place, clock: Clock) -> None:
    other = SCRIPT | {"name": "other", "keyword": "Follow Up"}
    strangers = contacts(2, 2, script="other")
    async with beginning(place, other, associate("ann"), *contacts(1, 1), *strangers) as client:
        assert await begin(client, 9) == "1 first mails queued, 0 contacts expired"


async def test_a_paused_mailbox_takes_no_turn(place: Place, clock: Clock) -> None:
    async with beginning(place, associate("ann"), associate("bob"), *contacts(1, 2)) as client:
        await client.call(FollowUps(action="pause", teamspace="acme", associate="ann"))
        await begin(client, 9)
        assert [each.associate for each in await all_of(client)] == ["bob", "bob"]
