"""Outreach on the wire: what is imported line by line, and what is shown of it."""

from datetime import datetime
from typing import Annotated, Any, Final, Literal

from msgspec import Meta, Struct, field

from leadline_protocol.ids import JobId
from leadline_protocol.messages.replies.base import Reply
from leadline_protocol.messages.submissions import Address
from leadline_protocol.messages.words import INT64_MAX, AwareTime, Name, Ref

SendingDay = Literal["mon", "tue", "wed", "thu", "fri", "sat", "sun"]

DayTime = Annotated[str, Meta(pattern=r"^([01]\d|2[0-3]):[0-5]\d$")]
"""A time on the clocks of a zone."""

Zone = Annotated[str, Meta(min_length=1, max_length=100)]
"""A name of the IANA list, such as `Europe/Berlin`."""

Text = Annotated[str, Meta(max_length=100_000)]

Domain = Annotated[str, Meta(max_length=253, pattern=r"^[A-Za-z0-9-]+(\.[A-Za-z0-9-]+)+$")]

HeaderText = Annotated[str, Meta(max_length=900)]

FollowUpStatus = Literal["pending", "queued", "sending", "unknown", "finished", "failed", "stopped"]
"""Where a follow-up is."""

InboundEvent = Literal["reply", "auto_reply", "bounce", "unsubscribe", "complaint"]
"""What came in from a contact, or about a mail to it."""


# What is imported -----------------------------------------------------------------------------------------------------


class _Row(
    Struct, tag_field="type", frozen=True, gc=False, forbid_unknown_fields=True, omit_defaults=True, kw_only=True
):
    """A line of an import."""


class MailServer(Struct, frozen=True, gc=False, forbid_unknown_fields=True, omit_defaults=True, kw_only=True):
    """Where a mailbox hands in its mails."""

    host: Annotated[str, Meta(min_length=1, max_length=253)]
    port: Annotated[int, Meta(ge=1, le=65_535)] = 587
    tls: Literal["starttls", "implicit", "none"] = "starttls"
    user: Annotated[str, Meta(min_length=1, max_length=254)] | None = None
    password: Annotated[str, Meta(min_length=1, max_length=1000)] | None = None
    """Kept sealed, and never shown again; absent where the associate is known: as before."""


class SendingHours(Struct, frozen=True, gc=False, forbid_unknown_fields=True, omit_defaults=True, kw_only=True):
    """When an associate writes."""

    days: Annotated[list[SendingDay], Meta(min_length=1, max_length=7)] = field(
        default_factory=lambda: ["mon", "tue", "wed", "thu", "fri"]
    )
    begin: DayTime = "09:00"
    end: DayTime = "17:00"
    """No mail begins then any more; 00:00 is midnight, the end of the day."""
    whose: Literal["sender", "lead"] = "sender"
    """In the zone of the associate, or in the contact's where that is known."""


class SendingRamp(Struct, frozen=True, gc=False, forbid_unknown_fields=True, kw_only=True):
    """How a new mailbox begins: `first` mails on its first day, `more` more on each further day, up to its cap."""

    first: Annotated[int, Meta(ge=1, le=100_000)]
    more: Annotated[int, Meta(ge=1, le=100_000)]


class AssociateRow(_Row, tag="associate", frozen=True, kw_only=True):
    """Somebody in whose name mails are sent, and the mailbox they leave from; replaces the one of that name."""

    name: Name
    address: Address
    full_name: HeaderText = ""
    signature: Text = ""
    zone: Zone = "UTC"
    variability_seconds: Annotated[int, Meta(ge=-1, le=86_400)] | None = None
    """Each mail is queued at most so much later than its turn, at random."""
    daily_cap: Annotated[int, Meta(ge=1, le=1_000_000)] = 50
    ramp: SendingRamp | None = None
    gap_seconds: Annotated[int, Meta(ge=0, le=86_400)] = 60
    """From one mail's end to the next one's beginning."""
    hours: SendingHours = field(default_factory=SendingHours)
    active: bool = True
    smtp: MailServer | None = None
    """Absent: the mail server of the configuration."""


