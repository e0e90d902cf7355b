"""The records that the core keeps in memory: jobs, attempts, teamspaces, families, and the moment they are looked at.

A daemon may hold a million queued jobs, so a queued job is as little as decides about it: its place in the order, its
teamspace and its kind. Its payload stays in the database until it starts. What only some jobs need (a run_at, waits, a
chain) hangs off it as `Details`; what only a running one needs, as an `Attempt`. All are msgspec Structs without a
garbage-collector header: a full collection over a million of them takes a tenth of the time that it takes over classes.

Instants and durations are integers of microseconds throughout the core.
"""

from collections.abc import Mapping
from decimal import Decimal
from enum import IntEnum, StrEnum
from typing import Final

from msgspec import Struct, field

from leadline.core.quarantine import Suspicion
from leadline_protocol.errors import JobReason
from leadline_protocol.ids import AccountName, CallId, Instant, JobId, LeadId, TeamspaceId

SECOND: Final = 1_000_000
"""Microseconds in a second."""


class Now(Struct, frozen=True, gc=False):
    """The moment at which the core is asked to decide."""

    instant: Instant
    """Never runs backwards, goes on while the machine is suspended: deadlines, ages and windows are reckoned in it."""
    wall: Instant
    """What the clock on the wall says, in microseconds of Unix time; it may be set: run_at is compared with it."""


class Family(IntEnum):
    """The kinds of work that have slots and capacity of their own. The numbers are stored: they never change."""

    NOOP = 0
    TABLES = 1
    BATCH = 2
    OUTREACH = 3

    @property
    def word(self) -> str:
        """The family's name on the wire."""
        return self.name.lower()

    @property
    def resumes(self) -> bool:
        """Whether an attempt that is interrupted is gone on with where it was.

        Tenants' code cannot be: once it runs it is left alone until it ends, its own timeout ends it, or a person does.
        """
        return self is not Family.BATCH

    @property
    def patience_seconds(self) -> float | None:
        """So long a job that waits keeps its slot; None: as long as the rules say.

        A mail whose time has not come leaves its mailbox to the next one. A moment is not worth the change; but it is
        less than the least gap between two mails, as the mail that this one waits for may be waiting for its slot.
        """
        return 0.2 if self is Family.OUTREACH else None

    @property
    def mostly_asks(self) -> bool:
        """Whether its jobs do next to nothing but wait for the answers of others, be these calls or not."""
        return self is Family.OUTREACH


FAMILIES: Final = tuple(Family)
"""All of them, in order: every decision goes through them, and an enum is slow to be gone through."""


class JobState(StrEnum):
    """Where a job is in its life; `lifecycle.TRANSITIONS` says how it may go on."""

    DELAYED = "delayed"
    """Its run_at has not come; it is in `Scheduler.delayed` and nowhere else."""
    QUEUED = "queued"
    """It is in its teamspace's backlog, or has waits that keep it out of there."""
    RUNNING = "running"
    """It has an attempt, and its attempt holds a slot (a chain: one of its steps has started)."""
    STOPPING = "stopping"
    """Its attempt is being stopped and holds its slot until it is proven gone."""
    COMPLETED = "completed"
    PARTIAL = "partial"
    FAILED = "failed"
    CANCELLED = "cancelled"
    SKIPPED = "skipped"


ENDED: Final = frozenset({JobState.COMPLETED, JobState.PARTIAL, JobState.FAILED, JobState.CANCELLED, JobState.SKIPPED})
"""The states that a job never leaves; the core forgets it when it gets there."""


class Kind(Struct, frozen=True, gc=False):
    """A kind of job as the queue sees it."""

    number: int
    """Its number in the database."""
    name: str
    family: Family
    instant: bool = False
    """True for what has no effect outside and no work to do: it starts and ends within one decision."""
    chain: bool = False
    """True for the job that stands for a whole chain: it never enters the backlog."""


class Counts(Struct, frozen=True, gc=False):
    """How many leads (or rows) of a job are in which state; pending is what remains of the total."""

    total: int = 0
    done: int = 0
    failed: int = 0
    skipped: int = 0
    unknown: int = 0

    @property
    def pending(self) -> int:
        """Leads that have no final state yet."""
        return self.total - self.settled

    @property
    def settled(self) -> int:
        """Leads in a final state: the measure of progress."""
        return self.done + self.failed + self.skipped + self.unknown


class Wait(Struct, frozen=True, gc=False):
    """One reason why a job does not go on by itself just now."""

    reason: JobReason
    until: Instant | None = None
    """When it ends by itself; None where that is not known."""
    numbers: Mapping[str, int | float | str] = {}
    """What a person needs to judge it: limits, amounts, names."""


