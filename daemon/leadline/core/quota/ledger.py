"""What a teamspace's batch jobs have used of a day, and whether one more run is admitted.

Three numbers bind a day: executions of the teamspace, invocations of each batch job, and M, the time that all attempts
may take together. Time is known only afterwards. So a run is admitted by the whole timeout T that it may take, against
what is left of the day, M - U, and the time that it did take is added to U when an attempt ends. Runs side by side
are each admitted against the same rest and may go beyond M together; what runs is never ended for that. With the option
`reserve` attempts in progress count with all they may still take, and runs side by side share the rest.

An attempt is capped when it begins, at min(T, M - U), so a retry may get less than T; the first attempt begins as its
run is admitted, and gets all of it. Which of the two bound it is known from then on, and decides what it means that it
did not end in time (`failure`). `reserve` keeps runs out and nothing else: no cap is lower for it.

An execution, with all its retries and all their time, belongs to the day in which it started, however long it goes on.
A retry after midnight is therefore capped by what is left of that day, and takes nothing from the new one.

The ledger keeps executions, not sums: the moments when they started and what they took. What a day has used is added up
when it is asked for, so a clock that is set, or a teamspace that gets another zone, leaves nothing to be put right, and
an execution counts wherever it belongs by then. They are few: a plan allows some dozens a day, and after some days they
are let go. It is rebuilt from two kinds of rows, executions and attempts, written as they begin and as they end. (For
plans that allow thousands the store also adds up by quarters of an hour, of which any zone's days are made: whoever
submits a run asks for these.)
"""

from collections import Counter
from collections.abc import Iterable, Mapping
from datetime import tzinfo
from typing import Final, NewType

from msgspec import Struct, structs

from leadline.core.calendar.zones import wall_at
from leadline.core.model import SECOND
from leadline.core.quota.days import Day, day_of
from leadline.core.quota.quotas import Quotas, duration
from leadline_protocol.errors import ErrorCode, JobReason, Refused
from leadline_protocol.ids import Instant, JobId

BatchJobId = NewType("BatchJobId", int)
"""The number of a batch job, of which each execution is a job of the queue."""

MILLISECOND: Final = SECOND // 1000
"""Microseconds in a millisecond."""

KEPT_MICROSECONDS: Final = 3 * 86_400 * SECOND
"""How long executions are kept before now, or before the oldest that is open. No day of any zone has more than 48
hours; the third day is for clocks that are set back."""


class ExecutionRow(Struct, frozen=True, gc=False):
    """An execution, as it is stored."""

    id: JobId
    batch_job: BatchJobId
    started: Instant
    """Wall time at which it was admitted and its first attempt began."""
    ended: bool


class AttemptRow(Struct, frozen=True, gc=False):
    """An attempt, as it is stored."""

    execution: JobId
    began: Instant
    timeout_ms: int
    cap_ms: int
    real_ms: int | None
    """What it took; None: it has not ended."""


class Attempt(Struct, frozen=True, gc=False):
    """An attempt in progress."""

    began: Instant
    """Wall time."""
    timeout_ms: int
    """T of its batch job."""
    cap_ms: int
    """It is ended after this."""


class Execution(Struct, gc=False):
    """One run of a batch job with all its attempts; its id is that of its job in the queue."""

    id: JobId
    batch_job: BatchJobId
    started: Instant
    recorded_ms: int = 0
    """What its ended attempts took."""
    attempt: Attempt | None = None
    ended: bool = False
    """There is no further attempt."""


class Usage(Struct, frozen=True):
    """What a day has used."""

    day: Day
    executions: int
    invocations: Mapping[BatchJobId, int]
    """Executions of each batch job; one without any may be missing."""
    recorded_ms: int
    """U."""
    in_progress_ms: int
    """What its attempts in progress may take, from their beginnings, at most."""

    def left_ms(self, quotas: Quotas) -> int:
        """M - U; negative where runs side by side went beyond M, or M was lowered."""
        return quotas.milliseconds_per_day_max - self.recorded_ms


class Ahead(Struct, frozen=True, gc=False):
    """Runs that were accepted and have not started, so that no usage shows them yet."""

    executions: int = 0
    invocations: int = 0
    """Those of the same batch job among them."""


