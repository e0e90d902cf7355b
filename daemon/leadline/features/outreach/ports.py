"""What outreach needs of the world: a way for mails to leave."""

from collections.abc import Callable
from enum import StrEnum
from typing import Protocol, TypeAlias

from msgspec import Struct

from leadline.features.outreach.model import AssociateId


class Envelope(Struct, frozen=True):
    """One mail to one mailbox."""

    sender: str
    recipient: str
    message: bytes


class Tls(StrEnum):
    """How a conversation with a mail server is kept private."""

    STARTTLS = "starttls"
    """From its second command on; without it nothing is sent."""
    IMPLICIT = "implicit"
    """From its first byte on."""
    NONE = "none"


class MailServer(Struct, frozen=True):
    """Where a mailbox hands in its mails, and as whom."""

    host: str
    port: int
    tls: Tls
    user: str | None = None
    password: str | None = None

    def __repr__(self) -> str:
        return f"MailServer({self.host!r}, {self.port}, {self.tls.value})"


class Concerned(StrEnum):
    """What a mail server refuses."""

    MAILBOX = "mailbox"
    """The associate's: the connection, the login or the sender. Any other mail would fare the same."""
    RECIPIENT = "recipient"
    MESSAGE = "message"


class Accepted(Struct, frozen=True):
    """The mail is the server's now."""

    answer: str


class RefusedForGood(Struct, frozen=True):
    """The server did not take the mail, and says that it never will (5xx)."""

    concerned: Concerned
    code: int
    answer: str


class NotNow(Struct, frozen=True):
    """The mail has certainly not been sent, and may be tried again: the server said so (4xx), or was not reached."""

    story: str


class Unknown(Struct, frozen=True):
    """The mail, or a part of it, was handed over, and nobody has said what became of it."""

    evidence: str


class NotSent(Struct, frozen=True):
    """The last look said no: the server has got nothing."""


Outcome: TypeAlias = Accepted | RefusedForGood | NotNow | Unknown | NotSent


class Transport(Protocol):
    """Hands mails to mail servers, each at most once."""

    async def send(
        self, mailbox: AssociateId, server: MailServer, envelope: Envelope, may_send: Callable[[], bool]
    ) -> Outcome:
        """Send one mail. `may_send` is asked once, directly before the first byte of the message."""
        ...
