"""A mail server that swallows everything, misbehaves as told, and writes down what it was handed.

Mail has one moment that no other protocol makes so sharp: between the final dot and the reply the message is the
server's, and the sender does not know it. So a fault is tied to a moment of the conversation (`rcpt`, `data`, `dot`),
and a connection cut at the dot has delivered its message. As with the providers, `Mailbox` decides without I/O (a
moment and the time in, a plan out), and `serving_mail` carries it out with aiosmtpd.
"""

import asyncio
import ssl
import warnings
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from email.parser import BytesHeaderParser
from hashlib import sha256
from pathlib import Path
from typing import AnyStr, Literal
from weakref import WeakSet

import msgspec
from aiosmtpd.smtp import SMTP, AuthResult, Envelope, LoginPassword, Session

from tests.world.behaviours import Meter, Now, Window
from tests.world.log import read_clocks

LOOPBACK = "127.0.0.1"

Moment = Literal["mail", "rset", "rcpt", "data", "dot"]
"""After MAIL FROM, RSET, RCPT TO, DATA (before any of the message was read), the final dot (the message is here)."""


class MailPlan(msgspec.Struct, frozen=True, gc=False):
    """What happens at a moment: a reply after a while, or (`stop`) none, with the connection torn down or left open."""

    reply: str = "250 2.0.0 OK"
    delay_us: int = 0
    stop: Literal["cut", "hang"] | None = None


class MailFault(msgspec.Struct, frozen=True):
    """The first `times` that `moment` is reached (for `recipient`; None: for anyone) follow `plan`."""

    moment: Moment
    plan: MailPlan
    recipient: str | None = None
    times: int = 1


class Mailbox:
    """A mail server's mind: its faults, in their order, and the messages it accepts in a window (421 above it)."""

    def __init__(self, faults: Sequence[MailFault] = (), window: Window | None = None) -> None:
        self._faults: list[MailFault] = []
        self._left: list[int] = []
        for fault in faults:
            self.play(fault)
        self._meter = Meter(window) if window else None

    def play(self, fault: MailFault) -> None:
        """One more fault, after those before it."""
        self._faults.append(fault)
        self._left.append(fault.times)

    def respond(self, moment: Moment, recipients: Sequence[str], now: Now) -> MailPlan:
        """The plan for a moment; at `rcpt` there is one recipient, later all that were accepted."""
        for number, fault in enumerate(self._faults):
            concerned = fault.recipient is None or fault.recipient in recipients
            if self._left[number] > 0 and fault.moment == moment and concerned:
                self._left[number] -= 1
                return fault.plan
        if self._meter and moment == "data":
            if self._meter.wait_us(1, now):
                return MailPlan("421 4.7.0 too many messages, try again later")
            self._meter.charge(1, now)
        return MailPlan()


class Handed(msgspec.Struct, frozen=True):
    """One moment worth writing down: a message that arrived (`dot`), or a refusal or a failure before that.

    `reply` is None where none was given; `content` is the message as received, with its dots unstuffed.
    """

    n: int
    arrived_us: int
    arrived_wall_us: int
    moment: Moment
    sender: str | None
    recipients: tuple[str, ...]
    reply: str | None
    message_id: str | None = None
    content_sha256: str | None = None
    content: bytes = b""


class MailServed:
    """A running mail server: where it listens, and what it was handed, in order."""

    def __init__(self, host: str, port: int, handed: list[Handed], conversations: "WeakSet[_Conversation]") -> None:
        self.host, self.port, self.handed = host, port, handed
        self.connections = 0
        """That were ever made."""
        self._conversations = conversations

    def drop(self) -> None:
        """Drop all connections without a word, as a server does that restarts."""
        for conversation in self._conversations:
            conversation.abort()

    @property
    def messages(self) -> list[Handed]:
        """The messages that arrived in full, whether or not their senders were told."""
        return [handed for handed in self.handed if handed.moment == "dot"]


