"""The kind `batch`: one execution of a batch job, with its retries.

The job of the queue is the execution; its own attempts are the reigns and accidents of daemons, and have nothing to do
with those that the batch job's retries allow. Each of these is first written into the books, with what it may take at
most, then started under a name that is stored by then, then watched until it ends; and what it took is written down in
the transaction that decides what follows. So wherever a daemon dies, the next one finds what there is: an attempt that
goes on, one that has ended and is not in the books yet, or one that was never started.

What runs is not interrupted for anything but a cancel. Told to stop for any other reason, the job lets go of its
attempt, which goes on, and finds it again.
"""

import secrets
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from typing import Any, Final, TypeVar

import anyio
import msgspec
from msgspec import Struct

from leadline.core.events import Statement
from leadline.core.heartbeats import LATE_SECONDS
from leadline.core.model import Counts, Family, JobState, StopCause
from leadline.core.quota.days import day_of
from leadline.core.quota.ledger import Ahead, BatchJobId, refusal
from leadline.features.batch.attempts import Attempts, name_of
from leadline.features.batch.course import Begin, GoOn, Over, ending_of, next_step, took_ms, words
from leadline.features.batch.packages import InstallFailed
from leadline.features.batch.ports import (
    INVOKE,
    BatchJob,
    BatchPlan,
    BatchState,
    BatchStore,
    Ending,
    Line,
    PlanOf,
    StoredRun,
    Tried,
    Workshop,
)
from leadline.features.batch.requests import Requests, attend
from leadline.features.batch.world import House
from leadline.ports.runner import CannotRun, End, Killed, KilledFor, Limits, NotBegun, Order, Run
from leadline.ports.store import DUE, THIS_JOB
from leadline.ports.work import Attempt, ChainNotes, Finished, Prepared, Rerun, Stopped
from leadline_protocol import messages as wire
from leadline_protocol.errors import ErrorCode, JobReason, LeadlineError, Refused
from leadline_protocol.ids import Instant

PROMISED_SECONDS: Final = 60.0
"""So long a run that was let in counts though nobody has said whether it has become a job."""

LOOK_SECONDS: Final = 1.0
"""How often it is looked whether code that may not be silent for too long has been so."""

GATHER_SECONDS: Final = 0.2
"""Lines that are printed within this are stored together."""

LINES_AT_ONCE: Final = 1_000

ACTIVITY_CHARACTERS_MAX: Final = 120

_SUBMISSION: Final = msgspec.json.Decoder(wire.Batch)
_NO_COUNTS: Final = Counts()

T = TypeVar("T")

_NEVER_BEGUN: Final = End(Killed(KilledFor.TOLD), None, 0.0)

_UNFIT: Final = (CannotRun, Refused, InstallFailed)
"""Why an attempt cannot begin."""


class _Promise(Struct):
    """A run that was let in, as long as the database does not show it."""

    teamspace: str
    batch_job: BatchJobId
    made: float
    stored: bool = False


