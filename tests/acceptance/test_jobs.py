"""What a person or a service may do with a job while it waits and while it runs, over restarts of the daemon too."""

import socket
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from typing import Final

import msgspec
import pytest

from leadline_protocol import messages as wire
from leadline_protocol.errors import ErrorCode, JobReason, Refused
from leadline_protocol.ids import JobId
from tests.acceptance.stage import Stage, World, adds_up, people, provider, stage
from tests.world import behaviours
from tests.world.behaviours import SECOND, Fault
from tests.world.servers import Served

LEADS: Final = 80
"""They take five seconds, so that a job still goes on when a busy machine is late to do something with it."""
STUCK: Final = str(people(LEADS)[4]["email"])
FEW_AT_A_TIME: Final = ['limits = [{ shape = "window", amount = 8, per_seconds = 0.5, unit = "request" }]']
CALL_TIMEOUT_SECONDS: Final = 10
"""Of `hanging`; `patient` waits for its answers the 60 s that are the default."""
FEW_QUEUED: Final = """
[plans.small]
max_queued = 3

[teamspaces.small]
plan = "small"

"""


@pytest.fixture(scope="module")
def steady(world: World) -> Served:
    """A provider that takes 0.2 s."""
    return world.serve(behaviours.Delayed(behaviours.Enrichment(), median_us=SECOND // 5, sigma=0.0))


@pytest.fixture(scope="module")
def hanging(world: World) -> Served:
    """A provider that never answers about one lead."""
    return world.serve(behaviours.Faulty(behaviours.Enrichment(), [Fault(behaviours.hang(), STUCK, times=1_000)]))


@pytest.fixture(scope="module")
def daemon(steady: Served, hanging: Served) -> Iterator[Stage]:
    providers = [
        provider("steady", steady, settings=FEW_AT_A_TIME),
        provider("hanging", hanging, settings=[f"call_timeout_seconds = {CALL_TIMEOUT_SECONDS}"]),
        provider("patient", hanging),
    ]
    with stage(FEW_QUEUED + "".join(providers)) as running:
        yield running


def enrich(teamspace: str, module: str) -> wire.Enrich:
    return wire.Enrich(teamspace=teamspace, table="people", module=module, into={"company": "text"})


# -- the same key ------------------------------------------------------------------------------------------------------


def test_a_key_makes_one_job_also_when_the_receipt_was_lost_and_the_daemon_killed(daemon: Stage) -> None:
    line = b'{"kind":"noop","teamspace":"keys","idempotency_key":"order-17","delay":3600}\n'
    with socket.socket(socket.AF_UNIX) as lost:
        lost.connect(str(daemon.submit_socket))
        lost.sendall(line)  # and the receipt is never read
        deadline = time.monotonic() + 60
        while not daemon.ask(wire.Jobs(teamspace="keys")).jobs:
            assert time.monotonic() < deadline
    (first,) = daemon.ask(wire.Jobs(teamspace="keys")).jobs
    daemon.kill()
    daemon.start()
    again = daemon.submit(msgspec.json.decode(line))
    assert (again.job, again.duplicate, again.state) == (first.job, True, "delayed")
    other = wire.Noop(teamspace="keys", idempotency_key="order-17", delay=60)
    with pytest.raises(Refused) as refused:
        daemon.submit(other)
    assert refused.value.code is ErrorCode.CONFLICT
    elsewhere = daemon.submit(wire.Noop(teamspace="other-keys", idempotency_key="order-17"))
    assert elsewhere.job != first.job
    assert not elsewhere.duplicate
    assert len(daemon.ask(wire.Jobs(teamspace="keys")).jobs) == 1
    daemon.ask(wire.Cancel(job=first.job))
    assert daemon.submit(msgspec.json.decode(line)).state == "cancelled", "the first job's present state"


# -- how long it takes -------------------------------------------------------------------------------------------------


def test_a_job_that_runs_says_when_it_is_expected_to_end_and_one_that_has_ended_does_not(daemon: Stage) -> None:
    daemon.table("expected", "people", people(10 * LEADS))
    job = daemon.submit(enrich("expected", "steady")).job
    running = daemon.until(job, lambda view: view.ends is not None)
    assert running.ends is not None
    assert running.started_at is not None
    assert running.started_at < running.ends.earliest <= running.ends.latest
    daemon.ask(wire.Cancel(job=job))
    assert daemon.ended(job).ends is None


# -- later -------------------------------------------------------------------------------------------------------------


def test_a_delayed_job_takes_no_slot(daemon: Stage) -> None:
    delayed = daemon.submit(wire.Noop(teamspace="later", delay=3600)).job
    assert daemon.ended(daemon.submit(wire.Noop(teamspace="later")).job).state == "completed", "the slot is free"
    assert daemon.view(delayed).state == "delayed"


def test_a_delayed_job_starts_at_its_time(daemon: Stage) -> None:
    at = datetime.now(UTC) + timedelta(seconds=2)
    delayed = daemon.submit(wire.Noop(teamspace="timed", delay=2.0))
    timed = daemon.submit(wire.Noop(teamspace="timed", run_at=at))
    assert delayed.state == "delayed"
    for receipt in (delayed, timed):
        view = daemon.ended(receipt.job)
        assert view.state == "completed"
        assert view.started_at is not None
        assert at <= view.started_at + timedelta(milliseconds=1)
        assert view.started_at <= at + timedelta(seconds=20), "soon after, for a machine that is busy"


# -- pause -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("scope", ["job", "teamspace", "provider", "family", "queue"])
def test_no_call_begins_after_a_pause_was_acknowledged(daemon: Stage, world: World, steady: Served, scope: str) -> None:
    teamspace = f"pause-{scope}"
    daemon.table(teamspace, "people", people(LEADS))
    before = len(steady.calls)
    job = daemon.submit(enrich(teamspace, "steady")).job
    name = {"job": job, "teamspace": teamspace, "provider": "steady", "family": "tables", "queue": None}[scope]
    world.until(steady, lambda calls: len(calls) >= before + 10)
    daemon.ask(wire.Pause(scope=scope, name=name))  # type: ignore[arg-type]
    begun = daemon.calls_begun(job)
    try:
        holds(daemon, world, steady, job, before, begun)
    finally:
        daemon.ask(wire.Resume(scope=scope, name=name))  # type: ignore[arg-type]
    view = daemon.ended(job)
    assert (view.state, view.counts.done) == ("completed", LEADS)
    leads = Counter(call.lead for call in steady.calls[before:])
    assert set(leads.values()) == {1}, "and nobody is asked about twice"


def holds(daemon: Stage, world: World, steady: Served, job: JobId, before: int, begun: int) -> None:
    """The job is paused, says so, and what was on its way has come to its end."""
    world.until(steady, lambda calls: all(call.ended != "open" for call in calls))
    time.sleep(1.0)  # two windows, in which sixteen calls would go
    asked = len(steady.calls) - before
    assert asked <= begun
    assert all(call.ended == "answered" for call in steady.calls[before:]), "calls in flight finish"
    view = daemon.until(job, lambda view: view.counts.done == asked)
    assert view.state not in wire.ENDED_STATES
    assert JobReason.PAUSED in [blocker.reason for blocker in daemon.ask(wire.Why(job=job)).blockers]


# -- cancel ------------------------------------------------------------------------------------------------------------


def test_a_queued_job_that_is_cancelled_is_gone_at_once(daemon: Stage) -> None:
    job = daemon.submit(wire.Noop(teamspace="cancelled", delay=3600)).job
    assert daemon.ask(wire.Cancel(job=job)).state == "cancelled"
    assert daemon.view(job).state == "cancelled"


def test_a_cancel_that_comes_too_late_is_told_how_the_job_has_ended(daemon: Stage) -> None:
    with ThreadPoolExecutor() as threads:
        with daemon.unwritable("audit"):  # a cancel is written down before anything is done about it
            job = daemon.submit(wire.Noop(teamspace="late", delay=5)).job
            reply = threads.submit(daemon.ask, wire.Cancel(job=job))
            daemon.until_held_up("audit")
            daemon.ended(job)
        with pytest.raises(Refused, match=f"job {job} has ended: completed") as refused:
            reply.result()
    assert (refused.value.code, refused.value.at) == (ErrorCode.BAD_STATE, "job")


def test_after_a_cancel_no_call_begins_and_what_is_done_stays_done(daemon: Stage, world: World, steady: Served) -> None:
    daemon.table("cancel", "people", people(LEADS))
    before = len(steady.calls)
    job = daemon.submit(enrich("cancel", "steady")).job
    world.until(steady, lambda calls: len(calls) >= before + 10)
    daemon.ask(wire.Cancel(job=job))
    begun = daemon.calls_begun(job)
    view = daemon.ended(job)
    assert view.state == "cancelled"
    time.sleep(1.0)  # two windows, in which sixteen calls would go
    calls = steady.calls[before:]
    assert len(calls) <= begun
    assert all(call.ended == "answered" for call in calls), "calls in flight finish"
    assert view.counts.done == len(calls)
    assert adds_up(view.counts)
    filled = [row["email"] for row in daemon.rows("cancel", "people") if row["company"]]
    assert sorted(filled) == sorted(str(call.lead) for call in calls)
    rerun = daemon.ask(wire.Rerun(job=job))
    again = daemon.ended(rerun.job)
    assert (again.state, again.counts.total) == ("completed", LEADS - len(calls))
    assert again.rerun_of == job
    assert Counter(Counter(call.lead for call in steady.calls[before:]).values()) == {1: LEADS}


def test_a_cancel_waits_for_a_hung_call_no_longer_than_its_time(daemon: Stage, hanging: Served) -> None:
    daemon.table("hung", "people", people(LEADS))
    job = daemon.submit(enrich("hung", "hanging")).job
    daemon.until(job, lambda view: view.counts.done == LEADS - 1)
    began = time.monotonic()
    assert daemon.ask(wire.Cancel(job=job)).state == "stopping"
    view = daemon.ended(job)
    assert time.monotonic() - began < 3 * CALL_TIMEOUT_SECONDS
    assert view.state == "cancelled"
    assert view.counts.done == LEADS - 1


def test_a_forced_cancel_cuts_a_hung_call_at_once(daemon: Stage, world: World, hanging: Served) -> None:
    daemon.table("forced", "people", people(LEADS))
    before = len(hanging.calls)
    job = daemon.submit(enrich("forced", "patient")).job
    daemon.until(job, lambda view: view.counts.done == LEADS - 1)
    began = time.monotonic()
    ran = daemon.leadline("cancel", "--force", str(job))
    assert ran.returncode == 0, ran.stderr
    view = daemon.ended(job)
    assert time.monotonic() - began < 20
    assert (view.state, view.counts.done) == ("cancelled", LEADS - 1)
    world.until(
        hanging, lambda calls: all(call.ended == "client_left" for call in calls[before:] if call.lead == STUCK)
    )
    assert sum(bool(row["company"]) for row in daemon.rows("forced", "people")) == LEADS - 1


# -- counts ------------------------------------------------------------------------------------------------------------


def test_counts_add_up_at_every_read_while_a_job_runs_and_after_a_restart(daemon: Stage, steady: Served) -> None:
    daemon.table("counted", "people", people(LEADS))
    job = daemon.submit(enrich("counted", "steady")).job
    seen = []
    view = daemon.until(job, lambda view: view.counts.done >= LEADS // 2)  # each view is checked to add up
    daemon.kill()
    daemon.start()
    restarted = daemon.view(job)
    assert restarted.counts.total == LEADS
    assert restarted.counts.done >= view.counts.done, "what was told was stored"
    while (view := daemon.view(job)).state not in wire.ENDED_STATES:
        seen.append(view.counts.done)
    assert seen == sorted(seen), "and never goes back"
    assert (view.state, view.counts.done) == ("completed", LEADS)
    daemon.restart()
    assert daemon.view(job) == view, "an ended job reads the same for ever"


# -- too many ----------------------------------------------------------------------------------------------------------


def test_a_teamspace_with_a_full_queue_is_refused_more_and_others_are_not(daemon: Stage) -> None:
    jobs = [daemon.submit(wire.Noop(teamspace="small", delay=3600)).job for _ in range(2)]
    chain = wire.Chain(teamspace="small", steps=[wire.NoopStep(), wire.NoopStep()], delay=3600)
    jobs.append(daemon.submit(chain).job)  # counts once
    with pytest.raises(Refused) as refused:
        daemon.submit(wire.Noop(teamspace="small"))
    assert refused.value.code is ErrorCode.QUEUE_FULL
    assert refused.value.retry_after
    assert daemon.ended(daemon.submit(wire.Noop(teamspace="others")).job).state == "completed"
    daemon.restart()
    with pytest.raises(Refused) as refused:
        daemon.submit(wire.Noop(teamspace="small"))
    assert refused.value.code is ErrorCode.QUEUE_FULL, "what is queued counts after a restart too"
    daemon.ask(wire.Cancel(job=jobs[0]))
    assert daemon.ended(daemon.submit(wire.Noop(teamspace="small")).job).state == "completed"
