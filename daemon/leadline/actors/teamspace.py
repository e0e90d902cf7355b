"""A teamspace's running attempts: starts each as a task, tells it to stop, and reports how it ended.

The actor exists while something of its teamspace runs. It holds one task and one cancel scope per attempt. A stop is
first a flag: whatever the attempt waits for raises Stopped, and calls in flight may come to their end. A forced stop
cancels the scope, which aborts sockets and statements; the report that the attempt is gone is sent when the task
really has ended, never before.
"""

import asyncio
import math
import traceback
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import suppress
from decimal import Decimal
from typing import Any, Final, Never, Protocol

import anyio
import structlog
from anyio.abc import TaskGroup
from msgspec import Struct

from leadline.actors.conditions import condition_of, unwanted
from leadline.actors.dispatcher import Dispatcher
from leadline.actors.job_reader import JobReader, as_stored
from leadline.actors.provider import Permit
from leadline.core.effects import StartAttempt, StopAttempt
from leadline.core.estimate import Tempo
from leadline.core.events import (
    NOTHING,
    AttemptFinished,
    AttemptStopped,
    Beat,
    CallAsked,
    Moved,
    Progressed,
    WaitClosed,
    WaitOpened,
)
from leadline.core.model import SECOND, Counts, JobState, StopCause, Wait
from leadline.core.rate_limit import Cost
from leadline.ports.clock import Clock
from leadline.ports.store import AttemptRetired, Fenced, OutcomeUnknown, StoredJob, Unavailable
from leadline.ports.work import Finished, JobFailed, JobKind, Stopped
from leadline_protocol.errors import JobReason, Refused
from leadline_protocol.ids import AccountName, Instant, JobId, LeadId, TeamspaceId

log = structlog.get_logger(__name__)

FRAMES_MAX: Final = 12
"""So much of a stack says where something waits."""

CALLS_KEPT: Final = 64
"""So many calls of an attempt are kept in mind before those that have ended are forgotten."""

Permits = Callable[[CallAsked, Callable[[], bool]], Awaitable[Permit]]
"""Asks a provider actor for a permit."""


class Progress(Protocol):
    """Who wants to know how jobs get on."""

    def progressed(self, job: JobId) -> None:
        """Counts, waits or the activity of a running job have changed."""
        ...


class _Out(Struct, frozen=True):
    """A call that an attempt has leave for."""

    permit: Permit
    lead: LeadId
    since: Instant
    task: asyncio.Task[Any] | None

    def stack(self) -> str:
        """Where its task waits: functions and lines, the innermost last."""
        frames: list[str] = []
        coroutine: Any = self.task.get_coro() if self.task is not None else None
        while (frame := getattr(coroutine, "cr_frame", None)) is not None:
            frames.append(f"{frame.f_code.co_name}:{frame.f_lineno}")
            coroutine = coroutine.cr_await
        return " > ".join(frames[-FRAMES_MAX:])


