"""The two Unix sockets: bytes in, requests to the operations, replies out, in order.

A connection may send many requests without waiting. What is read of it is cut into blocks of some hundred lines. The
submissions of a block are admitted together, with one answer and one write; while they wait for their commit the next
block is already being decoded, so that the database and the daemon work at the same time. Replies leave in the order of
the requests all the same, because each block waits for the one before it.

Who is connected is not trusted with our time or memory:

- *Time.* Blocks are cut in turns (`actors.turns`), so that a peer that sends without end holds up nobody.
- *Memory.* What is read counts against an allowance of the peer's user until it is answered; a user that has used it up
  is read from in small bites, a block at a time, and a long line of which only a part has come is refused with `busy`.
  Replies count against another one from the moment that a peer is behind with reading; beyond it, who is behind is hung
  up on. What a single connection may hold without either is little.
- *Patience.* A line that was begun has to end within a time. An idle connection may stay.
- *The log.* What peers do is counted and told once a minute.

Bare asyncio protocols instead of streams, because this is the hot path: at 100,000 submissions a second a stream's
read per line, or a task per request, costs more than the queue itself (an asyncio task 4 µs, a task of a task group
18 µs, measured on two cores).
"""

import asyncio
import resource
import socket
import struct
import traceback
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from typing import Final, cast

import structlog
from msgspec import Struct

from leadline.actors.announcer import Announcer
from leadline.actors.dispatcher import unavailable
from leadline.actors.mishaps import Mishaps
from leadline.actors.operations import Operations
from leadline.actors.peers import Peer, refusal
from leadline.actors.subscriber import LISTENED_MAX, Subscriber
from leadline.actors.turns import Turns
from leadline.ports.store import OutcomeUnknown
from leadline_protocol import messages as wire
from leadline_protocol.codec import LineDecoder, LineFault, RequestDecoder, encode, only_asks
from leadline_protocol.errors import ErrorCode, Refused

log = structlog.get_logger(__name__)

BLOCKS_MAX: Final = 48
"""Blocks of one connection that may be in hand at a time; one, where its user has used up its allowance. Three full
decisions: one on its way to the disk, one being made, one being read."""

BLOCK_LINES_MAX: Final = 512
SMALL_BLOCK_LINES_MAX: Final = 16
"""Lines of a block; the second, where the user has used up its allowance."""

READ_BYTES: Final = 64 * 1024
BITE_BYTES: Final = 4 * 1024
"""What is read at a time; the second, where the user has used up its allowance. So much every connection may hold."""

LINE_COST: Final = 48
"""What reading a line costs in time, in bytes of it, however short it is."""

LINE_BYTES: Final = 512
"""What a line in hand takes of the allowance besides its own bytes: for what is made of it."""

UNANSWERED_BYTES_MAX: Final = 32 * 1024 * 1024
"""What all connections of one user may have sent and not had answered, half lines included."""

UNREAD_BYTES_MAX: Final = 32 * 1024 * 1024
"""Replies and notices that all connections of one user may leave unread, besides what the kernel holds of them."""

BEHIND_BYTES: Final = 32 * 1024
"""Who leaves more than this unread is behind: nothing more is done for it meanwhile. Less is not counted."""

LINE_SECONDS_MAX: Final = 30.0
"""From a line's first byte to its newline, not counting the time in which we do not read."""

CONNECTIONS_MAX: Final = 16_000
CONNECTIONS_PER_USER_MAX: Final = 12_000

FILES_RESERVED: Final = 1_024
"""Open files kept for the database, providers and uploads; where there may be few, a quarter of them."""

CROWD: Final = 1_000
"""When so many have gone, what they took is given back to the kernel."""

CROWD_SECONDS: Final = 10.0
"""After the last of them: it takes some milliseconds, and others may be about to go."""

RETRY_SECONDS: Final = 1.0

