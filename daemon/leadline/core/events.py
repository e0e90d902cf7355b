"""What has happened, in the past tense: everything that the scheduler is ever told.

An event carries facts and nothing else; what follows from them is decided in one place, `Scheduler.handle`.
"""

from collections.abc import Sequence
from decimal import Decimal
from typing import Final

from msgspec import Struct

from leadline.core.model import Counts, JobState, Limits, Rules, Wait
from leadline.core.rate_limit import FLIGHT_SECONDS, Cost, Limit
from leadline_protocol.errors import JobReason, Refused
from leadline_protocol.ids import AccountName, CallId, Instant, JobId, LeadId, TableId

NOTHING: Final = Decimal(0)


class KnownKey(Struct, frozen=True, gc=False):
    """What the database holds under an idempotency key."""

    job: JobId
    body_hash: bytes
    state: JobState
    """The job's state as stored; what the scheduler has in memory is newer."""


class Key(Struct, frozen=True, gc=False):
    """An idempotency key as submitted."""

    key_hash: bytes
    """16 bytes."""
    body_hash: bytes
    known: KnownKey | None = None


class Statement(Struct, frozen=True):
    """A named SQL statement of a slice that must be part of the admission's transaction."""

    query: str
    arguments: tuple[object, ...]


class NewJob(Struct, frozen=True, gc=False):
    """A submission that has passed every check that does not need the queue."""

    teamspace: str
    kind: int
    payload: bytes
    """What was submitted, as received: the job's work reads it again when it starts."""
    key: Key | None = None
    run_at: Instant | None = None
    """Wall time, microseconds."""
    delay_microseconds: int = 0
    priority_microseconds: int = 0
    table: TableId | None = None
    total: int | None = None
    """Leads in its list where the list was frozen at submission."""
    warnings: bytes = b""
    """JSON, for people: shown with the job wherever it is shown."""
    uid: int | None = None
    """The submitter's user id."""
    notify: bool = False
    rerun_of: JobId | None = None
    steps: tuple["NewJob", ...] = ()
    """For a chain: its steps in order."""
    stop_on_failure: bool = True
    statements: tuple[Statement, ...] = ()
    refused: Refused | None = None
    """Why it is not taken, unless its key stands for a job already."""


class Submitted(Struct, frozen=True):
    """Somebody handed in jobs."""

    jobs: Sequence[NewJob]


class AttemptFinished(Struct, frozen=True, gc=False):
    """An attempt ran to its end, or its job failed by an error; nothing of it is left."""

    job: JobId
    number: int
    state: JobState
    """completed, partial or failed."""
    counts: Counts
    reason: JobReason | None = None
    message: str = ""


class AttemptStopped(Struct, frozen=True, gc=False):
    """An attempt that was told to stop is proven gone."""

    job: JobId
    number: int
    counts: Counts
    evidence: str = ""
    """For people: what it was doing."""


class Progressed(Struct, frozen=True, gc=False):
    """Work was committed: the counts as stored."""

    job: JobId
    number: int
    counts: Counts
    activity: str = ""


class Moved(Struct, frozen=True, gc=False):
    """Progress that no count shows: a provider says that it works on a polled call."""

    job: JobId
    number: int


class Beat(Struct, frozen=True, gc=False):
    """A running attempt's sign of life."""

    job: JobId
    number: int
    activity: str = ""


class WaitOpened(Struct, frozen=True, gc=False):
    """The work waits for a known reason other than a permit."""

    job: JobId
    number: int
    wait: Wait


class WaitClosed(Struct, frozen=True, gc=False):
    """That reason is gone."""

    job: JobId
    number: int
    reason: JobReason


class CallAsked(Struct, frozen=True, gc=False):
    """An attempt asks for leave to make one request."""

    call: CallId
    job: JobId
    number: int
    account: AccountName
    lead: LeadId
    cost: Cost
    interactive: bool = False
    credits: Decimal = NOTHING
    """What it may come to at most: stored with it, for when nobody learns what it has come to."""
    patient: bool = True
    """Whether it waits for a parked account; otherwise it is refused then, for there are others to be asked."""


class CallSent(Struct, frozen=True, gc=False):
    """The request's first byte was written."""

    call: CallId
    at: Instant


class ResponseBegan(Struct, frozen=True, gc=False):
    """The response's headers have arrived."""

    call: CallId
    at: Instant


class CallEnd(Struct, frozen=True, gc=False):
    """How a call ended, for the account: what was used and whether the provider threw it back."""

    throttled: bool = False
    retry_after: Instant | None = None
    """When the provider says to come back; with throttled."""
    parked: JobReason | None = None
    """Terminal until a person or a date: credits, daily_cap, invalid_key."""
    failed: bool = False
    done: bool = False
    """It brought what was asked for, and nothing that its end would be stored with (a poll's "not yet")."""
    lost: bool = False
    """It left, or part of it, and nobody knows what became of it."""
    broken: bool = False
    """It was answered and failed all the same, as nobody can read the answer: it may have to be paid for."""
    unsent: bool = False
    """Certain: no byte of it left."""
    cost: Cost | None = None
    """What it really cost, where the cost asked for was an estimate."""


class CallEnded(Struct, frozen=True, gc=False):
    """A call has ended, and what it brought is stored."""

    call: CallId
    at: Instant
    end: CallEnd


class CancelAsked(Struct, frozen=True, gc=False):
    """Somebody wants a job gone."""

    job: JobId
    force: bool = False


class Expired(Struct, frozen=True, gc=False):
    """The moment has passed by which a job must have started; one that has is left alone."""

    job: JobId
    reason: JobReason
    message: str


class PauseSet(Struct, frozen=True, gc=False):
    """Somebody paused or resumed: scope is queue, family, teamspace, provider or job; name is empty for the queue."""

    scope: str
    name: str
    paused: bool


class LimitsSet(Struct, frozen=True, gc=False):
    """A teamspace's limits in force have changed."""

    teamspace: str
    limits: Limits


class RulesSet(Struct, frozen=True, gc=False):
    """The numbers that bind over everything have changed."""

    rules: Rules


class AccountLearned(Struct, frozen=True):
    """A provider account's limits, as configured now."""

    account: AccountName
    limits: tuple[Limit, ...]
    flight_seconds: float = FLIGHT_SECONDS
    failed_count: bool = True
    interactive_share: float = 0.0
    pace_per_second: float | None = None
    """Calls go evenly, so many a second at most."""
    recorded: bool = True
    """Whether each of its calls is stored; not so for our own database, whose bucket's level is stored instead."""


class DaemonSlept(Struct, frozen=True, gc=False):
    """The whole process stood still (suspend, SIGSTOP, a long pause of the loop): silence since then proves nothing."""

    microseconds: int


class DrainBegan(Struct, frozen=True, gc=False):
    """The daemon is about to end: start nothing more, and let what runs come to a stop."""


class Ticked(Struct, frozen=True, gc=False):
    """The armed timer went off."""


Event = (
    Submitted
    | AttemptFinished
    | AttemptStopped
    | Progressed
    | Moved
    | Beat
    | WaitOpened
    | WaitClosed
    | CallAsked
    | CallSent
    | ResponseBegan
    | CallEnded
    | CancelAsked
    | Expired
    | PauseSet
    | LimitsSet
    | RulesSet
    | AccountLearned
    | DaemonSlept
    | DrainBegan
    | Ticked
)
