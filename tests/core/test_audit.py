"""The audit is worth something only if it notices: every kind of damage to a sound scheduler is found."""

from collections.abc import Callable

import pytest

from leadline.core import audit
from leadline.core.deadlines import Alarm
from leadline.core.model import Attempt, Family, JobState, StopCause, Stopping, Wait
from leadline.core.rate_limit import Cost, WindowLimit
from leadline.core.scheduler import Scheduler
from leadline_protocol.errors import JobReason
from leadline_protocol.ids import AccountName, CallId, Instant, JobId, TeamspaceId
from tests.core.harness import Harness

BUSY, WAITING, QUEUED, DELAYED, YIELDED, CHAIN, STEP, LATER_STEP, PAUSED = map(JobId, range(1, 10))
SNOV = AccountName("snov")


@pytest.fixture
def rich(queue: Harness) -> Harness:
    """A queue in which something is everywhere."""
    queue.provider("snov", WindowLimit(2, 60))
    assert queue.submit("a") == BUSY
    assert queue.submit("b") == WAITING
    assert queue.submit("a") == QUEUED
    assert queue.submit("c", delay=60) == DELAYED
    assert queue.submit("d") == YIELDED
    assert queue.submit_chain("e", "enrich", "enrich") == (CHAIN, STEP, LATER_STEP)
    assert queue.submit("f") == PAUSED
    queue.ask(BUSY)
    queue.ask(BUSY)
    queue.ask(WAITING)
    queue.wait(YIELDED, JobReason.POLL, 5000)
    queue.pause("job", PAUSED)
    return queue


def attempt(scheduler: Scheduler, job: JobId) -> Attempt:
    details = scheduler.jobs[job].details
    assert details is not None
    assert details.attempt is not None
    return details.attempt


def waits(scheduler: Scheduler, job: JobId) -> dict[JobReason, Wait]:
    details = scheduler.jobs[job].details
    assert details is not None
    return details.waits


def lane_of_a(scheduler: Scheduler) -> set[int]:
    return scheduler.backlog.lanes[TeamspaceId(1), Family.TABLES].held


def set_state(job: JobId, state: JobState) -> Callable[[Scheduler], None]:
    def damage(scheduler: Scheduler) -> None:
        scheduler.jobs[job].state = state

    return damage


def set_attempt(job: JobId, **values: object) -> Callable[[Scheduler], None]:
    def damage(scheduler: Scheduler) -> None:
        for name, value in values.items():
            setattr(attempt(scheduler, job), name, value)

    return damage


def forget_lane_offer(scheduler: Scheduler) -> None:
    lane = scheduler.backlog.lanes[TeamspaceId(1), Family.TABLES]
    lane.limit = 2
    lane.held.add(1)


def take_a_step(scheduler: Scheduler) -> None:
    scheduler.chains[CHAIN].left = scheduler.chains[CHAIN].left[1:]