class ScriptStep(Struct, frozen=True, gc=False, forbid_unknown_fields=True, omit_defaults=True, kw_only=True):
    """One mail of a script; the texts are templates over the contact's fields, such as `{{ first_name }}`."""

    after_days: Annotated[int, Meta(ge=0, le=3_650)] = 0
    """After the mail before it."""
    subject: HeaderText = ""
    """Empty: it answers the mail before it."""
    text: Annotated[Text, Meta(min_length=1)]
    html: Text | None = None


class ScriptRow(_Row, tag="script", frozen=True, kw_only=True):
    """What is written, step after step; replaces the script of that name."""

    name: Name
    keyword: Name
    """What it is for: only those with the right one are queued."""
    steps: Annotated[list[ScriptStep], Meta(min_length=1, max_length=100)]
    then: Name | None = None
    """The script that a contact goes on with."""


class FollowUpRow(_Row, tag="follow_up", frozen=True, kw_only=True):
    """A contact that is to be written to; one whose key is known is left as it is."""

    key: Name | None = None
    """Known once in each teamspace; absent: the address and the script."""
    associate: Name | None = None
    """Absent: it waits for its first mail, and the mailboxes take such contacts in turn."""
    address: Address
    fields: dict[Name, Text | int | float | bool | None] = field(default_factory=dict)
    zone: Zone | None = None
    script: Name | None = None
    step: Annotated[int, Meta(ge=1, le=100)] = 1
    follow_up_date: AwareTime | None = None
    """Not before then; absent: now."""


class SuppressionRow(_Row, tag="suppression", frozen=True, kw_only=True):
    """An address, or a whole domain, that is not written to."""

    address: Address | None = None
    domain: Domain | None = None
    detail: HeaderText = ""

    def __post_init__(self) -> None:
        if (self.address is None) == (self.domain is None):
            raise ValueError("give an address or a domain")


ImportRow = AssociateRow | ScriptRow | FollowUpRow | SuppressionRow

IMPORT_ROWS: Final[tuple[type[Struct], ...]] = (AssociateRow, ScriptRow, FollowUpRow, SuppressionRow)


# What is shown --------------------------------------------------------------------------------------------------------


class ImportFault(Struct, frozen=True, gc=False, omit_defaults=True, kw_only=True):
    """A row of an import that was not taken."""

    row: int
    """Its place in the request, from 0."""
    code: str
    message: str
    at: str | None = None


class Imported(Struct, frozen=True, gc=False, kw_only=True):
    """What has come of the rows of an import."""

    added: int
    changed: int
    known: int
    """They were there, and stay as they are."""
    faults: list[ImportFault]


class AssociateView(Struct, frozen=True, gc=False, omit_defaults=True, kw_only=True):
    """An associate and its mailbox."""

    teamspace: str
    name: str
    address: str
    full_name: str = ""
    zone: str
    active: bool = True
    paused: str | None = None
    """Why nothing leaves its mailbox until a person resumes it."""
    variability_seconds: int | None = None
    daily_cap: int
    ramp: SendingRamp | None = None
    gap_seconds: int
    hours: SendingHours
    server: str | None = None
    """Of its own, as host:port."""
    sent_today: int
    cap_today: int
    waiting: int
    """Mails that have a place in its line."""
    next_at: datetime | None = None
    """When the next one may go."""


class ScriptView(Struct, frozen=True, gc=False, omit_defaults=True, kw_only=True):
    """A script."""

    teamspace: str
    name: str
    keyword: str
    then: str | None = None
    steps: list[ScriptStep]


class MailView(Struct, frozen=True, gc=False, omit_defaults=True, kw_only=True):
    """A mail that has left, or may have."""

    mail: int
    follow_up: int
    teamspace: str
    associate: str
    address: str
    step: int
    message_id: str
    state: str
    """`sending`, `sent`, `unknown`, `refused` for good, `not_sent` for now, or `withdrawn` by the daemon."""
    job: JobId
    began_at: datetime
    ended_at: datetime | None = None
    evidence: str = ""
    """What the mail server said, or how far it got."""
    settled_by: str | None = None
    """Who has settled an unknown outcome, and how."""


