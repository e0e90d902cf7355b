"""What outreach is about: who writes (associates), what (scripts), to whom and when (follow-ups).

A follow-up is one contact's way through a script: step by step, each step one mail. Its status says where it is, and
`life.MOVES` how it may go on. All mails of an associate leave from one mailbox, whatever they belong to, and it is the
mailbox that has limits.

Instants are wall time in microseconds; whoever may set the clock may send early.
"""

from collections.abc import Mapping, Sequence
from datetime import date, time
from enum import StrEnum
from typing import Final, NewType

from msgspec import Struct

from leadline_protocol.ids import Instant, JobId

AssociateId = NewType("AssociateId", int)
FollowUpId = NewType("FollowUpId", int)

SECOND: Final = 1_000_000
"""Microseconds in a second."""


class Whose(StrEnum):
    """In whose zone the hours of sending are meant."""

    SENDER = "sender"
    LEAD = "lead"
    """The contact's own, where it is known, else the sender's."""


class Hours(Struct, frozen=True):
    """When an associate writes."""

    days: frozenset[int] = frozenset(range(5))
    """Days of the week, 0 for Monday."""
    begin: time = time(9)
    end: time = time(17)
    """No mail begins at this time any more; 00:00 is midnight, the end of the day."""
    whose: Whose = Whose.SENDER


class Ramp(Struct, frozen=True):
    """How a mailbox that is new begins: with few mails a day, and more on each day on which it sends."""

    first: int
    """Mails on its first day."""
    more: int
    """So many more on each further day, until its daily cap is reached."""


class Associate(Struct, frozen=True, kw_only=True):
    """Somebody in whose name mails are sent, and the mailbox from which they leave."""

    id: AssociateId
    teamspace: str
    name: str
    address: str
    """The mailbox: `From`, and the sender of the envelope."""
    full_name: str = ""
    signature: str = ""
    zone: str = "UTC"
    variability_seconds: int | None = None
    """At most so much later than its turn each mail is queued, at random; None or below 0: not at all."""
    daily_cap: int = 50
    ramp: Ramp | None = None
    gap_seconds: int = 60
    """From one mail's end to the beginning of the next, whatever they belong to."""
    hours: Hours = Hours()
    active: bool = True
    paused: str | None = None
    """Why nothing leaves the mailbox until a person resumes it; None: it is not paused."""


class Step(Struct, frozen=True):
    """One mail of a script; its texts are templates over the contact's fields."""

    after_days: int
    """After the mail before it, by the calendar of the associate's zone; of the first step it means nothing."""
    subject: str
    """Empty: the mail answers the one before it, and takes its subject."""
    text: str
    html: str | None = None


class Script(Struct, frozen=True):
    """What is written, step after step."""

    teamspace: str
    name: str
    keyword: str
    """What it is for: queueing takes those with the right keyword only."""
    steps: Sequence[Step]
    then: str | None = None
    """The script that a contact goes on with after the last step."""


class Status(StrEnum):
    """Where a follow-up is; `life.MOVES` says how it may go on."""

    PENDING = "pending"
    """Its next mail waits for its date; without an associate, for its turn among the first mails."""
    QUEUED = "queued"
    """Its next mail is a job."""
    SENDING = "sending"
    """Its mail may be on its way: stored before the mail server is told of it."""
    UNKNOWN = "unknown"
    """Nobody knows whether its mail has left; a person says so, or a bounce of it."""
    FINISHED = "finished"
    """All its mails were sent."""
    FAILED = "failed"
    """Its mail was refused for good, or cannot be written; see the reason."""
    STOPPED = "stopped"
    """No further mail is wanted; see the reason."""


class Reason(StrEnum):
    """Why a follow-up is stopped or has failed: a closed list."""

    REPLIED = "replied"
    UNSUBSCRIBED = "unsubscribed"
    BOUNCED = "bounced"
    COMPLAINED = "complained"
    DO_NOT_CONTACT = "do_not_contact"
    EXPIRED = "expired"
    CANCELLED = "cancelled"
    BAD_ADDRESS = "bad_address"
    REFUSED = "refused"
    MISSING_FIELDS = "missing_fields"
    NO_SCRIPT = "no_script"
    NO_ASSOCIATE = "no_associate"


REASONS: Final[Mapping[Reason, str]] = {
    Reason.REPLIED: "The contact has written back.",
    Reason.UNSUBSCRIBED: "The contact does not want any more mail.",
    Reason.BOUNCED: "Mail to the contact came back for good.",
    Reason.COMPLAINED: "The contact has reported a mail as spam.",
    Reason.DO_NOT_CONTACT: "The address, or its domain, is on the suppression list.",
    Reason.EXPIRED: "It waited too long for its first mail.",
    Reason.CANCELLED: "A person has ended it.",
    Reason.BAD_ADDRESS: "The address cannot be one.",
    Reason.REFUSED: "The mail server refused the mail for good.",
    Reason.MISSING_FIELDS: "The text names fields that the contact does not have.",
    Reason.NO_SCRIPT: "Its script, or the step in it, is gone.",
    Reason.NO_ASSOCIATE: "Its associate is gone or not active.",
}
"""What each of them means, for people."""


class FollowUp(Struct, frozen=True, kw_only=True):
    """One contact's way through a script."""

    id: FollowUpId
    teamspace: str
    associate: AssociateId | None
    """None: it waits for its first mail, and the mailboxes take such contacts in turn."""
    address: str
    """The contact's, as given."""
    fields: Mapping[str, str]
    """What templates may name."""
    zone: str | None
    script: str | None
    round: int = 1
    """How many scripts it has begun: one may lead to another and back."""
    step: int
    """The one that is next, from 1."""
    due: Instant
    """`follow_up_date`: not before then is the next mail queued."""
    created: Instant
    status: Status
    reason: Reason | None = None
    seed: int
    """Chance that was drawn once, so that planning again gives the same times."""
    job: JobId | None = None
    """Its task: the job that sends its next mail, or sent its last."""


class Place(Struct, frozen=True, gc=False):
    """A moment in a mailbox's line that is kept for a mail."""

    at: Instant
    first: bool
    """Whether it is somebody's first mail: these give way to follow-ups."""
    turn: Instant
    """The moment that was kept for the mail first. It may have to be moved, and then the mail still goes before all
    whose turn is later."""


class Line(Struct, frozen=True):
    """What a mailbox has sent and is going to send, as far as its limits are concerned."""

    sent: Mapping[date, int]
    """Mails by the day in its zone on which they began, those of unknown outcome among them; days before the last few
    only as far as `days_sent` counts them."""
    days_sent: int
    """Days on which it has ever sent anything."""
    last_end: Instant | None
    """When the last mail was over, as seen from here."""
    in_flight: bool
    """Whether one is on its way just now."""
    places: Sequence[Place]
    """Those of the mails that wait, in order."""
