"""What batch jobs need of the world: their rows, folders with code, and who watches runs."""

from collections.abc import Collection, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from datetime import datetime, tzinfo
from enum import StrEnum
from pathlib import Path
from typing import Final, Protocol

import msgspec
from msgspec import Struct

from leadline.core.model import JobState
from leadline.core.quota.days import Day
from leadline.core.quota.ledger import AttemptRow, BatchJobId, ExecutionRow, Usage
from leadline.core.quota.quotas import Quotas
from leadline.features.batch.archive import Code
from leadline.features.batch.request_ports import Mail
from leadline_protocol.errors import JobReason
from leadline_protocol.ids import Instant, JobId

INVOKE: Final = "invoke_batch"
"""Statement: job $1 is to run batch job $2 of teamspace $3, for the time $4; $5 is its token."""


class BatchState(StrEnum):
    """Where a batch job is in its life."""

    DRAFT = "draft"
    PUBLISHED = "published"
    UNPUBLISHED = "unpublished"


class Recipients(Struct, frozen=True):
    """Who has the mails that the code sends."""

    success: tuple[str, ...] = ()
    failure: tuple[str, ...] = ()


class Conduct(Struct, frozen=True, kw_only=True):
    """How a batch job is to run."""

    api: bool
    """Whether it may be run by submission."""
    timeout_ms: int
    retries: int
    retry_timeouts: bool
    stall_after_seconds: int | None
    interpreter: str | None
    recipients: Recipients = Recipients()


class BatchJob(Struct, frozen=True):
    """A batch job as stored."""

    id: BatchJobId
    teamspace: str
    name: str
    state: BatchState
    version: int
    """0: there is no code."""
    conduct: Conduct
    schedules: Sequence[str]
    """Names of the schedules that run it, where that was asked for."""
    created: datetime


def sealed_for(batch_job: BatchJob, name: str) -> str:
    """What a setting's value is sealed for: moved to another place in the database it cannot be opened."""
    return f"{batch_job.teamspace}\0{batch_job.id}\0{name}"


class Version(Struct, frozen=True):
    """A zip that was uploaded."""

    version: int
    size_bytes: int
    sha256: bytes
    files: int
    requirements: bool
    uploaded: datetime


class StoredCode(Struct, frozen=True):
    """What is in one."""

    version: int
    archive: bytes
    sha256: bytes
    requirements: bytes | None
    """Its requirements.txt."""


class StoredSetting(Struct, frozen=True):
    """A setting, its value sealed."""

    name: str
    secret: bool
    sealed: bytes


class Rows(Struct, frozen=True):
    """What the ledger of a teamspace is made of, as it was at one moment."""

    executions: Sequence[ExecutionRow]
    attempts: Sequence[AttemptRow]


class Used(Struct, frozen=True):
    """What a day of a teamspace has used, and who is about to use it, as it was at one moment."""

    usage: Usage
    waiting: Mapping[bytes, BatchJobId]
    """The batch jobs of the runs that are queued, by their tokens."""
    started: frozenset[bytes]
    """The tokens of runs that have started: of those asked about, and since then."""


class Tried(Struct, frozen=True, gc=False):
    """An attempt of a run."""

    retry: int
    began: Instant
    timeout_ms: int
    cap_ms: int
    real_ms: int | None
    ending: str | None


class Ending(Struct, frozen=True):
    """How a run ends."""

    state: JobState
    reason: JobReason | None = None
    message: str = ""
    result: msgspec.Raw | None = None
    """What main() returned."""


class StoredRun(Struct, frozen=True):
    """A run as stored."""

    job: JobId
    token: bytes
    """By which its attempts are known to the runner, whatever database comes and goes."""
    batch_job: BatchJobId
    name: str
    """That of its batch job; empty where that was deleted."""
    teamspace: str
    due: Instant | None
    """The time of a schedule that it is for; None: somebody has submitted it."""
    version: int | None
    started: Instant | None
    ended: Instant | None
    ending: Ending | None
    """How its job ends, once that is decided."""
    tried: Sequence[Tried] = ()


class Line(Struct, frozen=True, gc=False):
    """A line that a run has printed."""

    number: int
    at: Instant
    text: str


class Books(Protocol):
    """The books of one teamspace, while nobody else changes them: what is written is stored all at once, or nothing."""

    @property
    def run(self) -> StoredRun:
        """The run in question."""
        ...

    @property
    def rows(self) -> Rows:
        """What the ledger is made of."""
        ...

    @property
    def batch_job(self) -> BatchJob | None:
        """Its batch job; None: it was deleted."""
        ...

    async def begin(self, tried: Tried, version: int | None) -> None:
        """An attempt begins; with a version it is the first, and the run has started."""
        ...

    async def record(self, retry: int, real_ms: int, ending: str) -> None:
        """An attempt has ended."""
        ...

    async def end(self, ending: Ending, at: Instant) -> None:
        """The run has ended."""
        ...