class RunningAttempt:
    """One attempt while it runs; what its work is given (`ports.work.Attempt`)."""

    def __init__(
        self,
        job: StoredJob,
        number: int,
        dispatcher: Dispatcher,
        clock: Clock,
        permits: Permits,
        progress: Progress,
        *,
        approved: bool = False,
    ) -> None:
        self._job: Final = job
        self._number: Final = number
        self._dispatcher = dispatcher
        self._clock = clock
        self._permits = permits
        self._progress = progress
        self._approved: Final = approved
        self._stop_cause: StopCause | None = None
        self._waiters: set[asyncio.Future[None]] = set()
        self._waiting: dict[JobReason, list[Instant]] = {}
        self._out: list[_Out] = []
        """Calls that are out, oldest first, and some that have ended since they were last looked through."""
        self._out_max = CALLS_KEPT
        self.counts = job.counts
        self.activity = ""
        self._began: Final = self.now()

    @property
    def job(self) -> StoredJob:
        """The job as stored when the attempt began."""
        return self._job

    @property
    def number(self) -> int:
        """Which attempt it is."""
        return self._number

    @property
    def approved(self) -> bool:
        """Whether a person has let the job go on in spite of its guard."""
        return self._approved

    @property
    def stopping(self) -> bool:
        """Whether it has been told to stop."""
        return self._stop_cause is not None

    @property
    def stop_cause(self) -> StopCause | None:
        """Why it was told to stop."""
        return self._stop_cause

    async def until_stopping(self) -> None:
        """Wait until it is told to stop."""
        with suppress(Stopped):
            await self._sleep(math.inf)

    def now(self) -> Instant:
        """The present instant."""
        return self._clock.now().instant

    def wall(self) -> Instant:
        """The present by the clock on the wall."""
        return self._clock.now().wall

    def tempo(self) -> Tempo | None:
        """Leads that this attempt has brought to an end, and its whole time, waits included; None before the first."""
        leads = self.counts.settled - self._job.counts.settled
        seconds = (self.now() - self._began) / SECOND
        return Tempo(leads, seconds) if leads > 0 and seconds > 0 else None

    def doing(self, activity: str) -> None:
        """Say, for people, what it is at."""
        self.activity = activity
        self._progress.progressed(self._job.id)

    def progressed(self, counts: Counts) -> None:
        """Report counts that have just been committed."""
        self.counts = counts
        self._dispatcher.post(Progressed(self._job.id, self._number, counts, self.activity))
        self._progress.progressed(self._job.id)

    def moved(self) -> None:
        """Report progress that no count shows."""
        self._dispatcher.post(Moved(self._job.id, self._number))

    async def wait(self, reason: JobReason, until: Instant, numbers: Mapping[str, int | float | str]) -> None:
        """Wait for a known reason until that instant. Raises Stopped.

        Several leads of one job may wait for the same reason; the job then waits for it until the first of them goes
        on.
        """
        waiting = self._waiting.setdefault(reason, [])
        waiting.append(until)
        self._dispatcher.post(WaitOpened(self._job.id, self._number, Wait(reason, min(waiting), numbers)))
        self._progress.progressed(self._job.id)
        try:
            await self._sleep(max(0, until - self.now()) / SECOND)
        finally:
            waiting.remove(until)
            if waiting:
                self._dispatcher.post(WaitOpened(self._job.id, self._number, Wait(reason, min(waiting), numbers)))
            else:
                self._dispatcher.post(WaitClosed(self._job.id, self._number, reason))

    async def hold(self, numbers: Mapping[str, int | float | str]) -> Never:
        """Let a person look before the job goes on. Raises Stopped, when the slot is given back."""
        self._dispatcher.post(WaitOpened(self._job.id, self._number, Wait(JobReason.APPROVAL, None, numbers)))
        await self._sleep(math.inf)
        raise Stopped("held for approval")

    async def permit(
        self,
        account: AccountName,
        lead: LeadId,
        cost: Cost,
        *,
        interactive: bool = False,
        credits_max: Decimal = NOTHING,
        patient: bool = True,
    ) -> Permit:
        """Wait for leave to make one request. Raises Stopped, NoPermit, AccountClosed, Parked, Paused."""
        if self.stopping:
            raise Stopped("told to stop")
        call = self._dispatcher.new_call()
        ask = CallAsked(call, self._job.id, self._number, account, lead, cost, interactive, credits_max, patient)
        permit = await self._permits(ask, lambda: self.stopping)
        if len(self._out) >= self._out_max:  # looked through seldom enough to cost a call next to nothing
            self._out = self._still_out()
            self._out_max = max(CALLS_KEPT, 2 * len(self._out))
        self._out.append(_Out(permit, lead, self.now(), asyncio.current_task()))
        return permit

    def alive(self) -> bool:
        """Whether no worker process that works for it has fallen silent."""
        now = self.now()
        return all(call.permit.ended or call.permit.alive(now) for call in self._out)

    def evidence(self) -> str:
        """What it is at, for whoever wants to know later why it stood still: its oldest call, and where that waits."""
        out = self._still_out()
        if not out:
            return self.activity
        oldest = out[0]
        seconds = (self.now() - oldest.since) // SECOND
        calls = f"{len(out)} calls are out, the oldest" if len(out) > 1 else "a call is out"
        where = "answered and not stored" if oldest.permit.answered else f"at {oldest.stack()}"
        which = f"call {oldest.permit.id}, lead {oldest.lead}, {where}"
        return f"{self.activity}; {calls} for {seconds} s: {which}"

    def _still_out(self) -> list[_Out]:
        return [call for call in self._out if not call.permit.ended]

    def stop(self, cause: StopCause) -> None:
        """Tell it to stop."""
        self._stop_cause = cause
        for waiter in self._waiters:
            if not waiter.done():
                waiter.set_exception(Stopped("told to stop"))

    async def _sleep(self, seconds: float) -> None:
        if self.stopping:
            raise Stopped("told to stop")
        loop = asyncio.get_running_loop()
        waiter: asyncio.Future[None] = loop.create_future()
        self._waiters.add(waiter)
        timer = loop.call_later(seconds, _let_go, waiter) if seconds < math.inf else None
        try:
            await waiter
        finally:
            if timer is not None:
                timer.cancel()
            self._waiters.discard(waiter)


