"""The two Unix sockets: bytes in, requests to the operations, replies out, in order.

A connection may send many requests without waiting. Consecutive submissions of one read are admitted as one block,
with one answer and one write; while a block waits for its commit the next one is already being read and decoded, so
that the database and the daemon work at the same time. Replies leave in the order of the requests all the same,
because each block waits for the one before it.

Every buffer is bounded: a connection with too many blocks in hand is not read from, and one that does not read what
it is sent has its notices dropped (and is told how many) while its replies make it wait.

Bare asyncio protocols instead of streams, because this is the hot path: at 100,000 submissions a second a stream's
read per line, or a task per request, costs more than the queue itself (an asyncio task 4 µs, a task of a task group
18 µs, measured on two cores).
"""

import asyncio
import socket
import struct
import traceback
from collections import deque
from collections.abc import Sequence
from typing import Final, cast

import structlog
from msgspec import Struct

from leadline.actors.announcer import Announcer
from leadline.actors.dispatcher import unavailable
from leadline.actors.operations import Operations, Peer, refusal
from leadline.actors.subscriber import Subscriber
from leadline_protocol import messages as wire
from leadline_protocol.codec import Line, LineDecoder, LineFault, RequestDecoder, encode
from leadline_protocol.errors import ErrorCode, Refused

log = structlog.get_logger(__name__)

BLOCKS_MAX: Final = 4
"""Reads of one connection that may be in hand at a time."""

CONNECTIONS_MAX: Final = 16_000
CONNECTIONS_PER_USER_MAX: Final = 12_000

_PEER: Final = struct.Struct("3i")

Sendable = wire.Reply | wire.Refusal | wire.Notice


class Face(Struct, frozen=True):
    """One socket: what may be said on it."""

    requests: RequestDecoder
    operator: bool


class Connections:
    """Everybody who is connected, and the caps on how many that may be."""

    def __init__(self, announcer: Announcer) -> None:
        self.announcer = announcer
        self._operations: Operations | None = None
        self._open: set[Connection] = set()
        self._by_user: dict[int, int] = {}

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

    def admit(self, connection: "Connection", uid: int) -> bool:
        """Count a connection in, or refuse it."""
        if len(self._open) >= CONNECTIONS_MAX or self._by_user.get(uid, 0) >= CONNECTIONS_PER_USER_MAX:
            return False
        self._open.add(connection)
        self._by_user[uid] = self._by_user.get(uid, 0) + 1
        return True

    def leave(self, connection: "Connection", uid: int) -> None:
        """Count a connection out."""
        if connection in self._open:
            self._open.discard(connection)
            self._by_user[uid] -= 1
            if not self._by_user[uid]:
                del self._by_user[uid]

    def close(self) -> None:
        """Hang up on everybody."""
        for connection in tuple(self._open):
            connection.hang_up()


