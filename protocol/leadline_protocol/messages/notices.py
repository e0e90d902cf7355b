"""Notices: what the daemon says between replies, and what it posts to a webhook."""

from datetime import datetime
from uuid import UUID

from msgspec import Struct, field

from leadline_protocol.errors import JobReason
from leadline_protocol.ids import JobId
from leadline_protocol.messages.replies.base import JobWarning
from leadline_protocol.messages.replies.jobs import Counts, Eta, JobView, Wait
from leadline_protocol.messages.words import (
    StateWord,
)


class NoticeBase(Struct, tag_field="event", frozen=True, gc=False, omit_defaults=True, kw_only=True):
    """What the daemon says of itself between replies; `at` is when it happened."""

    at: datetime | None = None


class Queued(NoticeBase, tag="queued", frozen=True, kw_only=True):
    """A job entered the queue, or went back to it."""

    job: JobId
    kind: str
    teamspace: str
    reason: JobReason | None = None


class Started(NoticeBase, tag="started", frozen=True, kw_only=True):
    """An attempt began."""

    job: JobId
    teamspace: str
    attempt: int


class Progress(NoticeBase, tag="progress", frozen=True, kw_only=True):
    """How far a job is; sent at most once a second for each job."""

    job: JobId
    teamspace: str | None = None
    state: StateWord
    shown: str
    counts: Counts
    activity: str | None = None
    waits: list[Wait] = field(default_factory=list)
    stalled: bool = False
    leads_per_second: float | None = None
    ends: Eta | None = None


class Ended(NoticeBase, tag="ended", frozen=True, kw_only=True):
    """A job ended; nothing more will be said of it."""

    job: JobId
    teamspace: str | None = None
    state: StateWord
    counts: Counts
    reason: JobReason | None = None
    message: str | None = None
    warnings: list[JobWarning] = field(default_factory=list)


class Missed(NoticeBase, tag="missed", frozen=True, kw_only=True):
    """This peer reads too slowly: so many notices were not sent to it. What counts can be asked with `get`."""

    count: int


class JobNotice(Struct, frozen=True, gc=False, omit_defaults=True, kw_only=True):
    """What a webhook is sent: the one shape here that travels over HTTP. See `leadline_protocol.signature`."""

    notice: UUID
    """The same at every try; who gets it twice can tell by it."""
    event: str
    at: datetime
    job: JobView
    """As it is when this is sent; a job that has ended stays so."""


Notice = Queued | Started | Progress | Ended | Missed
"""Any notice, as a type to decode by."""
