"""What an attempt comes to, and how fast it goes: that is told of itself, whatever earlier ones have done."""

from collections.abc import Callable
from typing import Any, cast
from unittest.mock import AsyncMock, Mock

import anyio
import pytest

from leadline.actors.dispatcher import Dispatcher
from leadline.actors.provider import Permit
from leadline.actors.teamspace import RunningAttempt, TeamspaceActor
from leadline.core.effects import AdmittedJob, StartAttempt
from leadline.core.estimate import Tempo
from leadline.core.events import AttemptFinished, AttemptStopped, CallAsked, CallEnd, Event, NewJob
from leadline.core.model import SECOND, Counts, Family, JobState, Kind, Limits, Now, Rules
from leadline.core.rate_limit import Cost
from leadline.core.scheduler import Scheduler
from leadline.ports.provider_client import Request
from leadline.ports.store import AttemptRetired, StoredJob, Unavailable
from leadline.ports.work import Attempt, Finished, Stopped
from leadline_protocol.errors import ErrorCode, Refused
from leadline_protocol.ids import AccountName, Instant, JobId, LeadId, TeamspaceId
from tests.actors.test_dispatcher import Recorder
from tests.fakes.store import FakeStore

KINDS = (Kind(0, "sleep", Family.TABLES),)


class SetClock:
    """A clock that is set by hand."""

    seconds = 0

    def now(self) -> Now:
        return Now(Instant(self.seconds * SECOND), Instant(self.seconds * SECOND))


class Nobody:
    """Hears of progress and does nothing."""

    def progressed(self, job: JobId) -> None: ...


async def no_permit(_: CallAsked, __: Callable[[], bool]) -> Permit:
    raise AssertionError("no call is made in these tests")


def stored(counts: Counts) -> StoredJob:
    return StoredJob(
        id=JobId(1), order=1, teamspace="acme", kind="sleep", state=JobState.RUNNING, submitted=Instant(1), run_at=None,
        started=None, ended=None, attempt=2, counts=counts, activity="", reason=None, message="", table=None,
        chain=None, step=None, rerun_of=None, uid=None, notify=False, warnings=b"", payload=b"",
    )  # fmt: skip


def test_the_tempo_counts_what_this_attempt_has_brought_to_an_end() -> None:
    clock = SetClock()
    scheduler = Scheduler(KINDS, Rules({}, Limits({Family.TABLES: 1})))
    dispatcher = Dispatcher(scheduler, FakeStore(), clock, Recorder(), last_call=0)
    earlier = Counts(total=100, done=50)
    attempt = RunningAttempt(stored(earlier), 2, dispatcher, clock, no_permit, Nobody())
    assert attempt.tempo() is None
    clock.seconds = 4
    assert attempt.tempo() is None
    attempt.progressed(Counts(total=100, done=57, failed=2, skipped=1))
    assert attempt.tempo() == Tempo(10, 4.0)
    clock.seconds = 8
    assert attempt.tempo() == Tempo(10, 8.0)


async def test_an_attempt_is_alive_while_the_workers_that_have_its_calls_in_hand_beat() -> None:
    clock = SetClock()
    scheduler = Scheduler(KINDS, Rules({}, Limits({Family.TABLES: 1})))
    dispatcher = Dispatcher(scheduler, FakeStore(), clock, Recorder(), last_call=0)
    permits: list[Permit] = []

    async def granted(ask: CallAsked, stopping: Callable[[], bool]) -> Permit:
        permits.append(Permit(ask.call, cast("Any", Mock()), stopping))
        return permits[-1]

    attempt = RunningAttempt(stored(Counts()), 1, dispatcher, clock, granted, Nobody())
    for _ in range(3):
        await attempt.permit(AccountName("module"), LeadId(1), Cost(request=1))
    at_a_provider, first, second = permits
    first.heard = second.heard = Instant(0)
    clock.seconds = 10
    assert attempt.alive(), "a beat may be a little late"
    first.heard = Instant(10 * SECOND)
    clock.seconds = 11
    assert not attempt.alive(), "the second process is silent, whatever the first says"
    second.end(CallEnd())
    assert attempt.alive(), "it has nothing of this attempt in hand any more"
    assert at_a_provider.heard is None
    clock.seconds = 10_000
    first.end(CallEnd())
    assert attempt.alive(), "a provider's server gives no signs of life, and none are missed"