class FollowUpEntry(Struct, frozen=True, gc=False, omit_defaults=True, kw_only=True):
    """A line of a follow-up's history."""

    at: datetime
    status: str
    detail: str = ""


class FollowUpView(Struct, frozen=True, gc=False, omit_defaults=True, kw_only=True):
    """A follow-up."""

    follow_up: int
    teamspace: str
    key: str
    associate: str | None = None
    address: str
    zone: str | None = None
    script: str | None = None
    step: int
    status: str
    reason: str | None = None
    follow_up_date: datetime
    created_at: datetime
    job: JobId | None = None
    """Its task."""
    place_at: datetime | None = None
    """Its place in the mailbox's line, where it has had to wait for one."""
    fields: dict[str, str] = field(default_factory=dict)
    """When it is described, as what follows."""
    history: list[FollowUpEntry] = field(default_factory=list)
    mails: list[MailView] = field(default_factory=list)


class SuppressionView(Struct, frozen=True, gc=False, omit_defaults=True, kw_only=True):
    """What is not written to."""

    teamspace: str
    value: str
    """An address, or a domain."""
    reason: str
    """`unsubscribe`, `bounce`, `complaint` or `do_not_contact`."""
    at: datetime
    detail: str = ""


class QueuedView(Struct, frozen=True, gc=False, omit_defaults=True, kw_only=True):
    """A follow-up that was queued, or would be."""

    follow_up: int
    address: str
    script: str
    step: int
    delay_seconds: int
    job: JobId | None = None
    """Absent in a preview."""


class SkippedView(Struct, frozen=True, gc=False, omit_defaults=True, kw_only=True):
    """A follow-up that is due and was left as it is."""

    follow_up: int
    address: str
    reason: str
    """`script_unset` or `keyword`; `queue_full` where the teamspace has as many queued jobs as it may."""


class QueueReceipt(Struct, frozen=True, gc=False, omit_defaults=True, kw_only=True):
    """What has come of queueing an associate's due follow-ups."""

    associate: str
    queued: list[QueuedView]
    skipped: list[SkippedView]
    left: int
    """Due ones that were not looked at, as the limit was reached."""


class WrittenView(Struct, frozen=True, gc=False, omit_defaults=True, kw_only=True):
    """The next mail of a follow-up as it would be written now."""

    follow_up: int
    sender: str
    to: str
    subject: str = ""
    text: str = ""
    html: str | None = None
    missing: list[str] = field(default_factory=list)
    """Fields that the texts name and the contact does not have: while there are any, nothing is sent."""
    goes_at: datetime | None = None
    """When it would go at the earliest."""
    kept: str | None = None
    """What keeps it from going, in words."""


class OutreachReply(Reply, frozen=True, kw_only=True):
    """What was asked for, or what has come of it."""

    associates: list[AssociateView] = field(default_factory=list)
    scripts: list[ScriptView] = field(default_factory=list)
    follow_ups: list[FollowUpView] = field(default_factory=list)
    suppressions: list[SuppressionView] = field(default_factory=list)
    mails: list[MailView] = field(default_factory=list)
    queued: list[QueueReceipt] = field(default_factory=list)
    written: list[WrittenView] = field(default_factory=list)
    imported: Imported | None = None
    next: int | None = None
    """There are more: ask again with this as `after`."""
    ref: Ref = None


class EventReply(Reply, frozen=True, kw_only=True):
    """What an event has brought about."""

    known: bool = False
    """It had come before, and did nothing now."""
    stopped: list[int] = field(default_factory=list)
    """Follow-ups that it has stopped."""
    ref: Ref = None


ImportRows = Annotated[list[dict[str, Any]], Meta(min_length=1, max_length=1000)]
"""Each an ImportRow by its `type`; looked at one by one, so that a bad one keeps none of the others back."""

MailId = Annotated[int, Meta(ge=1, le=INT64_MAX)]
