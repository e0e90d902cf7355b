"""Numbers for Prometheus: in its format, by its conventions, and true."""

import asyncio
import shutil
import subprocess

import pytest
from prometheus_client.parser import text_string_to_metric_families

from leadline.adapters.http import metrics
from leadline.core.model import Job, JobState
from leadline_protocol.errors import Refused
from leadline_protocol.ids import JobId, TeamspaceId
from leadline_protocol.messages import Noop
from tests.daemon.http import Http, using
from tests.daemon.running import Place
from tests.system_tools import SEARCH_PATH


async def numbers(http: Http) -> dict[tuple[str, ...], float]:
    """Name and label values → value."""
    text = (await http.get("/metrics")).body.decode()
    return {
        (sample.name, *sample.labels.values()): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


async def test_the_numbers_are_those_of_the_queue(place: Place) -> None:
    async with place.daemon() as (_, client), using(place, client, "a", "read") as http:
        before = await numbers(http)
        done = (await client.submit(Noop(teamspace="acme"))).job
        await client.wait(done)
        for _number in range(3):
            await client.submit(Noop(teamspace="acme", delay=3600))
        with pytest.raises(Refused):
            await client.submit({"kind": "export", "teamspace": "acme", "table": "nowhere"})
        after = await numbers(http)
    assert before["leadline_ready",] == 1
    grown = {
        name: after[name] - before[name]
        for name in (
            ("leadline_jobs", "noop", "delayed"),
            ("leadline_jobs_ended_total",),
            ("leadline_submissions_total",),
            ("leadline_refusals_total", "unknown_table"),
        )
    }
    assert list(grown.values()) == [3, 1, 4, 1]
    commits = after["leadline_commit_seconds_count",] - before["leadline_commit_seconds_count",]
    assert commits >= 4
    assert after["leadline_commit_seconds_bucket", "+Inf"] == after["leadline_commit_seconds_count",]
    assert after["leadline_connections", "http"] >= 1


async def test_no_teamspace_is_a_label(place: Place) -> None:
    async with place.daemon() as (_, client), using(place, client, "a") as http:
        await client.submit(Noop(teamspace="canary-of-acme", delay=3600))
        assert b"canary-of-acme" not in (await http.get("/metrics")).body


async def test_while_the_queue_is_lost_the_process_is_still_told_of(place: Place) -> None:
    async with place.daemon() as (running, client), using(place, client, "a") as http:
        await http.get("/v1/ping")
        reign, running.supervisor.reign = running.supervisor.reign, None
        found = await numbers(http)
        running.supervisor.reign = reign
    assert found["leadline_ready",] == 0
    assert ("leadline_jobs", "noop", "queued") not in found
    assert found["process_resident_memory_bytes",] > 0


async def test_a_long_queue_is_counted_while_others_have_their_turns(place: Place) -> None:
    async with place.daemon() as (running, client), using(place, client, "a") as http:
        await client.submit(Noop(teamspace="acme", delay=3600))
        scheduler = running.supervisor.dispatcher.scheduler
        numbered = range(10**6, 10**6 + 100 * metrics.SLICE)
        several = {JobId(number): Job(0, JobId(number), TeamspaceId(1), 0, JobState.RUNNING) for number in numbered}
        scheduler.running.update(several)
        scraping = asyncio.ensure_future(numbers(http))
        turns = 0
        while not scraping.done():
            turns += 1
            await asyncio.sleep(0)
        assert turns > 100
        counted = await scraping
        for number in several:
            del scheduler.running[number]
        family = scheduler.kinds[0].family.word
        assert counted["leadline_jobs", family, "running"] == len(several)
        assert counted["leadline_jobs", "noop", "delayed"] == 1


@pytest.mark.needs("promtool")
async def test_promtool_has_nothing_to_say(place: Place) -> None:
    place.configure("[providers.snov]", 'preset = "snov"', 'secret = "not-a-real-id:not-a-real-secret"')
    async with place.daemon() as (_, client), using(place, client, "a") as http:
        text = (await http.get("/metrics")).body
    assert b'leadline_provider_limit_units{provider="snov"' in text
    promtool = shutil.which("promtool", path=SEARCH_PATH)
    assert promtool is not None
    for wrong in (False, True):
        given = text.replace(b"leadline_submissions_total", b"leadline_submissions") if wrong else text
        checked = subprocess.run([promtool, "check", "metrics"], input=given, capture_output=True, check=False)
        said = checked.stdout + checked.stderr
        assert bool(said) == wrong, said.decode()
