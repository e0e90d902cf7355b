"""What is to be done, in the imperative: everything that the scheduler ever asks for, grouped by kind.

`Records` go to the database in one transaction. Only when that has committed are the other effects carried out: answers
given, attempts started and stopped, calls sent.
"""

from decimal import Decimal

from msgspec import Struct, field

from leadline.core.events import NOTHING, NewJob
from leadline.core.model import Counts, Family, JobState, Stopping
from leadline_protocol.errors import JobReason, Refused
from leadline_protocol.ids import AccountName, CallId, Instant, JobId, LeadId, TeamspaceId


class AdmittedJob(Struct, frozen=True, gc=False):
    """A new row of the queue."""

    id: JobId
    order: int
    teamspace: TeamspaceId
    state: JobState
    submitted: Instant
    new: NewJob
    chain: JobId | None = None
    step: int | None = None


class JobChange(Struct, frozen=True, gc=False):
    """A live job's row as it is now."""

    id: JobId
    state: JobState
    details: bytes
    """JSON of what recovery needs beside the columns: waits, attempts, kills."""
    attempt: int
    started: Instant | None


class EndedJob(Struct, frozen=True, gc=False):
    """A job that leaves the queue."""

    id: JobId
    state: JobState
    ended: Instant
    started: Instant | None
    counts: Counts | None
    """None: the counts stored with its last attempt stand."""
    reason: JobReason | None
    message: str
    admitted: AdmittedJob | None = None
    """Set where it was admitted in the same decision and its row was never written."""


class SlotRow(Struct, frozen=True, gc=False):
    """A slot that is held."""

    teamspace: TeamspaceId
    family: Family
    slot: int
    job: JobId


class AttemptRow(Struct, frozen=True, gc=False):
    """A new attempt: its number retires every earlier one."""

    job: JobId
    number: int


class CallRow(Struct, frozen=True, gc=False):
    """A call that may be sent once this is stored."""

    id: CallId
    job: JobId
    attempt: int
    lead: LeadId
    account: AccountName
    cost: bytes
    """JSON: unit to amount."""
    sent: Instant
    credits: Decimal = NOTHING
    """What it may come to at most."""


class CallClosed(Struct, frozen=True, gc=False):
    """How a call ended that brought no result of its own: thrown back, failed, cut off, or never sent."""

    id: CallId
    state: str
    """done, throttled, failed, unknown or unsent."""
    cause: str
    began: Instant | None = None
    """When it had been answered; None: it was not."""
    cost: bytes | None = None
    """What it has come to, JSON, where that is not what it was charged."""


class AccountRow(Struct, frozen=True, gc=False):
    """What must outlive a restart of a provider account beside its calls."""

    account: AccountName
    state: bytes


class PauseRow(Struct, frozen=True, gc=False):
    """A pause that begins or ends."""

    scope: str
    name: str
    paused: bool


class HistoryRow(Struct, frozen=True, gc=False):
    """One line of a job's story."""

    job: JobId
    at: Instant
    event: str
    detail: str = ""


class Records(Struct):
    """Everything that one decision changes in the database."""

    teamspaces: list[tuple[TeamspaceId, str]] = field(default_factory=list)
    admitted: list[AdmittedJob] = field(default_factory=list)
    ended: list[EndedJob] = field(default_factory=list)
    changed: dict[JobId, JobChange] = field(default_factory=dict)
    slots_freed: list[SlotRow] = field(default_factory=list)
    slots_taken: list[SlotRow] = field(default_factory=list)
    attempts: list[AttemptRow] = field(default_factory=list)
    calls_sent: list[CallRow] = field(default_factory=list)
    calls_closed: list[CallClosed] = field(default_factory=list)
    accounts: dict[AccountName, AccountRow] = field(default_factory=dict)
    pauses: list[PauseRow] = field(default_factory=list)
    history: list[HistoryRow] = field(default_factory=list)

    def __bool__(self) -> bool:
        """Whether there is anything to store."""
        return any(getattr(self, name) for name in self.__struct_fields__)


class Receipt(Struct, frozen=True, gc=False):
    """The answer to one new job."""

    job: JobId
    state: JobState
    jobs_ahead: int
    duplicate: bool = False
    steps: tuple[JobId, ...] = ()


Answer = list[Receipt | Refused] | Refused | None
"""What the sender of an event is told: for Submitted a list in the order of its jobs, else a refusal or None."""


class StartAttempt(Struct, frozen=True, gc=False):
    """Run a job."""

    job: JobId
    number: int
    kind: int
    teamspace: TeamspaceId
    family: Family
    approved: bool = False
    """A person has let the job go on in spite of its guard."""
    admitted: AdmittedJob | None = None
    """Its row, where it was admitted in the same decision: then nobody has to read it."""


class StopAttempt(Struct, frozen=True, gc=False):
    """Stop running a job."""

    job: JobId
    number: int
    teamspace: TeamspaceId
    order: Stopping


class SendCall(Struct, frozen=True, gc=False):
    """The permit: this call may go out now."""

    call: CallId
    account: AccountName
    job: JobId


class RefuseCall(Struct, frozen=True, gc=False):
    """There is no permit and never will be."""

    call: CallId
    account: AccountName
    reason: JobReason | None
    """None: the attempt is stopping; else why the account cannot serve it: the cost never fits, the key is refused, it
    is parked, or there is a pause in which the attempt goes on."""


class WarnStalled(Struct, frozen=True, gc=False):
    """Tell the people around it that a job stands still."""

    job: JobId
    teamspace: TeamspaceId
    seconds: int
    killed: bool


class Effects(Struct):
    """The outcome of one call of `Scheduler.handle`."""

    records: Records = field(default_factory=Records)
    answers: list[Answer] = field(default_factory=list)
    """One for each event, in order."""
    starts: list[StartAttempt] = field(default_factory=list)
    stops: list[StopAttempt] = field(default_factory=list)
    sends: list[SendCall] = field(default_factory=list)
    refused_calls: list[RefuseCall] = field(default_factory=list)
    warnings: list[WarnStalled] = field(default_factory=list)
    keys: dict[tuple[str, bytes], tuple[JobId, bytes]] = field(default_factory=dict)
    """(teamspace, key hash) to (job, body hash) of the admitted jobs: the database knows them when it has the records.
    """
    more: bool = False
    """True: there is more to do at once; call again without waiting for an event."""