_NOBODY: Final = Ahead()


class Refusal(Struct, frozen=True, gc=False):
    """Why a run is not admitted. Times are in milliseconds."""

    reason: JobReason
    """daily_executions, invocations or left_duration: the first of them, in this order, that is used up."""
    used: int
    """Executions, invocations, or U."""
    limit: int
    """How many there may be, or M."""
    day: Day
    timeout_ms: int
    reserved_ms: int = 0
    """What is kept for attempts in progress."""

    def message(self, zone: tzinfo) -> str:
        """The numbers as a sentence, with the end of the day as the zone's clocks will show it."""
        ends = f"the day ends at {wall_at(self.day.ends, zone):%Y-%m-%d %H:%M} ({zone})"
        match self.reason:
            case JobReason.DAILY_EXECUTIONS:
                return f"{self.used} of {self.limit} executions of the day are used; {ends}"
            case JobReason.INVOCATIONS:
                return f"{self.used} of {self.limit} invocations of this batch job are used for the day; {ends}"
            case _:
                kept = f" and {duration(self.reserved_ms)} are kept for what runs" if self.reserved_ms else ""
                asked = f"a timeout of {duration(self.timeout_ms)} is more than is left of the day"
                return f"{asked}: {duration(self.used)} of {duration(self.limit)} are used{kept}; {ends}"

    def refused(self, now: Instant, zone: tzinfo) -> Refused:
        """The answer to an API call at that wall instant, which may come again when the day has ended."""
        return Refused(ErrorCode.QUOTA, self.message(zone), retry_after=max(0, self.day.ends - now) / SECOND)


def refusal(
    usage: Usage, quotas: Quotas, batch_job: BatchJobId, timeout_ms: int, ahead: Ahead = _NOBODY
) -> Refusal | None:
    """Why a run of a batch job is not admitted to a day; None: it is.

    Asked when an API call comes in, with those `ahead` of it, so that nobody has a receipt for what must be skipped
    later; and, without them, when a run is about to start, which is what counts.
    """
    executions = usage.executions + ahead.executions
    if executions >= quotas.executions_per_day_max:
        limit = quotas.executions_per_day_max
        return Refusal(JobReason.DAILY_EXECUTIONS, executions, limit, usage.day, timeout_ms)
    invocations = usage.invocations.get(batch_job, 0) + ahead.invocations
    if invocations >= quotas.invocations_per_day_max:
        limit = quotas.invocations_per_day_max
        return Refusal(JobReason.INVOCATIONS, invocations, limit, usage.day, timeout_ms)
    reserved_ms = usage.in_progress_ms if quotas.reserve else 0
    if timeout_ms > usage.left_ms(quotas) - reserved_ms:
        limit = quotas.milliseconds_per_day_max
        return Refusal(JobReason.LEFT_DURATION, usage.recorded_ms, limit, usage.day, timeout_ms, reserved_ms)
    return None


def failure(
    attempt: Attempt, quotas: Quotas, *, timed_out: bool, retry_attempt: int, retries: int, retry_timeouts: bool
) -> JobReason | None:
    """The reason for which an execution fails when this attempt of it has failed; None: it may be tried again.

    `retry_attempt` is 0 for the first attempt; `retries` and `retry_timeouts` are its batch job's own. One that was cut
    off because the day had no more left is not tried again, whatever they say: nothing is left for that.
    """
    if timed_out and attempt.cap_ms < attempt.timeout_ms:
        return JobReason.LEFT_DURATION
    if retry_attempt < min(retries, quotas.retries_max) and (retry_timeouts or not timed_out):
        return None
    return JobReason.TIMED_OUT if timed_out else JobReason.ERROR


