"""The numbers of a plan that bind batch jobs, and what is refused by them while a batch job is set up.

Whoever sets up a batch job reads these numbers as they are now. A lower one refuses the next change and the next run;
what there is already stays, and what runs is never ended by it.
"""

from enum import StrEnum
from typing import Final

from msgspec import Struct

from leadline_protocol.errors import ErrorCode, Refused

MINUTE_MS: Final = 60_000
"""Milliseconds in a minute: the unit of plans is the minute, that of the ledger the millisecond."""

_TRY_AGAIN_SECONDS: Final = 60.0
"""When to ask again for what becomes free by a person's doing; nobody knows when that is."""


class Access(StrEnum):
    """What code may do with a database."""

    NONE = "none"
    READ = "read"
    WRITE = "write"
    """Read it, too."""


class Quotas(Struct, frozen=True, gc=False, kw_only=True):
    """The batch quotas of a teamspace in force."""

    jobs_max: int = 5
    """Batch jobs that there may be, drafts included."""
    executions_per_day_max: int = 24
    """Of all batch jobs together; a retry is none."""
    invocations_per_day_max: int = 10
    """Of one batch job, by its schedules and by API together; a retry is none."""
    milliseconds_per_day_max: int = 240 * MINUTE_MS
    """What all attempts of a day may take together."""
    reserve: bool = False
    """Attempts in progress count with all they may still take, not only once they have ended."""
    retries_max: int = 1
    """Retries of an execution."""
    schedule_gap_minutes_min: int = 60
    """From one start of a batch job by schedule to the next."""
    archive_bytes_max: int = 4_194_304
    """Size of the zip, packed."""
    own_database: Access = Access.NONE
    """The teamspace's own data."""
    etl_database: Access = Access.NONE
    """The database whose address was set for the teamspace."""


def check_new_job(quotas: Quotas, jobs: int) -> None:
    """Whether there may be another batch job beside so many. Raises Refused with quota."""
    if jobs >= quotas.jobs_max:
        message = f"there are {jobs} batch jobs, drafts included, and the plan allows {quotas.jobs_max}"
        raise Refused(ErrorCode.QUOTA, message, retry_after=_TRY_AGAIN_SECONDS)


def check_archive(quotas: Quotas, size_bytes: int) -> None:
    """Whether a zip of that size is taken. Raises Refused with too_large."""
    if size_bytes > quotas.archive_bytes_max:
        message = f"the zip has {size_bytes:,} bytes, and the plan allows {quotas.archive_bytes_max:,}"
        raise Refused(ErrorCode.TOO_LARGE, message)


def check_timeout(quotas: Quotas, timeout_ms: int) -> None:
    """Whether a batch job may have that timeout: at most all that a day has. Raises Refused with bad_request."""
    if timeout_ms > quotas.milliseconds_per_day_max:
        most = duration(quotas.milliseconds_per_day_max)
        message = f"a timeout of {duration(timeout_ms)} is more than the {most} that the plan allows for a day"
        raise Refused(ErrorCode.BAD_REQUEST, message, at="timeout")


def check_retries(quotas: Quotas, retries: int) -> None:
    """Whether a batch job may have so many retries. Raises Refused with bad_request."""
    if retries > quotas.retries_max:
        message = f"{retries} retries are more than the {quotas.retries_max} that the plan allows"
        raise Refused(ErrorCode.BAD_REQUEST, message, at="retries")


def duration(milliseconds: int) -> str:
    """Milliseconds as people read them, without rounding: `39 min 59.999 s`."""
    minutes, rest = divmod(milliseconds, MINUTE_MS)
    seconds = f"{rest / 1000:g} s"
    if not rest:
        return f"{minutes} min"
    return f"{minutes} min {seconds}" if minutes else seconds
