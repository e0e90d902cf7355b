"""Outreach's way out (`features.outreach.ports.Transport`): SMTP, one kept connection per mailbox.

What became of a mail is told apart by how far it got. Until the first byte of the message nothing has been handed over:
whatever breaks is certain, and where it broke on a connection that was kept from an earlier mail, which servers close
as they like, it is tried once more on a new one. From that byte on only the server's answer settles it: 2xx, 4xx and
5xx do, and everything else, a lost connection above all, is unknown. So DATA and the message are sent here and not by
aiosmtplib, which does not tell these two apart; the last look is between them, where nothing is left to wait for.

The message goes out as the bytes that it is: a client that makes them anew from a parsed message folds and encodes
headers by its own lights.
"""

import asyncio
import re
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final, cast

import aiosmtplib
from msgspec import Struct

from leadline.features.outreach.model import AssociateId
from leadline.features.outreach.ports import (
    Accepted,
    Concerned,
    Envelope,
    MailServer,
    NotNow,
    NotSent,
    Outcome,
    RefusedForGood,
    Tls,
    Unknown,
)

IDLE_SECONDS: Final = 30.0
"""How long a connection is kept for the mailbox's next mail."""

_GO_AHEAD: Final = 354
_GOING_AWAY: Final = 421
"""The server closes the connection."""

_DOTS: Final = re.compile(rb"^\.", re.MULTILINE)


class Patience(Struct, frozen=True):
    """How many seconds each step may take."""

    connecting: float = 30.0
    command: float = 60.0
    verdict: float = 240.0
    """From the message's first byte to the answer. RFC 5321 asks for ten minutes, so that nobody sends again what has
    arrived; here nobody does, and a job that waits for five minutes stands still."""


class _BrokenBefore(Exception):
    """The connection was lost before anything of the message went out."""


class _Refusal(Exception):
    """The server said no before anything of the message went out."""

    def __init__(self, concerned: Concerned, code: int, answer: str) -> None:
        super().__init__(f"{code} {answer}")
        self.concerned: Final = concerned
        self.code: Final = code
        self.answer: Final = answer


class _Connection:
    """A conversation with a mail server in which mails follow each other."""

    def __init__(self, server: MailServer, context: ssl.SSLContext | None, patience: Patience) -> None:
        self.server: Final = server
        self._patience = patience
        self._used = False
        self._smtp = aiosmtplib.SMTP(
            hostname=server.host,
            port=server.port,
            use_tls=server.tls is Tls.IMPLICIT,
            start_tls=server.tls is Tls.STARTTLS,
            tls_context=context,
            timeout=patience.command,
        )

    @property
    def alive(self) -> bool:
        return self._smtp.is_connected

    async def ready(self) -> None:
        """Connect and log in, or forget the mail before, which tells whether the server is still there.

        Raises _Refusal, _BrokenBefore.
        """
        if self._used:
            try:
                await self._smtp.rset()
            except (aiosmtplib.SMTPException, OSError) as error:
                raise _BrokenBefore(_story(error)) from error
            return
        self._used = True
        try:
            async with asyncio.timeout(self._patience.connecting):
                await self._smtp.connect()
                if self.server.user is not None:
                    await self._smtp.login(self.server.user, self.server.password or "")
        except aiosmtplib.SMTPResponseException as error:
            raise _Refusal(Concerned.MAILBOX, error.code, error.message) from error
        except (aiosmtplib.SMTPException, OSError, ValueError) as error:
            raise _BrokenBefore(_story(error)) from error
        # What is written goes to the kernel at once: gathered, it would go after the last look, however long after.
        cast("asyncio.WriteTransport", self._smtp.transport).set_write_buffer_limits(high=0)

    async def send(self, envelope: Envelope, may_send: Callable[[], bool]) -> Outcome:
        """Hand in one mail; the connection stays good where the server has answered. Raises _Refusal, _BrokenBefore."""
        content = _dotted(envelope.message)
        await self._command(Concerned.MAILBOX, self._smtp.mail, envelope.sender)
        await self._command(Concerned.RECIPIENT, self._smtp.rcpt, envelope.recipient)
        await self._command(Concerned.MESSAGE, self._begin)
        if not may_send():
            self.abort()  # there is no other way out of DATA than a message or the end
            return NotSent()
        return await self._hand_over(content)

    async def _begin(self) -> None:
        response = await self._smtp.execute_command(b"DATA")
        if response.code != _GO_AHEAD:
            raise aiosmtplib.SMTPDataError(response.code, response.message)

    async def _command(self, concerned: Concerned, command: Callable[..., Awaitable[object]], *args: str) -> None:
        """Raises _Refusal, _BrokenBefore."""
        try:
            await command(*args)
        except aiosmtplib.SMTPResponseException as error:
            raise _Refusal(concerned, error.code, error.message) from error
        except (aiosmtplib.SMTPException, OSError) as error:
            raise _BrokenBefore(_story(error)) from error

    async def _hand_over(self, content: bytes) -> Outcome:
        """Send the message and wait for the verdict."""
        protocol = self._smtp.protocol
        if protocol is None:
            raise _BrokenBefore("the connection was lost")
        try:
            protocol.write(content)
        except aiosmtplib.SMTPException as error:
            raise _BrokenBefore(_story(error)) from error
        try:
            response = await protocol.read_response(timeout=self._patience.verdict)
        except (aiosmtplib.SMTPException, OSError) as error:
            self.abort()
            return Unknown(_story(error))
        answer = f"{response.code} {response.message}"
        match response.code // 100:
            case 2:
                return Accepted(answer)
            case 4:
                if response.code == _GOING_AWAY:
                    self.abort()
                return NotNow(answer)
            case 5:
                return RefusedForGood(Concerned.MESSAGE, response.code, response.message)
        self.abort()
        return Unknown(answer)

    def close(self) -> None:
        """End it politely, without waiting for an answer."""
        if self._smtp.protocol is not None and self.alive:
            self._smtp.protocol.write(b"QUIT\r\n")
        self._smtp.close()

    def abort(self) -> None:
        """End it; what is still to be written is not."""
        if self._smtp.transport is not None:
            cast("asyncio.WriteTransport", self._smtp.transport).abort()
        self._smtp.close()