class Ledger:
    """The executions of one teamspace: those of its day, and of older days as long as anybody may ask for them."""

    def __init__(self, executions: Iterable[ExecutionRow] = (), attempts: Iterable[AttemptRow] = ()) -> None:
        """Rebuild it from its rows: the executions that `prune` would keep, with all their attempts."""
        self.executions = {row.id: Execution(row.id, row.batch_job, row.started, ended=row.ended) for row in executions}
        for row in attempts:
            execution = self.executions[row.execution]
            if row.real_ms is not None:
                execution.recorded_ms += row.real_ms
            else:
                assert execution.attempt is None, f"execution {row.execution} has two attempts at once"
                execution.attempt = Attempt(row.began, row.timeout_ms, row.cap_ms)

    def usage(self, day: Day) -> Usage:
        """What a day has used; O(executions kept)."""
        of_day = [execution for execution in self.executions.values() if execution.started in day]
        return Usage(
            day,
            len(of_day),
            Counter(execution.batch_job for execution in of_day),
            sum(execution.recorded_ms for execution in of_day),
            sum(execution.attempt.cap_ms for execution in of_day if execution.attempt is not None),
        )

    def usage_at_most(self, day: Day, instant: Instant) -> Usage:
        """The most that a day can have used by a wall instant: attempts in progress count as if they ended then."""
        usage = self.usage(day)
        elapsed_ms = 0
        for execution in self.executions.values():
            attempt = execution.attempt
            if attempt is not None and execution.started in day:
                elapsed_ms += min(attempt.cap_ms, max(0, instant - attempt.began) // MILLISECOND)
        return structs.replace(
            usage,
            recorded_ms=usage.recorded_ms + elapsed_ms,
            in_progress_ms=usage.in_progress_ms - elapsed_ms,
        )

    def admit(
        self, job: JobId, batch_job: BatchJobId, timeout_ms: int, now: Instant, quotas: Quotas, zone: tzinfo
    ) -> Refusal | None:
        """A run has its slot at this wall instant: it begins, or is refused at no cost."""
        refused = refusal(self.usage(day_of(now, zone)), quotas, batch_job, timeout_ms)
        if refused is None:
            self.begin(job, batch_job, timeout_ms, now)
        return refused

    def begin(self, job: JobId, batch_job: BatchJobId, timeout_ms: int, now: Instant) -> None:
        """An admitted run begins at this wall instant, with an attempt that is capped at its timeout."""
        assert job not in self.executions, f"execution {job} has begun before"
        self.executions[job] = Execution(job, batch_job, now, attempt=Attempt(now, timeout_ms, timeout_ms))

    def retry(self, job: JobId, timeout_ms: int, now: Instant, quotas: Quotas, zone: tzinfo) -> int | None:
        """A further attempt is to begin at this wall instant: the milliseconds after which it is ended.

        None: its day has nothing left, no attempt begins, and the execution fails with left_duration.
        """
        execution = self._open(job)
        assert execution.attempt is None, f"execution {job} has an attempt in progress"
        left_ms = self.usage(day_of(execution.started, zone)).left_ms(quotas)
        if left_ms <= 0:
            return None
        execution.attempt = Attempt(now, timeout_ms, min(timeout_ms, left_ms))
        return execution.attempt.cap_ms

    def record(self, job: JobId, real_ms: int) -> Attempt:
        """The attempt in progress, which has ended, after so long."""
        assert real_ms >= 0, f"execution {job} took {real_ms} ms"
        execution = self._open(job)
        attempt = execution.attempt
        assert attempt is not None, f"execution {job} has no attempt in progress"
        execution.recorded_ms += real_ms
        execution.attempt = None
        return attempt

    def end(self, job: JobId) -> None:
        """There will be no further attempt."""
        execution = self._open(job)
        assert execution.attempt is None, f"execution {job} has an attempt in progress"
        execution.ended = True

    def prune(self, now: Instant) -> None:
        """Forget the executions of days that nobody asks for any more.

        As long as an execution is open its retries are capped by its own day, so the others of that day stay with it.
        """
        oldest = min((each.started for each in self.executions.values() if not each.ended), default=now)
        since = min(now, oldest) - KEPT_MICROSECONDS
        self.executions = {job: each for job, each in self.executions.items() if each.started >= since}

    def copy(self) -> "Ledger":
        """A ledger that goes on from here by itself."""
        other = Ledger()
        other.executions = {job: structs.replace(each) for job, each in self.executions.items()}
        return other

    def _open(self, job: JobId) -> Execution:
        execution = self.executions[job]
        assert not execution.ended, f"execution {job} has ended"
        return execution