_PEER: Final = struct.Struct("3i")
_TOO_MUCH: Final = LineFault(
    ErrorCode.BUSY, "too much has been sent that is not answered yet", retry_after=RETRY_SECONDS
)
_TOO_MANY_NOTICES: Final = Refused(
    ErrorCode.BUSY,
    f"this connection waits to hear of {LISTENED_MAX} jobs already",
    at="notify",
    retry_after=10.0,
)
_TOO_SLOW: Final = LineFault(ErrorCode.BAD_REQUEST, f"the line did not end within {LINE_SECONDS_MAX:g} s")

Answer = wire.Reply | wire.Refusal
Answered = Callable[[], Awaitable[list[wire.Receipt | wire.Preview | wire.Refusal]]]
"""Waits for the answers to submissions that were handed in."""

Entry = tuple[int, wire.Submission | wire.Operation[wire.Reply] | LineFault, bytes]
"""A line's number, what it says, and its bytes."""


class Face(Struct, frozen=True):
    """One socket: what may be said on it."""

    requests: RequestDecoder
    operator: bool


class User(Struct):
    """What all connections of one user hold together."""

    connections: int = 0
    unanswered_bytes: int = 0
    unread_bytes: int = 0

    @property
    def has_used_up(self) -> bool:
        """Whether it has sent more that is not answered than it may."""
        return self.unanswered_bytes >= UNANSWERED_BYTES_MAX


