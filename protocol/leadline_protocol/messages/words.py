"""Words and values that several messages share."""

from datetime import datetime
from typing import Annotated, Final, Literal, get_args

from msgspec import Meta, Struct

from leadline_protocol.ids import JobId

PROTOCOL_VERSION: Final = 1
"""Raised when a message changes its meaning; a new field or a new message does not raise it."""

INT64_MAX: Final = 2**63 - 1

Family = Literal["tables", "batch", "outreach", "noop"]
"""What shares slots and capacity."""

State = Literal["delayed", "queued", "running", "stopping", "completed", "partial", "failed", "cancelled", "skipped"]
"""The states of a job; the last five are its ends."""

EndedState = Literal["completed", "partial", "failed", "cancelled", "skipped"]

FamilyWord = Annotated[str, Meta(extra_json_schema={"enum": [*get_args(Family)]})]
StateWord = Annotated[str, Meta(extra_json_schema={"enum": [*get_args(State)]})]
"""Family and State in what the daemon sends: a text that a client takes as it comes."""

ENDED_STATES: Final[frozenset[str]] = frozenset(get_args(EndedState))
"""A job in one of these will not change any more."""

ColumnType = Literal["text", "number", "boolean", "date", "timestamp", "json"]
"""What a column may hold; a `number` is an exact decimal, a `timestamp` has a time zone."""

SelectLeads = Literal["on_start", "on_submit"]
"""When the list of leads is frozen."""

FileFormat = Literal["csv", "jsonl", "xlsx"]
"""The files that can be read and written."""

Name = Annotated[str, Meta(min_length=1, max_length=100)]
"""What people call a teamspace, a table, a column, a module or a provider."""

Expression = Annotated[str, Meta(min_length=1, max_length=10_000)]
"""An SQL expression over the columns of one table."""

Path = Annotated[str, Meta(min_length=1, max_length=4096)]
"""A file: a plain name stands for one in the daemon's incoming (upload) or exports (export) folder."""

EnumValue = Annotated[str, Meta(min_length=1, max_length=200)]

ColumnSpec = ColumnType | Annotated[list[EnumValue], Meta(min_length=1, max_length=200)]
"""A column's type: a type word, or the list of the only texts it may hold."""

Key = Annotated[str, Meta(min_length=1, max_length=255)]
"""An idempotency key, unique within its teamspace for 30 days."""

Ref = Annotated[str, Meta(max_length=256)] | Annotated[int, Meta(ge=-INT64_MAX, le=INT64_MAX)] | None
"""The sender's own mark on a request; the reply repeats it."""

Id = Annotated[JobId, Meta(ge=1, le=INT64_MAX)]

AwareTime = Annotated[datetime, Meta(tz=True)]

PrioritySeconds = Annotated[float, Meta(ge=0, le=604_800)]
"""A head start of at most a week."""

DelaySeconds = Annotated[float, Meta(ge=0, le=31_622_400)]
"""At most 366 days."""


DryRun = bool | Annotated[int, Meta(ge=1, le=100)]
"""Whether a submission is only tried; true shows ten leads."""

SpendCap = Annotated[float, Meta(ge=0, le=1_000_000_000)]
"""Credits: the decimal that is written, up to 15 digits of it."""


Role = Literal["member", "admin", "super_admin"]
"""What somebody may do in a teamspace: look and submit, manage it, or manage also what its plan keeps from admins."""

TokenScope = Literal["submit", "read", "control"]
"""What an API token may do: hand work and files in, look, or see to what is there. None includes another."""


class Dialect(Struct, frozen=True, gc=False, forbid_unknown_fields=True, omit_defaults=True, kw_only=True):
    """How a CSV file is written, where guessing it is not wanted; of JSON Lines, `encoding` alone."""

    delimiter: Annotated[str, Meta(min_length=1, max_length=1)] | None = None
    quote: Annotated[str, Meta(min_length=1, max_length=1)] | None = None
    encoding: Annotated[str, Meta(min_length=1, max_length=40)] | None = None
    """A name Python's codecs know, such as `cp1252`."""


class MoreThan(Struct, frozen=True, gc=False, forbid_unknown_fields=True, kw_only=True):
    """A guard: what becomes of the job when more than `count` leads matched."""

    count: Annotated[int, Meta(ge=0, le=INT64_MAX)]
    then: Literal["skip", "hold", "run"]


WhenEmpty = Literal["run", "skip", "hold"]
"""A guard: what becomes of the job when no lead matched."""
