"""Which follow-ups a call queues, on the daemon: each once, however many call at a time."""

import asyncio
from collections import Counter
from typing import Any

import msgspec

from leadline_protocol import messages as wire
from leadline_protocol.client import Client
from leadline_protocol.messages import FollowUps
from tests.daemon.outreach import outreach
from tests.daemon.running import Place
from tests.postgres import meddle

WITHOUT_SCRIPT = (3, 8, 13, 18, 23, 28)
OTHERS = [number for number in range(1, 41) if number not in WITHOUT_SCRIPT]


def rows() -> list[dict[str, Any]]:
    """Forty contacts of one associate, some without a script of use; nothing leaves, as there is no mail server."""
    script = {"type": "script", "keyword": "Follow Up", "steps": [{"subject": "Hi", "text": "Hello"}]}
    contacts = [
        {
            "type": "follow_up",
            "associate": "anna",
            "address": f"c{number}@x.example",
            "script": (None if number % 2 else "other") if number in WITHOUT_SCRIPT else "s",
        }
        for number in range(1, 41)
    ]
    associate = {"type": "associate", "name": "anna", "address": "anna@acme.example"}
    return [associate, {**script, "name": "s"}, {**script, "name": "other", "keyword": "follow up"}, *contacts]


async def queue(client: Client) -> wire.QueueReceipt:
    (receipt,) = (await client.call(FollowUps(action="queue", teamspace="acme", associate="anna"))).queued
    return receipt


def numbers(receipt: wire.QueueReceipt) -> list[int]:
    return [int(each.address.partition("@")[0].removeprefix("c")) for each in receipt.queued]


async def tasks(place: Place) -> Counter[int]:
    """How many live jobs send each follow-up."""
    async with meddle(place.url) as connection:
        payloads = [msgspec.json.decode(row["payload"]) for row in await connection.fetch("SELECT payload FROM job")]
    return Counter(each["follow_up"] for each in payloads if each["do"] == "send")


async def test_the_first_call_queues_twenty_five_of_the_oldest_and_the_second_what_is_left(place: Place) -> None:
    place.configure(*outreach())
    async with place.daemon() as (_, client):
        await client.call(FollowUps(action="import", teamspace="acme", rows=rows()))
        first = await queue(client)
        assert numbers(first) == OTHERS[:25] == [n for n in range(1, 32) if n not in WITHOUT_SCRIPT]
        assert [each.delay_seconds for each in first.queued] == [60 * n for n in range(25)]
        assert (len(first.skipped), first.left) == (6, 9)
        second = await queue(client)
        assert numbers(second) == list(range(32, 41))
        assert [each.delay_seconds for each in second.queued] == [60 * n for n in range(9)]
        assert numbers(await queue(client)) == []
        assert sorted((await tasks(place)).values()) == [1] * 34
        pending = (await client.call(FollowUps(teamspace="acme", status="pending"))).follow_ups
        assert [each.address for each in pending] == [f"c{number}@x.example" for number in WITHOUT_SCRIPT]


async def test_calls_at_the_same_time_queue_each_follow_up_once(place: Place) -> None:
    place.configure(*outreach())
    async with place.daemon() as (_, client), Client.connect(place.control) as other:
        await client.call(FollowUps(action="import", teamspace="acme", rows=rows()))
        job = await client.submit(wire.Outreach(teamspace="acme", associate="anna"))
        receipts = await asyncio.gather(*(queue(each) for each in (client, other, client, other)))
        while (await client.call(wire.Get(job=job.job))).view.state not in wire.ENDED_STATES:
            await asyncio.sleep(0.01)
        queued = [number for receipt in receipts for number in numbers(receipt)]
        assert len(queued) == len(set(queued))
        found = await tasks(place)
        assert sorted(found.values()) == [1] * 34
        listed = (await client.call(FollowUps(teamspace="acme", status="queued"))).follow_ups
        assert {each.follow_up: 1 for each in listed} == found
        assert len({each.job for each in listed}) == 34
