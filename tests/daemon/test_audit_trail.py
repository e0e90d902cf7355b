"""Whoever has the daemon do something is written down: the peer as the kernel knows it, the person as the peer says."""

import os

import pytest

from leadline_protocol.client import Client
from leadline_protocol.errors import Refused
from leadline_protocol.ids import JobId
from leadline_protocol.messages import (
    Cancel,
    Drain,
    History,
    Noop,
    Operation,
    Pause,
    Person,
    Plans,
    Reload,
    Reply,
    Rerun,
    Resume,
    Tables,
)
from tests.daemon.pages import signed_in
from tests.daemon.running import Place
from tests.postgres import meddle

JO = Person(person="jo@acme.example", role="member")


async def trail(place: Place) -> list[tuple[object, ...]]:
    """Who, on whose behalf, what and on what, in order."""
    async with meddle(place.url) as connection:
        rows = await connection.fetch("SELECT uid, pid, person, role, op, target, detail FROM audit ORDER BY n")
    return [tuple(row) for row in rows]


async def test_every_operation_that_changes_something_is_recorded_with_who_asked_for_it(place: Place) -> None:
    async with place.daemon() as (_, client):
        job = (await client.submit(Noop(teamspace="acme", delay=3600))).job
        done: list[Operation[Reply]] = [
            Pause(scope="job", name=job, as_=JO),
            Resume(scope="job", name=job),
            Pause(scope="queue"),
            Plans(teamspace="acme", key="slots.tables", value=2),
            Plans(teamspace="acme", key="slots.tables", value=None),
            Cancel(job=job, force=True),
            Reload(),
            Drain(),
        ]
        for operation in done:
            await client.call(operation)
        own = (os.getuid(), os.getpid())
        assert await trail(place) == [
            (*own, "jo@acme.example", "member", "pause", f"job {job}", ""),
            (*own, None, None, "resume", f"job {job}", ""),
            (*own, None, None, "pause", "queue", ""),
            (*own, None, None, "plans", "teamspace acme", "slots.tables = 2"),
            (*own, None, None, "plans", "teamspace acme", "slots.tables = null"),
            (*own, None, None, "cancel", f"job {job}", "force"),
            (*own, None, None, "reload", "", ""),
            (*own, None, None, "drain", "", ""),
        ]


async def test_what_is_refused_for_what_it_asks_leaves_no_trace(place: Place) -> None:
    async with place.daemon() as (_, client):
        ended = (await client.submit(Noop(teamspace="acme"))).job
        await client.wait(ended)
        refused: list[Operation[Reply]] = [
            Cancel(job=ended),
            Cancel(job=JobId(4711)),
            Rerun(job=ended),
            Plans(teamspace="acme", key="speed", value=2),
            Pause(scope="family", name="dogs"),
        ]
        for operation in refused:
            with pytest.raises(Refused):
                await client.call(operation)
        assert await trail(place) == []


async def test_the_story_of_a_job_tells_who_stopped_it(place: Place) -> None:
    async with place.daemon() as (_, client):
        job = (await client.submit(Noop(teamspace="acme", delay=3600))).job
        await client.call(Pause(scope="job", name=job))
        await client.call(Cancel(job=job, as_=JO))
        story = await told(client, job)
    who = {"uid": os.getuid(), "pid": os.getpid()}
    assert ("pause asked", who) in story
    assert ("cancel asked", who | {"person": "jo@acme.example", "role": "member"}) in story
    words = [event for event, _ in story]
    assert words.index("submitted") < words.index("pause asked") < words.index("cancel asked")
    assert words.index("cancel asked") < words.index("cancelled")


async def told(client: Client, job: JobId) -> list[tuple[str, dict[str, object]]]:
    history = (await client.call(History(job=job))).history
    return [(entry.event, entry.detail) for entry in history]


async def test_what_a_person_submits_on_a_page_is_recorded_with_the_person(place: Place) -> None:
    async with place.daemon() as (_, client), signed_in(place, client, "acme", "member") as ann:
        await client.call(Tables(action="create", teamspace="acme", table="people", columns={"email": "text"}))
        page = (await ann.get("/t/people")).main
        (form,) = [form for form in page.every("form") if form.attributes["action"] == "/t/people/export"]
        assert (await ann.send(form)).status == 200
        recorded = (await trail(place))[-1][2:]
        assert recorded == ("ann@acme.example", "member", "submit", "teamspace acme", "export on people")