DAMAGE: dict[str, Callable[[Scheduler], object]] = {
    "a queued job that is said to run": set_state(QUEUED, JobState.RUNNING),
    "a running job that is said to be queued": set_state(BUSY, JobState.QUEUED),
    "a job that has ended and is still here": set_state(QUEUED, JobState.COMPLETED),
    "a delayed job that is said to be queued": set_state(DELAYED, JobState.QUEUED),
    "a delayed job that nobody will wake": lambda scheduler: scheduler.delayed.heap.clear(),
    "a delayed job that is woken twice": lambda scheduler: scheduler.delayed.heap.append(scheduler.delayed.heap[0]),
    "a family that counts its delayed jobs wrong": lambda scheduler: scheduler.delayed.by_family.update(
        {Family.TABLES: 5}
    ),
    "a teamspace that counts its delayed jobs wrong": lambda scheduler: scheduler.delayed.by_teamspace.clear(),
    "a running job that is forgotten": lambda scheduler: scheduler.running.pop(BUSY),
    "a job that is forgotten and still runs": lambda scheduler: scheduler.jobs.pop(BUSY),
    "a job under another's id": lambda scheduler: scheduler.jobs.update({JobId(99): scheduler.jobs[QUEUED]}),
    "a slot that is given back too early": lambda scheduler: lane_of_a(scheduler).clear(),
    "a slot that is held by nobody": lambda scheduler: lane_of_a(scheduler).add(7),
    "two jobs on one slot number": set_attempt(BUSY, slot=3),
    "a lane that is forgotten": lambda scheduler: scheduler.backlog.lanes.pop((TeamspaceId(1), Family.TABLES)),
    "a lane with an old limit": lambda scheduler: setattr(
        scheduler.backlog.lanes[TeamspaceId(1), Family.TABLES], "limit", 2
    ),
    "a lane that counts wrong": lambda scheduler: setattr(
        scheduler.backlog.lanes[TeamspaceId(1), Family.TABLES], "queued", 0
    ),
    "a lane that has lost its job": lambda scheduler: scheduler.backlog.lanes[
        TeamspaceId(1), Family.TABLES
    ].heap.clear(),
    "a family that counts its queued jobs wrong": lambda scheduler: scheduler.backlog.queued.update({Family.TABLES: 5}),
    "a share of the capacity that is counted twice": lambda scheduler: scheduler.busy.update({Family.TABLES: 9}),
    "a job at work without a share": set_attempt(BUSY, busy=False),
    "a job that only waits and keeps its share": set_attempt(WAITING, busy=True),
    "a job in line for what it has": lambda scheduler: attempt(scheduler, BUSY).waits.update(
        {JobReason.CAPACITY: Wait(JobReason.CAPACITY)}
    ),
    "somebody in line who does not know": lambda scheduler: scheduler.capacity.waking[Family.TABLES].update(
        {WAITING: attempt(scheduler, WAITING)}
    ),
    "a teamspace that counts its pending jobs wrong": lambda scheduler: scheduler.teamspaces.pending.pop(
        TeamspaceId(1)
    ),
    "a chain that is forgotten": lambda scheduler: scheduler.chains.pop(CHAIN),
    "a step that has dropped out of its chain": take_a_step,
    "a step that starts before its turn": lambda scheduler: waits(scheduler, LATER_STEP).clear(),
    "a step in its turn that still waits": lambda scheduler: waits(scheduler, STEP).update(
        {JobReason.PREVIOUS_STEP: Wait(JobReason.PREVIOUS_STEP)}
    ),
    "a paused job that goes on": lambda scheduler: waits(scheduler, PAUSED).clear(),
    "a pause that nobody has set": lambda scheduler: scheduler.pauses.set(("job", str(PAUSED)), paused=False),
    "a pause of a job that has ended": lambda scheduler: scheduler.pauses.set(("job", "77"), paused=True),
    "a provider's pause that it does not know of": lambda scheduler: scheduler.pauses.set(
        ("provider", "snov"), paused=True
    ),
    "a job that rests without an alarm": lambda scheduler: scheduler.deadlines.forget(Alarm.WAIT, YIELDED),
    "a job that rests and is not known to": lambda scheduler: scheduler.resting.pop(YIELDED),
    "an account that nobody looks at again": lambda scheduler: scheduler.deadlines.forget(Alarm.ACCOUNT, SNOV),
    "an attempt that nobody watches": lambda scheduler: scheduler.deadlines.forget(Alarm.CHECK, BUSY, 1),
    "a pause that nobody would notice": lambda scheduler: scheduler.deadlines.forget(Alarm.PULSE, 0),
    "an attempt that may stop for ever": set_attempt(STEP, stopping=Stopping(StopCause.PAUSED, forced=False)),
    "an attempt stopped for good whose job runs on": set_attempt(
        STEP, stopping=Stopping(StopCause.STALLED, forced=True)
    ),
    "a stall clock that runs while it waits": set_attempt(WAITING, waiting=False),
    "a call that nobody made": lambda scheduler: attempt(scheduler, BUSY).flying.clear(),
    "a call that is forgotten": lambda scheduler: scheduler.calls.pop(CallId(1)),
    "a call of an earlier attempt": lambda scheduler: setattr(scheduler.calls[CallId(1)], "attempt", 0),
    "a call that asks and is charged": lambda scheduler: setattr(scheduler.calls[CallId(3)], "granted", True),
    "a charge that nobody knows": lambda scheduler: scheduler.accounts[SNOV].ask(
        CallId(50), teamspace=TeamspaceId(1), order=0, cost=Cost(request=1)
    ),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_the_audit_notices(rich: Harness, damage: str) -> None:
    audit.check(rich.scheduler, rich.now)
    DAMAGE[damage](rich.scheduler)
    with pytest.raises(AssertionError):
        audit.check(rich.scheduler, rich.now)


def test_a_job_that_could_start_and_does_not_is_noticed(rich: Harness) -> None:
    rich.finish(BUSY)
    lane = rich.scheduler.backlog.lanes[TeamspaceId(1), Family.TABLES]
    job = rich.job(QUEUED)
    rich.pause("job", QUEUED)
    rich.scheduler.pauses.set(("job", str(QUEUED)), paused=False)
    waits(rich.scheduler, QUEUED).clear()
    assert not lane.held
    rich.scheduler.backlog.put(job, Family.TABLES)
    with pytest.raises(AssertionError, match="could start"):
        audit.check(rich.scheduler, rich.now)


def test_a_sound_queue_is_found_sound_at_any_time(rich: Harness) -> None:
    for _ in range(20):
        rich.pass_seconds(13)
        audit.check(rich.scheduler, rich.now)
    assert Instant(rich.instant) == rich.now.instant