class Batch:
    """Executions of batch jobs (`ports.work.JobKind`)."""

    name = "batch"
    family = Family.BATCH

    def __init__(
        self,
        store: BatchStore,
        workshop: Workshop,
        attempts: Attempts,
        plan_of: PlanOf,
        wall: Callable[[], Instant],
        house: House,
        admitted: Callable[[], None],
    ) -> None:
        """`house`: where what code asks for comes from; `admitted` is called when there is a run more."""
        self._house = house
        self._admitted = admitted
        self._store = store
        self._workshop = workshop
        self._attempts = attempts
        self._plan_of = plan_of
        self._wall = wall
        self._promises: dict[bytes, _Promise] = {}

    # -- submission ---------------------------------------------------------------------------------------------------

    async def prepare(
        self,
        teamspace: str,
        submission: wire.Submission,
        *,
        chain: ChainNotes | None,  # noqa: ARG002  it is no step of a chain
        rerun: Rerun | None,  # noqa: ARG002  one more run is all that there is to it
    ) -> Prepared:
        """Check that there is such a batch job, that it can run, and what the day has left. Raises Refused."""
        assert isinstance(submission, wire.Batch)
        found = await self._store.batch_jobs(teamspace, submission.batch_job, 0, 1)
        if not found:
            message = f"{teamspace} has no batch job {submission.batch_job}"
            raise Refused(ErrorCode.NOT_FOUND, message, at="batch_job")
        batch_job, plan = found[0], self._plan_of(teamspace)
        if not plan.enabled:
            raise Refused(ErrorCode.FORBIDDEN, f"batch jobs are not enabled for {teamspace}", at="teamspace")
        if batch_job.state is not BatchState.PUBLISHED:
            message = f"{batch_job.name} is {_article(batch_job.state)}: publish it first"
            raise Refused(ErrorCode.BAD_STATE, message, at="batch_job")
        refused = await self._refusal(batch_job, plan)
        token = secrets.token_bytes(16)
        if refused is None:
            self._promises[token] = _Promise(teamspace, batch_job.id, anyio.current_time())
        statement = Statement(INVOKE, (THIS_JOB, batch_job.id, teamspace, DUE, token))
        return Prepared(
            statements=[statement], refused=refused, settled=lambda stored: self._settle(token, stored=stored)
        )

    async def _refusal(self, batch_job: BatchJob, plan: BatchPlan) -> Refused | None:
        """Why nobody may submit a run of it now."""
        if not batch_job.conduct.api:
            message = f"{batch_job.name} is run by its schedules alone: allow it to be run by submission (api) first"
            return Refused(ErrorCode.BAD_STATE, message, at="batch_job")
        wall, teamspace = self._wall(), batch_job.teamspace
        before = {token: each for token, each in self._promises.items() if each.teamspace == teamspace}
        used = await self._store.used(teamspace, day_of(wall, plan.zone), wall, list(before))
        waiting = dict(used.waiting)
        for token, each in before.items():
            if each.stored and token not in waiting:  # it has started, or was cancelled
                self._promises.pop(token, None)
        now = anyio.current_time()
        for token, each in list(self._promises.items()):
            if each.teamspace == teamspace and token not in used.started and now - each.made < PROMISED_SECONDS:
                waiting.setdefault(token, each.batch_job)
        ahead = Ahead(len(waiting), sum(each == batch_job.id for each in waiting.values()))
        refused = refusal(used.usage, plan.quotas, batch_job.id, batch_job.conduct.timeout_ms, ahead)
        return None if refused is None else refused.refused(wall, plan.zone)

    def _settle(self, token: bytes, *, stored: bool) -> None:
        if not stored:
            self._promises.pop(token, None)
            return
        self._admitted()
        if token in self._promises:
            self._promises[token].stored = True

    # -- the run ------------------------------------------------------------------------------------------------------

    async def run(self, attempt: Attempt) -> Finished:
        """See it through. Raises Stopped."""
        submission = _SUBMISSION.decode(attempt.job.payload)
        while True:
            run, batch_job, step = await self._next(attempt)
            if isinstance(step, Over):
                self._attempts.printed(run.job)
                return _finished(step.ending)
            ending = await self._see_through(attempt, submission, run, batch_job, step)
            if ending is not None:
                return _finished(ending)

    async def _next(self, attempt: Attempt) -> tuple[StoredRun, BatchJob | None, Begin | GoOn | Over]:
        """Decide what is to be done, in the books."""
        wall = self._wall()
        async with self._store.books(attempt.job.id, attempt.number, wall) as books:
            run, batch_job = books.run, books.batch_job
            step = next_step(run, batch_job, books.rows, self._plan_of(run.teamspace), wall)
            match step:
                case Begin(tried, version):
                    await books.begin(tried, version if run.started is None else None)
                case Over(ending) if run.ending is None:
                    await books.end(ending, wall)
        return run, batch_job, step

    async def _see_through(
        self,
        attempt: Attempt,
        submission: wire.Batch,
        run: StoredRun,
        batch_job: BatchJob | None,
        step: Begin | GoOn,
    ) -> Ending | None:
        """Have an attempt run to its end; how its run ends with that, or None. Raises Stopped."""
        tried = step.tried
        kept = self._attempts.find(name_of(run.token, tried.retry))
        if kept is None:
            attempt.doing("its code is made ready")
            try:
                kept = await _unless_stopped(attempt, self._start(submission, run, batch_job, step))
            except _UNFIT as error:
                if isinstance(error, InstallFailed):
                    wall = self._wall()
                    said = [Line(number, wall, text) for number, text in enumerate(error.log, start=1)]
                    await self._store.keep_lines(run.job, tried.retry, said)
                story = error.message if isinstance(error, Refused) else str(error)
                return await self._record(attempt, tried, End(NotBegun(story), None, 0.0), stalled=False)
            except (Stopped, anyio.get_cancelled_exc_class()):
                if attempt.stop_cause is StopCause.CANCELLED:
                    with anyio.CancelScope(shield=True), suppress(LeadlineError):
                        await self._record(attempt, tried, _NEVER_BEGUN, stalled=False)
                raise
        attempt.doing("it runs")
        watch = _Watch(self._store, self._attempts, attempt, tried, kept, batch_job)
        plan = self._plan_of(run.teamspace)
        called = await self._store.called(run.job, tried.retry)
        world = self._house.world(attempt, run, tried, batch_job, plan, watch.progressed, called)
        requests = Requests(world, await self._store.mailed(run.job, tried.retry))
        try:
            end = await watch.run(requests)
            ending = await self._record(attempt, tried, end, stalled=watch.stalled)
        except anyio.get_cancelled_exc_class():
            if attempt.stop_cause is StopCause.CANCELLED:
                with anyio.CancelScope(shield=True), suppress(LeadlineError):
                    await self._record(attempt, tried, await kept.kill(), stalled=False)
                    await self._attempts.forget(kept)
            raise
        finally:
            self._attempts.leave(kept)
        await self._attempts.forget(kept)
        self._attempts.printed(run.job)
        if attempt.stop_cause is StopCause.CANCELLED:
            raise Stopped("it was cancelled")
        return ending

    async def _start(
        self, submission: wire.Batch, run: StoredRun, batch_job: BatchJob | None, step: Begin | GoOn
    ) -> Run:
        """Have an attempt begin. Raises Refused, CannotRun, InstallFailed."""
        tried, plan = step.tried, self._plan_of(run.teamspace)
        code = await self._store.code(run.batch_job, step.version)
        if code is None or batch_job is None:
            raise Refused(ErrorCode.NOT_FOUND, "the batch job was deleted, and its code with it")
        limits = Limits(
            seconds=tried.cap_ms / 1000,
            memory_bytes=plan.memory_bytes,
            processes=plan.processes,
            disk_bytes=plan.scratch_bytes,
            output_bytes=plan.log_bytes,
        )
        event = msgspec.Raw(msgspec.json.encode(event_of(submission, run, tried.retry)))
        async with self._workshop.ready(code, batch_job.conduct.interpreter, plan) as ready:
            order = Order(
                name_of(run.token, tried.retry),
                ready.folder,
                ready.interpreter,
                event,
                limits,
                packages=ready.packages,
                reaches=plan.reaches,
            )
            return await self._attempts.start(order)

    async def _record(self, attempt: Attempt, tried: Tried, end: End, *, stalled: bool) -> Ending | None:
        """Put an attempt's end into the books; how its run ends with that, or None."""
        wall = self._wall()
        async with self._store.books(attempt.job.id, attempt.number, wall) as books:
            plan = self._plan_of(books.run.teamspace)
            ending: Ending | None
            if attempt.stop_cause is StopCause.CANCELLED:
                ending = Ending(JobState.CANCELLED, JobReason.CANCELLED, words(end.how, tried))
            else:
                ending = ending_of(end.how, tried, books.batch_job, plan, stalled=stalled)
            await books.record(tried.retry, took_ms(end, tried), words(end.how, tried, stalled=stalled))
            if ending is not None:
                await books.end(ending, wall)
        return ending


