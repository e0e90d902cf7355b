"""What outreach needs of the database: its rows, and the one transaction in which a mail is decided."""

from collections.abc import Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from datetime import date
from enum import StrEnum
from typing import Final, Protocol

from msgspec import Struct

from leadline.core.model import Counts
from leadline.features.outreach.model import (
    Associate,
    AssociateId,
    FollowUp,
    FollowUpId,
    Line,
    Place,
    Reason,
    Script,
    Status,
)
from leadline_protocol.ids import Instant, JobId

QUEUE: Final = "queue_follow_up"
"""Statement: job $1 is the task of follow-up $2 at step $3, with its place in the line at $4; $5 is the wall time. $6
is the associate that takes it, where it had none."""


class MailState(StrEnum):
    """Where a mail is."""

    SENDING = "sending"
    """It may be on its way."""
    SENT = "sent"
    UNKNOWN = "unknown"
    """Nobody knows whether it has left."""
    REFUSED = "refused"
    """The mail server has refused it for good."""
    NOT_SENT = "not_sent"
    """The mail server did not take it for now: it has certainly not left, and is tried again."""
    WITHDRAWN = "withdrawn"
    """The daemon kept it back at the last moment, as it was told to: it has certainly not left."""


class Server(Struct, frozen=True):
    """Where a mailbox of its own hands in its mails; its password is sealed."""

    host: str
    port: int
    tls: str
    user: str | None
    sealed: bytes | None


class StoredAssociate(Struct, frozen=True):
    """An associate as stored."""

    associate: Associate
    server: Server | None
    """None: the one of the configuration."""


class StoredMail(Struct, frozen=True, kw_only=True):
    """A mail as stored."""

    id: int
    follow_up: FollowUpId
    teamspace: str
    associate: str
    address: str
    round: int
    step: int
    message_id: str
    subject: str
    state: MailState
    job: JobId
    attempt: int
    began: Instant
    ended: Instant | None
    evidence: str
    settled_by: str | None


class Entry(Struct, frozen=True):
    """A line of a follow-up's history."""

    at: Instant
    status: str
    detail: str


class Listed(Struct, frozen=True):
    """A follow-up in a list."""

    follow_up: FollowUp
    key: str
    associate: str | None
    place: Instant | None


class Suppression(Struct, frozen=True):
    """What is not written to."""

    id: int
    teamspace: str
    value: str
    reason: str
    at: Instant
    detail: str


class Found(Struct, frozen=True, kw_only=True):
    """What there is about a follow-up's next mail, as it was at one moment."""

    follow_up: FollowUp
    associate: StoredAssociate | None
    script: Script | None
    line: Line
    """Of its mailbox, without the follow-up itself."""
    first: bool
    """Nothing was ever sent to the contact."""
    held: Place | None
    """Its own place in that line."""
    suppressed: Reason | None
    """Why its address, or the domain of it, is not written to; None: it is."""
    replied: Instant | None
    """When the contact last wrote by itself."""
    domain_mails: int
    """Mails of the teamspace to that domain since the beginning of the day in the zone of the associate."""
    before: Sequence[StoredMail]
    """All mails to the contact, oldest first."""


class NewMail(Struct, frozen=True, kw_only=True):
    """A mail that is about to be handed in."""

    follow_up: FollowUp
    associate: Associate
    message_id: str
    subject: str
    day: date
    began: Instant


class Event(Struct, frozen=True, kw_only=True):
    """Something that came in from a contact, or about a mail to it."""

    teamspace: str
    event: str
    """reply, auto_reply, bounce, unsubscribe or complaint."""
    address: str
    message_id: str | None
    key: str | None
    at: Instant
    detail: str


class Taken(Struct, frozen=True):
    """What an event has brought about."""

    stopped: Sequence[FollowUpId]
    unknown: Sequence[StoredMail]
    """Mails of unknown outcome that it is about."""
    mailbox: AssociateId | None
    """That of the mail that it is about."""


class Books(Protocol):
    """The transaction in which it is decided whether a mail leaves now. Nobody stops its contact meanwhile."""

    @property
    def found(self) -> Found:
        """What there is."""
        ...

    async def begin(self, mail: NewMail) -> int:
        """It is on its way from now on, as far as anybody can tell; returns its number."""
        ...

    async def place(self, place: Place | None) -> None:
        """Keep this place in the mailbox's line for it, or none."""
        ...

    async def lose(self, mail: StoredMail, evidence: str, at: Instant) -> None:
        """Nobody knows what has become of a mail that was on its way."""
        ...

    async def move(self, status: Status, reason: Reason | None, detail: str, at: Instant) -> None:
        """The follow-up is in another state."""
        ...

    async def count(self, counts: Counts) -> None:
        """The job ends with these."""
        ...


class Next(Struct, frozen=True):
    """What a follow-up goes on with."""

    script: str
    round: int
    step: int
    due: Instant


class Ending(Struct, frozen=True, kw_only=True):
    """How a mail has ended, and what that makes of its follow-up."""

    state: MailState
    evidence: str
    status: Status
    reason: Reason | None = None
    go_on: Next | None = None
    """Of a status of pending."""


