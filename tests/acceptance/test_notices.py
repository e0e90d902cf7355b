"""Notices: what a peer asked to hear it hears once, in order, and a service misses nothing over a restart."""

from collections import Counter
from collections.abc import Iterator, Sequence
from itertools import islice
from threading import Thread
from typing import Final

import pytest

from leadline_protocol import messages as wire
from leadline_protocol.blocking import BlockingClient
from leadline_protocol.ids import JobId
from tests.acceptance.stage import Stage, World, adds_up, people, provider, stage
from tests.world import behaviours
from tests.world.behaviours import SECOND

LEADS: Final = 30
QUIET_SECONDS: Final = 0.7


@pytest.fixture(scope="module")
def daemon(world: World) -> Iterator[Stage]:
    served = world.serve(behaviours.Delayed(behaviours.Enrichment(), median_us=SECOND // 5))
    limits = 'limits = [{ shape = "window", amount = 10, per_seconds = 1.0, unit = "request" }]'
    with stage(provider("company", served, settings=[limits])) as running:
        yield running


def heard(client: BlockingClient, until_ended: Sequence[JobId]) -> list[wire.Notice]:
    """All notices until these jobs have ended, and some time of silence on top."""
    found: list[wire.Notice] = []
    missing = set(until_ended)
    while missing:
        before = len(found)
        for notice in client.notices(timeout_seconds=30):
            found.append(notice)
            if isinstance(notice, wire.Ended):
                missing.discard(notice.job)
            if not missing:
                break
        assert len(found) > before, f"nothing more was said of {missing}"
    found += client.notices(timeout_seconds=QUIET_SECONDS)
    return found


def ends(notices: Sequence[wire.Notice]) -> list[JobId]:
    return [notice.job for notice in notices if isinstance(notice, wire.Ended)]


def test_whoever_submits_with_notify_is_told_the_end_once(daemon: Stage) -> None:
    with daemon.blocking_client() as client, daemon.blocking_client() as stranger:
        jobs = [client.submit(wire.Noop(teamspace="notify", notify=True)).job for _ in range(20)]
        quiet = client.submit(wire.Noop(teamspace="notify")).job
        found = heard(client, jobs)
        assert sorted(ends(found)) == jobs
        assert quiet not in ends(found)
        assert all(isinstance(notice, wire.Ended) for notice in found)
        assert list(stranger.notices(timeout_seconds=QUIET_SECONDS)) == []


def test_notify_and_follow_and_watch_together_tell_an_end_once(daemon: Stage) -> None:
    with daemon.blocking_client() as client:
        job = client.submit(wire.Noop(teamspace="thrice", delay=1.0, notify=True)).job
        client.follow(job)
        client.follow()
        client.call(wire.Watch(job=job))
        assert ends(heard(client, [job])) == [job]


def test_who_follows_since_a_job_hears_of_each_later_one_once_over_a_restart_too(daemon: Stage) -> None:
    first = daemon.submit(wire.Noop(teamspace="since")).job
    before = [daemon.submit(wire.Noop(teamspace="since")).job for _ in range(5)]
    for job in before:
        daemon.ended(job)
    after = [daemon.submit(wire.Noop(teamspace="since", delay=1.0)).job for _ in range(5)]
    with daemon.blocking_client() as client:
        client.follow(since=first)
        assert sorted(ends(heard(client, [*before, *after]))) == [*before, *after]
    late = [daemon.submit(wire.Noop(teamspace="since", delay=0.5)).job for _ in range(5)]
    daemon.kill()
    daemon.start()
    with daemon.blocking_client() as client:
        client.follow(since=first)
        assert sorted(ends(heard(client, [*before, *after, *late]))) == [*before, *after, *late]


def test_who_begins_to_follow_while_jobs_end_hears_of_each_once(daemon: Stage) -> None:
    first = daemon.submit(wire.Noop(teamspace="meanwhile")).job
    with daemon.blocking_client() as client:
        submitter = Thread(target=client.submit_many, args=([wire.Noop(teamspace="meanwhile")] * 5_000,))
        submitter.start()
        for _ in range(5):
            with daemon.blocking_client() as listening:
                listening.follow(since=first)
                found = ends(list(islice(listening.notices(timeout_seconds=30), 1_000)))
                assert Counter(found).most_common(1)[0][1] == 1
        submitter.join()
    with daemon.blocking_client() as listening:
        listening.follow(since=first)
        found = ends(list(islice(listening.notices(timeout_seconds=30), 5_000)))
    assert len(set(found)) == 5_000


def test_a_watched_job_tells_its_story_in_order(daemon: Stage) -> None:
    daemon.table("watched", "people", people(LEADS))
    with daemon.blocking_client() as client:
        client.call(wire.Watch())
        job = client.submit(
            wire.Enrich(teamspace="watched", table="people", module="company", into={"company": "text"})
        ).job
        story = [notice for notice in heard(client, [job]) if getattr(notice, "job", None) == job]
    kinds = [type(notice) for notice in story]
    assert kinds[:2] == [wire.Queued, wire.Started]
    assert kinds[-1] is wire.Ended
    assert set(kinds[2:-1]) == {wire.Progress}
    times = [notice.at for notice in story if notice.at is not None]
    assert times == sorted(times)
    progress = [notice for notice in story if isinstance(notice, wire.Progress)]
    assert len(progress) <= (times[-1] - times[1]).total_seconds() + 1, "at most one a second"
    done = [notice.counts.done for notice in progress]
    assert done == sorted(done)
    assert all(adds_up(notice.counts) for notice in progress)
    (last,) = [notice for notice in story if isinstance(notice, wire.Ended)]
    assert (last.state, last.counts.done) == ("completed", LEADS)


def test_who_watches_a_job_that_has_ended_is_told_so_at_once(daemon: Stage) -> None:
    job = daemon.submit(wire.Noop(teamspace="over")).job
    daemon.ended(job)
    with daemon.blocking_client() as client:
        client.follow(job)
        assert ends(heard(client, [job])) == [job]


def test_a_peer_that_reads_nothing_slows_nobody_down(daemon: Stage) -> None:
    with daemon.blocking_client() as deaf:
        deaf.call(wire.Watch())
        with daemon.blocking_client() as client:
            outcomes = client.submit_many(wire.Noop(teamspace="deaf") for _ in range(20_000))
        assert all(isinstance(outcome, wire.Receipt) for outcome in outcomes)
        last = outcomes[-1]
        assert isinstance(last, wire.Receipt)
        daemon.ended(last.job)
        found = list(deaf.notices(timeout_seconds=2 * QUIET_SECONDS))
    missed = sum(notice.count for notice in found if isinstance(notice, wire.Missed))
    told = len(ends(found))
    assert told + missed >= 20_000 or missed > 0, "what was not told is at least counted"
