"""What becomes of a run: whether it starts, what an attempt's end means, and whether there is another.

A run is judged when its slot is granted, not when it was wanted: by then its batch job may have been unpublished, its
moment may have passed, or the day may have nothing left. A run that does not start is skipped and costs nothing. One
that has started goes on until an attempt succeeds or none is left, whatever its batch job or its plan say meanwhile.

Everything here follows from what is stored, so a daemon that takes over decides as the one before would have.
"""

from typing import Final

from msgspec import Struct

from leadline.core.calendar.due import Conduct as Punctuality
from leadline.core.model import SECOND, JobState
from leadline.core.quota import ledger
from leadline.core.quota.ledger import Ledger
from leadline.core.quota.quotas import duration
from leadline.features.batch.ports import BatchJob, BatchPlan, BatchState, Ending, Rows, StoredRun, Tried
from leadline.ports.runner import End, Exited, How, Killed, KilledFor, Lost, NotBegun, Raised, Returned
from leadline_protocol.errors import JobReason
from leadline_protocol.ids import Instant

LATE_SECONDS_MAX: Final = Punctuality().late_seconds_max
"""A schedule's run that has no slot by then does not start any more."""

MESSAGE_CHARACTERS_MAX: Final = 500


class Begin(Struct, frozen=True):
    """An attempt begins."""

    tried: Tried
    version: int
    """Of the code that it runs."""


class GoOn(Struct, frozen=True):
    """An attempt has begun and not ended, as far as is known."""

    tried: Tried
    version: int


class Over(Struct, frozen=True):
    """There is no further attempt."""

    ending: Ending


def next_step(
    run: StoredRun, batch_job: BatchJob | None, rows: Rows, plan: BatchPlan, wall: Instant
) -> Begin | GoOn | Over:
    """What is to be done about a run that has a slot."""
    if run.ending is not None:
        return Over(run.ending)
    if run.started is None:
        return _first(run, batch_job, rows, plan, wall)
    assert run.version is not None, "what has started runs some version"
    last = run.tried[-1]
    if last.real_ms is None:
        return GoOn(last, run.version)
    timeout_ms = last.timeout_ms if batch_job is None else batch_job.conduct.timeout_ms
    books = Ledger(rows.executions, rows.attempts)
    cap_ms = books.retry(run.job, timeout_ms, wall, plan.quotas, plan.zone)
    if cap_ms is None:
        message = f"nothing is left of the day for a retry; the attempt before: {last.ending}"
        return Over(Ending(JobState.FAILED, JobReason.LEFT_DURATION, _short(message)))
    return Begin(Tried(last.retry + 1, wall, timeout_ms, cap_ms, None, None), run.version)


def _first(run: StoredRun, batch_job: BatchJob | None, rows: Rows, plan: BatchPlan, wall: Instant) -> Begin | Over:
    if batch_job is None or batch_job.state is not BatchState.PUBLISHED:
        gone = "was deleted" if batch_job is None else f"is {batch_job.state}"
        return _skipped(JobReason.UNPUBLISHED, f"the batch job {gone}")
    if not plan.enabled:
        return _skipped(JobReason.UNPUBLISHED, f"batch jobs are switched off for {run.teamspace}")
    if run.due is not None and wall - run.due > LATE_SECONDS_MAX * SECOND:
        return _skipped(JobReason.NO_SLOT, late_message(wall - run.due))
    timeout_ms = batch_job.conduct.timeout_ms
    books = Ledger(rows.executions, rows.attempts)
    refused = books.admit(run.job, batch_job.id, timeout_ms, wall, plan.quotas, plan.zone)
    if refused is not None:
        return _skipped(refused.reason, refused.message(plan.zone))
    return Begin(Tried(0, wall, timeout_ms, timeout_ms, None, None), batch_job.version)


def took_ms(end: End, tried: Tried) -> int:
    """What an attempt took: whole milliseconds, and never more than it was given."""
    return min(tried.cap_ms, round(end.seconds * 1000))


def ending_of(how: How, tried: Tried, batch_job: BatchJob | None, plan: BatchPlan, *, stalled: bool) -> Ending | None:
    """How a run ends whose attempt has ended like this; None: there is another attempt.

    `stalled`: it was ended because it stood still.
    """
    if isinstance(how, Returned):
        return Ending(
            JobState.COMPLETED, message=how.unkept and f"its result is not kept: {how.unkept}", result=how.value
        )
    reason = ledger.failure(
        ledger.Attempt(tried.began, tried.timeout_ms, tried.cap_ms),
        plan.quotas,
        timed_out=how == Killed(KilledFor.TIMEOUT),
        retry_attempt=tried.retry,
        retries=0 if batch_job is None else batch_job.conduct.retries,
        retry_timeouts=batch_job is not None and batch_job.conduct.retry_timeouts,
    )
    if reason is None:
        return None
    if stalled and reason is JobReason.ERROR:
        reason = JobReason.STALLED
    return Ending(JobState.FAILED, reason, words(how, tried, stalled=stalled))


def words(how: How, tried: Tried, *, stalled: bool = False) -> str:
    """How an attempt has ended, for people: one line."""
    match how:
        case Returned():
            return "it returned"
        case Raised(traceback):
            lines = traceback.strip().splitlines()
            return _short(lines[-1] if lines else "it raised an exception")
        case Exited(code):
            return f"its process ended with {code} before main() did"
        case Killed(why):
            return _killed(why, tried, stalled=stalled)
        case NotBegun(story):
            return _short(f"it could not be started: {story}")
        case Lost():
            return "it is gone, and nobody knows how: the machine went down, or somebody killed it"


def _killed(why: KilledFor, tried: Tried, *, stalled: bool) -> str:
    match why:
        case KilledFor.TIMEOUT:
            whole = tried.cap_ms == tried.timeout_ms
            which = "as long as its timeout allows" if whole else "as long as the day had left"
            return f"it was ended after {duration(tried.cap_ms)}, {which}"
        case KilledFor.MEMORY:
            return "it needed more memory than its plan allows"
        case KilledFor.OUTPUT:
            return "it printed more than its plan allows"
        case KilledFor.TOLD:
            return "it was ended as it printed nothing for too long" if stalled else "it was cancelled"


def late_message(microseconds: int) -> str:
    """Why a run that is so late is skipped."""
    return f"it was due {duration(microseconds // 1000)} ago, and had no slot in time"


def _skipped(reason: JobReason, message: str) -> Over:
    return Over(Ending(JobState.SKIPPED, reason, message))


def _short(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= MESSAGE_CHARACTERS_MAX else f"{line[: MESSAGE_CHARACTERS_MAX - 1]}…"
