"""What keeps a mail from leaving, and what lets it go after all: the whole daemon against a real mail server."""

import asyncio
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from leadline_protocol import messages as wire
from leadline_protocol.client import Client
from tests.daemon.days import Days
from tests.daemon.outreach import outreach
from tests.daemon.running import Place
from tests.world.mail import Mailbox, MailFault, MailPlan, serving_mail

MONDAY = datetime(2026, 6, 1, 10, tzinfo=UTC)
MINUTE = timedelta(minutes=1)
EVER = {"days": ["mon", "tue", "wed", "thu", "fri", "sat", "sun"], "begin": "00:00", "end": "00:00"}
SCRIPT = {"type": "script", "name": "s", "keyword": "Follow Up", "steps": [{"subject": "Hi", "text": "Hello"}]}


def associate(name: str = "anna", **more: Any) -> dict[str, Any]:
    row = {"type": "associate", "name": name, "address": f"{name}@acme.example", "hours": EVER, "daily_cap": 1000}
    return {**row, **more}


def contact(address: str, name: str = "anna", **more: Any) -> dict[str, Any]:
    return {"type": "follow_up", "associate": name, "address": address, "script": "s", **more}


def addresses(count: int) -> list[str]:
    return [f"c{number}@x{number}.example" for number in range(count)]


@asynccontextmanager
async def days(place: Place, *faults: MailFault, settings: tuple[str, ...] = ()) -> AsyncIterator[Days]:
    """A Monday morning with one associate and one script."""
    async with Days(place, MONDAY, faults, *settings).daemon() as running:
        await running.take_in(associate(), SCRIPT)
        yield running


async def event(days: Days, what: Any, address: str, **more: Any) -> wire.EventReply:
    return await days.client.call(wire.ContactEvent(teamspace="acme", event=what, address=address, **more))


async def statuses(days: Days) -> dict[str, tuple[str, str | None]]:
    listed = (await days.ask("follow_ups", limit=1000)).follow_ups
    return {each.address: (each.status, each.reason) for each in listed}


# -- events -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("what", ["reply", "unsubscribe", "complaint", "bounce"])
async def test_no_mail_begins_once_an_event_is_answered(place: Place, what: str) -> None:
    """Each contact has a mailbox of its own, so that all mails leave at a time, while events come in."""
    chance = random.Random(1)
    names = [f"m{number}" for number in range(50)]
    async with serving_mail(Mailbox()) as served:
        place.configure(*outreach("spacing_seconds = 0", served=served))
        async with place.daemon() as (_, client), Client.connect(place.control) as other:
            rows = [SCRIPT, *map(associate, names), *(contact(f"{name}@x.example", name) for name in names)]
            await client.call(wire.FollowUps(action="import", teamspace="acme", rows=rows))
            answered: dict[str, datetime] = {}

            async def tell() -> None:
                for name in chance.sample(names, len(names)):
                    address = f"{name}@x.example"
                    await other.call(wire.ContactEvent(teamspace="acme", event=what, address=address))  # type: ignore[arg-type]
                    answered[address] = datetime.now(UTC)

            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(client.call(wire.FollowUps(action="queue", teamspace="acme")))
                tasks.create_task(tell())
            while [job for job in (await client.call(wire.Jobs(teamspace="acme"))).jobs if not job.ended_at]:
                await asyncio.sleep(0.02)
            mails = (
                await client.call(wire.FollowUps(action="mails", teamspace="acme", state="sent", limit=1000))
            ).mails
        assert {mail.message_id for mail in mails} == {each.message_id for each in served.messages}
        for each in served.messages:
            (mail,) = [mail for mail in mails if mail.message_id == each.message_id]
            assert mail.began_at < answered[mail.address]
        assert len(served.messages) < len(names), "no event came before any mail: this has shown nothing"


@pytest.mark.parametrize(
    ("what", "more"), [("auto_reply", {}), ("bounce", {"permanent": False})], ids=["auto_reply", "soft bounce"]
)
async def test_what_a_machine_answers_or_a_full_mailbox_stops_nothing(
    place: Place, what: str, more: dict[str, Any]
) -> None:
    async with days(place) as running:
        await running.take_in(contact("a@x.example"))
        assert (await event(running, what, "a@x.example", **more)).stopped == []
        await running.queue()
        assert [to for _, to in running.mails] == ["a@x.example"]