def _story(error: Exception) -> str:
    return f"{type(error).__name__}: {error}" if str(error) else type(error).__name__


def _dotted(message: bytes) -> bytes:
    """The message as it goes over the line: a dot more where a line begins with one, and the dot that ends it."""
    assert message.endswith(b"\r\n"), "a message is made of lines"
    return _DOTS.sub(b"..", message) + b".\r\n"


class _Lane:
    """A mailbox's connection, and whose turn it is."""

    def __init__(self) -> None:
        self.turn: Final = asyncio.Lock()
        self.wanted = 0
        """Mails that have it or wait for it."""
        self.connection: _Connection | None = None
        self.closing: asyncio.TimerHandle | None = None


class SmtpTransport:
    """Sends mails, of each mailbox one at a time."""

    def __init__(self, *, context: ssl.SSLContext, patience: Patience, idle_seconds: float) -> None:
        self._context = context
        self._patience = patience
        self._idle_seconds = idle_seconds
        self._lanes: dict[AssociateId, _Lane] = {}

    async def send(
        self, mailbox: AssociateId, server: MailServer, envelope: Envelope, may_send: Callable[[], bool]
    ) -> Outcome:
        """Send one mail (`Transport.send`)."""
        lane = self._lanes.setdefault(mailbox, _Lane())
        lane.wanted += 1
        try:
            async with lane.turn:
                return await self._send_on(lane, server, envelope, may_send)
        finally:
            lane.wanted -= 1
            if not lane.wanted:
                self._rest(mailbox, lane)

    async def _send_on(
        self, lane: _Lane, server: MailServer, envelope: Envelope, may_send: Callable[[], bool]
    ) -> Outcome:
        kept = self._kept(lane, server)
        if kept is not None:
            try:
                return await self._talk(lane, kept, envelope, may_send)
            except _BrokenBefore:
                pass
            except _Refusal as refusal:
                if refusal.code != _GOING_AWAY:
                    return _refused(refusal)
        fresh = _Connection(server, None if server.tls is Tls.NONE else self._context, self._patience)
        try:
            return await self._talk(lane, fresh, envelope, may_send)
        except _BrokenBefore as broken:
            return NotNow(str(broken))
        except _Refusal as refusal:
            return _refused(refusal)

    def _kept(self, lane: _Lane, server: MailServer) -> _Connection | None:
        """The connection of the mail before, where it is of use."""
        connection, lane.connection = lane.connection, None
        if lane.closing is not None:
            lane.closing.cancel()
            lane.closing = None
        if connection is not None and (connection.server != server or not connection.alive):
            connection.close()
            return None
        return connection

    async def _talk(
        self, lane: _Lane, connection: _Connection, envelope: Envelope, may_send: Callable[[], bool]
    ) -> Outcome:
        """Send a mail, and keep the connection if it is as good as before. Raises _Refusal, _BrokenBefore."""
        settled = False
        try:
            await connection.ready()
            outcome = await connection.send(envelope, may_send)
            settled = True
        except _Refusal as refusal:
            settled = 400 <= refusal.code < 600 and refusal.concerned is not Concerned.MAILBOX
            raise
        finally:
            if settled and connection.alive:
                lane.connection = connection
            else:
                connection.abort()
        return outcome

    def _rest(self, mailbox: AssociateId, lane: _Lane) -> None:
        """Keep the connection for a while, the lane for as long."""
        if lane.connection is None:
            self._lanes.pop(mailbox, None)
        elif lane.closing is None:
            lane.closing = asyncio.get_running_loop().call_later(self._idle_seconds, self._end, mailbox, lane)

    def _end(self, mailbox: AssociateId, lane: _Lane) -> None:
        if lane.wanted == 0 and lane.connection is not None:
            lane.connection.close()
            self._lanes.pop(mailbox, None)

    def close(self) -> None:
        """End all connections."""
        for lane in self._lanes.values():
            if lane.closing is not None:
                lane.closing.cancel()
            if lane.connection is not None:
                lane.connection.close()
        self._lanes.clear()


def _refused(refusal: _Refusal) -> Outcome:
    if refusal.code // 100 == 5:
        return RefusedForGood(refusal.concerned, refusal.code, refusal.answer)
    return NotNow(str(refusal))


@asynccontextmanager
async def smtp_transport(
    *, ca_file: Path | None = None, patience: Patience | None = None, idle_seconds: float = IDLE_SECONDS
) -> AsyncIterator[SmtpTransport]:
    """For as long as the context is open. `ca_file` has the authorities that are trusted; None: the machine's.

    Raises OSError where that file cannot be read.
    """
    trusted = ssl.create_default_context(cafile=ca_file)
    transport = SmtpTransport(context=trusted, patience=patience or Patience(), idle_seconds=idle_seconds)
    try:
        yield transport
    finally:
        transport.close()
