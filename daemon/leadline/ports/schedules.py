"""Schedules as stored, and what became of the times at which they were due.

That a schedule has fired is stored in the very transaction that stores the job it submits, by a statement of that
job's admission (`FIRE`): so each time has its job or none, whenever the daemon dies.
"""

from collections.abc import Sequence
from datetime import datetime
from typing import Final, Literal, NewType, Protocol

from msgspec import Struct

from leadline.core.calendar.schedules import Timetable
from leadline_protocol.errors import JobReason
from leadline_protocol.ids import Instant, JobId
from leadline_protocol.messages import JobWarning, Submission
from leadline_protocol.schedules import Schedule

FIRE: Final = "fire_occurrence"
"""Statement: job $3 is what schedule $1 submits for the time $2."""

ScheduleId = NewType("ScheduleId", int)

Verdict = Literal["run", "missed", "still_running", "refused"]


class StoredSchedule(Struct, frozen=True):
    """A schedule."""

    id: ScheduleId
    teamspace: str
    name: str
    timetable: Schedule
    submission: bytes
    """JSON."""
    missed: Literal["skip", "once", "all"]
    overlap: bool
    paused: bool
    decided: Instant
    """The last time that was decided; before the first, the moment from which the schedule is in force."""
    uid: int
    """Who made it."""
    created: datetime
    job: JobId | None
    """The last one that it submitted, where that was asked for."""


class StoredOccurrence(Struct, frozen=True):
    """A time that was decided."""

    at: Instant
    verdict: Verdict
    job: JobId | None = None
    message: str = ""


class NewSchedule(Struct, frozen=True):
    """A schedule that is not stored yet."""

    teamspace: str
    name: str
    timetable: Schedule
    submission: bytes
    missed: Literal["skip", "once", "all"]
    overlap: bool
    uid: int


class ScheduleStore(Protocol):
    """Raises Unavailable, Fenced and OutcomeUnknown as the store does."""

    async def active(self, name: tuple[str, str] | None = None) -> Sequence[StoredSchedule]:
        """Those that are not paused, or the one of that teamspace and name; with the last job that each submitted."""
        ...

    async def page(
        self, teamspace: str | None, name: str | None, after: tuple[str, str] | None, limit: int
    ) -> Sequence[StoredSchedule]:
        """Schedules by teamspace and name, from behind `after` on."""
        ...

    async def add(self, new: NewSchedule, since: Instant) -> bool:
        """Store one that is in force from now on, unless there is one of that name."""
        ...

    async def pause(self, teamspace: str, name: str) -> bool:
        """Have one fire no more for now; False where there is none."""
        ...

    async def resume(self, teamspace: str, name: str, since: Instant) -> bool:
        """Have one fire again, from now on; False where there is none."""
        ...

    async def delete(self, teamspace: str, name: str) -> bool:
        """Drop one with its history; False where there is none."""
        ...

    async def skip(self, schedule: ScheduleId, skipped: Sequence[StoredOccurrence]) -> None:
        """Store that nothing was submitted at these times."""
        ...

    async def occurrences(self, schedule: ScheduleId, limit: int) -> Sequence[StoredOccurrence]:
        """The newest times that were decided, newest first."""
        ...


class ScheduleRules(Protocol):
    """What kinds of job say to schedules that submit them."""

    async def check(
        self, name: str, timetable: Timetable, submission: Submission, after: Instant
    ) -> Sequence[JobWarning]:
        """Whether there may be a schedule of that name from then on; what people should know of it. Raises Refused."""
        ...

    async def marks(
        self, submission: Submission, coming: Sequence[Instant], after: Instant, tried: Timetable | None = None
    ) -> Sequence[JobReason | None]:
        """For each time from then on at which it would be submitted, why it may be skipped.

        `tried`: a schedule that is not there and is to be reckoned with.
        """
        ...