class BatchStore(Protocol):
    """Batch jobs and their runs in a database. Raises Unavailable, Fenced, OutcomeUnknown as the store does."""

    async def batch_jobs(
        self, teamspace: str | None, name: str | None, after: BatchJobId | int, limit: int
    ) -> Sequence[BatchJob]:
        """Batch jobs by their numbers, from behind `after` on."""
        ...

    async def add(self, teamspace: str, name: str, conduct: Conduct, quotas: Quotas) -> bool:
        """A draft, unless there is one of that name. Raises Refused where the plan allows no more."""
        ...

    async def change(self, batch_job: BatchJobId, conduct: Conduct) -> None:
        """Let it run like this from the next run on."""
        ...

    async def move(self, batch_job: BatchJobId, from_: Sequence[BatchState], to: BatchState) -> bool:
        """Change its state; False where it is in none of these."""
        ...

    async def delete(self, batch_job: BatchJobId) -> Sequence[str]:
        """Drop it, with its code, settings and schedules; returns the names of these."""
        ...

    async def add_version(self, batch_job: BatchJobId, code: Code, archive: bytes, sha256: bytes, uid: int) -> int:
        """Store its code; returns the version."""
        ...

    async def versions(self, batch_job: BatchJobId) -> Sequence[Version]:
        """All that were uploaded, newest first."""
        ...

    async def code(self, batch_job: BatchJobId, version: int) -> StoredCode | None:
        """One of them."""
        ...

    async def digests(self) -> Sequence[bytes]:
        """The SHA-256 of every zip that runs, or that the next run of its batch job would take."""
        ...

    async def settings(self, batch_job: BatchJobId) -> Sequence[StoredSetting]:
        """Its settings, by name."""
        ...

    async def set_settings(
        self, batch_job: BatchJobId, changed: Sequence[StoredSetting], dropped: Sequence[str]
    ) -> None:
        """Change some of them."""
        ...

    async def rows(self, teamspace: str, since: Instant) -> Rows:
        """What the ledger of a teamspace is made of, as far as days since then are concerned."""
        ...

    async def used(self, teamspace: str, day: Day, since: Instant, tokens: Collection[bytes] = ()) -> Used:
        """What a day has used, however many runs it has; which runs of these tokens have started, or any since then."""
        ...

    def books(self, job: JobId, number: int, wall: Instant) -> AbstractAsyncContextManager[Books]:
        """The books, for attempt `number` of a job of the queue. Raises AttemptRetired."""
        ...

    async def run(self, job: JobId) -> StoredRun | None:
        """A run, with its attempts."""
        ...

    async def run_of(self, token: bytes) -> StoredRun | None:
        """The run of that token."""
        ...

    async def bury(self, run: StoredRun, retry: int, real_ms: int, ending: str, at: Instant) -> None:
        """An attempt has ended that nobody watched any more, and with it the run."""
        ...

    async def unended(self) -> Sequence[StoredRun]:
        """Runs that have started, and whose jobs ended without that being in the books."""
        ...

    async def expected(self) -> Sequence[tuple[JobId, Instant]]:
        """Runs that schedules want and that have not started, each with the time that it is for; oldest first."""
        ...

    async def is_live(self, job: JobId) -> bool:
        """Whether a job of the queue has not ended."""
        ...

    async def runs(
        self, teamspace: str | None, batch_job: BatchJobId | None, before: JobId | None, limit: int
    ) -> Sequence[StoredRun]:
        """Runs, newest first, with their attempts."""
        ...

    async def keep_lines(self, job: JobId, retry: int, lines: Sequence[Line]) -> None:
        """Store what an attempt has printed; what is stored already stays as it is."""
        ...

    async def keep_mail(
        self, run: StoredRun, number: int, retry: int, question: int, mail: Mail, to: Sequence[str]
    ) -> None:
        """Put a mail of an attempt into the outbox, for each of these, once for each question. Raises AttemptRetired.

        `number` is that of the attempt of the queue's job.
        """
        ...

    async def mailed(self, job: JobId, retry: int) -> Sequence[int]:
        """The questions that have led to a mail."""
        ...

    async def called(self, job: JobId, retry: int) -> Sequence[int]:
        """The questions that have led to a call of a provider, or may have."""
        ...

    async def last_line(self, job: JobId, retry: int) -> int:
        """The number of the last line that is stored."""
        ...

    async def lines(self, job: JobId, retry: int, after: int, limit: int) -> Sequence[Line]:
        """What it has printed, from behind line `after` on."""
        ...

    async def last_lines(self, job: JobId, retry: int, before: int, limit: int) -> Sequence[Line]:
        """The last lines that it has printed in front of line `before`; 0: the last of all. In their order."""
        ...


class BatchPlan(Struct, frozen=True):
    """What a teamspace's plan says of batch jobs, now."""

    enabled: bool
    super_admin_only: bool
    quotas: Quotas
    zone: tzinfo
    reaches: tuple[str, ...]
    builds: bool
    """Packages may be built from sources."""
    memory_bytes: int
    scratch_bytes: int
    processes: int
    log_bytes: int


class PlanOf(Protocol):
    """Knows the plans."""

    def __call__(self, teamspace: str) -> BatchPlan:
        """That of a teamspace."""
        ...


class Ready(Struct, frozen=True):
    """Code that can be run."""

    folder: Path
    packages: Path | None
    interpreter: Path


class Workshop(Protocol):
    """Makes code ready to be run."""

    async def interpreters(self) -> Collection[str]:
        """The names of the Pythons that there are."""
        ...

    async def judge(self, archive: Path) -> Code:
        """What is in a zip. Raises Refused with bad_archive."""
        ...

    def ready(self, code: StoredCode, interpreter: str | None, plan: BatchPlan) -> AbstractAsyncContextManager[Ready]:
        """A folder with the code, and one with the packages that it needs, until a run has been started in them.

        Raises Refused, CannotRun, InstallFailed.
        """
        ...


class Seal(Protocol):
    """Keeps values from whoever reads the database."""

    def seal(self, value: str, *, of: str) -> bytes:
        """A value, to be opened for the same `of` alone."""
        ...

    def open(self, sealed: bytes, *, of: str) -> str:
        """The value. Raises Unsealable."""
        ...
