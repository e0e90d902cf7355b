"""What a slice provides for each kind of job, and what the actors give it to work with.

A kind of job has two halves. `prepare` looks at a submission before it enters the queue: it refuses what cannot work,
and says what must be stored with it. `run` is one attempt at it: it reads what earlier attempts have stored, goes on
from there, and commits what it does in work transactions of its own.

Stopping is cooperative first: from the moment an attempt is told to stop, whatever would wait for a permit or a timer
raises `Stopped`; `run` lets calls in flight finish, stores what they brought, and raises Stopped itself. An attempt
that does not come to an end, or is told to stop at once, is cancelled like any task.
"""

from collections.abc import Callable, Mapping, Sequence
from decimal import Decimal
from typing import Any, Final, Never, Protocol

from msgspec import Struct

from leadline.core.events import NOTHING, CallEnd, Statement
from leadline.core.model import Counts, Family, JobState, StopCause
from leadline.core.rate_limit import Cost
from leadline.ports.provider_client import Request, Response
from leadline.ports.store import StoredJob
from leadline_protocol.errors import JOB_REASONS, JobReason, LeadlineError, Refused
from leadline_protocol.ids import AccountName, CallId, Instant, JobId, LeadId, TableId
from leadline_protocol.messages import JobWarning, StepPreview, Submission


class Stopped(LeadlineError):
    """The attempt was told to stop; what it has stored stays."""


class NoPermit(LeadlineError):
    """There will never be a permit for this call: its cost is above the limit itself."""


class AccountClosed(LeadlineError):
    """The provider account cannot be used: there is none of that name, or its key was refused."""


class JobFailed(LeadlineError):
    """The job itself fails, for a reason of its own; what it has stored stays."""

    def __init__(self, reason: JobReason, message: str) -> None:
        super().__init__(message)
        self.reason = reason


class Parked(LeadlineError):
    """The provider account is out of use for now, and whoever asked did not want to wait for it."""

    def __init__(self, reason: JobReason) -> None:
        super().__init__(JOB_REASONS[reason])
        self.reason: Final = reason


class Paused(LeadlineError):
    """There is a pause, the attempt goes on in spite of it, and must make no new call meanwhile."""


class Prepared(Struct, frozen=True):
    """A submission that can work, and what must be stored with it."""

    table: TableId | None = None
    total: int | None = None
    """Leads in its list, where the list was frozen now."""
    warnings: Sequence[JobWarning] = ()
    statements: Sequence[Statement] = ()
    """Run in the transaction that admits the job."""
    refused: Refused | None = None
    """Why nobody may submit it now, but for schedules; who has a key of a job that there is, gets that job."""
    settled: Callable[[bool], None] | None = None
    """Is told whether it has become a job of its own, where that is known."""


ChainNotes = dict[str, Any]
"""What the steps of one chain tell the later ones while they are prepared, under names of their kinds' choosing."""


class Rerun(Struct, frozen=True):
    """The job that a submission runs again, and over which of its leads."""

    job: JobId
    leads: str
    """unfinished, failed or all."""


class Finished(Struct, frozen=True):
    """How an attempt ended that ran to the end of its job."""

    state: JobState
    """completed, partial, failed, or skipped where a guard said so before anything was done."""
    counts: Counts
    reason: JobReason | None = None
    message: str = ""


class Call(Protocol):
    """A permit for one request, charged and stored as sent."""

    @property
    def id(self) -> CallId:
        """The call's number; its row in the database."""
        ...

    async def send(self, request: Request) -> Response:
        """Make the request: once. Raises Unsent, Ambiguous, BrokenResponse."""
        ...

    def end(self, end: CallEnd) -> None:
        """Say how it ended, after what it brought has been committed; every call must be ended."""
        ...


class Attempt(Protocol):
    """One run of one job, as its work sees it."""

    @property
    def job(self) -> StoredJob:
        """The job as stored when the attempt began, its counts included."""
        ...

    @property
    def number(self) -> int:
        """1, 2, …: work transactions present it, and are refused when it is retired."""
        ...

    @property
    def approved(self) -> bool:
        """Whether a person has let the job go on in spite of its guard."""
        ...

    @property
    def stopping(self) -> bool:
        """Whether it has been told to stop: begin nothing new."""
        ...

    @property
    def stop_cause(self) -> StopCause | None:
        """Why it was told to stop; None: it was not."""
        ...

    async def until_stopping(self) -> None:
        """Wait until it is told to stop."""
        ...

    def now(self) -> Instant:
        """The present instant."""
        ...

    def wall(self) -> Instant:
        """The present by the clock on the wall: for dates that others name."""
        ...

    def doing(self, activity: str) -> None:
        """Say, for people, what it is at."""
        ...

    def progressed(self, counts: Counts) -> None:
        """Report counts that have just been committed."""
        ...

    def moved(self) -> None:
        """Report progress that no count shows: a provider says that it works on a polled call."""
        ...

    async def wait(self, reason: JobReason, until: Instant, numbers: Mapping[str, int | float | str]) -> None:
        """Wait for a known reason until that instant, without its being a stall. Raises Stopped."""
        ...

    async def hold(self, numbers: Mapping[str, int | float | str]) -> Never:
        """Let a person look before the job goes on: the slot is given back until it is resumed. Raises Stopped."""
        ...

    async def permit(
        self,
        account: AccountName,
        lead: LeadId,
        cost: Cost,
        *,
        interactive: bool = False,
        credits_max: Decimal = NOTHING,
        patient: bool = True,
    ) -> Call:
        """Wait for leave to make one request. Raises Stopped, NoPermit, AccountClosed, Parked, Paused.

        `interactive` marks a small job at an account that keeps a share for those. `credits_max` is what the call may
        come to: stored with it, for when nobody learns what it has come to. Only who is not `patient` is told that the
        account is parked; the others wait. Only who is not interrupted by a pause is told of one.
        """
        ...


class Previews(Protocol):
    """What submissions would take, without any of them being stored."""

    async def preview(self, submission: Submission, chain: ChainNotes | None, shown: int) -> StepPreview:
        """What a submission, or a step of a chain, would take if its turn came now.

        A formula is tried on `shown` leads. Raises Refused where the submission would be refused.
        """
        ...


class JobKind(Protocol):
    """A kind of job."""

    @property
    def name(self) -> str:
        """The word on the wire."""
        ...

    @property
    def family(self) -> Family:
        """Whose slots and capacity it takes."""
        ...

    async def prepare(
        self, teamspace: str, submission: Submission, *, chain: ChainNotes | None, rerun: Rerun | None
    ) -> Prepared:
        """Check a submission against everything but the queue. Raises Refused.

        `chain` is for a step: what earlier steps of the same chain will have brought about when its turn comes.
        """
        ...

    async def run(self, attempt: Attempt) -> Finished:
        """Do the job, or what is left of it.

        Raises Stopped when it was told to stop. Any other exception fails the job with the reason `error`.
        """
        ...