@asynccontextmanager
async def serving_mail(
    mailbox: Mailbox,
    *,
    log_path: Path | None = None,
    host: str = LOOPBACK,
    port: int = 0,
    tls: ssl.SSLContext | None = None,
    implicit: bool = False,
    passwords: Mapping[str, str] | None = None,
) -> AsyncIterator[MailServed]:
    """Serve SMTP on an address of this machine (a free port by default) for the time of the block.

    With `tls` by STARTTLS, or (`implicit`) from the first byte on. With `passwords`, by user, only who logs in.
    """
    loop = asyncio.get_running_loop()
    handed: list[Handed] = []
    conversations: WeakSet[_Conversation] = WeakSet()
    handler = _Handler(mailbox, handed, log_path)

    def admitted(*login: object) -> AuthResult:
        data = login[-1]
        assert isinstance(data, LoginPassword)
        known = (passwords or {}).get(data.login.decode())
        return AuthResult(success=known is not None and known == data.password.decode(), handled=False)

    def connected() -> _Conversation:
        with warnings.catch_warnings():
            warnings.simplefilter(
                "ignore", UserWarning
            )  # aiosmtpd does not see that a connection is TLS from the start
            conversation = _Conversation(
                handler,
                hostname="localhost",
                enable_SMTPUTF8=True,
                loop=loop,
                tls_context=None if implicit else tls,
                require_starttls=tls is not None and not implicit,
                authenticator=admitted if passwords else None,
                auth_required=passwords is not None,
                auth_require_tls=not implicit,
            )
        conversations.add(conversation)
        served.connections += 1
        return conversation

    server = await loop.create_server(connected, host, port, ssl=tls if implicit else None)
    served = MailServed(host, server.sockets[0].getsockname()[1], handed, conversations)
    try:
        yield served
    finally:
        server.close()
        served.drop()
        await server.wait_closed()


class _Conversation(SMTP):
    """One connection; adds to aiosmtpd the moment after DATA, of which its handlers know nothing."""

    event_handler: "_Handler"

    async def push(self, status: AnyStr) -> None:
        """Send a reply. In place of the go-ahead for the message (354) the plan for `data` may send a refusal; as
        aiosmtpd would read the message all the same, the connection ends with it.
        """
        if not str(status).startswith("354"):
            await super().push(status)
            return
        assert self.envelope is not None
        reply = await self.event_handler.played(self, "data", self.envelope)
        if reply.startswith("250"):
            await super().push(status)
            return
        await super().push(reply)
        await self.tear_down()

    async def tear_down(self) -> None:
        """Drop the connection and wait to be cancelled for it, as aiosmtpd does with a lost connection."""
        self.abort()
        await asyncio.Event().wait()

    def abort(self) -> None:
        """Drop the connection without a word."""
        if isinstance(self.transport, asyncio.WriteTransport):
            self.transport.abort()


class _Handler:
    """Plays the mailbox's plans and writes down what was handed over."""

    def __init__(self, mailbox: Mailbox, handed: list[Handed], log_path: Path | None) -> None:
        self._mailbox, self._handed, self._log_path = mailbox, handed, log_path

    async def handle_MAIL(
        self, server: _Conversation, session: Session, envelope: Envelope, address: str, options: list[str]
    ) -> str:
        envelope.mail_from = address
        return await self.played(server, "mail", envelope)

    async def handle_RSET(self, server: _Conversation, session: Session, envelope: Envelope) -> str:
        return await self.played(server, "rset", envelope)

    async def handle_RCPT(
        self, server: _Conversation, session: Session, envelope: Envelope, address: str, options: list[str]
    ) -> str:
        reply = await self.played(server, "rcpt", envelope, address)
        if reply.startswith("250"):
            envelope.rcpt_tos.append(address)
        return reply

    async def handle_DATA(self, server: _Conversation, session: Session, envelope: Envelope) -> str:
        return await self.played(server, "dot", envelope)

    async def played(self, server: _Conversation, moment: Moment, envelope: Envelope, address: str = "") -> str:
        """Ask for the plan, log it if it is worth it, and follow it; a cut or a hang never returns."""
        now = read_clocks()
        recipients = (address,) if moment == "rcpt" else tuple(envelope.rcpt_tos)
        plan = self._mailbox.respond(moment, recipients, now)
        reply = None if plan.stop else plan.reply
        if moment == "dot" or reply is None or not reply.startswith("250"):
            self._note(now, moment, envelope, recipients, reply)
        if plan.delay_us:
            await asyncio.sleep(plan.delay_us / 1_000_000)
        if plan.stop == "cut":
            await server.tear_down()
        if plan.stop == "hang":
            await asyncio.Event().wait()
        return plan.reply

    def _note(
        self, now: Now, moment: Moment, envelope: Envelope, recipients: tuple[str, ...], reply: str | None
    ) -> None:
        content = envelope.content if moment == "dot" else None
        assert not isinstance(content, str)
        entry = Handed(
            n=len(self._handed) + 1,
            arrived_us=now.instant,
            arrived_wall_us=now.wall,
            moment=moment,
            sender=envelope.mail_from,
            recipients=recipients,
            reply=reply,
            message_id=BytesHeaderParser().parsebytes(content or b"")["message-id"],
            content_sha256=sha256(content).hexdigest() if content else None,
            content=content or b"",
        )
        self._handed.append(entry)
        if self._log_path:
            with self._log_path.open("ab") as file:
                file.write(msgspec.json.encode(entry) + b"\n")