def connections_max() -> int:
    """How many connections there may be, with as many open files as this process may have."""
    files, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return min(CONNECTIONS_MAX, files - min(FILES_RESERVED, files // 4))


class Connections:
    """Everybody who is connected, and what they may have together."""

    def __init__(self, announcer: Announcer, crowd_gone: Callable[[], None] = lambda: None) -> None:
        """`crowd_gone` is called some time after many have hung up."""
        self.announcer = announcer
        self._crowd_gone = crowd_gone
        self._gone = 0
        self.turns: Final = Turns()
        self.mishaps: Final = Mishaps()
        self.buffer: Final = memoryview(bytearray(READ_BYTES))
        """What is read goes here and is taken out in the same breath, so that one will do for all."""
        self._operations: Operations | None = None
        self._open: set[Connection] = set()
        self._users: dict[int, User] = {}
        self._begun: dict[Connection, float] = {}
        """Who has begun a line and not ended it, with the time at which it did; the longest first."""
        self._impatience: asyncio.TimerHandle | None = None

    @property
    def operations(self) -> Operations:
        """Who carries requests out. Raises Refused with `unavailable` while the daemon starts."""
        if self._operations is None:
            raise unavailable()
        return self._operations

    def open(self, operations: Operations) -> None:
        """From now on requests are carried out."""
        self._operations = operations

    def __len__(self) -> int:
        """How many are connected."""
        return len(self._open)

    async def listen(self, sock: socket.socket, face: Face) -> asyncio.AbstractServer:
        """Serve a bound socket."""
        loop = asyncio.get_running_loop()
        return await loop.create_unix_server(lambda: Connection(self, face), sock=sock, backlog=1024)

    def admit(self, connection: "Connection", uid: int) -> User | None:
        """Count a connection in; None: there are too many."""
        user = self._users.setdefault(uid, User())
        if len(self._open) >= connections_max() or user.connections >= CONNECTIONS_PER_USER_MAX:
            self.mishaps.count("refused_connections")
            return None
        self._open.add(connection)
        user.connections += 1
        return user

    def leave(self, connection: "Connection", user: User) -> None:
        """Count a connection out."""
        if connection in self._open:
            self._open.discard(connection)
            user.connections -= 1
            self._gone += 1
            if self._gone == CROWD:
                asyncio.get_running_loop().call_later(CROWD_SECONDS, self._look_after_crowd, self._gone)

    def _look_after_crowd(self, gone: int) -> None:
        """Wait until nobody more goes, then tell."""
        if self._gone != gone:
            asyncio.get_running_loop().call_later(CROWD_SECONDS, self._look_after_crowd, self._gone)
        else:
            self._gone = 0
            self._crowd_gone()

    def line_began(self, connection: "Connection") -> None:
        """From now on a connection has so long to end its line."""
        loop = asyncio.get_running_loop()
        self._begun.pop(connection, None)
        self._begun[connection] = loop.time()
        if self._impatience is None:
            self._impatience = loop.call_later(LINE_SECONDS_MAX, self._lose_patience)

    def line_ended(self, connection: "Connection") -> None:
        """No line of a connection is waited for any more."""
        self._begun.pop(connection, None)

    def _lose_patience(self) -> None:
        loop = asyncio.get_running_loop()
        self._impatience = None
        while self._begun:
            connection, began = next(iter(self._begun.items()))
            if loop.time() < began + LINE_SECONDS_MAX:
                self._impatience = loop.call_at(began + LINE_SECONDS_MAX, self._lose_patience)
                return
            del self._begun[connection]
            self.mishaps.count("slow_lines")
            connection.give_up_line(_TOO_SLOW)

    def close(self) -> None:
        """Hang up on everybody."""
        for connection in tuple(self._open):
            connection.hang_up()
        self.mishaps.tell()


class Connection(asyncio.BufferedProtocol):
    """One peer."""

    def __init__(self, connections: Connections, face: Face) -> None:
        self._connections = connections
        self._face = face
        self._decoder = LineDecoder()
        self._peer = Peer(-1, -1, face.operator)
        self._user = User()
        self._transport: asyncio.Transport | None = None
        self._input = b""
        """What has come and is not cut into blocks yet."""
        self._held_bytes = 0
        """Of that and of a half line, what is among the user's unanswered bytes."""
        self._blocks: list[asyncio.Task[None]] = []
        self._asked = False
        """Whether it will have a turn."""
        self._unread_bytes = 0
        """What is among the user's unread bytes."""
        self._behind: asyncio.Event | None = None
        """There is one while the peer is behind with reading; it is set when that is over."""
        self._turn = asyncio.Lock()
        """Of the block whose jobs are handed in: first come, first served."""
        self._reading = True
        self._ending = False
        self._listening: Subscriber | None = None

    # -- what the event loop calls ----------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """A peer has connected."""
        self._transport = cast("asyncio.Transport", transport)
        self._transport.set_write_buffer_limits(BEHIND_BYTES)
        sock = transport.get_extra_info("socket")
        pid, uid, _ = _PEER.unpack(sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _PEER.size))
        self._peer = Peer(uid, pid, self._face.operator)
        user = self._connections.admit(self, uid)
        if user is None:
            busy = Refused(ErrorCode.BUSY, "too many connections", retry_after=RETRY_SECONDS)
            self._transport.write(encode([refusal(busy, 0, None)]))
            self._transport.close()
            return
        self._user = user

    def get_buffer(self, sizehint: int) -> memoryview:  # noqa: ARG002  the base class names it
        """Where to put what the peer has sent."""
        buffer = self._connections.buffer
        return buffer[:BITE_BYTES] if self._user.has_used_up else buffer

    def buffer_updated(self, nbytes: int) -> None:
        """Bytes came: they wait for their turn."""
        self._input += self._connections.buffer[:nbytes]
        self._advance()

    def eof_received(self) -> bool:
        """The peer sends nothing more, and may still want its replies."""
        self._ending = True
        self._reading = False
        self._connections.line_ended(self)
        self._advance()
        return self._has_work()

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002  the base class names it
        """The peer is gone; what it has handed in goes on without it, unless that would be too much."""
        self._transport = None
        self._reading = False
        self._ending = True
        self._connections.leave(self, self._user)
        self._connections.line_ended(self)
        if self._user.has_used_up:
            self._input = b""
        if self._listening is not None:
            self._listening.close()
        self.resume_writing()

    def pause_writing(self) -> None:
        """The peer is behind."""
        self._behind = asyncio.Event()

    def resume_writing(self) -> None:
        """The peer has caught up."""
        if self._behind is not None:
            self._behind.set()
            self._behind = None
        self._count_unread()
        self._advance()

    def hang_up(self) -> None:
        """Close the connection."""
        if self._transport is not None:
            self._transport.close()

    # -- what is read -----------------------------------------------------------------------------------------------

    def give_up_line(self, fault: LineFault) -> None:
        """Refuse the line that the peer has begun; the rest of it is skipped."""
        number, _ = self._decoder.give_up(fault)
        self._begin([(number, fault, b"")])
        self._advance()

    def _is_ready(self) -> bool:
        """Whether another block may be in hand."""
        return self._behind is None and len(self._blocks) < (1 if self._user.has_used_up else BLOCKS_MAX)

    def _has_work(self) -> bool:
        return bool(self._asked or self._blocks or self._input or (self._ending and self._decoder.held_bytes))

    def _advance(self) -> None:
        """Go on with what has come, when it is our turn; with nothing in hand, read on."""
        self._count_held()
        if self._is_ready() and not self._asked and (self._input or (self._ending and self._decoder.held_bytes)):
            self._asked = True
            cost = len(self._input) + LINE_COST * (1 + min(self._input.count(b"\n"), BLOCK_LINES_MAX))
            self._connections.turns.ask(self, cost, self._cut)
        elif self._ending and self._listening is None and not self._has_work():
            self.hang_up()
        self._read(self._is_ready() and not self._input)

    def _cut(self) -> None:
        """It is our turn: begin the next block."""
        self._asked = False
        lines_max = SMALL_BLOCK_LINES_MAX if self._user.has_used_up else BLOCK_LINES_MAX
        was_held, number = self._decoder.held_bytes, self._decoder.lines
        lines, self._input = self._decoder.feed_some(self._input, lines_max)
        if self._ending and not self._input:
            lines += self._decoder.end()
        held = self._decoder.held_bytes
        if held > BITE_BYTES and self._user.has_used_up:
            self._connections.mishaps.count("refused_half_lines")
            lines.append(self._decoder.give_up(_TOO_MUCH))
        elif held and self._reading and (not was_held or self._decoder.lines != number):
            self._connections.line_began(self)
        elif was_held and not held:
            self._connections.line_ended(self)
        if lines:
            texts = [line for _, line in lines if isinstance(line, bytes)]
            requests = iter(self._face.requests.decode_all(texts))
            self._begin(
                [(at, next(requests), line) if isinstance(line, bytes) else (at, line, b"") for at, line in lines]
            )
        self._advance()

    def _read(self, wanted: bool) -> None:
        """Read, or do not; while we do not, the peer need not end its line."""
        if wanted is self._reading or self._ending or self._transport is None:
            return
        self._reading = wanted
        if wanted:
            self._transport.resume_reading()
            if self._decoder.held_bytes:
                self._connections.line_began(self)
        else:
            self._transport.pause_reading()
            self._connections.line_ended(self)

    def _count_held(self) -> None:
        held = len(self._input) + self._decoder.held_bytes
        self._user.unanswered_bytes += held - self._held_bytes
        self._held_bytes = held

    # -- requests ---------------------------------------------------------------------------------------------------

    def _begin(self, entries: Sequence[Entry]) -> None:
        size = sum([LINE_BYTES + len(line) for _, _, line in entries])
        self._user.unanswered_bytes += size
        before = self._blocks[-1] if self._blocks else None
        self._blocks.append(asyncio.ensure_future(self._see_to(entries, size, before)))

    async def _see_to(self, entries: Sequence[Entry], size: int, before: asyncio.Task[None] | None) -> None:
        """Answer one block."""
        try:
            await self._answer(entries, before)
        except OutcomeUnknown:  # silence is the one true answer; who comes again with its key will learn
            self._connections.mishaps.count("unknown_outcomes")
            if before is not None and not before.done():
                await asyncio.wait([before])
            self.hang_up()
        except Exception:  # noqa: BLE001  a bug in an operation costs this connection, not the daemon
            if self._connections.mishaps.count("failed_operations"):
                log.error("operation_failed", error=traceback.format_exc())
            self.hang_up()
        finally:
            self._user.unanswered_bytes -= size
            self._blocks.remove(cast("asyncio.Task[None]", asyncio.current_task()))
        self._advance()

    async def _answer(self, entries: Sequence[Entry], before: asyncio.Task[None] | None) -> None:
        """Carry out the requests of a block, and write the replies.

        Jobs are handed in in the order of their lines, one block after the other. Submissions need not wait for the
        commit of those before; an operation sees what every line before it did.
        """
        run: list[tuple[int, wire.Submission, bytes]] = []
        refusals: list[Answer] = []
        async with self._turn:
            for number, request, line in entries:
                if isinstance(request, wire.Submission):
                    if request.notify and self._listening is not None and len(self._listening) >= LISTENED_MAX:
                        refusals.append(refusal(_TOO_MANY_NOTICES, number, request.ref))
                    else:
                        run.append((number, request, line))
                elif isinstance(request, LineFault):
                    refusals.append(request.refusal(number))
                else:
                    await self._reply(run, await self._hand_in(run), refusals, before)
                    run, refusals, before = [], [], None
                    if self._transport is None and only_asks(request):
                        continue  # there is nobody to tell
                    self._write([await self._perform(request, number)])
                    if self._behind is not None:
                        await self._behind.wait()
            answered = await self._hand_in(run)
        await self._reply(run, answered, refusals, before)

    async def _hand_in(self, run: Sequence[tuple[int, wire.Submission, bytes]]) -> Answered:
        try:
            return await self._connections.operations.submit(run, self._peer, self)
        except Refused as refused:
            return partial(_refuse_all, run, refused)

    async def _reply(
        self,
        run: Sequence[tuple[int, wire.Submission, bytes]],
        answered: Answered,
        refusals: list[Answer],
        before: asyncio.Task[None] | None,
    ) -> None:
        """Write the receipts of what was handed in, with the refusals of the lines between."""
        replies: list[Answer] = refusals
        if run:
            receipts = await self._receipts(run, answered)
            replies = [*receipts] if not refusals else sorted([*receipts, *refusals], key=lambda reply: reply.line)
        if before is not None and not before.done():
            await asyncio.wait([before])
        self._write(replies)

    async def _receipts(
        self, run: Sequence[tuple[int, wire.Submission, bytes]], answered: Answered
    ) -> list[wire.Receipt | wire.Preview | wire.Refusal]:
        replies = await answered()
        for (_, submission, _), reply in zip(run, replies, strict=True):
            if submission.notify and isinstance(reply, wire.Receipt) and self._transport is not None:
                await self._subscriber().notify(reply.job)
        return replies

    async def _perform(self, operation: wire.Operation[wire.Reply], line: int) -> wire.Reply | wire.Refusal:
        try:
            match operation:
                case wire.Watch():
                    await self._subscriber().watch(operation.job)
                case wire.Follow():
                    await self._subscriber().follow(operation.job, operation.since)
                case _:
                    return await self._connections.operations.perform(operation, self._peer, line)
        except Refused as refused:
            return refusal(refused, line, operation.ref)
        return wire.Done(line=line, ref=operation.ref)

    def _subscriber(self) -> Subscriber:
        if self._listening is None:
            connections = self._connections
            self._listening = Subscriber(connections.operations.jobs, connections.announcer, self._peer, self._tell)
        return self._listening

    # -- what is written --------------------------------------------------------------------------------------------

    def _write(self, messages: Sequence[Answer | wire.Notice]) -> None:
        transport = self._transport
        if transport is None or transport.is_closing() or not messages:
            return
        if self._behind is not None and self._user.unread_bytes >= UNREAD_BYTES_MAX:
            self._connections.mishaps.count("hung_up_on_slow_readers")
            transport.abort()
            return
        transport.write(encode(messages))
        self._count_unread()

    def _count_unread(self) -> None:
        unread = 0
        if self._behind is not None and self._transport is not None:
            unread = self._transport.get_write_buffer_size()
        self._user.unread_bytes += unread - self._unread_bytes
        self._unread_bytes = unread

    async def _tell(self, notice: wire.Notice) -> None:
        """Write a notice; it never stands before the reply that announces it."""
        if self._blocks:
            await asyncio.wait([self._blocks[-1]])
        while self._behind is not None:
            await self._behind.wait()
        self._write([notice])


async def _refuse_all(
    run: Sequence[tuple[int, wire.Submission, bytes]], refused: Refused
) -> list[wire.Receipt | wire.Preview | wire.Refusal]:
    return [refusal(refused, number, submission.ref) for number, submission, _ in run]