class _Watch:
    """Somebody who watches an attempt until it ends, and writes down what it prints."""

    def __init__(
        self,
        store: BatchStore,
        attempts: Attempts,
        attempt: Attempt,
        tried: Tried,
        kept: Run,
        batch_job: BatchJob | None,
    ) -> None:
        self._store = store
        self._attempts = attempts
        self._attempt = attempt
        self._retry = tried.retry
        self._kept = kept
        self._patience = None if batch_job is None else batch_job.conduct.stall_after_seconds
        self.stalled = False
        self._lines: list[Line] = []
        self._printed = anyio.Event()
        self._active = anyio.current_time()
        """When it last printed something, or said how far it is."""
        self._says = False
        """Whether it says how far it is: then that is shown, and not what it printed last."""

    def progressed(self) -> None:
        """It has said how far it is."""
        self._says = True
        self._active = anyio.current_time()

    async def run(self, requests: Requests) -> End:
        """Answer what it asks, and wait for its end. Raises Stopped where the job is told to let go of it."""
        job, let_go = self._attempt.job.id, False
        last = await self._store.last_line(job, self._retry)
        async with anyio.create_task_group() as tasks:

            async def obey() -> None:
                nonlocal let_go
                await self._attempt.until_stopping()
                if self._attempt.stop_cause is StopCause.CANCELLED:
                    await self._kept.kill()
                else:
                    let_go = True
                    await requests.finish()
                    tasks.cancel_scope.cancel()

            tasks.start_soon(obey)
            tasks.start_soon(attend, self._kept, requests)
            if self._patience:
                tasks.start_soon(self._lose_patience, float(self._patience), requests)
            async with anyio.create_task_group() as reading:
                reading.start_soon(self._keep_lines)
                async for line in self._kept.log(last):
                    self._lines.append(Line(line.number, Instant(line.at), line.text))
                    self._active = anyio.current_time()
                    self._printed.set()
                end = await self._kept.ended()
                reading.cancel_scope.cancel()
            while self._lines:
                await self._store_lines()
            tasks.cancel_scope.cancel()
        if let_go:
            raise Stopped("it goes on without us")
        return end

    async def _keep_lines(self) -> None:
        while True:
            await self._printed.wait()
            self._printed = anyio.Event()
            await anyio.sleep(GATHER_SECONDS)
            with anyio.CancelScope(shield=True):
                while self._lines:
                    await self._store_lines()

    async def _store_lines(self) -> None:
        lines, self._lines = self._lines[:LINES_AT_ONCE], self._lines[LINES_AT_ONCE:]
        job = self._attempt.job.id
        await self._store.keep_lines(job, self._retry, lines)
        self._attempts.printed(job)
        if not self._says:
            self._attempt.doing(lines[-1].text[:ACTIVITY_CHARACTERS_MAX])

    async def _lose_patience(self, seconds: float, requests: Requests) -> None:
        """End it when it has been silent for so long, without waiting for a provider.

        Where the daemon itself has stood still, that time proves nothing: nobody read what the code printed in it.
        """
        while (left := self._active + seconds - (now := anyio.current_time())) > 0:
            due = now + min(left, LOOK_SECONDS)
            await anyio.sleep_until(due)
            late = anyio.current_time() - due
            if late > LATE_SECONDS:
                self._active += late + LOOK_SECONDS  # first what it has printed is read
            if requests.calling:
                self._active = anyio.current_time()
        self.stalled = True
        await self._kept.kill()