async def test_a_bounce_settles_a_mail_of_unknown_outcome_as_sent(place: Place) -> None:
    async with days(place, MailFault("dot", MailPlan(stop="cut"))) as running:
        await running.take_in(contact("a@x.example"))
        await running.queue()
        seen = await running.follow_up("a@x.example")
        assert (seen.status, seen.mails[0].state) == ("unknown", "unknown")
        await event(running, "bounce", "a@x.example", message_id=seen.mails[0].message_id)
        seen = await running.follow_up("a@x.example")
        assert seen.mails[0].state == "sent"
        assert (seen.status, seen.reason) == ("stopped", "bounced")


@pytest.mark.parametrize(
    ("what", "more"), [("auto_reply", {}), ("bounce", {"permanent": False})], ids=["auto_reply", "soft bounce"]
)
async def test_what_settles_a_mail_and_stops_nothing_lets_its_follow_up_go_on(
    place: Place, what: str, more: dict[str, Any]
) -> None:
    steps = [{"subject": "Hi", "text": "Hello"}, {"after_days": 3, "text": "again"}]
    async with days(place, MailFault("dot", MailPlan(stop="cut"))) as running:
        await running.take_in(SCRIPT | {"steps": steps}, contact("a@x.example"))
        await running.queue()
        seen = await running.follow_up("a@x.example")
        assert seen.mails[0].state == "unknown"
        await event(running, what, "a@x.example", message_id=seen.mails[0].message_id, **more)
        seen = await running.follow_up("a@x.example")
        assert (seen.mails[0].state, seen.status, seen.step) == ("sent", "pending", 2)


async def test_nobody_at_a_suppressed_domain_is_written_to(place: Place) -> None:
    async with days(place) as running:
        await running.take_in(*(contact(each) for each in ("a@bad.example", "b@bad.example", "c@good.example")))
        await running.ask("suppress", domain="bad.example")
        await running.take_in(contact("d@bad.example"))
        await running.queue()
        await running.until(MONDAY + 10 * MINUTE)
        assert [to for _, to in running.mails] == ["c@good.example"]
        assert (await statuses(running))["a@bad.example"] == ("stopped", "do_not_contact")


async def test_an_event_that_is_told_twice_does_nothing_the_second_time(place: Place) -> None:
    async with days(place) as running:
        await running.take_in(contact("a@x.example"))
        (stopped,) = (await event(running, "reply", "a@x.example", key="<r@x>")).stopped
        await running.until(MONDAY + MINUTE)
        await running.take_in(contact("a@x.example", key="again"))
        again = await event(running, "reply", "a@x.example", key="<r@x>")
        assert (again.known, again.stopped) == (True, [])
        assert (await running.ask("describe", follow_up=stopped)).follow_ups[0].reason == "replied"
        await running.queue()
        assert [to for _, to in running.mails] == ["a@x.example"], "what was imported after the reply is written"


async def test_a_mailbox_whose_mails_come_back_is_paused_and_goes_on_when_it_is_resumed(place: Place) -> None:
    async with days(place) as running:
        await running.take_in(*map(contact, addresses(8)))
        await running.queue()
        await running.until(MONDAY + 4 * MINUTE)
        assert len(running.mails) == 5
        for _, to in list(running.mails):
            await event(running, "bounce", to)
        await running.until(MONDAY + 20 * MINUTE)
        assert len(running.mails) == 5
        (view,) = (await running.ask("associates")).associates
        assert view.paused is not None
        assert "5 bounced" in view.paused
        await running.ask("resume", associate="anna")
        await running.until(MONDAY + 40 * MINUTE)
        assert [to for _, to in running.mails] == addresses(8)


# -- people -----------------------------------------------------------------------------------------------------------


async def test_a_mailbox_that_a_person_pauses_sends_nothing_until_it_is_resumed(place: Place) -> None:
    async with days(place) as running:
        await running.take_in(*map(contact, addresses(3)))
        await running.queue()
        await running.ask("pause", associate="anna", detail="on leave")
        await running.until(MONDAY + 60 * MINUTE)
        assert len(running.mails) == 1
        await running.ask("resume", associate="anna")
        await running.until(MONDAY + 70 * MINUTE)
        assert [to for _, to in running.mails] == addresses(3)