class Connection(asyncio.Protocol):
    """One peer."""

    def __init__(self, connections: Connections, face: Face) -> None:
        self._connections = connections
        self._face = face
        self._decoder = LineDecoder()
        self._peer = Peer(-1, -1, face.operator)
        self._transport: asyncio.Transport | None = None
        self._blocks: deque[asyncio.Task[list[Sendable]]] = deque()
        self._writer: asyncio.Task[None] | None = None
        self._writable = asyncio.Event()
        self._writable.set()
        self._reading = True
        self._ending = False
        self._listening: Subscriber | None = None

    # -- what the event loop calls ----------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """A peer has connected."""
        self._transport = cast("asyncio.Transport", transport)
        sock = transport.get_extra_info("socket")
        pid, uid, _ = _PEER.unpack(sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _PEER.size))
        self._peer = Peer(uid, pid, self._face.operator)
        if not self._connections.admit(self, uid):
            busy = Refused(ErrorCode.BUSY, "too many connections", retry_after=1.0)
            self._transport.write(encode([refusal(busy, 0, None)]))
            self._transport.close()

    def data_received(self, data: bytes) -> None:
        """Bytes came: whole lines of them make a block."""
        self._take(self._decoder.feed(data))

    def eof_received(self) -> bool:
        """The peer sends nothing more, and may still want its replies."""
        self._take(self._decoder.end())
        self._ending = True
        return self._writer is not None

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002  the base class names it
        """The peer is gone; what it has handed in goes on without it."""
        self._transport = None
        self._connections.leave(self, self._peer.uid)
        if self._listening is not None:
            self._listening.close()
        self._writable.set()

    def pause_writing(self) -> None:
        """The peer reads more slowly than it is sent to."""
        self._writable.clear()

    def resume_writing(self) -> None:
        """The peer has caught up."""
        self._writable.set()

    def hang_up(self) -> None:
        """Close the connection."""
        if self._transport is not None:
            self._transport.close()

    # -- requests ---------------------------------------------------------------------------------------------------

    def _take(self, lines: Sequence[Line]) -> None:
        if not lines:
            return
        before = self._blocks[-1] if self._blocks else None
        self._blocks.append(asyncio.ensure_future(self._answer(lines, before)))
        if self._writer is None:
            self._writer = asyncio.ensure_future(self._write_replies())
        if len(self._blocks) >= BLOCKS_MAX and self._reading and self._transport is not None:
            self._reading = False
            self._transport.pause_reading()

    async def _answer(self, lines: Sequence[Line], before: asyncio.Task[list[Sendable]] | None) -> list[Sendable]:
        """The replies to one block of lines.

        Submissions only may overtake the commit of the block before; an operation sees what every line before it did.
        """
        decode = self._face.requests.decode
        replies: list[Sendable] = []
        run: list[tuple[int, wire.Submission, bytes]] = []
        for number, line in lines:
            if isinstance(line, bytes):
                request = decode(line)
                if isinstance(request, wire.Submission):
                    run.append((number, request, line))
                    continue
            else:
                request = line
            if run:
                replies += await self._submit(run)
                run = []
            if isinstance(request, LineFault):
                replies.append(request.refusal(number))
            else:
                if before is not None:
                    await asyncio.wait([before])
                replies.append(await self._perform(request, number))
        if run:
            replies += await self._submit(run)
        return replies

    async def _submit(self, run: list[tuple[int, wire.Submission, bytes]]) -> list[wire.Receipt | wire.Refusal]:
        try:
            operations = self._connections.operations
        except Refused as refused:
            return [refusal(refused, number, submission.ref) for number, submission, _ in run]
        replies = await operations.submit(run, self._peer)
        for (_, submission, _), reply in zip(run, replies, strict=True):
            if submission.notify and isinstance(reply, wire.Receipt):
                await self._subscriber().notify(reply.job)
        return replies

    async def _perform(self, operation: wire.Operation[wire.Reply], line: int) -> Sendable:
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
            self._listening = Subscriber(connections.operations, connections.announcer, self._peer, self._tell)
        return self._listening

    # -- what is written --------------------------------------------------------------------------------------------

    async def _write_replies(self) -> None:
        """Write each block's replies when they are there, in order; one write per block."""
        while self._blocks:
            await asyncio.wait([self._blocks[0]])
            done = self._blocks.popleft()
            if not self._reading and self._transport is not None:
                self._reading = True
                self._transport.resume_reading()
            try:
                replies = done.result()
            except Exception:  # noqa: BLE001  a bug in an operation costs this connection, not the daemon
                log.error("operation_failed", error=traceback.format_exc())
                self.hang_up()
                break
            await self._writable.wait()
            if self._transport is not None and replies:
                self._transport.write(encode(replies))
        self._writer = None
        if self._ending and self._listening is None:
            self.hang_up()

    async def _tell(self, notice: wire.Notice) -> None:
        """Write a notice; it never stands before the reply that announces it."""
        if self._writer is not None and self._writer is not asyncio.current_task():
            await asyncio.wait([self._writer])
        await self._writable.wait()
        if self._transport is not None:
            self._transport.write(encode([notice]))
