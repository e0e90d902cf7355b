"""The durable side of the queue: what the dispatcher asks of a database.

The store keeps and the memory decides. A daemon that owns the store commits one decision after the other, in order;
each is one transaction, and nothing that follows from a decision happens before it has committed.
"""

from collections.abc import AsyncIterator, Mapping, Sequence
from enum import Enum
from typing import Final, Never, Protocol

from msgspec import Struct

from leadline.core.effects import AccountRow, HistoryRow, PauseRow, Records, SlotRow
from leadline.core.events import KnownKey
from leadline.core.model import Counts, Family, JobState
from leadline.core.quarantine import Crashed
from leadline.core.recovery import JobRow
from leadline_protocol.errors import LeadlineError
from leadline_protocol.ids import AccountName, CallId, Instant, JobId, TableId, TeamspaceId


class Unavailable(LeadlineError):
    """The database cannot be reached or refuses to write: nothing was stored, and trying later may succeed."""


class Contended(Unavailable):
    """Two transactions waited for what each other held, and this one was taken back: at once it may succeed."""


class OutcomeUnknown(LeadlineError):
    """The connection was lost while a transaction committed, and looking it up did not tell whether it took place."""


class Fenced(LeadlineError):
    """Another daemon has taken over: this one must stop at once and may not touch anything any more."""


class OwnedByAnother(LeadlineError):
    """Another daemon owns this database."""

    def __init__(self, owner: str) -> None:
        super().__init__(f"the database is owned by {owner}: end that daemon first, or start this one with --takeover")
        self.owner: Final = owner
        """As it named itself."""


class UnfitDatabase(LeadlineError):
    """The database cannot keep the promises as it is: the message says what has to be changed."""


class SchemaTooNew(UnfitDatabase):
    """The database was migrated by a newer Leadline than this one."""


class SchemaChanged(UnfitDatabase):
    """A migration that the database has seen is not the one that this Leadline holds under the same number."""


class AttemptRetired(LeadlineError):
    """The attempt is not the present one of its job any more: nothing that it brings is stored."""


class Contradiction(AssertionError):
    """A bug: the records do not fit what is stored, or cannot be stored at all. Nothing was written."""


class Placeholder(Enum):
    """Stands in the arguments of an admission's `Statement` for what is not known before it is decided."""

    THIS_JOB = "this job"
    DUE = "due"


THIS_JOB: Final = Placeholder.THIS_JOB
"""The id of the job that the statement comes with."""

DUE: Final = Placeholder.DUE
"""The time of a schedule that the job is submitted for; null where somebody has submitted it."""

LOOK_BACK_JOBS: Final = 10_000
"""How far a listing looks back for what no index leads to: see `JobFilter`."""


class StoredCall(Struct, frozen=True, gc=False):
    """A call whose charge may still count, or whose end is not known."""

    id: CallId
    job: JobId
    attempt: int
    account: AccountName
    cost: bytes
    sent: Instant
    began: Instant | None
    state: str


class Recovered(Struct, frozen=True):
    """What a new owner finds; jobs come separately, in pages."""

    epoch: int
    survivor: bool
    """Whether the owner before may still be about, so that permits which it was given may still be used."""
    crashed: Mapping[JobId, Crashed]
    """The jobs that ran when the owner before died; none where it ended in order, was replaced, or was ourselves."""
    instant: Instant
    """The latest instant that the store has seen, or the database's own clock where that is later."""
    last_job: JobId
    last_call: CallId
    teamspaces: Sequence[tuple[TeamspaceId, str]]
    slots: Sequence[SlotRow]
    calls: Sequence[StoredCall]
    accounts: Sequence[AccountRow]
    pauses: Sequence[PauseRow]