async def test_a_pause_of_the_family_keeps_all_mails_back(place: Place) -> None:
    async with days(place) as running:
        await running.take_in(*map(contact, addresses(3)))
        await running.queue()
        await running.client.call(wire.Pause(scope="family", name="outreach"))
        await running.until(MONDAY + 60 * MINUTE)
        assert len(running.mails) == 1
        await running.client.call(wire.Resume(scope="family", name="outreach"))
        await running.until(MONDAY + 70 * MINUTE)
        assert [to for _, to in running.mails] == addresses(3)


async def test_cancelling_a_task_stops_its_follow_up(place: Place) -> None:
    async with days(place) as running:
        await running.take_in(*map(contact, addresses(2)))
        await running.queue()
        waiting = await running.follow_up(addresses(2)[1])
        assert waiting.job is not None
        await running.client.call(wire.Cancel(job=waiting.job))
        await running.until(MONDAY + 10 * MINUTE)
        assert [to for _, to in running.mails] == addresses(1)
        assert (await statuses(running))[addresses(2)[1]] == ("stopped", "cancelled")


# -- mail servers -----------------------------------------------------------------------------------------------------


@asynccontextmanager
async def refusing_logins() -> AsyncIterator[int]:
    """A mail server that lets nobody in; its port."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"220 hello\r\n")
        while line := await reader.readline():
            command = line[:4].upper()
            writer.write(b"250-hello\r\n250 AUTH PLAIN LOGIN\r\n" if command == b"EHLO" else b"535 5.7.8 no\r\n")
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server:
        yield server.sockets[0].getsockname()[1]


async def test_a_refused_login_pauses_the_mailbox_and_costs_no_follow_up(place: Place) -> None:
    async with refusing_logins() as port, days(place) as running:
        smtp = {"host": "127.0.0.1", "port": port, "tls": "none", "user": "anna", "password": "wrong"}
        await running.take_in(associate(smtp=smtp), *map(contact, addresses(3)))
        await running.queue()
        await running.until(MONDAY + 30 * MINUTE)
        assert {status for status, _ in (await statuses(running)).values()} == {"queued"}
        (view,) = (await running.ask("associates")).associates
        assert view.paused is not None
        assert "535" in view.paused
        await running.take_in(associate())
        await running.ask("resume", associate="anna")
        await running.until(MONDAY + 60 * MINUTE)
        assert sorted(to for _, to in running.mails) == addresses(3)


async def test_while_a_mail_server_is_down_mails_wait_ever_longer_and_then_leave(
    place: Place, unused_tcp_port: int
) -> None:
    async with days(place) as running:
        closed = {"host": "127.0.0.1", "port": unused_tcp_port, "tls": "none"}
        await running.take_in(associate(smtp=closed), contact("a@x.example"))
        await running.queue()
        await running.until(MONDAY + 8 * MINUTE)
        seen = await running.follow_up("a@x.example")
        tries = [mail.began_at - MONDAY for mail in seen.mails]
        assert tries == [0 * MINUTE, 1 * MINUTE, 3 * MINUTE, 7 * MINUTE]
        assert (seen.status, {mail.state for mail in seen.mails}) == ("queued", {"not_sent"})
        await running.take_in(associate())
        await running.until(MONDAY + 20 * MINUTE)
        assert running.mails == [(MONDAY + 15 * MINUTE, "a@x.example")]


async def test_a_recipient_whom_the_server_refuses_fails_alone(place: Place) -> None:
    first, second, third = addresses(3)
    async with days(place, MailFault("rcpt", MailPlan("550 5.1.1 unknown"), second)) as running:
        await running.take_in(*map(contact, addresses(3)))
        await running.queue()
        await running.until(MONDAY + 10 * MINUTE)
        assert [to for _, to in running.mails] == [first, third]
        assert (await statuses(running))[second] == ("failed", "refused")


async def test_a_text_with_fields_that_the_contact_lacks_is_not_sent_and_they_are_told(place: Place) -> None:
    step = {"subject": "Hi {{ first_name }}", "text": "How is {{ company }}?"}
    async with days(place) as running:
        await running.take_in({**SCRIPT, "steps": [step]}, contact("a@x.example", fields={"first_name": "A"}))
        seen = await running.follow_up("a@x.example")
        (written,) = (await running.ask("write", follow_up=seen.follow_up)).written
        assert written.missing == ["company"]
        await running.queue()
        assert running.mails == []
        assert (await statuses(running))["a@x.example"] == ("failed", "missing_fields")
