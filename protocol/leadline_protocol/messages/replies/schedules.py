"""Schedules: what they submit, when they fire, and what became of that."""

from datetime import datetime
from typing import Any, Literal

from msgspec import Struct, field

from leadline_protocol.errors import JobReason
from leadline_protocol.ids import JobId
from leadline_protocol.messages.replies.base import JobWarning, Reply
from leadline_protocol.messages.words import (
    Ref,
)
from leadline_protocol.schedules import Schedule


class ComingOccurrence(Struct, frozen=True, gc=False, omit_defaults=True, kw_only=True):
    """When a schedule will fire."""

    at: datetime
    local: str
    """The same on the wall of its zone, with the offset from UTC in force then."""
    mark: Literal["normal", "first", "moved"] = "normal"
    """`first`: the wall time comes twice that day, and this is the first of them, the only one at which it fires;
    `moved`: the wall time does not exist that day, and this is the end of the gap."""
    quota: JobReason | None = None
    """Of a batch job: the day's quota for which it may be skipped then; absent: it is not, whatever the runs before it
    take, unless some are retried or submitted by hand."""


class DueOccurrence(ComingOccurrence, frozen=True, gc=False, omit_defaults=True, kw_only=True):
    """When which schedule will fire."""

    teamspace: str
    schedule: str
    """Its name."""


class PastOccurrence(Struct, frozen=True, gc=False, omit_defaults=True, kw_only=True):
    """What became of a time at which a schedule was due."""

    at: datetime
    verdict: Literal["run", "missed", "still_running", "refused"]
    job: JobId | None = None
    """Of `run`: the job that was submitted."""
    message: str | None = None
    """Of `refused`: why."""


class ScheduleView(Struct, frozen=True, gc=False, omit_defaults=True, kw_only=True):
    """A schedule and what it submits."""

    teamspace: str
    schedule: str
    """Its name."""
    timetable: Schedule
    submission: dict[str, Any]
    missed: Literal["skip", "once", "all"]
    overlap: bool
    paused: bool
    created_at: datetime
    coming: list[ComingOccurrence]
    """The next ones, as many as were asked for; none while it is paused."""
    past: list[PastOccurrence] = field(default_factory=list)
    """The newest ones, newest first; only of one schedule that is described."""


class SchedulesReply(Reply, frozen=True, kw_only=True):
    """Schedules by teamspace and name; of `preview` and `due`, only what comes."""

    schedules: list[ScheduleView]
    coming: list[ComingOccurrence] = field(default_factory=list)
    due: list[DueOccurrence] = field(default_factory=list)
    """Of `due`: soonest first."""
    warnings: list[JobWarning] = field(default_factory=list)
    """Of `add`: what the schedules together can ask for that a day does not have."""
    next: tuple[str, str] | None = None
    """To be sent as `after` for the next page; null: this is the last one."""
    ref: Ref = None