class StoredJob(Struct, frozen=True, gc=False):
    """A job as people see it: live or ended, with the counts that are stored."""

    id: JobId
    order: int
    teamspace: str
    kind: str
    state: JobState
    submitted: Instant
    run_at: Instant | None
    started: Instant | None
    ended: Instant | None
    attempt: int
    counts: Counts
    activity: str
    reason: str | None
    message: str
    table: TableId | None
    chain: JobId | None
    step: int | None
    rerun_of: JobId | None
    uid: int | None
    notify: bool
    warnings: bytes
    payload: bytes


class JobFilter(Struct, frozen=True):
    """Which jobs to list: newest first, from below `before`; a field that is None or empty narrows nothing.

    Ended jobs of a `uid`, and completed noops, are in no index: they are looked for down to `after`, or where that is
    None in the newest LOOK_BACK_JOBS ids below `before`.
    """

    teamspace: str | None = None
    table: TableId | None = None
    families: tuple[Family, ...] = ()
    states: tuple[JobState, ...] = ()
    uid: int | None = None
    before: JobId | None = None
    limit: int = 50
    after: JobId | None = None
    """Only jobs above this one."""


class Store(Protocol):
    """A database owned by one daemon.

    Every write happens inside a transaction whose first statement proves that this daemon is still the owner; where
    it is not, `Fenced` is raised and nothing is written.
    """

    async def take_over(
        self,
        *,
        owner: str,
        place: str = "",
        kinds: Mapping[str, int],
        charge_seconds: int = 90_000,
        force: bool = False,
    ) -> Recovered:
        """Become the owner under a new epoch, and say what is there; also the way back after a commit that failed.

        `owner` is what a second daemon is told: host, pid, start. `place` is what at most one living daemon can hold:
        an owner before of the same place is dead; of another, or of none (""), it may have survived. `kinds` maps the
        names of the kinds of job that this daemon knows to their families' numbers; `NewJob.kind` counts them in the
        mapping's order. Calls found `sent` are marked `unknown` with the cause `crash`; these are recovered, and all
        others sent in the last `charge_seconds`, which has to be the longest time that a charge may count. Raises
        OwnedByAnother while another daemon is alive on this database, unless `force` says to end its sessions;
        UnfitDatabase; Unavailable.
        """
        ...

    async def end_in_order(self) -> None:
        """Note that this owner ends as it was told to, so that none of its jobs can have taken it down.

        Raises Unavailable, OutcomeUnknown and Fenced as `commit` does.
        """
        ...

    async def keep(self) -> Never:
        """Stay the owner: a lock that was lost is taken again at once. Raises Fenced when another daemon has it."""
        ...

    def live_jobs(self, page: int = 2_000) -> AsyncIterator[Sequence[JobRow]]:
        """All jobs that have not ended, by id, in pages, as recovery takes them.

        A job's kind is its place among the kinds that `take_over` was told, None where it is not among them.
        """
        ...

    async def commit(self, records: Records) -> None:
        """Store one decision: all of it or, where this raises Unavailable or Fenced, nothing.

        When it returns, the records survive a crash of everything. Raises OutcomeUnknown where the database cannot be
        asked whether the commit took place, and Contradiction where the records are wrong. A job that was admitted and
        ended in one decision may stand among the admitted ones too.
        """
        ...

    async def known_keys(self, keys: Sequence[tuple[str, bytes]]) -> Mapping[tuple[str, bytes], KnownKey]:
        """What is stored under these (teamspace, key hash) pairs and has not expired."""
        ...

    async def jobs_by_id(self, jobs: Sequence[JobId]) -> Mapping[JobId, StoredJob]:
        """These jobs, live or ended, by one question; what nobody knows is left out."""
        ...

    async def job(self, job: JobId) -> StoredJob | None:
        """One job, live or ended."""
        ...

    async def jobs(self, which: JobFilter) -> Sequence[StoredJob]:
        """Jobs, newest first; costs the same with any number of ended jobs."""
        ...

    async def steps(self, *chains: JobId) -> Sequence[StoredJob]:
        """The steps of chains: each chain's in order, the chains by their ids."""
        ...

    async def history(self, job: JobId) -> Sequence[HistoryRow]:
        """The job's story, oldest first."""
        ...