def event_of(submission: wire.Batch, run: StoredRun, retry: int) -> Mapping[str, Any]:
    """What main() is given."""
    return {
        "body": submission.body,
        "query_string_parameters": submission.query_string_parameters,
        "source": source_of(run),
        "job_name": run.name,
        "job_instance_id": run.job,
        "retry_attempt": retry,
    }


def source_of(run: StoredRun) -> str:
    """Who wanted a run: a schedule, or somebody who submitted it."""
    return "api" if run.due is None else "scheduler"


def _finished(ending: Ending) -> Finished:
    return Finished(ending.state, _NO_COUNTS, ending.reason, ending.message)


def _article(state: BatchState) -> str:
    return "a draft" if state is BatchState.DRAFT else str(state)


async def _unless_stopped(attempt: Attempt, work: Awaitable[T]) -> T:
    """Do some work, unless the attempt is told to stop meanwhile. Raises Stopped, and what the work does."""
    done: list[T] = []
    failed: list[Exception] = []
    async with anyio.create_task_group() as tasks:

        async def obey() -> None:
            await attempt.until_stopping()
            tasks.cancel_scope.cancel()

        tasks.start_soon(obey)
        try:
            done.append(await work)
        except _UNFIT as error:  # not in a group
            failed.append(error)
        tasks.cancel_scope.cancel()
    if failed:
        raise failed[0]
    if not done:
        raise Stopped("told to stop")
    return done[0]