class OutreachStore(Protocol):
    """The rows of outreach."""

    async def associates(
        self, teamspace: str | None, name: str | None, after: int, limit: int
    ) -> Sequence[StoredAssociate]:
        """Associates by their numbers, from behind `after` on."""
        ...

    async def lines(self, today: Mapping[AssociateId, date]) -> Mapping[AssociateId, Line]:
        """What mailboxes have sent and are going to send; `today`: in the zone of each."""
        ...

    async def put_associate(self, associate: Associate, server: Server | None) -> bool:
        """Add an associate, or replace the one of that name; True: it is new. A password of None stays as it is."""
        ...

    async def pause(self, associate: AssociateId, why: str | None, wall: Instant) -> Sequence[JobId]:
        """Stop a mailbox, or let it go on; returns the tasks that wait for it."""
        ...

    async def scripts(self, teamspace: str | None) -> Sequence[Script]:
        """Scripts by teamspace and name."""
        ...

    async def put_script(self, script: Script) -> bool:
        """Add a script, or replace the one of that name; True: it is new."""
        ...

    async def add_follow_ups(self, follow_ups: Sequence[tuple[str, FollowUp]]) -> Sequence[bool]:
        """Add these, each with its key; False for those whose key is known."""
        ...

    async def follow_ups(
        self,
        teamspace: str | None,
        *,
        associate: AssociateId | None,
        status: Status | None,
        address: str | None,
        after: int,
        limit: int,
    ) -> Sequence[Listed]:
        """Follow-ups by their numbers."""
        ...

    async def follow_up(self, teamspace: str, follow_up: FollowUpId) -> Listed | None:
        """One of them."""
        ...

    async def history(self, follow_up: FollowUpId) -> Sequence[Entry]:
        """Its story, oldest first."""
        ...

    async def mails(
        self,
        teamspace: str | None,
        *,
        follow_up: FollowUpId | None,
        states: Sequence[MailState],
        after: int,
        limit: int,
    ) -> Sequence[StoredMail]:
        """Mails by their numbers."""
        ...

    async def due(self, associate: AssociateId, wall: Instant) -> Sequence[FollowUp]:
        """What is pending and due, oldest first."""
        ...

    async def new_contacts(self, teamspace: str, wall: Instant) -> Sequence[FollowUp]:
        """What waits for its first mail, oldest first."""
        ...

    async def turn(self, teamspace: str) -> AssociateId:
        """The associate that was the last to be given a first mail; 0: none."""
        ...

    async def set_turn(self, teamspace: str, associate: AssociateId) -> None:
        """Remember it."""
        ...

    async def settle_lost(self, teamspace: str | None, wall: Instant) -> None:
        """See to follow-ups whose tasks have ended without them: cancelled, or failed by an error."""
        ...

    async def stop(
        self, follow_ups: Sequence[FollowUpId], reason: Reason, detail: str, wall: Instant
    ) -> Sequence[FollowUpId]:
        """Stop these, as far as they can be; returns which were."""
        ...

    def books(self, job: JobId, number: int, day_of: "DayOf") -> AbstractAsyncContextManager[Books | None]:
        """Decide about the mail of a task, for an attempt at it; None: it is nobody's task. Raises AttemptRetired."""
        ...

    async def end(
        self, job: JobId, number: int, mail: int, ending: Ending, counts: Counts | None, wall: Instant
    ) -> None:
        """Store how a mail has ended, what that makes of its follow-up, and where it ends the job its counts.

        Raises AttemptRetired.
        """
        ...

    async def mail(self, teamspace: str, mail: int) -> StoredMail | None:
        """One mail."""
        ...

    async def count(self, job: JobId, number: int, counts: Counts) -> None:
        """The job ends with these counts. Raises AttemptRetired."""
        ...

    async def resolve(self, mail: StoredMail, ending: Ending, by: str, wall: Instant) -> bool:
        """Say what has become of a mail of unknown outcome; False: that is known already."""
        ...

    async def take(self, event: Event, *, stop: Reason | None, suppress: bool, wall: Instant) -> Taken | None:
        """Store what came in, and stop what it stops, for ever where it is to be suppressed; None: it is known."""
        ...

    async def last_mails(self, associate: AssociateId, count: int) -> Sequence[tuple[bool, bool]]:
        """Of the newest mails of a mailbox since it was resumed, newest first: whether each came back for good, and
        whether it was complained of.
        """
        ...

    async def mailboxes(self) -> Mapping[str, int]:
        """How many active associates each teamspace has."""
        ...

    async def suppress(
        self, teamspace: str, value: str, reason: str, detail: str, wall: Instant
    ) -> Sequence[FollowUpId]:
        """Write no more to an address or a domain; returns the follow-ups that this has stopped."""
        ...

    async def allow(self, teamspace: str, value: str) -> bool:
        """Write to it again; False: it was not suppressed."""
        ...

    async def suppressions(
        self, teamspace: str | None, value: str | None, after: int, limit: int
    ) -> Sequence[Suppression]:
        """What is not written to."""
        ...


class DayOf(Protocol):
    """What day it is for an associate."""

    def __call__(self, associate: Associate) -> date:
        """Today, in its zone."""
        ...