class Attempt(Struct, gc=False):
    """One run of a job, from the grant of its slot to the moment when it is proven gone."""

    number: int
    slot: int
    beaten: Instant
    """When its worker was last heard of."""
    moved: Instant
    """When it last made progress, let a call go, or had a wait open or close."""
    resumes: bool = True
    """As its family says. One that does not is not interrupted for a pause or a wait, and never stands still. It keeps
    its share of the capacity to its end, and what it asks for during a pause is refused."""
    launched: bool = False
    """Whether it has been handed to an actor; until then it is only a slot held, and stopping it takes no time."""
    counts: Counts = Counts()
    activity: str = ""
    busy: bool = False
    """Whether it has work in hand, and with that a share of its family's capacity."""
    waits: dict[JobReason, Wait] = field(default_factory=dict)
    """Waits that the work itself has opened, and the one for capacity; those for permits are known from `asking`."""
    asking: set[CallId] = field(default_factory=set)
    """Calls that wait for a permit."""
    held: list[CallId] = field(default_factory=list)
    """Calls that are charged and go out as soon as the attempt has its share of the capacity."""
    flying: set[CallId] = field(default_factory=set)
    """Calls that have gone out and have not ended."""
    waiting: bool = False
    """Whether a wait was open when it was last looked at: a change of this stops or starts the stall clock."""
    yielding_to: tuple[Wait, ...] = ()
    """The long waits for which it gives its slot back."""
    resumed: bool = False
    """A person resumed the job while it ran: whatever it goes on to wait for a person for, it looks at once more."""
    stopping: "Stopping | None" = None
    warned: bool = False
    """People have been told that it stands still."""
    flagged: bool = False
    """People have been told that it is stalled."""


class StopCause(StrEnum):
    """Why an attempt is being stopped; it decides what becomes of its job once the attempt is gone."""

    CANCELLED = "cancelled"
    STALLED = "stalled"
    WORKER_LOST = "worker_lost"
    YIELDED = "yielded"
    PAUSED = "paused"
    INTERRUPTED = "interrupted"
    """Nobody told it to: it lost its database connection, or found itself retired."""


class Stopping(Struct, frozen=True, gc=False):
    """An order to stop an attempt."""

    cause: StopCause
    forced: bool
    """True: tasks are cancelled and sockets aborted at once; False: calls in flight may finish first."""


class Details(Struct, gc=False):
    """What only some live jobs have; None stands for a plain queued job."""

    run_at: Instant | None = None
    """Wall time before which it does not start."""
    chain: JobId | None = None
    step: int | None = None
    """Its place in the chain, from 0."""
    waits: dict[JobReason, Wait] = field(default_factory=dict)
    """What keeps a queued job out of the backlog."""
    started: Instant | None = None
    """Wall time of its first start."""
    attempts: int = 0
    """The number of its last attempt."""
    stall_kills: int = 0
    """Stall kills in a row, since the last lead that reached a final state."""
    settled_at_kill: int = 0
    """Leads in a final state when that row of kills began."""
    hung: frozenset[LeadId] = frozenset()
    """Leads that were in flight at one stall kill so far."""
    approved: bool = False
    """A person has let it go on in spite of its guard."""
    suspicion: Suspicion | None = None
    """It ran when the daemon died, and is watched; the job is in `Scheduler.suspects`."""
    attempt: Attempt | None = None


class Job(Struct, gc=False, order=True):
    """A live job. Jobs compare by (order, id), the order of the one queue."""

    order: int
    """Submission time, or run_at, less the head start of priority_seconds."""
    id: JobId
    teamspace: TeamspaceId
    kind: int
    """Index into the scheduler's kinds."""
    state: JobState
    details: Details | None = None


class Chain(Struct, gc=False):
    """A chain in progress: which steps there are and which of them has its turn."""

    id: JobId
    steps: tuple[JobId, ...]
    """All that it was submitted with; their ids follow its own."""
    left: tuple[JobId, ...]
    """Those that have not ended; the first has its turn."""
    stop_on_failure: bool
    worst: JobState = JobState.COMPLETED
    """The least good end of the steps so far."""


class Call(Struct, gc=False):
    """One request to a provider, from asking until it has ended."""

    id: CallId
    account: AccountName
    job: JobId
    attempt: int
    lead: LeadId
    credits: Decimal
    """What it may come to at most."""
    patient: bool = True
    """Whether it waits for a parked account."""
    granted: bool = False
    """It has been charged."""
    out: bool = False
    """It has been sent, or is about to be."""
    out_at: Instant = Instant(0)
    """When it was decided that it goes out."""
    answered: bool = False
    """Its response has begun."""


class Limits(Struct, frozen=True, gc=False):
    """A teamspace's limits in force."""

    slots: Mapping[Family, int | None]
    """Jobs of a family that run at a time; None: no limit."""
    max_queued: int = 10_000
    weight: float = 1.0
    """Its share where teamspaces compete for a provider."""


class Rules(Struct, frozen=True, gc=False):
    """The numbers that bind over everything, from the configuration."""

    capacity: Mapping[Family, int | None]
    """Jobs of a family with work in hand at a time; None: no limit."""
    default_limits: Limits
    beat_seconds_max: int = 30
    warn_after_seconds: int = 120
    stall_after_seconds: int = 300
    auto_kill_stalled: bool = True
    max_stall_kills: int = 2
    yield_slot_after_seconds: int = 900
