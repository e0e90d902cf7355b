"""Notices of jobs that leave the house: by webhook, and by mail.

A notice is a row of an outbox, written in the very transaction that stores what it tells of. So there is one for each
end, no more and no less, and what can go wrong is only its way: that is the business of the outbox's one sender, who
stores that a notice is being sent before anything leaves.
"""

from collections.abc import Collection, Sequence
from datetime import datetime
from typing import Final, Literal, Protocol
from uuid import UUID

from msgspec import Struct

from leadline_protocol.ids import JobId

WISH_NOTICE: Final = "wish_notice"
"""Statement: tell of job $1 by the medium $2 at $3, when one of the events $4 comes."""

Medium = Literal["webhook", "mail"]
NoticeState = Literal["due", "sending", "sent", "failed", "unknown"]


class Letter(Struct, frozen=True):
    """What tenants' code has written."""

    subject: str
    body: str
    html: bool


class Notice(Struct, frozen=True):
    """One notice to one place."""

    id: UUID
    """The same at every try: who gets it twice can tell."""
    job: JobId
    teamspace: str
    event: str
    medium: Medium
    target: str
    tries: int
    made: datetime
    letter: Letter | None = None
    """Of a mail that tenants' code has sent: what it says, in the place of how the job is."""


class StoredNotice(Struct, frozen=True):
    """A notice and what has become of it."""

    id: UUID
    job: JobId
    teamspace: str
    event: str
    medium: Medium
    target: str
    state: NoticeState
    tries: int
    made: datetime
    due: datetime
    detail: str


class Outcome(Struct, frozen=True):
    """What became of a try."""

    state: Literal["sent", "again", "failed", "unknown"]
    """`again`: it certainly was not taken, and may be later; `failed`: nor will it be."""
    detail: str = ""


class Outbox(Protocol):
    """Notices as stored. Every change is fenced; raises Unavailable, Fenced and OutcomeUnknown as the store does."""

    async def recover(self, in_hand: Collection[UUID]) -> None:
        """See to what somebody was sending who is not there any more; `in_hand` is what we are sending ourselves."""
        ...

    async def due(self, limit: int, in_hand: Collection[UUID]) -> Sequence[Notice]:
        """What is to be sent now."""
        ...

    async def next_due(self, in_hand: Collection[UUID]) -> float | None:
        """Seconds until something is to be sent; None: nothing is."""
        ...

    async def begin(self, notice: UUID) -> bool:
        """Store that it is being sent; False where it is not due any more."""
        ...

    async def end(self, notice: UUID, state: NoticeState, again_seconds: float, detail: str) -> None:
        """Store what became of it."""
        ...


class Courier(Protocol):
    """Brings a notice to its place: tries once, and says what became of it. Never raises."""

    async def bring(self, notice: Notice, body: bytes) -> Outcome:
        """Bring the notice; `body` is a `JobNotice` as JSON."""
        ...
