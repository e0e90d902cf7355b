"""Outreach: what is done about it, and what comes in from contacts."""

from typing import Annotated, Literal

from msgspec import Meta

from leadline_protocol.messages.operations.base import ControlOperation, Operation
from leadline_protocol.messages.outreach import (
    Domain,
    EventReply,
    FollowUpStatus,
    HeaderText,
    ImportRows,
    InboundEvent,
    MailId,
    OutreachReply,
)
from leadline_protocol.messages.submissions import Address
from leadline_protocol.messages.words import INT64_MAX, AwareTime, Name


class ContactEvent(Operation[EventReply], tag="event", frozen=True, kw_only=True):
    """Something came in from a contact, or about a mail to it.

    A reply stops all that is still to be written to the contact; an unsubscribe, a complaint and a bounce for good do
    so for ever; an automatic reply stops nothing. A bounce settles a mail of unknown outcome: it was sent.
    """

    teamspace: Name
    event: InboundEvent
    address: Address
    """The contact's."""
    message_id: HeaderText | None = None
    """Of our mail that it is about."""
    key: HeaderText | None = None
    """Known once in each teamspace, such as the Message-ID of what came in: a second time nothing is done."""
    at: AwareTime | None = None
    permanent: bool = True
    """Of a bounce: whether the address is of no use any more."""
    detail: HeaderText = ""


class FollowUps(ControlOperation[OutreachReply], tag="outreach", frozen=True, kw_only=True):
    """Outreach: who writes what to whom, and how far that is; with another `action` than a list, something about it."""

    action: Literal[
        "follow_ups",
        "associates",
        "scripts",
        "suppressions",
        "mails",
        "describe",
        "import",
        "queue",
        "preview",
        "write",
        "stop",
        "suppress",
        "allow",
        "resolve",
        "pause",
        "resume",
    ] = "follow_ups"
    """`preview`: what `queue` would do now; `write`: the next mail of a follow-up as it would be written now."""
    teamspace: Name | None = None
    associate: Name | None = None
    """Of `queue` and `preview`: absent: all active ones. `pause` and `resume` are about its mailbox."""
    follow_up: Annotated[int, Meta(ge=1, le=INT64_MAX)] | None = None
    """Of `describe`, `write` and `stop`."""
    mail: MailId | None = None
    """Of `resolve`."""
    sent: bool | None = None
    """Of `resolve`: whether it was."""
    status: FollowUpStatus | None = None
    """Of `follow_ups`: only these."""
    state: Literal["sending", "sent", "unknown", "refused", "not_sent", "withdrawn"] | None = None
    """Of `mails`: only these; absent: those of unknown outcome."""
    address: Address | None = None
    """Of a list: only this contact's. Of `suppress` and `allow`: this, or `domain`."""
    domain: Domain | None = None
    detail: HeaderText = ""
    """A remark of the person who does it."""
    rows: ImportRows | None = None
    """Of `import`."""
    limit: Annotated[int, Meta(ge=-1_000_000, le=1_000_000)] | None = None
    """Of lists: how many, 100 where nothing is said. Of `queue` and `preview`: as many as are queued at most for each
    associate; 0 or less: none."""
    after: Annotated[int, Meta(ge=0, le=INT64_MAX)] = 0
    """The `next` of the page before."""

    def __post_init__(self) -> None:
        lists = {"follow_ups", "associates", "scripts", "suppressions", "mails"}
        if self.teamspace is None and self.action not in lists:
            raise ValueError("name the teamspace")
        if self.action in {"describe", "write", "stop"} and self.follow_up is None:
            raise ValueError("name the follow_up")
        if (self.action == "import") != (self.rows is not None):
            raise ValueError("rows go with the action import, and it with rows")
        if self.action == "resolve" and (self.mail is None or self.sent is None):
            raise ValueError("name the mail, and whether it was sent")
        if self.action in {"pause", "resume"} and self.associate is None:
            raise ValueError("name the associate")
        if self.action in {"suppress", "allow"} and (self.address is None) == (self.domain is None):
            raise ValueError("give an address or a domain")
        if self.action in lists and self.limit is not None and not 1 <= self.limit <= 1000:
            raise ValueError("limit must be from 1 to 1000")