class TeamspaceActor:
    """What runs of one teamspace."""

    def __init__(
        self,
        teamspace: TeamspaceId,
        tasks: TaskGroup,
        dispatcher: Dispatcher,
        reader: JobReader,
        clock: Clock,
        kinds: Mapping[int, JobKind],
        permits: Permits,
        progress: Progress,
        released: Callable[[TeamspaceId], None],
    ) -> None:
        """`released` is called whenever the actor may have become idle."""
        self.teamspace: Final = teamspace
        self._tasks = tasks
        self._dispatcher = dispatcher
        self._reader = reader
        self._clock = clock
        self._kinds = kinds
        self._permits = permits
        self._progress = progress
        self._released = released
        self._scopes: dict[JobId, anyio.CancelScope] = {}
        self._attempts: dict[JobId, RunningAttempt] = {}
        self._told: dict[JobId, StopAttempt] = {}
        self._evidence: dict[JobId, str] = {}

    @property
    def idle(self) -> bool:
        """Whether nothing runs."""
        return not self._scopes

    def start(self, order: StartAttempt) -> None:
        """Run an attempt as a task of its own."""
        scope = self._scopes[order.job] = anyio.CancelScope()
        self._tasks.start_soon(self._run, order, scope, name=f"job {order.job} attempt {order.number}")

    def stop(self, order: StopAttempt) -> None:
        """Tell an attempt to stop, or cancel it where that is forced."""
        scope = self._scopes.get(order.job)
        if scope is None:
            return
        self._told[order.job] = order
        attempt = self._attempts.get(order.job)
        if attempt is not None:
            attempt.stop(order.order.cause)
        if order.order.forced:
            if attempt is not None:
                self._evidence[order.job] = attempt.evidence()  # the calls are gone when the attempt is
            scope.cancel()

    def tempo(self, job: JobId) -> Tempo | None:
        """How a job's present attempt goes; None where nobody knows."""
        attempt = self._attempts.get(job)
        return None if attempt is None else attempt.tempo()

    def beat(self) -> None:
        """Report a sign of life for each attempt whose task is still there, and whose worker processes are alive."""
        for job, attempt in self._attempts.items():
            if attempt.alive():
                self._dispatcher.post(Beat(job, attempt.number, attempt.activity))

    async def _run(self, order: StartAttempt, scope: anyio.CancelScope) -> None:
        finished: Finished | None = None
        evidence = ""
        with scope:
            try:
                finished = await self._work(order)
            except Exception as error:  # noqa: BLE001  a fault in a job's work is that job's end, not the daemon's
                finished, evidence = self._end_by(order, error)
        attempt = self._attempts.pop(order.job, None)
        del self._scopes[order.job]
        told = self._told.pop(order.job, None)
        seen = self._evidence.pop(order.job, "")
        counts = attempt.counts if attempt is not None else Counts()
        if finished is not None:
            event: AttemptFinished | AttemptStopped = AttemptFinished(
                order.job, order.number, finished.state, finished.counts, finished.reason, finished.message
            )
        else:
            cancelled = told is not None and told.order.cause is StopCause.CANCELLED
            if not evidence and attempt is not None and not cancelled:
                evidence = seen or attempt.activity
            event = AttemptStopped(order.job, order.number, counts, evidence)
        self._dispatcher.post(event)
        self._released(self.teamspace)

    def _end_by(self, order: StartAttempt, error: Exception) -> tuple[Finished | None, str]:
        """What an attempt comes to that raised something: the job's end, or none, with the evidence.

        Tasks of an attempt bring what they raised in groups. Where the database was lost, or the attempt stopped, that
        is what happened, and whatever else they raised may follow from it.
        """
        raised = list(_leaves(error))
        for each in raised:
            if isinstance(each, Unavailable | OutcomeUnknown | Fenced):
                return None, f"the database was lost: {each}"
        if any(isinstance(each, Stopped | AttemptRetired) for each in raised):
            return None, ""
        counts = self._counts(order.job)
        for each in raised:
            if isinstance(each, JobFailed):
                return Finished(JobState.FAILED, counts, each.reason, str(each)), ""
            if isinstance(each, Refused):  # what held at the submission does not any more: a column is gone
                return Finished(JobState.FAILED, counts, JobReason.ERROR, str(each)), ""
        story = "".join(traceback.format_exception(error))
        log.error("job_failed", job=order.job, attempt=order.number, error=story)
        return Finished(JobState.FAILED, counts, JobReason.ERROR, _sentence(raised[0])), ""

    def _counts(self, job: JobId) -> Counts:
        attempt = self._attempts.get(job)
        return attempt.counts if attempt is not None else Counts()

    async def _work(self, order: StartAttempt) -> Finished:
        kind = self._kinds[order.kind]
        if order.admitted is not None:
            job = as_stored(order.admitted, kind.name, order.number)
        else:
            stored = await self._reader.job(order.job)
            assert stored is not None, f"job {order.job} was started and is not stored"
            job = stored
        attempt = RunningAttempt(
            job,
            order.number,
            self._dispatcher,
            self._clock,
            self._permits,
            self._progress,
            approved=order.approved,
        )
        self._attempts[order.job] = attempt
        told = self._told.get(order.job)
        if told is not None:
            attempt.stop(told.order.cause)
        return await self._unwanted(job) or await kind.run(attempt)

    async def _unwanted(self, job: StoredJob) -> Finished | None:
        """The end of a step that its chain does not want any more, from how the one before it ended."""
        if job.chain is None or not job.step:
            return None
        chain, before = await self._reader.job(job.chain), await self._reader.job(JobId(job.id - 1))
        assert chain is not None, f"chain {job.chain} has steps that are live"
        assert before is not None, f"step {job.id} follows one"
        when = condition_of(chain, job.step)
        return None if when is None else unwanted(when, before)


def _let_go(waiter: asyncio.Future[None]) -> None:
    if not waiter.done():
        waiter.set_result(None)


def _leaves(error: Exception) -> Iterator[Exception]:
    """The errors of a group, whatever groups they are in."""
    if isinstance(error, ExceptionGroup):
        for inner in error.exceptions:
            yield from _leaves(inner)
    else:
        yield error


def _sentence(error: BaseException) -> str:
    return f"{type(error).__name__}: {error}"[:500]