async def test_a_call_that_is_answered_and_not_over_waits_to_be_stored_wherever_its_task_is_by_now() -> None:
    clock = SetClock()
    scheduler = Scheduler(KINDS, Rules({}, Limits({Family.TABLES: 1})))
    dispatcher = Dispatcher(scheduler, FakeStore(), clock, Recorder(), last_call=0)
    answering = Mock(send=AsyncMock())

    async def granted(ask: CallAsked, stopping: Callable[[], bool]) -> Permit:
        return Permit(ask.call, cast("Any", answering), stopping)

    attempt = RunningAttempt(stored(Counts()), 1, dispatcher, clock, granted, Nobody())
    call = await attempt.permit(AccountName("module"), LeadId(7), Cost(request=1))
    assert "lead 7, at test_a_call_that_is_answered" in attempt.evidence()
    await call.send(Request("GET", "http://provider.example/", {}, b"", 5.0))
    assert attempt.evidence().endswith("lead 7, answered and not stored")
    call.end(CallEnd())
    assert "lead 7" not in attempt.evidence()


class Raising:
    """A kind of job whose work raises something."""

    def __init__(self, error: Exception) -> None:
        self._error = error

    async def run(self, attempt: Attempt) -> Finished:
        raise self._error


class Inbox(list[Event]):
    """Hears what becomes of attempts."""

    def post(self, event: Event) -> None:
        self.append(event)


class Shelf:
    """Holds one job."""

    async def job(self, job: JobId) -> StoredJob:
        return stored(Counts())


async def end_of(error: Exception) -> Event:
    """What the scheduler is told of an attempt that raises an error."""
    inbox = Inbox()
    async with anyio.create_task_group() as tasks:
        actor = TeamspaceActor(
            TeamspaceId(1), tasks, cast("Any", inbox), cast("Any", Shelf()), SetClock(),
            {0: cast("Any", Raising(error))}, no_permit, cast("Any", Nobody()), lambda _: None,
        )  # fmt: skip
        actor.start(StartAttempt(JobId(1), 1, 0, TeamspaceId(1), Family.TABLES))
    (event,) = inbox
    return event


class Noting:
    """A kind of job that notes what it was given."""

    name = "noting"

    def __init__(self) -> None:
        self.jobs: list[StoredJob] = []

    async def run(self, attempt: Attempt) -> Finished:
        self.jobs.append(attempt.job)
        return Finished(JobState.COMPLETED, Counts())


async def test_a_job_that_starts_as_it_comes_in_is_run_without_being_read() -> None:
    noting = Noting()
    row = AdmittedJob(JobId(7), 1, TeamspaceId(1), JobState.QUEUED, Instant(5), NewJob("acme", 0, b'{"kind":"noting"}'))
    async with anyio.create_task_group() as tasks:
        actor = TeamspaceActor(
            TeamspaceId(1), tasks, cast("Any", Inbox()), cast("Any", None), SetClock(),
            {0: cast("Any", noting)}, no_permit, cast("Any", Nobody()), lambda _: None,
        )  # fmt: skip
        actor.start(StartAttempt(JobId(7), 1, 0, TeamspaceId(1), Family.TABLES, admitted=row))
    assert [(job.id, job.kind, job.payload) for job in noting.jobs] == [(7, "noting", b'{"kind":"noting"}')]


def grouped(error: Exception) -> Exception:
    """As it comes out of tasks within tasks, beside what came of it."""
    return ExceptionGroup("tasks", [ValueError("nothing there"), ExceptionGroup("inner", [error])])


@pytest.mark.parametrize("wrapped", [lambda error: error, grouped])
@pytest.mark.parametrize("error", [Unavailable("gone"), AttemptRetired("late"), Stopped("told to stop")], ids=repr)
async def test_an_attempt_that_lost_its_database_or_its_turn_fails_no_job(
    error: Exception, wrapped: Callable[[Exception], Exception]
) -> None:
    assert isinstance(await end_of(wrapped(error)), AttemptStopped)


@pytest.mark.parametrize("error", [ValueError("a bug"), ExceptionGroup("tasks", [ValueError("a bug")])], ids=repr)
async def test_a_fault_in_a_jobs_work_is_that_jobs_end(error: Exception) -> None:
    event = await end_of(error)
    assert isinstance(event, AttemptFinished)
    assert (event.state, event.message) == (JobState.FAILED, "ValueError: a bug")


async def test_what_does_not_hold_any_more_fails_the_job_in_its_own_words() -> None:
    event = await end_of(ExceptionGroup("tasks", [Refused(ErrorCode.UNKNOWN_COLUMN, "no column score")]))
    assert isinstance(event, AttemptFinished)
    assert event.state is JobState.FAILED
    assert "no column score" in event.message
