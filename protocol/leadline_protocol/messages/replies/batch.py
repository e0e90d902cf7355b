"""Batch jobs, their code, their runs and what these print."""

from datetime import datetime
from typing import Any

from msgspec import Struct, field

from leadline_protocol.errors import JobReason
from leadline_protocol.ids import JobId
from leadline_protocol.messages.replies.base import JobWarning, Reply
from leadline_protocol.messages.words import (
    Ref,
    StateWord,
)


class BatchVersion(Struct, frozen=True, gc=False, omit_defaults=True, kw_only=True):
    """The code of a batch job as it was uploaded once."""

    version: int
    """From 1; the highest is the one that runs."""
    size_bytes: int
    """Of the zip."""
    sha256: str
    files: int
    requirements: bool
    """Whether it names packages that it needs."""
    uploaded_at: datetime


class BatchView(Struct, frozen=True, gc=False, omit_defaults=True, kw_only=True):
    """A batch job."""

    teamspace: str
    name: str
    state: str
    """`draft`, `published` or `unpublished`: what is published can run."""
    version: int
    """Of its code; 0: none was uploaded."""
    api: bool
    """Whether it may be run by submission; else by its schedules alone."""
    timeout_seconds: float
    """An attempt that takes longer is ended."""
    retries: int
    """So often it is tried again from the beginning when it has failed."""
    retry_timeouts: bool
    """Also when it took too long."""
    stall_after_seconds: int | None = None
    """It is ended when it has printed nothing, and reported no progress, for so long; absent: it may be silent."""
    interpreter: str | None = None
    """The Python that runs it; absent: the machine's own."""
    mail_success: list[str] = field(default_factory=list)
    """Who has the mails of success that the code sends."""
    mail_failure: list[str] = field(default_factory=list)
    settings: dict[str, str] = field(default_factory=dict)
    secrets: list[str] = field(default_factory=list)
    """Names of settings whose values are never shown."""
    schedules: list[str] = field(default_factory=list)
    """Names of the schedules that run it."""
    created_at: datetime
    versions: list[BatchVersion] = field(default_factory=list)
    """Newest first, when one is described."""


class BatchAttempt(Struct, frozen=True, gc=False, omit_defaults=True, kw_only=True):
    """One attempt of a run."""

    retry_attempt: int
    """0 for the first."""
    began_at: datetime
    cap_seconds: float
    """It is ended after so long: its timeout, or what was left of the day."""
    seconds: float | None = None
    """What it took; absent: it goes on."""
    end: str | None = None
    """How it ended, in words."""


class BatchRun(Struct, frozen=True, gc=False, omit_defaults=True, kw_only=True):
    """One execution of a batch job, with all its attempts."""

    instance: JobId
    """The id of its job in the queue, and the event's `job_instance_id`."""
    teamspace: str
    batch_job: str
    version: int | None = None
    """Of the code that runs; absent: it has not started."""
    source: str
    """`api` or `scheduler`."""
    due_at: datetime | None = None
    """Of a schedule's: the time that it is for."""
    state: StateWord
    reason: JobReason | None = None
    message: str | None = None
    attempts: list[BatchAttempt] = field(default_factory=list)
    result: Any = None
    """What main() returned, where the run was asked for by itself."""


class BatchLine(Struct, frozen=True, gc=False, kw_only=True):
    """A line that a run has printed."""

    retry_attempt: int
    number: int
    """From 1 in each attempt."""
    at: datetime
    text: str


class BatchDay(Struct, frozen=True, gc=False, kw_only=True):
    """What a teamspace's batch jobs have used of the day."""

    executions: int
    executions_max: int
    seconds: float
    """Of the attempts that have ended."""
    seconds_max: float
    ends_at: datetime


class BatchReply(Reply, frozen=True, kw_only=True):
    """The batch jobs, runs or lines that were asked for."""

    batch_jobs: list[BatchView] = field(default_factory=list)
    runs: list[BatchRun] = field(default_factory=list)
    lines: list[BatchLine] = field(default_factory=list)
    ended: bool = False
    """There are no more lines, and will be none."""
    path: str | None = None
    """The file that a download was written to."""
    day: BatchDay | None = None
    """Of the teamspace that was asked about."""
    warnings: list[JobWarning] = field(default_factory=list)
    next: int | None = None
    """There are more: ask again with this as `after`; of lines that were asked for by `before`, as `before`."""
    ref: Ref = None
